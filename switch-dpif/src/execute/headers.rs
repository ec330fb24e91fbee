//! Ethernet, VLAN, MPLS and ARP headers. None of them has a checksum.

use switch_common::key::{FlowKey, FlowMask};

use super::{Misfit, PacketBuf, merge};
use crate::action::Layer;

/// Whether a frame, of at least an Ethernet header, begins with a VLAN tag (IEEE 802.1Q, clause 9.6).
pub(super) fn is_tpid(frame: &[u8]) -> bool {
    matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8])
}

pub(super) fn set_ethernet(frame: &mut [u8], value: &FlowKey, mask: &FlowMask) {
    merge(&mut frame[0..6], &value.eth_dst, &mask.0.eth_dst);
    merge(&mut frame[6..12], &value.eth_src, &mask.0.eth_src);
}

/// The drop eligible indicator stays as it is.
pub(super) fn set_vlan(frame: &mut [u8], value: &FlowKey, mask: &FlowMask) -> Result<(), Misfit> {
    if frame.len() < 18 || !is_tpid(frame) {
        return Err(Misfit::NoTag);
    }
    let settable = Layer::Vlan.fields();
    let mask = (mask.0.vlan_tci & settable.0.vlan_tci).to_ne_bytes();
    merge(&mut frame[14..16], &value.vlan_tci.to_ne_bytes(), &mask);
    Ok(())
}

/// The outermost label stack entry (RFC 3032, section 2.1).
pub(super) fn set_mpls(packet: &mut PacketBuf, value: &FlowKey, mask: &FlowMask) -> Result<(), Misfit> {
    if !matches!(packet.network(), Some(0x8847 | 0x8848)) {
        return Err(Misfit::NoHeader(Layer::Mpls));
    }
    let l3 = packet.l3();
    let entry = packet.frame_mut().get_mut(l3..l3 + 4).ok_or(Misfit::NoHeader(Layer::Mpls))?;
    merge(entry, &value.mpls_lse[0].to_ne_bytes(), &mask.0.mpls_lse[0].to_ne_bytes());
    Ok(())
}

/// RFC 826, for Ethernet and IPv4 addresses. The opcode is in the key as its low byte; setting it sets both.
pub(super) fn set_arp(packet: &mut PacketBuf, value: &FlowKey, mask: &FlowMask) -> Result<(), Misfit> {
    const MISSING: Misfit = Misfit::NoHeader(Layer::Arp);
    if !matches!(packet.network(), Some(0x0806 | 0x8035)) {
        return Err(MISSING);
    }
    let l3 = packet.l3();
    let arp = packet.frame_mut().get_mut(l3..l3 + 28).ok_or(MISSING)?;
    if arp[0..6] != [0, 1, 8, 0, 6, 4] {
        return Err(MISSING);
    }
    if mask.0.ip_proto != 0 {
        merge(&mut arp[6..8], &[0, value.ip_proto], &[0xff, mask.0.ip_proto]);
    }
    merge(&mut arp[8..14], &value.arp_sha, &mask.0.arp_sha);
    merge(&mut arp[14..18], &value.addr[0].to_ne_bytes(), &mask.0.addr[0].to_ne_bytes());
    merge(&mut arp[18..24], &value.arp_tha, &mask.0.arp_tha);
    merge(&mut arp[24..28], &value.addr[1].to_ne_bytes(), &mask.0.addr[1].to_ne_bytes());
    Ok(())
}
