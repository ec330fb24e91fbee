//! The difference between the packet that the pipeline sees and the one in the datapath, as datapath actions.
//!
//! Sets change whole fields where the whole field is known, else only the bits that are: those that an action
//! wrote or somebody read. A field in which the two packets agree is not set, since the bits that say so are in
//! the mask.

use switch_classifier::Field::{self, *};
use switch_classifier::{Flow, FlowWildcards};
use switch_common::key::{FLAGS_FRAG_LATER, FlowMask, KEY_WORDS};
use switch_dpif::action::{DpAction, Layer, Set};

use super::context::Context;
use super::fields::{ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_MPLS, ETH_MPLS_MCAST, neighbour_discovery};

impl Context<'_> {
    /// Brings the datapath's packet into the pipeline's form.
    pub fn commit(&mut self) {
        if self.flow.key == self.base && self.flow_origins == self.base_origins {
            return;
        }
        self.commit_layer(Layer::Ethernet, &[EthSrc, EthDst]);
        let eth_type = u16::from_be(self.flow.key.eth_type);
        match eth_type {
            ETH_IPV4 => self.commit_layer(Layer::Ipv4, &[NwSrc, NwDst, NwTos, NwTtl]),
            ETH_IPV6 => self.commit_layer(Layer::Ipv6, &[Ipv6Src, Ipv6Dst, Ipv6Label, NwTos, NwTtl]),
            ETH_ARP => self.commit_layer(Layer::Arp, &[NwSrc, NwDst, NwProto, ArpSha, ArpTha]),
            ETH_MPLS | ETH_MPLS_MCAST => self.commit_layer(Layer::Mpls, &[MplsLse0]),
            _ => {}
        }
        if matches!(eth_type, ETH_IPV4 | ETH_IPV6) && self.flow.key.flags_host() & FLAGS_FRAG_LATER == 0 {
            let layer = match self.flow.key.ip_proto {
                6 => Some(Layer::Tcp),
                17 => Some(Layer::Udp),
                132 => Some(Layer::Sctp),
                1 if eth_type == ETH_IPV4 => Some(Layer::Icmp),
                58 if eth_type == ETH_IPV6 => Some(Layer::Icmpv6),
                _ => None,
            };
            // The datapath sees by type and code whether there is a neighbour discovery message to change, so it
            // must do that while, or once, it is one.
            let nd = |c: &mut Self| {
                if neighbour_discovery(&c.base).is_some() {
                    c.commit_layer(Layer::Nd, &[NdTarget, ArpSha, ArpTha]);
                }
            };
            nd(self);
            if let Some(layer) = layer {
                self.commit_layer(layer, &[TpSrc, TpDst]);
            }
            nd(self);
        }
        self.commit_tags();
        self.commit_layer(Layer::Priority, &[SkbPriority]);
        self.commit_layer(Layer::Mark, &[PktMark]);
    }

    fn commit_layer(&mut self, layer: Layer, fields: &[Field]) {
        let mut known = FlowWildcards::EMPTY;
        let mut base = Flow::new(self.base, 0);
        for &field in fields {
            let (to, from) = (self.flow.get(field), base.get(field));
            if to != from {
                self.decided.set_bits(field, to ^ from);
                known.set_bits(field, self.decided.get(field));
                base.set(field, to);
            }
        }
        let mask = FlowMask(known.0.key);
        if mask.words() != &[0; KEY_WORDS] {
            self.base = base.key;
            self.emit(DpAction::Set(Set::new(layer, &self.flow.key, &mask)));
        }
    }
}
