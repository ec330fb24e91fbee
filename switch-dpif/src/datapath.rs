//! The trait that every datapath implements.
//!
//! A datapath holds ports and megaflows, and nothing else: it neither decides nor learns. All methods may be
//! called from any thread. Flows are immutable: [`Datapath::put_flow`] with a match that is already there
//! replaces the flow, and from its return on no packet takes the older one.

use switch_common::counter::{Counter, Drop};
use switch_common::flow::FlowStats;
use switch_common::key::{FlowKey, FlowMask};

use crate::action::{DpAction, DpPort};

/// Names one installed flow, never used again for another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// A flow as it is installed, for dumps. `used` of the statistics is in ms of [`Datapath::now_ms`]; 0 is never.
#[derive(Clone, Debug)]
pub struct FlowDump {
    pub id: FlowId,
    pub key: FlowKey,
    pub mask: FlowMask,
    pub actions: Vec<DpAction>,
    pub stats: FlowStats,
    /// The datapath cannot carry the actions out itself: it sends the packets up, and userspace does.
    pub slow_path: bool,
}

/// What became of a flow that was removed or replaced: its final statistics, read when no packet could count on
/// it any more.
#[derive(Clone, Copy, Debug)]
pub struct RemovedFlow {
    pub id: FlowId,
    pub stats: FlowStats,
}

/// Counters of one port, since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTotals {
    pub upcalls: u64,
    pub limited: u64,
    pub dropped: u64,
    pub policy_dropped: u64,
}

/// Why a datapath refused.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error("the flow table is full ({limit} flows): raise --max-flows")]
    FlowTableFull { limit: u32 },
    #[error("all {limit} masks of this kind of packet are in use")]
    MasksExhausted { limit: usize },
    #[error("no room for a list of {actions} actions")]
    ActionsFull { actions: usize },
    #[error("{0} actions are more than a flow can have")]
    TooManyActions(usize),
    #[error("no such datapath port: {0}")]
    NoPort(u16),
    #[error("datapath port {0} is taken")]
    PortTaken(u16),
    #[error("no such flow")]
    NoFlow,
    #[error("{what}: {source}")]
    Kernel { what: String, source: std::io::Error },
}

pub trait Datapath: Send + Sync {
    /// "ebpf" or "userspace".
    fn kind(&self) -> &'static str;

    /// Installs a megaflow. `key` need not be masked yet; `mask` must include [`FlowMask::floor`] and nothing
    /// past the key's kind. A flow with the same masked key and mask is replaced, without a gap in which
    /// packets would miss.
    fn put_flow(&self, key: &FlowKey, mask: &FlowMask, actions: &[DpAction])
    -> Result<FlowId, DatapathError>;

    /// Withdraws a flow: no packet that arrives later takes it. Its statistics come from [`Datapath::reap`].
    fn remove_flow(&self, id: FlowId) -> Result<(), DatapathError>;

    /// Frees what was withdrawn or replaced and can no longer be in use, and answers the final statistics.
    /// May wait for a grace period (milliseconds): not for the packet path.
    fn reap(&self) -> Vec<RemovedFlow>;

    /// Statistics so far of a flow that is installed. `used` in ms as in [`FlowDump`].
    fn flow_stats(&self, id: FlowId) -> Option<FlowStats>;

    /// Whether a packet with this key would hit, and what: the userspace view of the same table.
    fn lookup(&self, key: &FlowKey) -> Option<FlowId>;

    /// The actions and the match of an installed flow.
    fn flow(&self, id: FlowId) -> Option<FlowDump>;

    /// Calls `f` for each installed flow; flows that come or go meanwhile may be left out.
    fn for_each_flow(&self, f: &mut dyn FnMut(FlowDump));

    /// Flows installed now.
    fn flow_count(&self) -> usize;

    /// Flows that can be installed.
    fn flow_limit(&self) -> usize;

    /// Masks in use, with the number of flows of each.
    fn masks(&self) -> Vec<(FlowMask, usize)>;

    /// Puts the masks that hit most first; called now and then.
    fn sort_masks(&self);

    fn counter(&self, counter: Counter) -> u64;
    fn drops(&self, reason: Drop) -> u64;
    fn port_totals(&self, port: DpPort) -> PortTotals;

    /// Sets the rate of misses that a port may send up, in packets a second and burst; 0 for no limit.
    fn set_upcall_limit(&self, port: DpPort, rate: u64, burst: u64) -> Result<(), DatapathError>;

    /// Creates or changes meter `id`: `per_byte` rates are in bytes a second. A rate of 0 removes it.
    fn set_meter(&self, id: u32, per_byte: bool, rate: u64, burst: u64) -> Result<(), DatapathError>;

    /// Whether a packet of `len` bytes conforms to meter `id`, which counts it then: for packets that userspace
    /// forwards. A meter that does not exist limits nothing.
    fn meter_admits(&self, id: u32, len: u32) -> bool;

    /// Milliseconds of the clock that flow statistics use.
    fn now_ms(&self) -> u64;
}
