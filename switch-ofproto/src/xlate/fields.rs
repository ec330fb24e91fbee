//! Which packets have which field, seen packet by packet: what says so becomes part of the mask.

use switch_classifier::Field;
use switch_common::key::{FLAGS_FRAG_LATER, FlowKey, VLAN_PRESENT};

use super::context::Context;

pub(super) const ETH_IPV4: u16 = 0x0800;
pub(super) const ETH_ARP: u16 = 0x0806;
pub(super) const ETH_IPV6: u16 = 0x86dd;
pub(super) const ETH_MPLS: u16 = 0x8847;
pub(super) const ETH_MPLS_MCAST: u16 = 0x8848;

/// A neighbour discovery message (RFC 4861, sections 4.3 and 4.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NdMessage {
    Solicitation,
    Advertisement,
}

/// Which neighbour discovery message a packet is; of an IPv6 packet that is no later fragment.
pub(super) fn neighbour_discovery(key: &FlowKey) -> Option<NdMessage> {
    if u16::from_be(key.eth_type) != ETH_IPV6 || key.ip_proto != 58 || key.tp_dst != 0 {
        return None;
    }
    match u16::from_be(key.tp_src) {
        135 => Some(NdMessage::Solicitation),
        136 => Some(NdMessage::Advertisement),
        _ => None,
    }
}

impl Context<'_> {
    /// Sets bits of a field, if the packet has it.
    pub fn set_field(&mut self, field: Field, value: u128, mask: u128) {
        if self.has_field(field) {
            self.decided.set_bits(field, mask);
            let old = self.flow.get(field);
            self.flow.set(field, old & !mask | value & mask);
            if field == Field::VlanTci {
                // Presence is not an action's to change.
                self.flow.key.vlan_tci |= VLAN_PRESENT.to_be();
            }
        }
    }

    fn has_field(&mut self, field: Field) -> bool {
        let eth_type = u16::from_be(self.flow.key.eth_type);
        let is_ip = matches!(eth_type, ETH_IPV4 | ETH_IPV6);
        match field {
            Field::VlanTci => {
                self.read_tag(0, VLAN_PRESENT);
                !self.tags().is_empty()
            }
            Field::NwSrc | Field::NwDst => matches!(eth_type, ETH_IPV4 | ETH_ARP),
            Field::Ipv6Src | Field::Ipv6Dst | Field::Ipv6Label => eth_type == ETH_IPV6,
            Field::NwTos | Field::NwTtl => is_ip,
            Field::NwProto => eth_type == ETH_ARP,
            Field::MplsLse0 => matches!(eth_type, ETH_MPLS | ETH_MPLS_MCAST),
            Field::TpSrc | Field::TpDst => {
                is_ip
                    && self.read_bits(Field::IpFrag, later_fragment()) == 0
                    && match self.read(Field::NwProto) {
                        6 | 17 | 132 => true,
                        1 => eth_type == ETH_IPV4,
                        58 => eth_type == ETH_IPV6,
                        _ => false,
                    }
            }
            Field::ArpSha if eth_type == ETH_ARP => true,
            Field::ArpTha if eth_type == ETH_ARP => true,
            Field::ArpSha => self.nd_message() == Some(NdMessage::Solicitation),
            Field::ArpTha => self.nd_message() == Some(NdMessage::Advertisement),
            Field::NdTarget => self.nd_message().is_some(),
            _ => true,
        }
    }

    fn nd_message(&mut self) -> Option<NdMessage> {
        if u16::from_be(self.flow.key.eth_type) != ETH_IPV6
            || self.read(Field::NwProto) != 58
            || self.read_bits(Field::IpFrag, later_fragment()) != 0
        {
            return None;
        }
        self.read(Field::TpSrc);
        self.read(Field::TpDst);
        neighbour_discovery(&self.flow.key)
    }
}

/// The bit of `ip_frag` that says that a packet has no layer-4 header.
fn later_fragment() -> u128 {
    u128::from(FLAGS_FRAG_LATER >> 12)
}
