//! The actions of a datapath flow.

use switch_common::counter::Drop;
use switch_common::key::{FlowKey, FlowMask};

/// A port of the datapath, the same in all bridges; 0 is no port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DpPort(pub u16);

/// Which header a [`Set`] changes: one OVS datapath action each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Layer {
    Ethernet,
    /// The outermost tag's id and priority.
    Vlan,
    Ipv4,
    Ipv6,
    Arp,
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
    Nd,
    Mpls,
    Priority,
    Mark,
}

/// A masked set: the bits of `mask` in this layer's fields become those of `value`. All other bits of both are
/// zero.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Set {
    pub layer: Layer,
    pub value: Box<FlowKey>,
    pub mask: Box<FlowMask>,
}

/// One action. A list without an output drops the packet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DpAction {
    Output(DpPort),
    /// Host order; `tci` without the present bit.
    PushVlan {
        tpid: u16,
        tci: u16,
    },
    PopVlan,
    Set(Set),
    /// The next output sends at most this many bytes.
    Truncate(u32),
    /// Sets `dp_hash`.
    Hash {
        basis: u32,
        symmetric: bool,
    },
    /// Look up again with this id (24 bits, not 0). The last of a list.
    Recirculate(u32),
    /// With probability `probability` / 2^32, the actions, on a copy of the packet.
    Sample {
        probability: u32,
        actions: Vec<DpAction>,
    },
    Meter(u32),
    /// A copy to userspace: `reason` is one of `switch_common::upcall::reason`.
    Userspace {
        reason: u8,
        cookie: u64,
    },
    /// Ends the list; the reason is counted.
    Drop(Drop),
}
