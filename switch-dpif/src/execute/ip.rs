//! IPv4 and IPv6 headers, and the checksums that cover their addresses through the pseudo header.

use switch_common::checksum;
use switch_common::key::{FlowKey, FlowMask};

use super::transport;
use super::{Misfit, PacketBuf, merge};
use crate::action::Layer;

/// RFC 791: addresses, type of service, time to live, with the header's checksum and that of TCP or UDP.
pub(super) fn set_ipv4(packet: &mut PacketBuf, value: &FlowKey, mask: &FlowMask) -> Result<(), Misfit> {
    if packet.network() != Some(0x0800) {
        return Err(Misfit::NoHeader(Layer::Ipv4));
    }
    let l3 = packet.l3();
    let header = packet.frame_mut().get_mut(l3..l3 + 20).ok_or(Misfit::NoHeader(Layer::Ipv4))?;
    let before = checksum::sum_bytes(header);
    let addresses_before = checksum::sum_bytes(&header[12..20]);
    merge(&mut header[1..2], &[value.ip_tos], &[mask.0.ip_tos]);
    merge(&mut header[8..9], &[value.ip_ttl], &[mask.0.ip_ttl]);
    merge(&mut header[12..16], &value.addr[0].to_ne_bytes(), &mask.0.addr[0].to_ne_bytes());
    merge(&mut header[16..20], &value.addr[1].to_ne_bytes(), &mask.0.addr[1].to_ne_bytes());
    let addresses = checksum::sum_bytes(&header[12..20]);
    let after = checksum::sum_bytes(header);
    mend(&mut header[10..12], before, after);
    transport::mend_pseudo_header(packet, addresses_before, addresses);
    Ok(())
}

/// RFC 8200: addresses, traffic class, flow label, hop limit. Only the addresses are covered by a checksum.
pub(super) fn set_ipv6(packet: &mut PacketBuf, value: &FlowKey, mask: &FlowMask) -> Result<(), Misfit> {
    if packet.network() != Some(0x86dd) {
        return Err(Misfit::NoHeader(Layer::Ipv6));
    }
    // With segments left, the destination that the checksum covers is the last one of the routing header.
    let routed = has_segments_left(packet);
    let l3 = packet.l3();
    let header = packet.frame_mut().get_mut(l3..l3 + 40).ok_or(Misfit::NoHeader(Layer::Ipv6))?;
    let covered = if routed { 8..24 } else { 8..40 };
    let before = checksum::sum_bytes(&header[covered.clone()]);
    let first =
        |k: &FlowKey| (u32::from(k.ip_tos) << 20 | u32::from_be(k.ipv6_label) & 0xf_ffff).to_be_bytes();
    merge(&mut header[0..4], &first(value), &first(&mask.0));
    merge(&mut header[7..8], &[value.ip_ttl], &[mask.0.ip_ttl]);
    for i in 0..8 {
        let at = 8 + 4 * i;
        merge(&mut header[at..at + 4], &value.addr[i].to_ne_bytes(), &mask.0.addr[i].to_ne_bytes());
    }
    let after = checksum::sum_bytes(&header[covered]);
    transport::mend_pseudo_header(packet, before, after);
    Ok(())
}

/// Brings a checksum field up to date; the sums are of what it covers, before and after.
pub(super) fn mend(field: &mut [u8], before: u64, after: u64) {
    if let [a, b] = field
        && before != after
    {
        [*a, *b] = checksum::update(u16::from_ne_bytes([*a, *b]), before, after).to_ne_bytes();
    }
}

/// Whether a routing header says that there is another hop (RFC 8200, section 4.4).
fn has_segments_left(packet: &PacketBuf) -> bool {
    let (frame, l3, l4) = (packet.frame(), packet.l3(), packet.l4());
    let Some(mut next) = frame.get(l3 + 6).copied() else { return false };
    let mut off = l3 + 40;
    // The chain was walked by the parser up to `l4`, so every header in it is there.
    while off < l4 {
        let Some(&[following, len, _, left]) = frame.get(off..off + 4).and_then(|h| h.first_chunk()) else {
            return false;
        };
        match next {
            43 if left != 0 => return true,
            44 => off += 8,
            51 => off += (usize::from(len) + 2) << 2,
            0 | 43 | 60 => off += (usize::from(len) + 1) << 3,
            _ => return false,
        }
        next = following;
    }
    false
}

/// The bytes behind the IP header (and extension headers) that belong to the datagram, without what an Ethernet
/// device padded the frame with: an end offset in the frame.
pub(super) fn datagram_end(packet: &PacketBuf) -> usize {
    let (frame, l3) = (packet.frame(), packet.l3());
    let be16 = |at: usize| frame.get(at..at + 2).map_or(0, |b| usize::from(b[0]) << 8 | usize::from(b[1]));
    let end = match packet.network() {
        Some(0x0800) => l3 + be16(l3 + 2),
        Some(0x86dd) => l3 + 40 + be16(l3 + 4),
        _ => frame.len(),
    };
    // A length of zero stands for what does not fit the field: a jumbogram, or a large segment to be cut.
    if end > frame.len() || end <= packet.l4() { frame.len() } else { end }
}
