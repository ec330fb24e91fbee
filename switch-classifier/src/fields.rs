//! The one table of fields: where each lies in a [`Flow`], how it is read, in which stage it is looked at, and
//! how it is called.
//!
//! Fields have no prerequisites here: `nw_dst` is a place in the key, whatever the EtherType says (for an ARP
//! packet it holds the target protocol address). Prerequisites, names of protocols and the wire's numbering of
//! fields are OpenFlow's business.

use core::mem::offset_of;
use core::str::FromStr;

use thiserror::Error;

use crate::flow::{FLOW_WORDS, Flow};

/// How a field's bytes make a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The bytes of the wire, most significant first.
    Network,
    /// Least significant first on every machine.
    Little,
    Host,
}

impl Order {
    const fn most_significant_first(self) -> bool {
        match self {
            Order::Network => true,
            Order::Little => false,
            Order::Host => cfg!(target_endian = "big"),
        }
    }

    /// The number that the bytes, at most 16, are.
    pub(crate) fn read(self, bytes: &[u8]) -> u128 {
        let join = |v: u128, b: &u8| v << 8 | u128::from(*b);
        if self.most_significant_first() {
            bytes.iter().fold(0, join)
        } else {
            bytes.iter().rev().fold(0, join)
        }
    }

    /// Makes the bytes be this number.
    pub(crate) fn write(self, bytes: &mut [u8], value: u128) {
        let mut rest = value;
        let put = |b: &mut u8| {
            *b = rest as u8;
            rest >>= 8;
        };
        if self.most_significant_first() {
            bytes.iter_mut().rev().for_each(put);
        } else {
            bytes.iter_mut().for_each(put);
        }
    }
}

/// The stages of a look-up: a subtable that has no rule for the bits of one stage is left before those of the
/// next are looked at. Ordered by how many packets share a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Ports, tunnel, connection tracking and pipeline state; also whatever no field names.
    Metadata = 0,
    /// Ethernet, VLAN and MPLS.
    L2 = 1,
    /// IP and ARP.
    L3 = 2,
    /// Transport ports, TCP flags, ICMP and neighbour discovery.
    L4 = 3,
}

/// Number of stages.
pub const STAGES: usize = 4;

/// How a value is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Decimal,
    Hex,
    Mac,
    Ipv4,
    Ipv6,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    pub name: &'static str,
    /// First byte in the [`Flow`].
    pub offset: usize,
    /// Bytes that hold the field, at most 16.
    pub len: usize,
    /// Bits below it in the number that these bytes are.
    pub shift: u32,
    /// Bits of the field itself.
    pub width: u32,
    pub order: Order,
    pub stage: Stage,
    pub format: Format,
}

impl FieldInfo {
    /// A number of `width` ones.
    pub const fn ones(&self) -> u128 {
        u128::MAX >> (128 - self.width)
    }

    /// The field's mask whose first `len` bits, counted from the most significant, are set.
    pub const fn prefix_mask(&self, len: u32) -> u128 {
        if len >= self.width { self.ones() } else { self.ones() & !(self.ones() >> len) }
    }

    /// The length of the prefix that this mask of the field is; none if it is not one.
    pub const fn prefix_len(&self, mask: u128) -> Option<u32> {
        let len = mask.count_ones();
        if mask == self.prefix_mask(len) { Some(len) } else { None }
    }

    /// The field's bits in each word, as a mask.
    const fn place(&self, words: &mut [u64; FLOW_WORDS]) {
        let number = self.ones() << self.shift;
        let mut i = 0;
        while i < self.len {
            // Byte `i` in memory; which of the number's bytes that is depends on the order.
            let significance = if self.order.most_significant_first() { self.len - 1 - i } else { i };
            let byte = (number >> (8 * significance)) as u8;
            let at = self.offset + i;
            let mut memory = [0u8; 8];
            memory[at % 8] = byte;
            words[at / 8] |= u64::from_ne_bytes(memory);
            i += 1;
        }
    }
}

/// The size in bytes of a field of a struct, from a projection that is never run.
const fn size_of_projection<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! fields {
    ($($variant:ident $name:literal [$($place:tt)+] $(($shift:literal, $width:literal))? $order:ident $stage:ident $format:ident;)*) => {
        /// A field of a [`Flow`].
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        const TABLE: &[FieldInfo] = &[$({
            let (offset, len) = fields!(@place $($place)+);
            #[allow(unused_variables)]
            let (shift, width) = (0, 8 * len as u32);
            $(let (shift, width) = ($shift, $width);)?
            FieldInfo {
                name: $name,
                offset,
                len,
                shift,
                width,
                order: Order::$order,
                stage: Stage::$stage,
                format: Format::$format,
            }
        },)*];

        impl Field {
            /// Every field, in the order of the table.
            pub const ALL: &[Field] = &[$(Field::$variant),*];
        }
    };
    (@place key . $f:ident at $i:literal of $n:literal) => {
        (offset_of!(Flow, key.$f) + $i * $n, $n)
    };
    (@place key . $f:ident) => {
        (offset_of!(Flow, key.$f), size_of_projection(|s: &Flow| &s.key.$f))
    };
    (@place $f:ident at $i:literal of $n:literal) => {
        (offset_of!(Flow, $f) + $i * $n, $n)
    };
    (@place $f:ident) => {
        (offset_of!(Flow, $f), size_of_projection(|s: &Flow| &s.$f))
    };
}

// `[place at I of N]`: the bytes N * I to N * I + N - 1 of that place. `(S, W)`: the W bits above the S lowest.
fields! {
    // Pipeline state.
    InPort "in_port" [in_port] Host Metadata Decimal;
    Metadata "metadata" [metadata] Host Metadata Hex;
    Reg0 "reg0" [regs at 0 of 4] Host Metadata Hex;
    Reg1 "reg1" [regs at 1 of 4] Host Metadata Hex;
    Reg2 "reg2" [regs at 2 of 4] Host Metadata Hex;
    Reg3 "reg3" [regs at 3 of 4] Host Metadata Hex;
    Reg4 "reg4" [regs at 4 of 4] Host Metadata Hex;
    Reg5 "reg5" [regs at 5 of 4] Host Metadata Hex;
    Reg6 "reg6" [regs at 6 of 4] Host Metadata Hex;
    Reg7 "reg7" [regs at 7 of 4] Host Metadata Hex;
    Reg8 "reg8" [regs at 8 of 4] Host Metadata Hex;
    Reg9 "reg9" [regs at 9 of 4] Host Metadata Hex;
    Reg10 "reg10" [regs at 10 of 4] Host Metadata Hex;
    Reg11 "reg11" [regs at 11 of 4] Host Metadata Hex;
    Reg12 "reg12" [regs at 12 of 4] Host Metadata Hex;
    Reg13 "reg13" [regs at 13 of 4] Host Metadata Hex;
    Reg14 "reg14" [regs at 14 of 4] Host Metadata Hex;
    Reg15 "reg15" [regs at 15 of 4] Host Metadata Hex;
    ActsetOutput "actset_output" [actset_output] Host Metadata Decimal;
    ConjId "conj_id" [conj_id] Host Metadata Decimal;
    TunMetadataPresent "tun_metadata_present" [tun_metadata_present] Host Metadata Hex;
    // What came with the packet but not in it.
    DpPort "dp_port" [key.in_port] Host Metadata Decimal;
    RecircId "recirc_id" [key.recirc] Little Metadata Hex;
    KeyKind "key_kind" [key.flags] (14, 2) Network Metadata Decimal;
    PktMark "pkt_mark" [key.skb_mark] Host Metadata Hex;
    SkbPriority "skb_priority" [key.skb_priority] Host Metadata Hex;
    DpHash "dp_hash" [key.dp_hash] Host Metadata Hex;
    PacketType "packet_type" [key.packet_type] Network Metadata Hex;
    CtState "ct_state" [key.ct_state] Host Metadata Hex;
    CtZone "ct_zone" [key.ct_zone] Host Metadata Decimal;
    CtMark "ct_mark" [key.ct_mark] Host Metadata Hex;
    CtLabel "ct_label" [key.ct_label] Host Metadata Hex;
    CtNwProto "ct_nw_proto" [key.ct_nw_proto] Host Metadata Decimal;
    CtSrc "ct_src" [key.ct_src] Network Metadata Ipv6;
    CtDst "ct_dst" [key.ct_dst] Network Metadata Ipv6;
    CtTpSrc "ct_tp_src" [key.ct_tp_src] Network Metadata Decimal;
    CtTpDst "ct_tp_dst" [key.ct_tp_dst] Network Metadata Decimal;
    TunId "tun_id" [key.tun_id] Network Metadata Hex;
    TunSrc "tun_src" [key.tun_src] Network Metadata Ipv6;
    TunDst "tun_dst" [key.tun_dst] Network Metadata Ipv6;
    TunTos "tun_tos" [key.tun_tos] Host Metadata Hex;
    TunTtl "tun_ttl" [key.tun_ttl] Host Metadata Decimal;
    TunFlags "tun_flags" [key.tun_flags] Network Metadata Hex;
    TunTpSrc "tun_tp_src" [key.tun_tp_src] Network Metadata Decimal;
    TunTpDst "tun_tp_dst" [key.tun_tp_dst] Network Metadata Decimal;
    TunGbpId "tun_gbp_id" [key.gbp_id] Network Metadata Decimal;
    TunGbpFlags "tun_gbp_flags" [key.gbp_flags] Host Metadata Hex;
    TunErspanVer "tun_erspan_ver" [key.erspan_ver] Host Metadata Decimal;
    TunErspanDir "tun_erspan_dir" [key.erspan_dir] Host Metadata Decimal;
    TunErspanHwid "tun_erspan_hwid" [key.erspan_hwid] Host Metadata Hex;
    TunGtpuFlags "tun_gtpu_flags" [key.gtpu_flags] Host Metadata Hex;
    TunGtpuMsgtype "tun_gtpu_msgtype" [key.gtpu_msgtype] Host Metadata Decimal;
    TunOpts "tun_opts" [key.tun_opts] Host Metadata Hex;
    NshFlags "nsh_flags" [key.nsh_flags] Host Metadata Hex;
    NshTtl "nsh_ttl" [key.nsh_ttl] Host Metadata Decimal;
    NshMdtype "nsh_mdtype" [key.nsh_mdtype] Host Metadata Decimal;
    NshNp "nsh_np" [key.nsh_np] Host Metadata Decimal;
    NshPath "nsh_path" [key.nsh_path] Network Metadata Hex;
    NshContext0 "nsh_c1" [key.nsh_context at 0 of 4] Network Metadata Hex;
    NshContext1 "nsh_c2" [key.nsh_context at 1 of 4] Network Metadata Hex;
    NshContext2 "nsh_c3" [key.nsh_context at 2 of 4] Network Metadata Hex;
    NshContext3 "nsh_c4" [key.nsh_context at 3 of 4] Network Metadata Hex;
    // Layer 2.
    EthDst "eth_dst" [key.eth_dst] Network L2 Mac;
    EthSrc "eth_src" [key.eth_src] Network L2 Mac;
    EthType "eth_type" [key.eth_type] Network L2 Hex;
    VlanTci "vlan_tci" [key.vlan_tci] Network L2 Hex;
    InnerTci "vlan_tci1" [key.inner_tci] Network L2 Hex;
    VlanTpid "vlan_tpid" [key.vlan_tpid] Network L2 Hex;
    InnerTpid "vlan_tpid1" [key.inner_tpid] Network L2 Hex;
    MplsLse0 "mpls_lse" [key.mpls_lse at 0 of 4] Network L2 Hex;
    MplsLse1 "mpls_lse1" [key.mpls_lse at 1 of 4] Network L2 Hex;
    MplsLse2 "mpls_lse2" [key.mpls_lse at 2 of 4] Network L2 Hex;
    // Layer 3.
    NwProto "nw_proto" [key.ip_proto] Host L3 Decimal;
    NwTos "nw_tos" [key.ip_tos] Host L3 Hex;
    NwTtl "nw_ttl" [key.ip_ttl] Host L3 Decimal;
    IpFrag "ip_frag" [key.flags] (12, 2) Network L3 Hex;
    NwSrc "nw_src" [key.addr at 0 of 4] Network L3 Ipv4;
    NwDst "nw_dst" [key.addr at 1 of 4] Network L3 Ipv4;
    Ipv6Src "ipv6_src" [key.addr at 0 of 16] Network L3 Ipv6;
    Ipv6Dst "ipv6_dst" [key.addr at 1 of 16] Network L3 Ipv6;
    Ipv6Label "ipv6_label" [key.ipv6_label] Network L3 Hex;
    ArpSha "arp_sha" [key.arp_sha] Network L3 Mac;
    ArpTha "arp_tha" [key.arp_tha] Network L3 Mac;
    // Layer 4.
    TpSrc "tp_src" [key.tp_src] Network L4 Decimal;
    TpDst "tp_dst" [key.tp_dst] Network L4 Decimal;
    TcpFlags "tcp_flags" [key.flags] (0, 12) Network L4 Hex;
    NdTarget "nd_target" [key.nd_target] Network L4 Ipv6;
    NdReserved "nd_reserved" [key.nd_reserved] Network L4 Hex;
    NdOptionsType "nd_options_type" [key.nd_options_type] Host L4 Decimal;
}

/// Where the address words hold an IPv6 packet's addresses, and not those of IPv4 or ARP.
pub(crate) const ETH_TYPE_IPV6: u128 = 0x86dd;

impl Field {
    #[inline]
    pub fn info(self) -> &'static FieldInfo {
        &TABLE[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// Register `n`, of 16.
    pub fn reg(n: usize) -> Option<Field> {
        let first = Field::Reg0 as usize;
        if n < 16 { Field::ALL.get(first + n).copied() } else { None }
    }

    /// Whether the field says what the bits at its place are, in packets of this EtherType (host order): the
    /// IPv4 and ARP addresses share theirs with the IPv6 ones.
    pub fn fits(self, eth_type: u128) -> bool {
        match self {
            Field::Ipv6Src | Field::Ipv6Dst => eth_type == ETH_TYPE_IPV6,
            Field::NwSrc | Field::NwDst => eth_type != ETH_TYPE_IPV6,
            _ => true,
        }
    }
}

/// No field has this name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("there is no match field named '{0}'")]
pub struct UnknownField(pub String);

impl FromStr for Field {
    type Err = UnknownField;

    fn from_str(name: &str) -> Result<Field, UnknownField> {
        Field::ALL.iter().copied().find(|f| f.name() == name).ok_or_else(|| UnknownField(name.to_owned()))
    }
}

/// The bits of each word that a stage looks at. The four masks of a word are disjoint and make up all of it:
/// what no field names belongs to the first.
pub static STAGE_BITS: [[u64; FLOW_WORDS]; STAGES] = stage_bits();

const fn stage_bits() -> [[u64; FLOW_WORDS]; STAGES] {
    let mut stages = [[0; FLOW_WORDS]; STAGES];
    let mut i = 0;
    while i < TABLE.len() {
        let stage = TABLE[i].stage as usize;
        if stage > 0 {
            TABLE[i].place(&mut stages[stage]);
        }
        i += 1;
    }
    let mut w = 0;
    while w < FLOW_WORDS {
        stages[0][w] = !(stages[1][w] | stages[2][w] | stages[3][w]);
        w += 1;
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(field: Field) -> [u64; FLOW_WORDS] {
        let mut words = [0; FLOW_WORDS];
        field.info().place(&mut words);
        words
    }

    #[test]
    fn places_are_what_get_and_set_use() {
        for &f in Field::ALL {
            let mut flow = Flow::ZERO;
            flow.set(f, u128::MAX);
            assert_eq!(*flow.words(), place(f), "{}", f.name());
            assert_eq!(flow.get(f), f.info().ones());
            let odd = 0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978 & f.info().ones();
            flow.set(f, odd);
            assert_eq!(flow.get(f), odd, "{}", f.name());
            assert_eq!(f.name().parse(), Ok(f));
        }
        assert!("bogus".parse::<Field>().is_err());
        assert_eq!(Field::reg(15), Some(Field::Reg15));
        assert_eq!(Field::reg(16), None);
    }

    #[test]
    fn fields_are_disjoint_and_complete() {
        let mut seen = [0u64; FLOW_WORDS];
        for &f in Field::ALL {
            if matches!(f, Field::NwSrc | Field::NwDst) {
                continue;
            }
            for (s, p) in seen.iter_mut().zip(place(f)) {
                assert_eq!(*s & p, 0, "{}", f.name());
                *s |= p;
            }
        }
        let mut pads = Flow::ZERO;
        pads.pad_46 = !0;
        pads.key.pad_16 = !0;
        pads.key.pad_17 = !0;
        pads.key.pad_31 = [!0; 3];
        pads.tun_metadata = [!0; 32];
        for (w, (s, p)) in seen.iter().zip(pads.words()).enumerate() {
            assert_eq!(s ^ p, !0, "word {w}");
        }
    }

    #[test]
    fn stages_partition_every_word() {
        for w in 0..FLOW_WORDS {
            let masks: Vec<u64> = STAGE_BITS.iter().map(|s| s[w]).collect();
            assert_eq!(masks.iter().fold(0, |a, m| a | m), !0);
            assert_eq!(masks.iter().map(|m| m.count_ones()).sum::<u32>(), 64);
        }
        for &f in Field::ALL {
            let stage = &STAGE_BITS[f.info().stage as usize];
            assert!(place(f).iter().zip(stage).all(|(p, s)| p & !s == 0), "{}", f.name());
        }
    }
}
