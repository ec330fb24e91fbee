//! A match: the packets that a rule applies to.
//!
//! A [`Match`] is a flow and a mask of the bits in it that must be equal. It is always minimised: a bit outside
//! the mask is zero in the flow, so that equal matches are equal structs. The builder's methods each say what
//! must hold for one field, replacing what was said of it before; they set no prerequisites (an IPv4 match names
//! its EtherType itself).

use core::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use switch_common::key::{VLAN_PRESENT, VLAN_VID_MASK};

use crate::fields::{Field, Format};
use crate::flow::{Flow, FlowWildcards};

/// A flow and which of its bits must be equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Match {
    flow: Flow,
    mask: FlowWildcards,
}

impl Match {
    /// Matches every packet.
    pub const ANY: Match = Match { flow: Flow::ZERO, mask: FlowWildcards::EMPTY };

    /// Matches the packets that agree with `flow` in every bit of `mask`.
    pub fn new(flow: &Flow, mask: &FlowWildcards) -> Match {
        Match { flow: flow.masked(mask), mask: *mask }
    }

    /// Matches this packet alone.
    pub fn exact(flow: &Flow) -> Match {
        Match { flow: *flow, mask: FlowWildcards::EXACT }
    }

    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    pub fn mask(&self) -> &FlowWildcards {
        &self.mask
    }

    /// Whether the packet is one of those.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.agrees(flow, &self.mask)
    }

    /// Whether every packet that `other` matches is matched by this too; so for equal matches.
    pub fn is_at_least_as_general_as(&self, other: &Match) -> bool {
        other.mask.contains(&self.mask) && self.agrees(&other.flow, &self.mask)
    }

    /// Whether there is a packet that both match (the test of OpenFlow 1.5.1, section 6.4, `CHECK_OVERLAP`).
    pub fn overlaps(&self, other: &Match) -> bool {
        let words = self.flow.words().iter().zip(self.mask.words());
        let others = other.flow.words().iter().zip(other.mask.words());
        words.zip(others).all(|((a, m), (b, n))| (a ^ b) & m & n == 0)
    }

    fn agrees(&self, flow: &Flow, mask: &FlowWildcards) -> bool {
        self.flow.words().iter().zip(flow.words()).zip(mask.words()).all(|((a, b), m)| (a ^ b) & m == 0)
    }

    /// The field must have this value (host order).
    #[must_use]
    pub fn with(self, field: Field, value: u128) -> Match {
        self.with_masked(field, value, u128::MAX)
    }

    /// The field must agree with `value` in the bits of `mask` (both host order), of which those past the
    /// field's width do not count.
    #[must_use]
    pub fn with_masked(mut self, field: Field, value: u128, mask: u128) -> Match {
        self.flow.set(field, value & mask);
        self.mask.0.set(field, mask);
        self
    }

    /// The field must begin with the first `len` bits of `value`.
    #[must_use]
    pub fn with_prefix(self, field: Field, value: u128, len: u32) -> Match {
        self.with_masked(field, value, field.info().prefix_mask(len))
    }

    /// Came in on this OpenFlow port.
    #[must_use]
    pub fn in_port(self, port: u32) -> Match {
        self.with(Field::InPort, port.into())
    }

    #[must_use]
    pub fn metadata(self, value: u64, mask: u64) -> Match {
        self.with_masked(Field::Metadata, value.into(), mask.into())
    }

    #[must_use]
    pub fn eth_src(self, address: [u8; 6]) -> Match {
        self.with(Field::EthSrc, mac(address))
    }

    #[must_use]
    pub fn eth_dst(self, address: [u8; 6]) -> Match {
        self.with(Field::EthDst, mac(address))
    }

    /// `mask` has a bit set where the address must agree.
    #[must_use]
    pub fn eth_dst_masked(self, address: [u8; 6], mask: [u8; 6]) -> Match {
        self.with_masked(Field::EthDst, mac(address), mac(mask))
    }

    #[must_use]
    pub fn eth_type(self, eth_type: u16) -> Match {
        self.with(Field::EthType, eth_type.into())
    }

    /// The outermost tag has this VLAN id (12 bits).
    #[must_use]
    pub fn vlan_vid(self, vid: u16) -> Match {
        self.with_masked(
            Field::VlanTci,
            (vid & VLAN_VID_MASK | VLAN_PRESENT).into(),
            (VLAN_VID_MASK | VLAN_PRESENT).into(),
        )
    }

    /// Has a tag, whatever its id.
    #[must_use]
    pub fn tagged(self) -> Match {
        self.with_masked(Field::VlanTci, VLAN_PRESENT.into(), VLAN_PRESENT.into())
    }

    /// Has no tag.
    #[must_use]
    pub fn untagged(self) -> Match {
        self.with_masked(Field::VlanTci, 0, VLAN_PRESENT.into())
    }

    /// IPv4 source (ARP: sender) within `address/len`.
    #[must_use]
    pub fn nw_src(self, address: Ipv4Addr, len: u32) -> Match {
        self.with_prefix(Field::NwSrc, address.to_bits().into(), len)
    }

    /// IPv4 destination (ARP: target) within `address/len`.
    #[must_use]
    pub fn nw_dst(self, address: Ipv4Addr, len: u32) -> Match {
        self.with_prefix(Field::NwDst, address.to_bits().into(), len)
    }

    #[must_use]
    pub fn ipv6_src(self, address: Ipv6Addr, len: u32) -> Match {
        self.with_prefix(Field::Ipv6Src, address.to_bits(), len)
    }

    #[must_use]
    pub fn ipv6_dst(self, address: Ipv6Addr, len: u32) -> Match {
        self.with_prefix(Field::Ipv6Dst, address.to_bits(), len)
    }

    /// IP protocol or IPv6 next header; of an ARP packet, the opcode.
    #[must_use]
    pub fn nw_proto(self, proto: u8) -> Match {
        self.with(Field::NwProto, proto.into())
    }

    /// Source port of TCP, UDP or SCTP; ICMP type.
    #[must_use]
    pub fn tp_src(self, port: u16) -> Match {
        self.with(Field::TpSrc, port.into())
    }

    /// Destination port of TCP, UDP or SCTP; ICMP code.
    #[must_use]
    pub fn tp_dst(self, port: u16) -> Match {
        self.with(Field::TpDst, port.into())
    }
}

fn mac(address: [u8; 6]) -> u128 {
    address.iter().fold(0, |v, b| v << 8 | u128::from(*b))
}

/// `name=value` or `name=value/mask` for each field that has mask bits, with commas; `any` without one. Values of
/// tunnel options are left out: only their map could name them.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let eth_type = self.flow.get(Field::EthType);
        let mut separator = "";
        for &field in Field::ALL {
            let mask = self.mask.get(field);
            if mask == 0 || !field.fits(eth_type) {
                continue;
            }
            let info = field.info();
            write!(f, "{separator}{}=", info.name)?;
            separator = ",";
            print(f, info.format, self.flow.get(field))?;
            match info.prefix_len(mask) {
                Some(len) if len == info.width => {}
                Some(len) if matches!(info.format, Format::Ipv4 | Format::Ipv6) => write!(f, "/{len}")?,
                _ => {
                    f.write_str("/")?;
                    print(f, if info.format == Format::Decimal { Format::Hex } else { info.format }, mask)?;
                }
            }
        }
        if separator.is_empty() { f.write_str("any") } else { Ok(()) }
    }
}

fn print(f: &mut fmt::Formatter<'_>, format: Format, value: u128) -> fmt::Result {
    match format {
        Format::Decimal => write!(f, "{value}"),
        Format::Hex => write!(f, "{value:#x}"),
        Format::Ipv4 => write!(f, "{}", Ipv4Addr::from_bits(value as u32)),
        Format::Ipv6 => write!(f, "{}", Ipv6Addr::from_bits(value)),
        Format::Mac => {
            let b = (value as u64).to_be_bytes();
            write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[2], b[3], b[4], b[5], b[6], b[7])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 0);

    #[test]
    fn minimised_and_replaced() {
        let a = Match::ANY.nw_dst(Ipv4Addr::new(10, 1, 2, 3), 16);
        assert_eq!(a, Match::ANY.nw_dst(NET, 16));
        assert_eq!(a, Match::ANY.nw_dst(Ipv4Addr::BROADCAST, 32).nw_dst(NET, 16));
        let mut flow = Flow::ZERO;
        flow.set(Field::NwDst, 0x0a01_ffff);
        flow.set(Field::TpDst, 80);
        assert_eq!(Match::new(&flow, a.mask()), a);
        assert!(a.matches(&flow) && Match::exact(&flow).matches(&flow));
        flow.set(Field::NwDst, 0x0a02_ffff);
        assert!(!a.matches(&flow));
    }

    #[test]
    fn generality_and_overlap() {
        let ip = Match::ANY.eth_type(0x0800);
        let net = ip.nw_dst(NET, 16);
        let host = ip.nw_dst(Ipv4Addr::new(10, 1, 2, 3), 32);
        let port = ip.tp_dst(80);
        assert!(net.is_at_least_as_general_as(&host) && !host.is_at_least_as_general_as(&net));
        assert!(net.is_at_least_as_general_as(&net) && Match::ANY.is_at_least_as_general_as(&net));
        assert!(net.overlaps(&port) && port.overlaps(&net) && net.overlaps(&host));
        assert!(!net.is_at_least_as_general_as(&port));
        let other = ip.nw_dst(Ipv4Addr::new(10, 2, 0, 0), 16);
        assert!(!net.overlaps(&other) && !host.overlaps(&other) && other.overlaps(&port));
    }

    #[test]
    fn vlan_matches() {
        let mut flow = Flow::ZERO;
        assert!(Match::ANY.untagged().matches(&flow) && !Match::ANY.tagged().matches(&flow));
        flow.key.vlan_tci = 0x700au16.to_be();
        assert!(Match::ANY.vlan_vid(10).matches(&flow) && Match::ANY.tagged().matches(&flow));
        assert!(!Match::ANY.vlan_vid(11).matches(&flow) && !Match::ANY.untagged().matches(&flow));
    }

    #[test]
    fn printed() {
        assert_eq!(Match::ANY.to_string(), "any");
        let m = Match::ANY.in_port(1).eth_type(0x0800).nw_dst(NET, 16).with_masked(Field::TpDst, 80, 0xfff0);
        assert_eq!(m.to_string(), "in_port=1,eth_type=0x800,nw_dst=10.1.0.0/16,tp_dst=80/0xfff0");
        let m = Match::ANY.eth_dst_masked([1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]);
        assert_eq!(m.to_string(), "eth_dst=01:00:00:00:00:00/01:00:00:00:00:00");
        let m = Match::ANY.eth_type(0x86dd).ipv6_src("2001:db8::".parse().unwrap(), 32);
        assert_eq!(m.to_string(), "eth_type=0x86dd,ipv6_src=2001:db8::/32");
    }
}
