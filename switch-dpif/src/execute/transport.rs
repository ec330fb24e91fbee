//! TCP, UDP, SCTP, ICMP and neighbour discovery.

use switch_common::checksum;
use switch_common::key::{FLAGS_FRAG_ANY, FLAGS_FRAG_LATER, FlowKey, FlowMask};

use super::ip::{datagram_end, mend};
use super::{Misfit, PacketBuf, merge};
use crate::action::Layer;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// The protocol of a layer-4 header that is there, with as many bytes as the parser asks for.
fn protocol(packet: &PacketBuf) -> Option<u8> {
    let ipv6 = match packet.network()? {
        0x0800 => false,
        0x86dd => true,
        _ => return None,
    };
    let (proto, fragment) = packet.datagram();
    if fragment & FLAGS_FRAG_LATER != 0 {
        return None;
    }
    let need = match proto {
        TCP => 20,
        UDP | ICMP => 8,
        ICMPV6 if ipv6 => 8,
        SCTP => 12,
        _ => return None,
    };
    (packet.frame().len() >= packet.l4() + need).then_some(proto)
}

/// Mends the checksum that covers the addresses: TCP's, UDP's and ICMPv6's (RFC 9293 3.1, RFC 768, RFC 8200
/// 8.1). The sums are of the addresses before and after.
pub(super) fn mend_pseudo_header(packet: &mut PacketBuf, before: u64, after: u64) {
    if let Some(proto) = protocol(packet) {
        let l4 = packet.l4();
        mend_transport(&mut packet.frame_mut()[l4..], proto, before, after);
    }
}

/// `header` is as long as [`protocol`] has found. ICMP's and SCTP's checksums do not cover addresses: only
/// changes to what they do cover get here.
fn mend_transport(header: &mut [u8], proto: u8, before: u64, after: u64) {
    match proto {
        TCP => mend(&mut header[16..18], before, after),
        // A checksum of zero says that there is none, and stays; one that comes out as zero is written as all
        // ones (RFC 768; for IPv6 RFC 6935).
        UDP if header[6..8] != [0, 0] => {
            mend(&mut header[6..8], before, after);
            if header[6..8] == [0, 0] {
                header[6..8].fill(0xff);
            }
        }
        ICMPV6 => mend(&mut header[2..4], before, after),
        _ => {}
    }
}

/// Ports of TCP, UDP and SCTP; `layer` only names what is missing.
pub(super) fn set_ports(
    packet: &mut PacketBuf,
    layer: Layer,
    value: &FlowKey,
    mask: &FlowMask,
) -> Result<(), Misfit> {
    let proto = protocol(packet).filter(|p| matches!(*p, TCP | UDP | SCTP)).ok_or(Misfit::NoHeader(layer))?;
    if proto == SCTP && packet.datagram().1 & FLAGS_FRAG_ANY != 0 {
        return Err(Misfit::SctpFragment);
    }
    let (l4, end) = (packet.l4(), datagram_end(packet));
    let merge_ports = |header: &mut [u8]| {
        merge(&mut header[0..2], &value.tp_src.to_ne_bytes(), &mask.0.tp_src.to_ne_bytes());
        merge(&mut header[2..4], &value.tp_dst.to_ne_bytes(), &mask.0.tp_dst.to_ne_bytes());
    };
    if proto == SCTP {
        let message = packet.frame_mut().get_mut(l4..end).filter(|m| m.len() >= 12);
        let message = message.ok_or(Misfit::NoHeader(layer))?;
        let right_before = sctp_checksum(message);
        merge_ports(message);
        let right_after = sctp_checksum(message);
        // A checksum that was wrong stays as wrong as it was.
        for ((c, a), b) in message[8..12].iter_mut().zip(right_before).zip(right_after) {
            *c ^= a ^ b;
        }
        return Ok(());
    }
    let header = &mut packet.frame_mut()[l4..];
    let before = checksum::sum_bytes(&header[0..4]);
    merge_ports(header);
    let after = checksum::sum_bytes(&header[0..4]);
    mend_transport(header, proto, before, after);
    Ok(())
}

/// Type and code; `layer` only names what is missing.
pub(super) fn set_icmp(
    packet: &mut PacketBuf,
    layer: Layer,
    value: &FlowKey,
    mask: &FlowMask,
) -> Result<(), Misfit> {
    protocol(packet).filter(|p| matches!(*p, ICMP | ICMPV6)).ok_or(Misfit::NoHeader(layer))?;
    let l4 = packet.l4();
    let header = &mut packet.frame_mut()[l4..];
    // The fields are be16: the byte is the second one in memory.
    let bytes = |k: &FlowKey| [k.tp_src.to_ne_bytes()[1], k.tp_dst.to_ne_bytes()[1]];
    let before = checksum::sum_bytes(&header[0..2]);
    merge(&mut header[0..2], &bytes(value), &bytes(&mask.0));
    let after = checksum::sum_bytes(&header[0..2]);
    mend(&mut header[2..4], before, after);
    Ok(())
}

/// Options of one message that are looked at, as the parser does.
const MAX_ND_OPTIONS: usize = 4;

/// Target address and link-layer address options of a neighbour solicitation or advertisement (RFC 4861,
/// sections 4.3, 4.4 and 4.6.1). An option that is not there is not added.
pub(super) fn set_nd(packet: &mut PacketBuf, value: &FlowKey, mask: &FlowMask) -> Result<(), Misfit> {
    const MISSING: Misfit = Misfit::NoHeader(Layer::Nd);
    if protocol(packet) != Some(ICMPV6) {
        return Err(MISSING);
    }
    let l4 = packet.l4();
    let message = &mut packet.frame_mut()[l4..];
    if !matches!(message[0], 135 | 136) || message[1] != 0 || message.len() < 24 {
        return Err(MISSING);
    }
    let mut off = 24;
    let (mut source, mut target) = (None, None);
    for _ in 0..MAX_ND_OPTIONS {
        let Some(&[kind, len]) = message.get(off..off + 8).and_then(|o| o.first_chunk()) else { break };
        match (kind, len) {
            (_, 0) => break,
            (1, 1) => source = Some(off + 2),
            (2, 1) => target = Some(off + 2),
            _ => {}
        }
        off += usize::from(len) << 3;
    }
    let mut change = |at: usize, value: &[u8], mask: &[u8]| {
        let field = at..at + value.len();
        let before = checksum::sum_bytes(&message[field.clone()]);
        merge(&mut message[field.clone()], value, mask);
        let after = checksum::sum_bytes(&message[field]);
        mend(&mut message[2..4], before, after);
    };
    for i in 0..4 {
        change(8 + 4 * i, &value.nd_target[i].to_ne_bytes(), &mask.0.nd_target[i].to_ne_bytes());
    }
    if let Some(at) = source {
        change(at, &value.arp_sha, &mask.0.arp_sha);
    }
    if let Some(at) = target {
        change(at, &value.arp_tha, &mask.0.arp_tha);
    }
    Ok(())
}

/// The checksum of an SCTP packet as it stands on the wire: CRC32c over all of it, with the field itself taken as
/// zero, least significant byte first (RFC 9260, appendix A). At least a common header long.
fn sctp_checksum(message: &[u8]) -> [u8; 4] {
    let mut crc = crc32c(!0, &message[..8]);
    crc = crc32c(crc, &[0; 4]);
    crc = crc32c(crc, &message[12..]);
    (!crc).to_le_bytes()
}

const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 };
            bit += 1;
        }
        table[i] = c;
        i += 1;
    }
    table
};

fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |c, b| CRC32C[((c ^ u32::from(*b)) & 0xff) as usize] ^ c >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_check_string() {
        // The check value of CRC-32C (Castagnoli) in RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }
}
