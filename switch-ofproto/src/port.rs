//! Ports of a bridge, and the bundles that they form.

use std::fmt;

use smallvec::SmallVec;
use switch_dpif::action::DpPort;

use crate::vlan::{PriorityTags, VlanMode};

/// An OpenFlow port number: 16 bits, as OpenFlow 1.0 has it; later versions' 32-bit reserved numbers are these
/// with 0xffff in front.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OfPort(pub u16);

impl OfPort {
    /// The largest number of a real port.
    pub const MAX: OfPort = OfPort(0xfeff);
    /// Output to nowhere yet (OpenFlow 1.5's action set).
    pub const UNSET: OfPort = OfPort(0xfff7);
    /// Back to where the packet came from.
    pub const IN_PORT: OfPort = OfPort(0xfff8);
    /// Through the tables, of a packet that a controller sends.
    pub const TABLE: OfPort = OfPort(0xfff9);
    /// As a switch without OpenFlow would do it.
    pub const NORMAL: OfPort = OfPort(0xfffa);
    /// All ports that are flooded to, but the input.
    pub const FLOOD: OfPort = OfPort(0xfffb);
    /// All ports but the input.
    pub const ALL: OfPort = OfPort(0xfffc);
    pub const CONTROLLER: OfPort = OfPort(0xfffd);
    /// The bridge's internal port.
    pub const LOCAL: OfPort = OfPort(0xfffe);
    pub const NONE: OfPort = OfPort(0xffff);

    const NAMES: [(OfPort, &str); 9] = [
        (OfPort::UNSET, "UNSET"),
        (OfPort::IN_PORT, "IN_PORT"),
        (OfPort::TABLE, "TABLE"),
        (OfPort::NORMAL, "NORMAL"),
        (OfPort::FLOOD, "FLOOD"),
        (OfPort::ALL, "ALL"),
        (OfPort::CONTROLLER, "CONTROLLER"),
        (OfPort::LOCAL, "LOCAL"),
        (OfPort::NONE, "ANY"),
    ];

    /// Whether a port of a bridge can have this number.
    pub fn is_real(self) -> bool {
        self == OfPort::LOCAL || (self.0 != 0 && self <= OfPort::MAX)
    }

    /// As a flow's 32-bit field holds it.
    pub fn number(self) -> u32 {
        self.0.into()
    }

    /// From a flow's field; numbers that no port has become [`OfPort::NONE`].
    pub fn from_number(n: u32) -> OfPort {
        u16::try_from(n).map_or(OfPort::NONE, OfPort)
    }
}

impl fmt::Display for OfPort {
    /// Reserved ports by name, as `ovs-ofctl` prints them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OfPort::NAMES.iter().find(|(port, _)| port == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What is behind a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortKind {
    /// A port of the datapath: a network device, an internal port, a tunnel.
    Datapath(DpPort),
    /// The end of a cable to another bridge; `peer` is the name of the port at its other end.
    Patch { peer: String },
}

/// One OpenFlow port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    pub number: OfPort,
    pub name: String,
    pub kind: PortKind,
    /// Administratively up and with link. What is down is not flooded to.
    pub up: bool,
    /// Flooded to at all (not `OFPPC_NO_FLOOD`).
    pub flood: bool,
    /// Output to at all (not `OFPPC_NO_FWD`).
    pub forward: bool,
    /// Packets from it are looked at (not `OFPPC_NO_RECV`).
    pub receive: bool,
}

impl Port {
    /// A port of the datapath with nothing forbidden, and up.
    pub fn datapath(number: OfPort, name: impl Into<String>, port: DpPort) -> Port {
        Port::new(number, name, PortKind::Datapath(port))
    }

    /// A patch port to the port of that name in another bridge.
    pub fn patch(number: OfPort, name: impl Into<String>, peer: impl Into<String>) -> Port {
        Port::new(number, name, PortKind::Patch { peer: peer.into() })
    }

    fn new(number: OfPort, name: impl Into<String>, kind: PortKind) -> Port {
        Port { number, name: name.into(), kind, up: true, flood: true, forward: true, receive: true }
    }
}

/// One logical port of the NORMAL switch, a `Port` row: one OpenFlow port, or the members of a bond.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bundle {
    pub name: String,
    pub vlan: VlanMode,
    pub priority_tags: PriorityTags,
    /// No NORMAL traffic between two protected ports.
    pub protected: bool,
    pub members: SmallVec<[OfPort; 1]>,
}

impl Bundle {
    /// A bundle without members yet.
    pub fn new(name: impl Into<String>, vlan: VlanMode) -> Bundle {
        Bundle {
            name: name.into(),
            vlan,
            priority_tags: PriorityTags::Never,
            protected: false,
            members: SmallVec::new(),
        }
    }

    /// The member that stands for the bundle in the MAC table.
    pub fn face(&self) -> Option<OfPort> {
        self.members.first().copied()
    }
}
