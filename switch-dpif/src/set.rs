//! Which fields each layer's set action changes, and how sets are made.

use switch_common::key::{FlowKey, FlowMask, VLAN_PCP_MASK, VLAN_VID_MASK};

use crate::action::{DpAction, DpPort, Layer, Set};

impl Layer {
    pub const ALL: [Layer; 14] = [
        Layer::Ethernet,
        Layer::Vlan,
        Layer::Ipv4,
        Layer::Ipv6,
        Layer::Arp,
        Layer::Tcp,
        Layer::Udp,
        Layer::Sctp,
        Layer::Icmp,
        Layer::Icmpv6,
        Layer::Nd,
        Layer::Mpls,
        Layer::Priority,
        Layer::Mark,
    ];

    /// The bits of a key that a set of this layer can change.
    pub const fn fields(self) -> FlowMask {
        let mut k = FlowKey::ZERO;
        match self {
            Layer::Ethernet => {
                k.eth_dst = [0xff; 6];
                k.eth_src = [0xff; 6];
            }
            Layer::Vlan => k.vlan_tci = (VLAN_VID_MASK | VLAN_PCP_MASK).to_be(),
            Layer::Ipv4 => {
                k.addr[0] = !0;
                k.addr[1] = !0;
                k.ip_tos = 0xff;
                k.ip_ttl = 0xff;
            }
            Layer::Ipv6 => {
                k.addr = [!0; 8];
                k.ipv6_label = 0xf_ffffu32.to_be();
                k.ip_tos = 0xff;
                k.ip_ttl = 0xff;
            }
            Layer::Arp => {
                k.addr[0] = !0;
                k.addr[1] = !0;
                k.ip_proto = 0xff;
                k.arp_sha = [0xff; 6];
                k.arp_tha = [0xff; 6];
            }
            Layer::Tcp | Layer::Udp | Layer::Sctp => {
                k.tp_src = !0;
                k.tp_dst = !0;
            }
            Layer::Icmp | Layer::Icmpv6 => {
                k.tp_src = 0xffu16.to_be();
                k.tp_dst = 0xffu16.to_be();
            }
            Layer::Nd => {
                k.nd_target = [!0; 4];
                k.arp_sha = [0xff; 6];
                k.arp_tha = [0xff; 6];
            }
            Layer::Mpls => k.mpls_lse[0] = !0,
            Layer::Priority => k.skb_priority = !0,
            Layer::Mark => k.skb_mark = !0,
        }
        FlowMask(k)
    }
}

impl Set {
    /// A set of what `mask` has in the layer's fields; all other bits are left out, as [`Set`] promises.
    pub fn new(layer: Layer, value: &FlowKey, mask: &FlowMask) -> Set {
        let mut m = layer.fields();
        for (m, given) in m.words_mut().iter_mut().zip(mask.words()) {
            *m &= given;
        }
        Set { layer, value: Box::new(value.masked(&m)), mask: Box::new(m) }
    }

    /// The set of this layer that turns a packet with key `from` into one with key `to`; `None` if the layer's
    /// fields agree.
    pub fn difference(layer: Layer, from: &FlowKey, to: &FlowKey) -> Option<Set> {
        let fields = layer.fields();
        let mut mask = FlowMask::EMPTY;
        let words = from.words().iter().zip(to.words()).zip(fields.words());
        for (m, ((a, b), f)) in mask.words_mut().iter_mut().zip(words) {
            *m = (a ^ b) & f;
        }
        (mask != FlowMask::EMPTY).then(|| Set::new(layer, to, &mask))
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        *self.mask == FlowMask::EMPTY
    }

    /// Sets the destination address, source address or both.
    pub fn ethernet(src: Option<[u8; 6]>, dst: Option<[u8; 6]>) -> Set {
        let (mut value, mut mask) = (FlowKey::ZERO, FlowMask::EMPTY);
        if let Some(a) = src {
            value.eth_src = a;
            mask.0.eth_src = [0xff; 6];
        }
        if let Some(a) = dst {
            value.eth_dst = a;
            mask.0.eth_dst = [0xff; 6];
        }
        Set::new(Layer::Ethernet, &value, &mask)
    }

    /// Sets id and priority of the outermost tag to those of `tci` (host order).
    pub fn vlan(tci: u16) -> Set {
        let mut value = FlowKey::ZERO;
        value.vlan_tci = tci.to_be();
        Set::new(Layer::Vlan, &value, &FlowMask::EXACT)
    }

    /// Sets the packet's mark.
    pub fn mark(mark: u32) -> Set {
        let value = FlowKey { skb_mark: mark, ..FlowKey::ZERO };
        Set::new(Layer::Mark, &value, &FlowMask::EXACT)
    }

    /// Sets the packet's priority.
    pub fn priority(priority: u32) -> Set {
        let value = FlowKey { skb_priority: priority, ..FlowKey::ZERO };
        Set::new(Layer::Priority, &value, &FlowMask::EXACT)
    }
}

impl DpAction {
    pub const fn output(port: u16) -> DpAction {
        DpAction::Output(DpPort(port))
    }

    /// Pushes an 802.1Q tag; `tci` in host order.
    pub const fn push_vlan(tci: u16) -> DpAction {
        DpAction::PushVlan { tpid: 0x8100, tci }
    }
}
