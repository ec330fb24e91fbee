//! Setting header fields: one function for each operation, the same at both hooks.
//!
//! Each answers `None` if the packet has no such header, whole; the packet may be half changed then, and is
//! dropped by the caller.

use switch_common::action::Action;
use switch_common::checksum::{sum64, update};

use super::edit::{Change, Cover, Editor};
use crate::ether::LOW48;
use crate::scratch::{ET_IPV4, ET_IPV6, ICMP, ICMPV6, TCP, UDP, Walk};

const LOW32: u64 = 0xffff_ffff;
const LOW16: u64 = 0xffff;

const ET_ARP: u16 = 0x0806u16.to_be();
const ET_RARP: u16 = 0x8035u16.to_be();
const ET_MPLS: u16 = 0x8847u16.to_be();
const ET_MPLS_MCAST: u16 = 0x8848u16.to_be();

const fn merge(old: u64, value: u64, mask: u64) -> u64 {
    old & !mask | value & mask
}

const fn done(stored: bool) -> Option<()> {
    if stored { Some(()) } else { None }
}

/// The protocol of the layer-4 header, or 0 if it is not whole.
#[inline(always)]
fn l4_proto<E: Editor>(packet: E, walk: &Walk) -> u8 {
    if walk.l4_proto == ICMPV6 && packet.load::<1>(walk.l4 as usize, 8).is_none() {
        return 0;
    }
    walk.l4_proto
}

#[inline(always)]
pub fn set_eth<E: Editor>(packet: E, _walk: &Walk, a: &Action) -> Option<()> {
    let [w0, w1] = packet.load::<2>(0, 12)?;
    let dst = merge(w0 & LOW48, a.v[0], a.v[1]) & LOW48;
    let src = merge(w0 >> 48 | (w1 & LOW32) << 16, a.v[2], a.v[3]) & LOW48;
    // No checksum covers the addresses, not even a device's.
    done(packet.store(0, 12, &[dst | src << 48, src >> 16], Cover::Mended))
}

/// RFC 791, section 3.1.
#[inline(always)]
pub fn set_ipv4<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    if walk.eth_type != ET_IPV4 {
        return None;
    }
    let l3 = walk.l3 as usize;
    let [old0, old1, old2] = packet.load::<3>(l3, 20)?;
    let addresses = old1 >> 32 | old2 << 32;
    let new_addresses = merge(addresses, a.v[0], a.v[1]);
    let new0 = merge(old0, (a.v[2] & 0xff) << 8, (a.v[3] & 0xff) << 8);
    let new1 = merge(old1, a.v[2] >> 8 & 0xff, a.v[3] >> 8 & 0xff) & LOW32 | new_addresses << 32;
    let new2 = new_addresses >> 32;
    let before = sum64(old0) + sum64(old1) + sum64(old2);
    let after = sum64(new0) + sum64(new1) + sum64(new2);
    if before == after {
        return store_ipv4(packet, l3, [new0, new1, new2]);
    }
    let check = update((old1 >> 16) as u16, before, after);
    let new1 = new1 & !(LOW16 << 16) | (check as u64) << 16;
    let change = Change { before: sum64(addresses), after: sum64(new_addresses), pseudo: true };
    packet.mend(walk.l4 as usize, walk.l4_proto, change);
    store_ipv4(packet, l3, [new0, new1, new2])
}

#[inline(always)]
fn store_ipv4<E: Editor>(packet: E, l3: usize, words: [u64; 3]) -> Option<()> {
    done(packet.store(l3, 20, &words, Cover::Mended))
}

#[inline(always)]
pub fn set_ipv6_src<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    set_ipv6_address(packet, walk, a, 8, true)
}

/// With segments left in a routing header, the checksum covers the last destination, which stands there
/// (RFC 8200, section 8.1).
#[inline(always)]
pub fn set_ipv6_dst<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    if walk.eth_type != ET_IPV6 {
        return None;
    }
    let covered = !has_segments_left(packet, walk);
    set_ipv6_address(packet, walk, a, 24, covered)
}

#[inline(always)]
fn set_ipv6_address<E: Editor>(
    packet: E,
    walk: &Walk,
    a: &Action,
    offset: usize,
    covered: bool,
) -> Option<()> {
    if walk.eth_type != ET_IPV6 {
        return None;
    }
    let at = walk.l3 as usize + offset;
    let [old0, old1] = packet.load::<2>(at, 16)?;
    let new = [merge(old0, a.v[0], a.v[2]), merge(old1, a.v[1], a.v[3])];
    if covered {
        let before = sum64(old0) + sum64(old1);
        let after = sum64(new[0]) + sum64(new[1]);
        packet.mend(walk.l4 as usize, l4_proto(packet, walk), Change { before, after, pseudo: true });
    }
    done(packet.store(at, 16, &new, Cover::Plain))
}

/// Extension headers that are walked at most: as many as the parser walks.
const MAX_EXTENSIONS: usize = 8;

/// Whether a routing header says that there is another hop (RFC 8200, section 4.4).
#[inline(always)]
fn has_segments_left<E: Editor>(packet: E, walk: &Walk) -> bool {
    let (l3, l4) = (walk.l3 as usize, walk.l4 as usize);
    if l4 <= l3 + 40 {
        return false;
    }
    let Some([first]) = packet.load::<1>(l3 + 6, 2) else { return false };
    let mut next = first as u8;
    let mut at = l3 + 40;
    let mut n = 0;
    while n < MAX_EXTENSIONS {
        if at >= l4 {
            return false;
        }
        let Some([header]) = packet.load::<1>(at, 4) else { return false };
        let len = (header >> 8 & 0xff) as usize;
        match next {
            43 if header >> 24 & 0xff != 0 => return true,
            44 => at += 8,
            51 => at += (len + 2) << 2,
            0 | 43 | 60 => at += (len + 1) << 3,
            _ => return false,
        }
        next = header as u8;
        n += 1;
    }
    false
}

/// Flow label, traffic class and hop limit (RFC 8200, section 3).
#[inline(always)]
pub fn set_ipv6<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    if walk.eth_type != ET_IPV6 {
        return None;
    }
    let at = walk.l3 as usize;
    let [old] = packet.load::<1>(at, 8)?;
    let first = |v: u64| (u32::from_be(v as u32) & 0xf_ffff | ((v >> 32 & 0xff) as u32) << 20).to_be() as u64;
    let (value, mask) = (first(a.v[0]), first(a.v[1]));
    let mut new = merge(old, value, mask);
    new = merge(new, (a.v[0] >> 40 & 0xff) << 56, (a.v[1] >> 40 & 0xff) << 56);
    done(packet.store(at, 8, &[new], Cover::Plain))
}

/// Ports of TCP and UDP. (SCTP's checksum covers the whole packet: userspace does it.)
#[inline(always)]
pub fn set_ports<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    if walk.l4_proto != TCP && walk.l4_proto != UDP {
        return None;
    }
    change_l4::<E, 1>(packet, walk, 0, 4, [a.v[0]], [a.v[1]])
}

#[inline(always)]
pub fn set_icmp<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    let proto = l4_proto(packet, walk);
    if proto != ICMP && proto != ICMPV6 {
        return None;
    }
    change_l4::<E, 1>(packet, walk, 0, 2, [a.v[0]], [a.v[1]])
}

/// Sets bytes of the layer-4 packet, `offset` from its beginning on.
#[inline(always)]
fn change_l4<E: Editor, const W: usize>(
    packet: E,
    walk: &Walk,
    offset: usize,
    len: usize,
    value: [u64; W],
    mask: [u64; W],
) -> Option<()> {
    let at = walk.l4 as usize + offset;
    let old = packet.load::<W>(at, len)?;
    let mut new = old;
    let (mut before, mut after) = (0, 0);
    let mut i = 0;
    while i < W {
        new[i] = merge(old[i], value[i], mask[i]);
        before += sum64(old[i]);
        after += sum64(new[i]);
        i += 1;
    }
    if !packet.mend(walk.l4 as usize, walk.l4_proto, Change { before, after, pseudo: false }) {
        return None;
    }
    done(packet.store(at, len, &new, Cover::Mended))
}

/// Whether the packet is ARP for Ethernet and IPv4 (RFC 826), whole.
#[inline(always)]
fn is_arp<E: Editor>(packet: E, walk: &Walk) -> bool {
    if walk.eth_type != ET_ARP && walk.eth_type != ET_RARP {
        return false;
    }
    let Some([head]) = packet.load::<1>(walk.l3 as usize, 8) else { return false };
    // Hardware type 1, protocol type IPv4, lengths 6 and 4, as they lie in memory.
    head & LOW48 == u64::from_ne_bytes([0, 1, 8, 0, 6, 4, 0, 0])
}

/// Protocol addresses and opcode.
#[inline(always)]
pub fn set_arp<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    if !is_arp(packet, walk) {
        return None;
    }
    let l3 = walk.l3 as usize;
    if a.port == 1 {
        let opcode = (a.arg as u16 & 0xff).to_be() as u64;
        done(packet.store(l3 + 6, 2, &[opcode], Cover::Plain))?;
    }
    let [sender] = packet.load::<1>(l3 + 14, 4)?;
    let [target] = packet.load::<1>(l3 + 24, 4)?;
    done(packet.store(l3 + 14, 4, &[merge(sender, a.v[0], a.v[1] & LOW32)], Cover::Plain))?;
    done(packet.store(l3 + 24, 4, &[merge(target, a.v[0] >> 32, a.v[1] >> 32)], Cover::Plain))
}

/// Hardware addresses.
#[inline(always)]
pub fn set_arp_hw<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    if !is_arp(packet, walk) {
        return None;
    }
    let l3 = walk.l3 as usize;
    // Each with the two bytes behind it, which stay.
    let [sender] = packet.load::<1>(l3 + 8, 8)?;
    let [target] = packet.load::<1>(l3 + 18, 8)?;
    done(packet.store(l3 + 8, 8, &[merge(sender, a.v[0], a.v[1] & LOW48)], Cover::Plain))?;
    done(packet.store(l3 + 18, 8, &[merge(target, a.v[2], a.v[3] & LOW48)], Cover::Plain))
}

/// Whether the packet is a neighbour solicitation or advertisement (RFC 4861, sections 4.3 and 4.4).
#[inline(always)]
fn is_nd<E: Editor>(packet: E, walk: &Walk) -> bool {
    if walk.l4_proto != ICMPV6 {
        return false;
    }
    let Some([head, ..]) = packet.load::<3>(walk.l4 as usize, 24) else { return false };
    // Type, and code 0.
    head & LOW16 == 135 || head & LOW16 == 136
}

/// Target address.
#[inline(always)]
pub fn set_nd_target<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    if !is_nd(packet, walk) {
        return None;
    }
    change_l4::<E, 2>(packet, walk, 8, 16, [a.v[0], a.v[1]], [a.v[2], a.v[3]])
}

/// Options of one message that are looked at, as the parser does.
const MAX_ND_OPTIONS: usize = 4;

/// Link-layer address options (RFC 4861, section 4.6.1). An option that is not there is not added.
#[inline(always)]
pub fn set_nd_ll<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    if !is_nd(packet, walk) {
        return None;
    }
    let mut offset = 24;
    let (mut source, mut target) = (0, 0);
    let mut n = 0;
    while n < MAX_ND_OPTIONS {
        let Some([option]) = packet.load::<1>(walk.l4 as usize + offset, 8) else { break };
        let (kind, len) = (option & 0xff, (option >> 8 & 0xff) as usize);
        if len == 0 {
            break;
        }
        if len == 1 && kind == 1 {
            source = offset;
        } else if len == 1 && kind == 2 {
            target = offset;
        }
        offset += len << 3;
        n += 1;
    }
    // The whole option, of which type and length stay.
    if source != 0 {
        change_l4::<E, 1>(packet, walk, source, 8, [a.v[0] << 16], [a.v[1] << 16])?;
    }
    if target != 0 {
        change_l4::<E, 1>(packet, walk, target, 8, [a.v[2] << 16], [a.v[3] << 16])?;
    }
    Some(())
}

/// Outermost label stack entry (RFC 3032, section 2.1).
#[inline(always)]
pub fn set_mpls<E: Editor>(packet: E, walk: &Walk, a: &Action) -> Option<()> {
    if walk.eth_type != ET_MPLS && walk.eth_type != ET_MPLS_MCAST {
        return None;
    }
    let at = walk.l3 as usize;
    let [old] = packet.load::<1>(at, 4)?;
    done(packet.store(at, 4, &[merge(old, a.v[0], a.v[1])], Cover::Plain))
}
