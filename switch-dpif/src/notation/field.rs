//! The fields of the notation: one table that printing, parsing and JSON share.
//!
//! A field's value is taken as an unsigned number of `width` bits in host order, whatever its place in the key;
//! a mask has the layout of a key, so that the same accessors serve both.

use switch_common::key::{
    FlowKey, TUNNEL_CHECKSUM, TUNNEL_DONT_FRAGMENT, TUNNEL_KEY, TUNNEL_OAM, VLAN_PRESENT, VLAN_VID_MASK,
};

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    /// Value decimal, mask hexadecimal.
    Decimal,
    /// Both hexadecimal, zero as `0`.
    Hex,
    /// As [`Style::Decimal`], of a datapath port, which may have a name.
    Port,
    Mac,
    Ipv4,
    Ipv6,
    /// Four hexadecimal digits.
    EthType,
    /// `no`, `first` or `later`.
    Fragment,
    /// Names of bits, lowest first: `a|b` if the mask covers them all, else `+a-b`.
    Bits(&'static [&'static str]),
}

pub(super) struct Field {
    pub name: &'static str,
    pub style: Style,
    /// Bits.
    pub width: u32,
    pub get: fn(&FlowKey) -> u128,
    pub set: fn(&mut FlowKey, u128),
}

impl Field {
    /// The mask that covers every bit.
    pub const fn full(&self) -> u128 {
        if self.width == 128 { !0 } else { (1 << self.width) - 1 }
    }
}

/// `name(field=value,...)`; a group whose only field has no name is `name(value)`.
pub(super) struct Group {
    pub name: &'static str,
    pub fields: &'static [Field],
}

const TCP_FLAGS: &[&str] =
    &["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];
const CT_STATE: &[&str] = &["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
const TUNNEL_FLAGS: &[&str] = &["oam", "df", "csum", "key"];
const _: () =
    assert!(TUNNEL_OAM == 1 && TUNNEL_DONT_FRAGMENT == 2 && TUNNEL_CHECKSUM == 4 && TUNNEL_KEY == 8);

macro_rules! field {
    ($name:literal, $style:expr, $width:literal, |$k:ident| $get:expr, |$m:ident, $v:ident| $set:expr) => {
        Field {
            name: $name,
            style: $style,
            width: $width,
            get: |$k| $get as u128,
            set: |$m, $v| {
                $set;
            },
        }
    };
    // A plain field of host order, big-endian order, an address.
    (host $name:literal, $style:expr, $width:literal, $($path:ident $([$i:literal])?).+ : $ty:ty) => {
        field!($name, $style, $width, |k| k.$($path $([$i])?).+, |k, v| k.$($path $([$i])?).+ = v as $ty)
    };
    (wire $name:literal, $style:expr, $width:literal, $($path:ident $([$i:literal])?).+ : $ty:ty) => {
        field!($name, $style, $width, |k| <$ty>::from_be(k.$($path $([$i])?).+),
            |k, v| k.$($path $([$i])?).+ = (v as $ty).to_be())
    };
    (mac $name:literal, $path:ident) => {
        field!($name, Style::Mac, 48, |k| mac(k.$path), |k, v| k.$path = mac_bytes(v))
    };
}

fn mac(m: [u8; 6]) -> u128 {
    m.iter().fold(0, |n, b| n << 8 | u128::from(*b))
}

fn mac_bytes(v: u128) -> [u8; 6] {
    let b = v.to_be_bytes();
    [b[10], b[11], b[12], b[13], b[14], b[15]]
}

fn ipv6(words: &[u32]) -> u128 {
    words.iter().take(4).fold(0, |n, w| n << 32 | u128::from(u32::from_be(*w)))
}

fn set_ipv6(words: &mut [u32], v: u128) {
    for (i, w) in words.iter_mut().take(4).enumerate() {
        *w = ((v >> (96 - 32 * i)) as u32).to_be();
    }
}

fn tci_bits(tci: u16, shift: u32, bits: u16) -> u16 {
    (u16::from_be(tci) & bits) >> shift
}

fn set_tci_bits(tci: &mut u16, shift: u32, bits: u16, v: u128) {
    *tci = (u16::from_be(*tci) & !bits | (v as u16) << shift & bits).to_be();
}

macro_rules! single {
    ($name:literal, $field:expr) => {
        Group { name: $name, fields: &[$field] }
    };
}

/// Fields that no header holds, in the order in which Open vSwitch's userspace writes them; the tunnel comes
/// behind the first one, the connection's tuple behind the sixth.
pub(super) const PRIORITY: Group =
    single!("skb_priority", field!(host "", Style::Hex, 32, skb_priority: u32));
pub(super) const MARK: Group = single!("skb_mark", field!(host "", Style::Hex, 32, skb_mark: u32));
pub(super) const CT: [Group; 4] = [
    single!(
        "ct_state",
        field!("", Style::Bits(CT_STATE), 8, |k| k.ct_state & 0xff, |k, v| k.ct_state = v as u16)
    ),
    single!("ct_zone", field!(host "", Style::Hex, 16, ct_zone: u16)),
    single!("ct_mark", field!(host "", Style::Hex, 32, ct_mark: u32)),
    single!(
        "ct_label",
        field!(
            "",
            Style::Hex,
            128,
            |k| u128::from(k.ct_label[1]) << 64 | u128::from(k.ct_label[0]),
            |k, v| k.ct_label = [v as u64, (v >> 64) as u64]
        )
    ),
];
pub(super) const RECIRC_ID: Group =
    single!("recirc_id", field!("", Style::Hex, 24, |k| k.recirc_id(), |k, v| k.set_recirc_id(v as u32)));
pub(super) const DP_HASH: Group = single!("dp_hash", field!(host "", Style::Hex, 32, dp_hash: u32));
pub(super) const IN_PORT: Group = single!("in_port", field!(host "", Style::Port, 16, in_port: u16));
pub(super) const PACKET_TYPE: Group = Group {
    name: "packet_type",
    fields: &[
        field!("ns", Style::Decimal, 16, |k| u32::from_be(k.packet_type) >> 16, |k, v| k.packet_type =
            (u32::from_be(k.packet_type) & 0xffff | (v as u32) << 16).to_be()),
        field!("id", Style::Hex, 16, |k| u32::from_be(k.packet_type) & 0xffff, |k, v| k.packet_type =
            (u32::from_be(k.packet_type) & !0xffff | v as u32 & 0xffff).to_be()),
    ],
};

/// Connection's original tuple over IPv4: the addresses stand as those of a packet do.
pub(super) const CT_TUPLE4: Group = Group {
    name: "ct_tuple4",
    fields: &[
        field!(wire "src", Style::Ipv4, 32, ct_src[0]: u32),
        field!(wire "dst", Style::Ipv4, 32, ct_dst[0]: u32),
        field!(host "proto", Style::Decimal, 8, ct_nw_proto: u8),
        field!(wire "tp_src", Style::Decimal, 16, ct_tp_src: u16),
        field!(wire "tp_dst", Style::Decimal, 16, ct_tp_dst: u16),
    ],
};
pub(super) const CT_TUPLE6: Group = Group {
    name: "ct_tuple6",
    fields: &[
        field!("src", Style::Ipv6, 128, |k| ipv6(&k.ct_src), |k, v| set_ipv6(&mut k.ct_src, v)),
        field!("dst", Style::Ipv6, 128, |k| ipv6(&k.ct_dst), |k, v| set_ipv6(&mut k.ct_dst, v)),
        field!(host "proto", Style::Decimal, 8, ct_nw_proto: u8),
        field!(wire "tp_src", Style::Decimal, 16, ct_tp_src: u16),
        field!(wire "tp_dst", Style::Decimal, 16, ct_tp_dst: u16),
    ],
};

/// The tunnel's addresses are IPv4-mapped for IPv4: `src` and `dst` are the last 32 bits.
pub(super) const TUNNEL_ID: Field = field!(wire "tun_id", Style::Hex, 64, tun_id: u64);
pub(super) const TUNNEL_ADDR4: [Field; 2] = [
    field!(wire "src", Style::Ipv4, 32, tun_src[3]: u32),
    field!(wire "dst", Style::Ipv4, 32, tun_dst[3]: u32),
];
pub(super) const TUNNEL_ADDR6: [Field; 2] = [
    field!("ipv6_src", Style::Ipv6, 128, |k| ipv6(&k.tun_src), |k, v| set_ipv6(&mut k.tun_src, v)),
    field!("ipv6_dst", Style::Ipv6, 128, |k| ipv6(&k.tun_dst), |k, v| set_ipv6(&mut k.tun_dst, v)),
];
pub(super) const TUNNEL_REST: [Field; 4] = [
    field!(host "tos", Style::Hex, 8, tun_tos: u8),
    field!(host "ttl", Style::Decimal, 8, tun_ttl: u8),
    field!(wire "tp_src", Style::Decimal, 16, tun_tp_src: u16),
    field!(wire "tp_dst", Style::Decimal, 16, tun_tp_dst: u16),
];
/// Inside `vxlan(gbp(...))`.
pub(super) const GBP: Group = Group {
    name: "gbp",
    fields: &[
        field!(wire "id", Style::Decimal, 16, gbp_id: u16),
        field!(host "flags", Style::Hex, 8, gbp_flags: u8),
    ],
};
pub(super) const ERSPAN: Group = Group {
    name: "erspan",
    fields: &[
        field!(host "ver", Style::Decimal, 8, erspan_ver: u8),
        field!(host "dir", Style::Decimal, 8, erspan_dir: u8),
        field!(host "hwid", Style::Hex, 8, erspan_hwid: u8),
    ],
};
pub(super) const GTPU: Group = Group {
    name: "gtpu",
    fields: &[
        field!(host "flags", Style::Hex, 8, gtpu_flags: u8),
        field!(host "msgtype", Style::Decimal, 8, gtpu_msgtype: u8),
    ],
};
/// The key holds a name for the set of options, not the options.
pub(super) const GENEVE: Group =
    Group { name: "geneve", fields: &[field!(host "options", Style::Hex, 64, tun_opts: u64)] };
pub(super) const TUNNEL_FLAGS_FIELD: Field =
    field!("flags", Style::Bits(TUNNEL_FLAGS), 4, |k| u16::from_be(k.tun_flags) & 0xf, |k, v| k.tun_flags =
        (v as u16).to_be());

pub(super) const ETH: Group =
    Group { name: "eth", fields: &[field!(mac "src", eth_src), field!(mac "dst", eth_dst)] };
pub(super) const ETH_TYPE: Group = single!("eth_type", field!(wire "", Style::EthType, 16, eth_type: u16));

const PCP_SHIFT: u32 = 13;
const PCP: u16 = 7 << PCP_SHIFT;
pub(super) const VLAN: [Group; 2] = [
    Group {
        name: "vlan",
        fields: &[
            field!("vid", Style::Decimal, 12, |k| tci_bits(k.vlan_tci, 0, VLAN_VID_MASK), |k, v| {
                set_tci_bits(&mut k.vlan_tci, 0, VLAN_VID_MASK, v)
            }),
            field!("pcp", Style::Decimal, 3, |k| tci_bits(k.vlan_tci, PCP_SHIFT, PCP), |k, v| {
                set_tci_bits(&mut k.vlan_tci, PCP_SHIFT, PCP, v)
            }),
        ],
    },
    Group {
        name: "vlan",
        fields: &[
            field!("vid", Style::Decimal, 12, |k| tci_bits(k.inner_tci, 0, VLAN_VID_MASK), |k, v| {
                set_tci_bits(&mut k.inner_tci, 0, VLAN_VID_MASK, v)
            }),
            field!("pcp", Style::Decimal, 3, |k| tci_bits(k.inner_tci, PCP_SHIFT, PCP), |k, v| {
                set_tci_bits(&mut k.inner_tci, PCP_SHIFT, PCP, v)
            }),
        ],
    },
];

/// Whether tag `i` (0 is the outermost) is there, or is matched on.
pub(super) fn has_tag(k: &FlowKey, i: usize) -> bool {
    let tci = if i == 0 { k.vlan_tci } else { k.inner_tci };
    u16::from_be(tci) & VLAN_PRESENT != 0
}

pub(super) fn set_tag_bits(k: &mut FlowKey, i: usize, bits: u16) {
    let tci = if i == 0 { &mut k.vlan_tci } else { &mut k.inner_tci };
    *tci |= bits.to_be();
}

/// TPID of tag `i` as the key holds it: be16, 0 for 0x8100.
pub(super) fn tpid(k: &FlowKey, i: usize) -> u16 {
    if i == 0 { k.vlan_tpid } else { k.inner_tpid }
}

pub(super) fn tpid_mut(k: &mut FlowKey, i: usize) -> &mut u16 {
    if i == 0 { &mut k.vlan_tpid } else { &mut k.inner_tpid }
}

const FRAGMENT: Field = field!("frag", Style::Fragment, 2, |k| k.flags_host() >> 12 & 3, |k, v| k.flags =
    (k.flags_host() & !0x3000 | (v as u16 & 3) << 12).to_be());

pub(super) const IPV4: Group = Group {
    name: "ipv4",
    fields: &[
        field!(wire "src", Style::Ipv4, 32, addr[0]: u32),
        field!(wire "dst", Style::Ipv4, 32, addr[1]: u32),
        field!(host "proto", Style::Decimal, 8, ip_proto: u8),
        field!(host "tos", Style::Hex, 8, ip_tos: u8),
        field!(host "ttl", Style::Decimal, 8, ip_ttl: u8),
        FRAGMENT,
    ],
};
pub(super) const IPV6: Group = Group {
    name: "ipv6",
    fields: &[
        field!("src", Style::Ipv6, 128, |k| ipv6(&k.addr[..4]), |k, v| set_ipv6(&mut k.addr[..4], v)),
        field!("dst", Style::Ipv6, 128, |k| ipv6(&k.addr[4..]), |k, v| set_ipv6(&mut k.addr[4..], v)),
        field!("label", Style::Hex, 20, |k| u32::from_be(k.ipv6_label) & 0xf_ffff, |k, v| k.ipv6_label =
            (v as u32).to_be()),
        field!(host "proto", Style::Decimal, 8, ip_proto: u8),
        field!(host "tclass", Style::Hex, 8, ip_tos: u8),
        field!(host "hlimit", Style::Decimal, 8, ip_ttl: u8),
        FRAGMENT,
    ],
};
pub(super) const ARP: Group = Group {
    name: "arp",
    fields: &[
        field!(wire "sip", Style::Ipv4, 32, addr[0]: u32),
        field!(wire "tip", Style::Ipv4, 32, addr[1]: u32),
        field!(host "op", Style::Decimal, 8, ip_proto: u8),
        field!(mac "sha", arp_sha),
        field!(mac "tha", arp_tha),
    ],
};
const PORTS: &[Field] = &[
    field!(wire "src", Style::Decimal, 16, tp_src: u16),
    field!(wire "dst", Style::Decimal, 16, tp_dst: u16),
];
pub(super) const TCP: Group = Group { name: "tcp", fields: PORTS };
pub(super) const UDP: Group = Group { name: "udp", fields: PORTS };
pub(super) const SCTP: Group = Group { name: "sctp", fields: PORTS };
pub(super) const TCP_FLAGS_GROUP: Group = single!(
    "tcp_flags",
    field!("", Style::Bits(TCP_FLAGS), 12, |k| k.tcp_flags(), |k, v| k.flags =
        (k.flags_host() & !0xfff | v as u16 & 0xfff).to_be())
);
const TYPE_AND_CODE: &[Field] = &[
    field!("type", Style::Decimal, 8, |k| u16::from_be(k.tp_src) & 0xff, |k, v| k.tp_src =
        (v as u16).to_be()),
    field!("code", Style::Decimal, 8, |k| u16::from_be(k.tp_dst) & 0xff, |k, v| k.tp_dst =
        (v as u16).to_be()),
];
pub(super) const ICMP: Group = Group { name: "icmp", fields: TYPE_AND_CODE };
pub(super) const ICMPV6: Group = Group { name: "icmpv6", fields: TYPE_AND_CODE };
pub(super) const ND: Group = Group {
    name: "nd",
    fields: &[
        field!("target", Style::Ipv6, 128, |k| ipv6(&k.nd_target), |k, v| set_ipv6(&mut k.nd_target, v)),
        field!(mac "sll", arp_sha),
        field!(mac "tll", arp_tha),
    ],
};
pub(super) const ND_EXT: Group = Group {
    name: "nd_ext",
    fields: &[
        field!(wire "nd_reserved", Style::Hex, 32, nd_reserved: u32),
        field!(host "nd_options_type", Style::Decimal, 8, nd_options_type: u8),
    ],
};

macro_rules! label_entry {
    ($i:literal) => {
        [
            label_entry!("label", 20, $i, 12),
            label_entry!("tc", 3, $i, 9),
            label_entry!("ttl", 8, $i, 0),
            label_entry!("bos", 1, $i, 8),
        ]
    };
    ($name:literal, $width:literal, $i:literal, $shift:literal) => {
        field!(
            $name,
            Style::Decimal,
            $width,
            |k| u32::from_be(k.mpls_lse[$i]) >> $shift & ((1 << $width) - 1),
            |k, v| {
                let bits: u32 = ((1 << $width) - 1) << $shift;
                let entry = u32::from_be(k.mpls_lse[$i]);
                k.mpls_lse[$i] = (entry & !bits | (v as u32) << $shift & bits).to_be();
            }
        )
    };
}

/// The parts of each label stack entry (RFC 3032, section 2.1), outermost first.
pub(super) const MPLS: [[Field; 4]; 3] = [label_entry!(0), label_entry!(1), label_entry!(2)];

pub(super) const NSH: Group = Group {
    name: "nsh",
    fields: &[
        field!(host "flags", Style::Decimal, 8, nsh_flags: u8),
        field!(host "ttl", Style::Decimal, 8, nsh_ttl: u8),
        field!(host "mdtype", Style::Decimal, 8, nsh_mdtype: u8),
        field!(host "np", Style::Decimal, 8, nsh_np: u8),
        field!("spi", Style::Hex, 24, |k| u32::from_be(k.nsh_path) >> 8, |k, v| k.nsh_path =
            (u32::from_be(k.nsh_path) & 0xff | (v as u32) << 8).to_be()),
        field!("si", Style::Decimal, 8, |k| u32::from_be(k.nsh_path) & 0xff, |k, v| k.nsh_path =
            (u32::from_be(k.nsh_path) & !0xff | v as u32 & 0xff).to_be()),
        field!(wire "c1", Style::Hex, 32, nsh_context[0]: u32),
        field!(wire "c2", Style::Hex, 32, nsh_context[1]: u32),
        field!(wire "c3", Style::Hex, 32, nsh_context[2]: u32),
        field!(wire "c4", Style::Hex, 32, nsh_context[3]: u32),
    ],
};

/// The groups of a packet's headers behind its tags, in their order, as EtherType (host order), protocol and
/// ICMPv6 type say; MPLS is not among them.
pub(super) fn header_groups(key: &FlowKey) -> Vec<&'static Group> {
    let mut out = Vec::with_capacity(4);
    let et = u16::from_be(key.eth_type);
    match et {
        0x0800 => out.push(&IPV4),
        0x86dd => out.push(&IPV6),
        0x0806 | 0x8035 => out.push(&ARP),
        0x894f => out.push(&NSH),
        _ => {}
    }
    if matches!(et, 0x0800 | 0x86dd) {
        match key.ip_proto {
            6 => out.extend([&TCP, &TCP_FLAGS_GROUP]),
            17 => out.push(&UDP),
            132 => out.push(&SCTP),
            1 => out.push(&ICMP),
            58 if et == 0x86dd => {
                out.push(&ICMPV6);
                if matches!(u16::from_be(key.tp_src), 135 | 136) {
                    out.extend([&ND, &ND_EXT]);
                }
            }
            _ => {}
        }
    }
    out
}

pub(super) fn is_mpls(key: &FlowKey) -> bool {
    matches!(u16::from_be(key.eth_type), 0x8847 | 0x8848)
}
