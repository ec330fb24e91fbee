//! Ports as the datapath programs see them.

/// Datapath ports, with 0 for "none": array maps indexed by port have this many entries.
pub const MAX_PORTS: u32 = 65536;

/// The port exists and is up.
pub const PORT_ACTIVE: u32 = 1;
/// A frame can be sent to it by an XDP redirect (it is in the device map).
pub const PORT_XDP_OUTPUT: u32 = 2;
/// Its misses may go up (off while it is being removed, or by configuration).
pub const PORT_UPCALLS: u32 = 4;

/// What an output to a port needs. Indexed by datapath port.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortEntry {
    pub ifindex: u32,
    /// `PORT_` bits.
    pub flags: u32,
    /// Bytes behind the Ethernet header (a VLAN tag does not count) that the device takes.
    pub mtu: u32,
    /// Queue of the upcall pair that its misses take.
    pub upcall_queue: u32,
}

/// Which port an interface is: an open-addressed table of [`IFINDEX_SLOTS`], from `ifindex % IFINDEX_SLOTS` on,
/// for [`IFINDEX_PROBES`] entries. Zeroed entries are free.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IfindexEntry {
    pub ifindex: u32,
    pub port: u16,
    pub pad: u16,
}

pub const IFINDEX_SLOTS: u32 = 65536;
pub const IFINDEX_PROBES: u32 = 4;

/// Per CPU and port, at `cpu * MAX_PORTS_COUNTED + port`; only written off the hit path.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Misses sent up.
    pub upcalls: u64,
    /// Misses dropped by the port's limit.
    pub limited: u64,
    /// Packets that came in here and were dropped in the datapath, for whatever reason but policy.
    pub dropped: u64,
    /// Packets that came in here and were dropped by policy (a flow without actions).
    pub policy_dropped: u64,
}
