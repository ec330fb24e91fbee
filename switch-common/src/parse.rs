//! The one packet parser: frame → [`FlowKey`].
//!
//! [`parse`] takes any bytes. It never fails on what is behind the Ethernet header: a header that is cut or
//! makes no sense leaves its fields zero and is reported in [`Parsed::malformed`], as Open vSwitch's datapath
//! does it, so that a switch still forwards by MAC address what it does not understand. Only a frame shorter
//! than an Ethernet header has no key.
//!
//! [`parse_common`] is the straight line for the commonest shape, untagged IPv4 without options or fragments,
//! carrying TCP or UDP, and [`parse_common_v6`] for the like in IPv6; they answer `false` for everything else.
//!
//! All write the key word by word through a raw pointer, in the forms that the kernel's verifier and LLVM's BPF
//! backend turn into few instructions.

use crate::key::*;

/// The bytes of a frame that can be read: in the kernel the linear part of a packet, in userspace a slice.
#[derive(Clone, Copy)]
pub struct FrameView {
    start: usize,
    end: usize,
}

impl FrameView {
    /// # Safety
    /// `start..end` must be readable for as long as the view is used; in an eBPF program the two must be the
    /// packet pointers of the context.
    #[inline(always)]
    pub const unsafe fn new(start: usize, end: usize) -> FrameView {
        FrameView { start, end }
    }

    /// A view of a slice. It does not borrow the slice: use it before the slice goes.
    #[inline(always)]
    fn of(frame: &[u8]) -> FrameView {
        let start = frame.as_ptr() as usize;
        FrameView { start, end: start + frame.len() }
    }

    /// Bytes that can be read.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    #[inline(always)]
    fn has(&self, off: usize, len: usize) -> bool {
        self.start + off + len <= self.end
    }

    /// The same from `off` on; it may lie past the end.
    ///
    /// In an eBPF program this is where a check of the length and the reads that it covers must begin: left
    /// alone, LLVM adds up the offsets of different reads in different orders, which the verifier cannot match
    /// with the check.
    #[inline(always)]
    fn from(&self, off: usize) -> FrameView {
        #[allow(unused_mut)]
        let mut start = self.start + off;
        #[cfg(target_arch = "bpf")]
        // SAFETY: the statement changes nothing; it only hides (an empty one would break the line table) from LLVM how the sum came about.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) start, options(nomem, nostack, preserves_flags));
        }
        FrameView { start, end: self.end }
    }

    /// # Safety
    /// `has(off, size_of::<T>())` must have been true.
    #[inline(always)]
    unsafe fn get<T: Copy>(&self, off: usize) -> T {
        // SAFETY: the caller has checked the range, and `T` is a plain integer.
        unsafe { ((self.start + off) as *const T).read_unaligned() }
    }
}

/// A VLAN tag that the kernel or the NIC has taken out of the frame and keeps beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OffloadedTag {
    /// be16; 0 for "no such tag".
    pub tpid: u16,
    /// Host order, without `VLAN_PRESENT`.
    pub tci: u16,
}

/// What the key holds and the frame does not.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketMeta {
    pub in_port: u16,
    /// 24 bits.
    pub recirc_id: u32,
    pub tag: OffloadedTag,
    pub skb_mark: u32,
    pub skb_priority: u32,
    pub dp_hash: u32,
    /// How many VLAN tags are parsed at most: 0, 1 or 2 (`other_config:vlan-limit`).
    pub vlan_limit: u8,
}

/// Which header was cut or made no sense.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    No = 0,
    L3 = 1,
    L4 = 2,
}

/// Where the headers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    pub kind: Kind,
    /// Offset in bytes of the header that `eth_type` names.
    pub l3: u16,
    /// Offset of the layer-4 header; equal to `l3` when there is none.
    pub l4: u16,
    pub malformed: Malformed,
}

const ETH_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
const LOW48: u64 = 0xffff_ffff_ffff;

const TPID_C: u16 = 0x8100u16.to_be();
const TPID_S: u16 = 0x88a8u16.to_be();
const ET_IPV4: u16 = 0x0800u16.to_be();
const ET_IPV6: u16 = 0x86ddu16.to_be();
const ET_ARP: u16 = 0x0806u16.to_be();
const ET_RARP: u16 = 0x8035u16.to_be();
const ET_MPLS: u16 = 0x8847u16.to_be();
const ET_MPLS_MCAST: u16 = 0x8848u16.to_be();

#[inline(always)]
const fn is_tpid(et: u16) -> bool {
    et == TPID_C || et == TPID_S
}

/// The word of a MAC address (low 48 bits) and a be16 behind it.
#[inline(always)]
const fn mac_word(low48: u64, be16: u16) -> u64 {
    low48 & LOW48 | (be16 as u64) << 48
}

/// Untagged IPv4 without options or fragments, TCP or UDP, with no metadata that needs a longer key.
/// Writes the five words of a `Short` key and answers true; else answers false, with the key half written.
///
/// # Safety
/// `key` must be writable; `view` must be readable.
#[inline(always)]
pub unsafe fn parse_common(view: FrameView, in_port: u16, key: *mut FlowKey) -> bool {
    const TCP_END: usize = ETH_HEADER + 20 + 20;
    if !view.has(0, TCP_END) {
        return false;
    }
    let w = key as *mut u64;
    // SAFETY: all offsets below are under `TCP_END`, and the five words are inside the key.
    unsafe {
        let src_and_type: u64 = view.get(6);
        let version_and_tos: u16 = view.get(14);
        if (src_and_type >> 48) as u16 != ET_IPV4 || version_and_tos.to_le() & 0xff != 0x45 {
            return false;
        }
        let fragment: u16 = view.get(20);
        if fragment & 0x3fffu16.to_be() != 0 {
            return false;
        }
        let ttl_and_proto = view.get::<u16>(22).to_le();
        let proto = ttl_and_proto >> 8;
        let mut word3 = (ET_IPV4 as u64) << 48;
        if proto == 6 {
            let flags: u16 = view.get(46);
            word3 |= ((flags & FLAGS_TCP_MASK.to_be()) as u64) << 32;
        } else if proto != 17 {
            return false;
        }
        let ports: u32 = view.get(34);
        word3 |= ports as u64;
        let dst: u64 = view.get(0);
        *w = in_port as u64
            | (proto as u64) << 40
            | ((version_and_tos.to_le() >> 8) as u64) << 48
            | ((ttl_and_proto & 0xff) as u64) << 56;
        *w.add(1) = dst & LOW48;
        *w.add(2) = src_and_type & LOW48;
        *w.add(3) = word3;
        *w.add(4) = view.get(26);
    }
    true
}

/// The same for IPv6: untagged, without extension headers, TCP or UDP. Writes the nine words of a `Long` key.
///
/// # Safety
/// `key` must be writable; `view` must be readable.
#[inline(always)]
pub unsafe fn parse_common_v6(view: FrameView, in_port: u16, key: *mut FlowKey) -> bool {
    const L3: usize = ETH_HEADER;
    const L4: usize = L3 + 40;
    const KIND: u64 = (((Kind::Long as u16) << FLAGS_KIND_SHIFT).to_be() as u64) << 32;
    if !view.has(0, L4 + 8) {
        return false;
    }
    let w = key as *mut u64;
    // SAFETY: all offsets below are under `L4 + 8` or checked, and the nine words are inside the key.
    unsafe {
        let src_and_type: u64 = view.get(6);
        let first = u32::from_be(view.get(L3));
        if (src_and_type >> 48) as u16 != ET_IPV6 || first >> 28 != 6 {
            return false;
        }
        let [proto, ttl] = view.get::<[u8; 2]>(L3 + 6);
        let mut word3 = (ET_IPV6 as u64) << 48 | KIND;
        if proto == 6 {
            if !view.has(0, L4 + 20) {
                return false;
            }
            let flags: u16 = view.get(L4 + 12);
            word3 |= ((flags & FLAGS_TCP_MASK.to_be()) as u64) << 32;
        } else if proto != 17 {
            return false;
        }
        let ports: u32 = view.get(L4);
        word3 |= ports as u64;
        let dst: u64 = view.get(0);
        *w = in_port as u64 | (proto as u64) << 40 | ((first >> 20 & 0xff) as u64) << 48 | (ttl as u64) << 56;
        *w.add(1) = dst & LOW48;
        *w.add(2) = src_and_type & LOW48;
        *w.add(3) = word3;
        *w.add(4) = view.get(L3 + 8);
        *w.add(5) = view.get(L3 + 16);
        *w.add(6) = view.get(L3 + 24);
        *w.add(7) = view.get(L3 + 32);
        *w.add(8) = (first & 0xf_ffff).to_be() as u64;
    }
    true
}

/// Parses a frame. `None` for one that is shorter than an Ethernet header.
///
/// # Safety
/// `key` must be writable; `view` must be readable. Words past the result's kind are not written (those of a
/// `Short` key past the ninth).
#[inline(always)]
pub unsafe fn parse(view: FrameView, meta: &PacketMeta, key: *mut FlowKey) -> Option<Parsed> {
    if !view.has(0, ETH_HEADER) {
        return None;
    }
    let w = key as *mut u64;
    // SAFETY: every read is behind a `has` of its range, every word index below is under `KEY_WORDS`.
    unsafe {
        let mut i = 4;
        while i < LONG_WORDS {
            w.add(i).write_volatile(0);
            i += 1;
        }
        let mut kind = Kind::Short;

        let tags = parse_tags(view, meta);
        *w.add(1) = mac_word(view.get::<u64>(0), tags.outer_tci);
        *w.add(2) = mac_word(view.get::<u64>(6), tags.inner_tci);
        let odd_tpid = tags.outer_tpid | tags.inner_tpid;
        if odd_tpid != 0 {
            *w.add(8) = (tags.outer_tpid as u64) << 32 | (tags.inner_tpid as u64) << 48;
            if kind as u8 == Kind::Short as u8 {
                kind = Kind::Long;
            }
        }

        let l3 = tags.l3;
        let mut net = Network { proto: 0, tos: 0, ttl: 0, fragment: 0, l4: l3, l4_present: false };
        let mut malformed = Malformed::No;
        let et = tags.eth_type;
        if et == ET_IPV4 {
            if !parse_ipv4(view, l3, w, &mut net) {
                malformed = Malformed::L3;
            }
        } else if et == ET_IPV6 {
            if kind as u8 == Kind::Short as u8 {
                kind = Kind::Long;
            }
            if !parse_ipv6(view, l3, w, &mut net) {
                malformed = Malformed::L3;
            }
        } else if et == ET_ARP || et == ET_RARP || et == ET_MPLS || et == ET_MPLS_MCAST {
            if kind as u8 != Kind::Full as u8 {
                clear_rest(w);
                kind = Kind::Full;
            }
            let ok = if et == ET_ARP || et == ET_RARP {
                parse_arp(view, l3, w, &mut net)
            } else {
                parse_mpls(view, l3, w)
            };
            if !ok {
                malformed = Malformed::L3;
            }
        }

        let mut ports = 0u64;
        let mut tcp_flags = 0u16;
        if net.l4_present {
            let l4 = view.from(net.l4);
            let p = net.proto;
            // A check of its own for each protocol: the verifier cannot follow a length that depends on it.
            if p == 6 {
                if l4.has(0, 20) {
                    ports = l4.get::<u32>(0) as u64;
                    tcp_flags = l4.get::<u16>(12) & FLAGS_TCP_MASK.to_be();
                } else {
                    malformed = Malformed::L4;
                }
            } else if p == 17 {
                if l4.has(0, 8) {
                    ports = l4.get::<u32>(0) as u64;
                } else {
                    malformed = Malformed::L4;
                }
            } else if p == 1 || p == 58 {
                if !l4.has(0, 8) {
                    malformed = Malformed::L4;
                } else if p == 1 || et == ET_IPV6 {
                    let [ty, code] = l4.get::<[u8; 2]>(0);
                    ports = (ty as u64) << 8 | (code as u64) << 24;
                    if p == 58 && (ty == 135 || ty == 136) {
                        if kind as u8 != Kind::Full as u8 {
                            clear_rest(w);
                            kind = Kind::Full;
                        }
                        if code == 0 && !parse_nd(l4, w) {
                            malformed = Malformed::L4;
                        }
                    }
                }
            } else if p == 132 {
                if l4.has(0, 12) {
                    ports = l4.get::<u32>(0) as u64;
                } else {
                    malformed = Malformed::L4;
                }
            }
        }

        // Last, so that the verifier need not follow every packet above twice.
        if meta.skb_mark | meta.skb_priority | meta.dp_hash != 0 {
            if kind as u8 != Kind::Full as u8 {
                clear_rest(w);
                kind = Kind::Full;
            }
            *w.add(9) = meta.skb_mark as u64 | (meta.skb_priority as u64) << 32;
            *w.add(10) = meta.dp_hash as u64;
        }

        let flags = tcp_flags | (net.fragment | (kind as u16) << FLAGS_KIND_SHIFT).to_be();
        *w.add(3) = ports | (flags as u64) << 32 | (et as u64) << 48;
        *w = meta.in_port as u64
            | ((meta.recirc_id & 0xff_ffff) as u64) << 16
            | (net.proto as u64) << 40
            | (net.tos as u64) << 48
            | (net.ttl as u64) << 56;
        Some(Parsed { kind, l3: l3 as u16, l4: net.l4 as u16, malformed })
    }
}

/// Parses a frame in userspace: every word of the result is defined.
pub fn parse_frame(frame: &[u8], meta: &PacketMeta) -> Option<(FlowKey, Parsed)> {
    let mut key = FlowKey::ZERO;
    // SAFETY: the view is of `frame`, which outlives the call; the key is ours.
    let parsed = unsafe { parse(FrameView::of(frame), meta, &mut key) }?;
    Some((key, parsed))
}

struct Tags {
    /// be16 with `VLAN_PRESENT`, or 0.
    outer_tci: u16,
    inner_tci: u16,
    /// be16, 0 for 0x8100 or none.
    outer_tpid: u16,
    inner_tpid: u16,
    /// be16.
    eth_type: u16,
    l3: usize,
}

#[inline(always)]
const fn tpid_code(tpid: u16) -> u16 {
    if tpid == TPID_C { 0 } else { tpid }
}

/// # Safety
/// The Ethernet header must have been checked.
#[inline(always)]
unsafe fn parse_tags(view: FrameView, meta: &PacketMeta) -> Tags {
    const PRESENT: u16 = VLAN_PRESENT.to_be();
    let mut t =
        Tags { outer_tci: 0, inner_tci: 0, outer_tpid: 0, inner_tpid: 0, eth_type: 0, l3: ETH_HEADER };
    // SAFETY: offset 12 is inside the Ethernet header; the tags behind it are checked.
    unsafe {
        let mut et: u16 = view.get(12);
        let mut room = meta.vlan_limit;
        if meta.tag.tpid != 0 && room > 0 {
            t.outer_tci = meta.tag.tci.to_be() | PRESENT;
            t.outer_tpid = tpid_code(meta.tag.tpid);
            room -= 1;
        } else if is_tpid(et) && room > 0 && view.has(ETH_HEADER, VLAN_TAG) {
            t.outer_tci = view.get::<u16>(14) | PRESENT;
            t.outer_tpid = tpid_code(et);
            et = view.get(16);
            t.l3 = ETH_HEADER + VLAN_TAG;
            room -= 1;
        } else {
            room = 0;
        }
        if room > 0 && is_tpid(et) {
            if t.l3 == ETH_HEADER && view.has(ETH_HEADER, VLAN_TAG) {
                t.inner_tci = view.get::<u16>(14) | PRESENT;
                t.inner_tpid = tpid_code(et);
                et = view.get(16);
                t.l3 = ETH_HEADER + VLAN_TAG;
            } else if t.l3 != ETH_HEADER && view.has(ETH_HEADER + VLAN_TAG, VLAN_TAG) {
                t.inner_tci = view.get::<u16>(18) | PRESENT;
                t.inner_tpid = tpid_code(et);
                et = view.get(20);
                t.l3 = ETH_HEADER + 2 * VLAN_TAG;
            }
        }
        if meta.tag.tpid != 0 && meta.vlan_limit == 0 {
            // The tag is beside the frame, but nothing behind a tag may be looked at.
            et = meta.tag.tpid;
        }
        if u16::from_be(et) < 0x0600 {
            // IEEE 802.3 length: SNAP with OUI 0 carries an EtherType (RFC 1042), everything else has none.
            let o = t.l3;
            et = ETH_TYPE_NONE.to_be();
            if view.has(o, 8) && view.get::<u32>(o) == 0xaaaa_0300u32.to_be() && view.get::<u16>(o + 4) == 0 {
                let snap: u16 = view.get(o + 6);
                if u16::from_be(snap) >= 0x0600 {
                    et = snap;
                    t.l3 = o + 8;
                }
            }
        }
        t.eth_type = et;
    }
    t
}

struct Network {
    proto: u8,
    tos: u8,
    ttl: u8,
    /// `FLAGS_FRAG_` bits, host order.
    fragment: u16,
    l4: usize,
    l4_present: bool,
}

/// Writes words 9 to 35.
#[inline(always)]
unsafe fn clear_rest(w: *mut u64) {
    let mut i = LONG_WORDS;
    while i < KEY_WORDS {
        // SAFETY: inside the key. Volatile, so that LLVM makes stores of it and not a call or a byte loop.
        unsafe { w.add(i).write_volatile(0) };
        i += 1;
    }
}

/// RFC 791, section 3.1. `false` if the header is cut, has another version or an impossible length.
#[inline(always)]
unsafe fn parse_ipv4(view: FrameView, l3: usize, w: *mut u64, net: &mut Network) -> bool {
    let header = view.from(l3);
    if !header.has(0, 20) {
        return false;
    }
    // SAFETY: the range was checked; words 4 to 8 are inside the key.
    unsafe {
        let version_ihl: u8 = header.get(0);
        let length = ((version_ihl & 15) as usize) << 2;
        if version_ihl >> 4 != 4 || length < 20 || !header.has(0, length) {
            return false;
        }
        net.tos = header.get(1);
        net.ttl = header.get(8);
        net.proto = header.get(9);
        let offset: u16 = header.get(6);
        if offset & 0x3fffu16.to_be() != 0 {
            net.fragment = FLAGS_FRAG_ANY;
            if offset & 0x1fffu16.to_be() != 0 {
                net.fragment |= FLAGS_FRAG_LATER;
            }
        }
        *w.add(4) = header.get(12);
        net.l4 = l3 + length;
        net.l4_present = net.fragment & FLAGS_FRAG_LATER == 0;
    }
    true
}

/// Where the walk through a chain of extension headers is.
struct Chain {
    /// Type of the header at `off`.
    next: u8,
    off: usize,
    /// `FLAGS_FRAG_` bits, host order.
    fragment: u16,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    /// `next` is no extension header, or what follows is no header.
    Reached,
    /// A header is cut.
    Cut,
}

/// One step. There is no loop, since LLVM makes loops here that are left and entered in the middle, which verifiers
/// before Linux 6.6 refuse.
#[inline(always)]
unsafe fn walk_extension(view: FrameView, chain: &mut Chain) {
    if chain.end as u8 != End::No as u8 {
        return;
    }
    if !matches!(chain.next, 0 | 43 | 44 | 51 | 60) {
        chain.end = End::Reached;
        return;
    }
    let extension = view.from(chain.off);
    if !extension.has(0, 8) {
        chain.end = End::Cut;
        return;
    }
    // SAFETY: the range was checked.
    let ([following, len], offset) = unsafe { (extension.get::<[u8; 2]>(0), extension.get::<u16>(2)) };
    match chain.next {
        44 => {
            // A datagram that is whole (RFC 6946) is no fragment.
            if offset & 0xfff9u16.to_be() != 0 {
                chain.fragment = FLAGS_FRAG_ANY;
                if offset & 0xfff8u16.to_be() != 0 {
                    // What follows is not a header; the protocol reads as "fragment".
                    chain.fragment |= FLAGS_FRAG_LATER;
                    chain.end = End::Reached;
                    return;
                }
            }
            chain.off += 8;
        }
        // RFC 4302, section 2.2: in units of four bytes, less two.
        51 => chain.off += (len as usize + 2) << 2,
        _ => chain.off += (len as usize + 1) << 3,
    }
    chain.next = following;
}

/// RFC 8200, sections 3 and 4. `false` if a header is cut or the chain is longer than eight extension headers; Linux
/// drops packets with fewer than that.
#[inline(always)]
unsafe fn parse_ipv6(view: FrameView, l3: usize, w: *mut u64, net: &mut Network) -> bool {
    let header = view.from(l3);
    if !header.has(0, 40) {
        return false;
    }
    // SAFETY: every range is checked before it is read; words 4 to 8 are inside the key.
    unsafe {
        let first = u32::from_be(header.get(0));
        if first >> 28 != 6 {
            return false;
        }
        let mut chain = Chain { next: header.get(6), off: l3 + 40, fragment: 0, end: End::No };
        walk_extension(view, &mut chain);
        walk_extension(view, &mut chain);
        walk_extension(view, &mut chain);
        walk_extension(view, &mut chain);
        walk_extension(view, &mut chain);
        walk_extension(view, &mut chain);
        walk_extension(view, &mut chain);
        walk_extension(view, &mut chain);
        let more = matches!(chain.next, 0 | 43 | 44 | 51 | 60);
        if chain.end as u8 == End::Cut as u8 || chain.end as u8 == End::No as u8 && more {
            return false;
        }
        net.proto = chain.next;
        net.tos = (first >> 20) as u8;
        net.ttl = header.get(7);
        net.fragment = chain.fragment;
        net.l4 = chain.off;
        net.l4_present = chain.fragment & FLAGS_FRAG_LATER == 0;
        *w.add(4) = header.get(8);
        *w.add(5) = header.get(16);
        *w.add(6) = header.get(24);
        *w.add(7) = header.get(32);
        let label = first & 0xf_ffff;
        *w.add(8) |= label.to_be() as u64;
    }
    true
}

/// RFC 826, for Ethernet and IPv4 addresses only; others leave the fields zero and are not malformed.
#[inline(always)]
unsafe fn parse_arp(view: FrameView, l3: usize, w: *mut u64, net: &mut Network) -> bool {
    let message = view.from(l3);
    if !message.has(0, 28) {
        return false;
    }
    // SAFETY: the range was checked; words 4, 16 and 17 are inside the key.
    unsafe {
        // Hardware type 1, protocol type IPv4, lengths 6 and 4.
        if message.get::<u32>(0) != 0x0001_0800u32.to_be() || message.get::<u16>(4) != 0x0604u16.to_be() {
            return true;
        }
        let op = u16::from_be(message.get(6));
        if op < 256 {
            net.proto = op as u8;
        }
        let spa: u32 = message.get(14);
        let tpa: u32 = message.get(24);
        *w.add(4) = spa as u64 | (tpa as u64) << 32;
        *w.add(16) = message.get::<u64>(8) & LOW48;
        *w.add(17) = message.get::<u64>(16) >> 16;
    }
    true
}

/// RFC 3032, section 2.1: up to three label stack entries.
#[inline(always)]
unsafe fn parse_mpls(view: FrameView, l3: usize, w: *mut u64) -> bool {
    const BOTTOM: u32 = 0x100u32.to_be();
    let stack = view.from(l3);
    if !stack.has(0, 4) {
        return false;
    }
    // SAFETY: each entry is checked before it is read; words 14 and 15 are inside the key.
    unsafe {
        let first: u32 = stack.get(0);
        let mut word14 = first as u64;
        if first & BOTTOM == 0 && stack.has(4, 4) {
            let second: u32 = stack.get(4);
            word14 |= (second as u64) << 32;
            if second & BOTTOM == 0 && stack.has(8, 4) {
                *w.add(15) = stack.get::<u32>(8) as u64;
            }
        }
        *w.add(14) = word14;
    }
    true
}

/// Options of one message that are looked at.
const MAX_ND_OPTIONS: usize = 4;

/// RFC 4861, sections 4.3, 4.4 and 4.6. `false` if the target or an option is cut, or an option comes twice.
#[inline(always)]
unsafe fn parse_nd(message: FrameView, w: *mut u64) -> bool {
    if !message.has(0, 24) {
        return false;
    }
    // SAFETY: every range is checked before it is read; words 15 to 19 are inside the key.
    unsafe {
        *w.add(15) |= (message.get::<u32>(4) as u64) << 32;
        *w.add(18) = message.get(8);
        *w.add(19) = message.get(16);
        let mut off = 24;
        let (mut sll, mut tll) = (0u64, 0u64);
        let mut first_type = 0u8;
        let mut n = 0;
        while n < MAX_ND_OPTIONS {
            let option = message.from(off);
            if !option.has(0, 8) {
                break;
            }
            let [ty, len] = option.get::<[u8; 2]>(0);
            if n == 0 {
                first_type = ty;
            }
            if len == 0 {
                return false;
            }
            if len == 1 && (ty == 1 || ty == 2) {
                let mac = option.get::<u64>(0) >> 16;
                let slot = if ty == 1 { &mut sll } else { &mut tll };
                if *slot != 0 {
                    return false;
                }
                *slot = mac;
            }
            off += (len as usize) << 3;
            n += 1;
        }
        *w.add(16) = sll | (first_type as u64) << 48;
        *w.add(17) = tll;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IPv6 from fd00::1 to fd00::2, traffic class 0x2a, flow label 0x51234.
    fn ipv6(proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut f = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x86\xdd\x62\xa5\x12\x34".to_vec();
        f.extend((payload.len() as u16).to_be_bytes());
        f.extend([proto, 64]);
        for last in [1, 2] {
            f.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        f.extend(payload);
        f
    }

    #[test]
    fn straight_lines_agree_with_the_parser() {
        let meta = PacketMeta { in_port: 7, vlan_limit: 2, ..PacketMeta::default() };
        let tcp = [0x30, 0x39, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x5a, 0x18, 1, 0, 0, 0, 0, 0];
        let (mut taken, mut left) = (0, 0);
        for proto in 0..=255 {
            let frame = ipv6(proto, &tcp);
            for len in 0..=frame.len() {
                let frame = &frame[..len];
                let mut key = FlowKey::ZERO;
                // SAFETY: the view is of `frame`, which outlives the call; the key is ours.
                if unsafe { parse_common_v6(FrameView::of(frame), 7, &mut key) } {
                    taken += 1;
                    assert_eq!(Some(key), parse_frame(frame, &meta).map(|(k, _)| k), "{proto} {len}");
                    assert_eq!(key.kind(), Kind::Long);
                } else {
                    left += 1;
                }
            }
        }
        // UDP from its header on, TCP likewise.
        assert_eq!(taken, 13 + 1);
        assert!(left > taken);
    }
}
