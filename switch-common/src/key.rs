//! The datapath flow key: what a megaflow can match on.
//!
//! A key is 36 whole 8-byte words without a hidden pad byte, so that it can be hashed, masked and compared as
//! words. The words stand in the order of how often packets need them, and a key's [`Kind`] says how many of
//! them it uses:
//!
//! | kind | words | packets |
//! |---|---|---|
//! | `Short` | 5 | IPv4 and everything that has no address, with up to two 0x8100 tags |
//! | `Long` | 9 | IPv6 (with flow label), and tags with another TPID |
//! | `Full` | 36 | ARP, MPLS, neighbour discovery, marks, recirculation hashes, conntrack, tunnels, NSH |
//!
//! The words past a key's kind are zero by definition: the datapath does not even write them. The kind is part
//! of the key, and every megaflow matches it exactly.
//!
//! Bytes of the wire are kept as they were on the wire (`be16`, ...). Field semantics are those of Open
//! vSwitch's datapath key; where that has two names for one place (ARP and IPv4 addresses, ICMP type and source
//! port), so has this.

/// 8-byte words of a whole key.
pub const KEY_WORDS: usize = 36;
/// Words of a [`Kind::Short`] key.
pub const SHORT_WORDS: usize = 5;
/// Words of a [`Kind::Long`] key.
pub const LONG_WORDS: usize = 9;

/// How many words of a key are in use. Ordered: a larger kind can hold every packet of a smaller one.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Kind {
    Short = 0,
    Long = 1,
    Full = 2,
}

/// Number of kinds.
pub const KINDS: usize = 3;

impl Kind {
    pub const ALL: [Kind; KINDS] = [Kind::Short, Kind::Long, Kind::Full];

    #[inline(always)]
    pub const fn words(self) -> usize {
        match self {
            Kind::Short => SHORT_WORDS,
            Kind::Long => LONG_WORDS,
            Kind::Full => KEY_WORDS,
        }
    }

    /// The kind with this number; anything else than 0 and 1 is `Full`.
    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Kind {
        match bits {
            0 => Kind::Short,
            1 => Kind::Long,
            _ => Kind::Full,
        }
    }
}

/// "A tag is there": the bit of a TCI field that IEEE 802.1Q calls DEI (host order). As in Open vSwitch, the
/// datapath does not match on DEI itself.
pub const VLAN_PRESENT: u16 = 0x1000;
/// VLAN id bits of a TCI (host order).
pub const VLAN_VID_MASK: u16 = 0x0fff;
/// Priority bits of a TCI (host order).
pub const VLAN_PCP_MASK: u16 = 0xe000;

/// `flags` (host order): the twelve TCP flag bits of RFC 9293, section 3.1.
pub const FLAGS_TCP_MASK: u16 = 0x0fff;
/// `flags`: the packet is a fragment, first or later.
pub const FLAGS_FRAG_ANY: u16 = 0x1000;
/// `flags`: the packet is a fragment and not the first, so it has no layer-4 header.
pub const FLAGS_FRAG_LATER: u16 = 0x2000;
/// `flags`: both fragment bits.
pub const FLAGS_FRAG_MASK: u16 = 0x3000;
/// `flags`: the key's [`Kind`].
pub const FLAGS_KIND_MASK: u16 = 0xc000;
/// `flags`: how far the kind is shifted.
pub const FLAGS_KIND_SHIFT: u32 = 14;

/// `eth_type` of an IEEE 802.3 frame without SNAP (host order), as Open vSwitch and OpenFlow 1.0 number it.
pub const ETH_TYPE_NONE: u16 = 0x05ff;

/// `tun_flags` (host order): a control packet of the tunnel itself (Geneve's OAM bit).
pub const TUNNEL_OAM: u16 = 1;
/// `tun_flags`: the outer header forbids fragmentation.
pub const TUNNEL_DONT_FRAGMENT: u16 = 2;
/// `tun_flags`: the outer packet has a checksum.
pub const TUNNEL_CHECKSUM: u16 = 4;
/// `tun_flags`: the tunnel carries an id.
pub const TUNNEL_KEY: u16 = 8;

/// A datapath flow key, or, with the same layout, a mask of one: see [`FlowMask`].
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    // word 0
    /// Datapath port that the packet came in on.
    pub in_port: u16,
    /// Recirculation id, little-endian 24 bits: see [`FlowKey::recirc_id`].
    pub recirc: [u8; 3],
    /// IP protocol or next header; of an ARP packet, the low byte of the opcode.
    pub ip_proto: u8,
    /// IPv4 TOS or IPv6 traffic class, DSCP and ECN.
    pub ip_tos: u8,
    /// IPv4 TTL or IPv6 hop limit.
    pub ip_ttl: u8,
    // word 1
    pub eth_dst: [u8; 6],
    /// Outermost tag, be16, with `VLAN_PRESENT` for DEI; 0 without one.
    pub vlan_tci: u16,
    // word 2
    pub eth_src: [u8; 6],
    /// The tag behind it.
    pub inner_tci: u16,
    // word 3
    /// be16: source port of TCP, UDP, SCTP; ICMP type.
    pub tp_src: u16,
    /// be16: destination port; ICMP code.
    pub tp_dst: u16,
    /// be16: TCP flags, fragment bits and kind: the `FLAGS_` constants.
    pub flags: u16,
    /// be16: the innermost EtherType that is not a VLAN's; [`ETH_TYPE_NONE`] for 802.3.
    pub eth_type: u16,
    // words 4 to 7
    /// IPv4: source in `[0]`, destination in `[1]`, be32, the rest zero. ARP: sender and target protocol
    /// address. IPv6: source in `[0..4]`, destination in `[4..8]`.
    pub addr: [u32; 8],
    // word 8
    /// be32: IPv6 flow label, 20 bits.
    pub ipv6_label: u32,
    /// be16: the outermost tag's TPID, 0 standing for 0x8100 (and for no tag).
    pub vlan_tpid: u16,
    /// be16: the inner tag's TPID, likewise.
    pub inner_tpid: u16,
    // word 9
    pub skb_mark: u32,
    pub skb_priority: u32,
    // word 10
    /// Result of a hash action before the last recirculation.
    pub dp_hash: u32,
    pub ct_mark: u32,
    // word 11
    /// Connection state, Open vSwitch's `CS_` bits.
    pub ct_state: u16,
    pub ct_zone: u16,
    /// be32: packet type (namespace, type); 0 is Ethernet.
    pub packet_type: u32,
    // words 12 and 13
    /// 128-bit connection label.
    pub ct_label: [u64; 2],
    // word 14 and half of 15
    /// be32 each: up to three label stack entries, outermost first.
    pub mpls_lse: [u32; 3],
    /// be32: reserved field of a neighbour discovery message (RFC 4861, section 4.4).
    pub nd_reserved: u32,
    // word 16
    /// ARP sender hardware address; neighbour discovery source link-layer address option.
    pub arp_sha: [u8; 6],
    /// First option type of a neighbour discovery message.
    pub nd_options_type: u8,
    pub pad_16: u8,
    // word 17
    /// ARP target hardware address; neighbour discovery target link-layer address option.
    pub arp_tha: [u8; 6],
    pub pad_17: u16,
    // words 18 and 19
    /// be32 each: neighbour discovery target address.
    pub nd_target: [u32; 4],
    // word 20
    /// be64.
    pub tun_id: u64,
    // words 21 to 24
    /// be32 each; IPv4 as an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
    pub tun_src: [u32; 4],
    pub tun_dst: [u32; 4],
    // word 25
    pub tun_tos: u8,
    pub tun_ttl: u8,
    /// be16: the `TUNNEL_` constants.
    pub tun_flags: u16,
    /// be16.
    pub tun_tp_src: u16,
    /// be16.
    pub tun_tp_dst: u16,
    // word 26
    /// be16: VXLAN group-based policy id.
    pub gbp_id: u16,
    pub gbp_flags: u8,
    pub erspan_ver: u8,
    pub erspan_dir: u8,
    pub erspan_hwid: u8,
    pub gtpu_flags: u8,
    pub gtpu_msgtype: u8,
    // word 27
    /// Identifies the set of tunnel options (Geneve TLVs) that the packet carries; 0 for none.
    pub tun_opts: u64,
    // word 28
    pub nsh_flags: u8,
    pub nsh_ttl: u8,
    pub nsh_mdtype: u8,
    pub nsh_np: u8,
    /// be32: service path id and index.
    pub nsh_path: u32,
    // words 29 and 30
    /// be32 each: NSH context headers of MD type 1.
    pub nsh_context: [u32; 4],
    // word 31
    pub ct_tp_src: u16,
    pub ct_tp_dst: u16,
    pub ct_nw_proto: u8,
    pub pad_31: [u8; 3],
    // words 32 to 35
    /// Original direction of the connection.
    pub ct_src: [u32; 4],
    pub ct_dst: [u32; 4],
}

const _: () = assert!(size_of::<FlowKey>() == KEY_WORDS * 8);
const _: () = assert!(align_of::<FlowKey>() == 8);
const _: () = assert!(core::mem::offset_of!(FlowKey, tp_src) == 3 * 8);
const _: () = assert!(core::mem::offset_of!(FlowKey, addr) == 4 * 8);
const _: () = assert!(core::mem::offset_of!(FlowKey, ipv6_label) == 8 * 8);
const _: () = assert!(core::mem::offset_of!(FlowKey, skb_mark) == LONG_WORDS * 8);
const _: () = assert!(core::mem::offset_of!(FlowKey, mpls_lse) == 14 * 8);
const _: () = assert!(core::mem::offset_of!(FlowKey, tun_id) == 20 * 8);
const _: () = assert!(core::mem::offset_of!(FlowKey, ct_dst) == 34 * 8);

impl FlowKey {
    pub const ZERO: FlowKey = FlowKey::from_words([0; KEY_WORDS]);

    #[inline(always)]
    pub const fn from_words(words: [u64; KEY_WORDS]) -> FlowKey {
        // SAFETY: the two types have the same size, and every bit pattern is a valid `FlowKey`.
        unsafe { core::mem::transmute(words) }
    }

    #[inline(always)]
    pub const fn words(&self) -> &[u64; KEY_WORDS] {
        // SAFETY: same size and alignment, no padding (the assertions above, and every pad has a name).
        unsafe { &*(self as *const FlowKey).cast() }
    }

    #[inline(always)]
    pub const fn words_mut(&mut self) -> &mut [u64; KEY_WORDS] {
        // SAFETY: as in `words`, and every bit pattern is valid on either side.
        unsafe { &mut *(self as *mut FlowKey).cast() }
    }

    /// Recirculation id, 24 bits; 0 for a packet that was not recirculated.
    #[inline(always)]
    pub const fn recirc_id(&self) -> u32 {
        u32::from_le_bytes([self.recirc[0], self.recirc[1], self.recirc[2], 0])
    }

    /// Sets the recirculation id; bits past the 24th are lost.
    #[inline(always)]
    pub const fn set_recirc_id(&mut self, id: u32) {
        let b = id.to_le_bytes();
        self.recirc = [b[0], b[1], b[2]];
    }

    #[inline(always)]
    pub const fn flags_host(&self) -> u16 {
        u16::from_be(self.flags)
    }

    #[inline(always)]
    pub const fn kind(&self) -> Kind {
        Kind::from_bits((self.flags_host() >> FLAGS_KIND_SHIFT) as u8)
    }

    #[inline(always)]
    pub const fn set_kind(&mut self, kind: Kind) {
        let f = self.flags_host() & !FLAGS_KIND_MASK | (kind as u16) << FLAGS_KIND_SHIFT;
        self.flags = f.to_be();
    }

    /// Sets the kind to the smallest one that holds every word of this key that is not zero: call it after
    /// changing a key by hand.
    pub const fn normalize_kind(&mut self) {
        let w = self.words();
        let mut kind = Kind::Short;
        let mut i = KEY_WORDS;
        while i > SHORT_WORDS {
            i -= 1;
            if w[i] != 0 {
                kind = if i >= LONG_WORDS { Kind::Full } else { Kind::Long };
                break;
            }
        }
        let et = u16::from_be(self.eth_type);
        if (kind as u8) < Kind::Full as u8 && needs_full(et, self.ip_proto, self.tp_src, self.flags_host()) {
            kind = Kind::Full;
        } else if kind as u8 == Kind::Short as u8 && et == 0x86dd {
            kind = Kind::Long;
        }
        self.set_kind(kind);
    }

    #[inline(always)]
    pub const fn tcp_flags(&self) -> u16 {
        self.flags_host() & FLAGS_TCP_MASK
    }

    #[inline(always)]
    pub const fn ipv4_src(&self) -> u32 {
        u32::from_be(self.addr[0])
    }

    #[inline(always)]
    pub const fn ipv4_dst(&self) -> u32 {
        u32::from_be(self.addr[1])
    }

    /// Every word and-ed with the mask's.
    #[inline]
    pub fn masked(&self, mask: &FlowMask) -> FlowKey {
        let mut out = FlowKey::ZERO;
        for ((o, k), m) in out.words_mut().iter_mut().zip(self.words()).zip(mask.words()) {
            *o = k & m;
        }
        out
    }

    /// Whether this key agrees with `flow` in every bit of `mask`.
    #[inline]
    pub fn matches(&self, flow: &FlowKey, mask: &FlowMask) -> bool {
        self.words().iter().zip(flow.words()).zip(mask.words()).all(|((a, b), m)| (a ^ b) & m == 0)
    }
}

/// Whether the headers of such a packet include fields past word 8, whatever values they have: its kind is
/// `Full` even if those are all zero, since the kind must follow from the headers alone.
/// `eth_type` and `flags` in host order, `tp_src` in network order.
#[inline(always)]
pub const fn needs_full(eth_type: u16, ip_proto: u8, tp_src: u16, flags: u16) -> bool {
    match eth_type {
        0x0806 | 0x8035 | 0x8847 | 0x8848 => true,
        // Neighbour solicitation and advertisement (RFC 4861, sections 4.3 and 4.4).
        0x86dd => {
            ip_proto == 58 && flags & FLAGS_FRAG_LATER == 0 && matches!(u16::from_be(tp_src), 135 | 136)
        }
        _ => false,
    }
}

impl Default for FlowKey {
    fn default() -> Self {
        FlowKey::ZERO
    }
}

/// Which bits of a [`FlowKey`] a megaflow matches: the same layout, a set bit meaning "must be equal".
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowMask(pub FlowKey);

impl FlowMask {
    pub const EMPTY: FlowMask = FlowMask(FlowKey::ZERO);
    pub const EXACT: FlowMask = FlowMask(FlowKey::from_words([!0; KEY_WORDS]));

    /// What every megaflow matches exactly: input port, recirculation id, kind and EtherType.
    pub const fn floor() -> FlowMask {
        let mut m = FlowKey::ZERO;
        m.in_port = 0xffff;
        m.recirc = [0xff; 3];
        m.flags = FLAGS_KIND_MASK.to_be();
        m.eth_type = 0xffff;
        FlowMask(m)
    }

    #[inline(always)]
    pub const fn words(&self) -> &[u64; KEY_WORDS] {
        self.0.words()
    }

    #[inline(always)]
    pub const fn words_mut(&mut self) -> &mut [u64; KEY_WORDS] {
        self.0.words_mut()
    }

    /// Adds the bits of another mask.
    #[inline]
    pub fn unite(&mut self, other: &FlowMask) {
        for (a, b) in self.words_mut().iter_mut().zip(other.words()) {
            *a |= b;
        }
    }

    /// Clears the words that a key of this kind does not have.
    pub fn restrict(&mut self, kind: Kind) {
        for w in &mut self.words_mut()[kind.words()..] {
            *w = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_fields() {
        let mut k = FlowKey::ZERO;
        k.in_port = 0x1234;
        k.set_recirc_id(0xab_cdef);
        k.ip_proto = 6;
        k.ip_tos = 0x20;
        k.ip_ttl = 64;
        assert_eq!(k.words()[0], u64::from_ne_bytes([0x34, 0x12, 0xef, 0xcd, 0xab, 6, 0x20, 64]));
        assert_eq!(k.recirc_id(), 0xab_cdef);
        k.ct_dst[3] = 0xdead_beef;
        assert_eq!(k.words()[35] >> 32, 0xdead_beef);
        assert_eq!(FlowKey::from_words(*k.words()), k);
    }

    #[test]
    fn kind_follows_from_headers() {
        let mut k = FlowKey::ZERO;
        k.eth_type = 0x0800u16.to_be();
        k.normalize_kind();
        assert_eq!(k.kind(), Kind::Short);
        k.vlan_tpid = 0x88a8u16.to_be();
        k.normalize_kind();
        assert_eq!(k.kind(), Kind::Long);
        k.skb_mark = 1;
        k.normalize_kind();
        assert_eq!(k.kind(), Kind::Full);
        let mut arp = FlowKey::ZERO;
        arp.eth_type = 0x0806u16.to_be();
        arp.normalize_kind();
        assert_eq!(arp.kind(), Kind::Full);
    }
}
