//! A datapath without a kernel: the same flows, look-ups, actions, counters and drop reasons as the eBPF one, in
//! plain Rust.
//!
//! It is what the eBPF programs are compared with, and what runs where they cannot: [`UserspaceDatapath::process`]
//! takes a frame and tells a [`Sink`] what comes out. It does no IO, and reads no clock but the one that it is
//! given.
//!
//! Two things differ from the eBPF datapath by nature: there is no exact-match cache, so all hits count as
//! megaflow hits, and no action list is beyond it.
//!
//! * `table`: flows by mask;
//! * `ports`: ports, their limits and counters, meters;
//! * `process`: the way of a packet.

mod ports;
mod process;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use switch_common::action::MAX_ACTIONS;
use switch_common::counter::{COUNTER_ROW, Counter, Drop};
use switch_common::flow::FlowStats;
use switch_common::key::{FlowKey, FlowMask};

use crate::action::{DpAction, DpPort};
use crate::datapath::{Datapath, DatapathError, FlowDump, FlowId, PortTotals, RemovedFlow};
use crate::encode::encode;
pub use ports::PortConfig;
use ports::{Meters, Ports};
pub use process::{Sink, Verdict};
use table::Table;

/// Nanoseconds since some fixed time in the past, never going backwards.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a datapath is made with.
#[derive(Clone)]
pub struct Options {
    /// Flows that it can hold.
    pub flows: u32,
    /// VLAN tags that are parsed at most.
    pub vlan_limit: u8,
    pub clock: Clock,
}

/// The pure userspace datapath. All methods may be called from any thread, also from within a [`Sink`].
pub struct UserspaceDatapath {
    table: RwLock<Table>,
    ports: Ports,
    meters: Meters,
    counters: [AtomicU64; COUNTER_ROW],
    vlan_limit: u8,
    clock: Clock,
}

impl UserspaceDatapath {
    pub fn new(options: Options) -> UserspaceDatapath {
        UserspaceDatapath {
            table: RwLock::new(Table::new(options.flows)),
            ports: Ports::default(),
            meters: Meters::default(),
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            vlan_limit: options.vlan_limit,
            clock: options.clock,
        }
    }

    /// Adds a port.
    ///
    /// # Errors
    /// The number is taken, or 0.
    pub fn add_port(&self, port: DpPort, config: PortConfig) -> Result<(), DatapathError> {
        self.ports.add(port, config)
    }

    /// Changes a port; its counters go on.
    ///
    /// # Errors
    /// There is no such port.
    pub fn update_port(&self, port: DpPort, config: PortConfig) -> Result<(), DatapathError> {
        self.ports.update(port, config)
    }

    /// Removes a port with its counters and its limit.
    ///
    /// # Errors
    /// There is no such port.
    pub fn remove_port(&self, port: DpPort) -> Result<(), DatapathError> {
        self.ports.remove(port)
    }

    fn now_ns(&self) -> u64 {
        (self.clock)()
    }

    fn count(&self, number: usize, n: u64) {
        self.counters[number].fetch_add(n, Ordering::Relaxed);
    }

    fn count_drop(&self, in_port: u16, reason: Drop) {
        self.count(reason as usize, 1);
        self.ports.count_drop(DpPort(in_port), reason);
    }
}

impl Datapath for UserspaceDatapath {
    fn kind(&self) -> &'static str {
        "userspace"
    }

    fn put_flow(
        &self,
        key: &FlowKey,
        mask: &FlowMask,
        actions: &[DpAction],
    ) -> Result<FlowId, DatapathError> {
        // The limit is that of the eBPF datapath, so that a flow that fits one fits the other.
        let records = encode(actions).records.len().max(actions.len());
        if records > MAX_ACTIONS {
            return Err(DatapathError::TooManyActions(records));
        }
        self.table.write().put(key, mask, actions)
    }

    fn remove_flow(&self, id: FlowId) -> Result<(), DatapathError> {
        self.table.write().remove(id)
    }

    fn reap(&self) -> Vec<RemovedFlow> {
        self.table.write().reap()
    }

    fn flow_stats(&self, id: FlowId) -> Option<FlowStats> {
        self.table.read().by_id(id).map(|f| f.stats())
    }

    fn lookup(&self, key: &FlowKey) -> Option<FlowId> {
        self.table.read().look_up(key)
    }

    fn flow(&self, id: FlowId) -> Option<FlowDump> {
        self.table.read().by_id(id).map(|f| f.dump())
    }

    fn for_each_flow(&self, f: &mut dyn FnMut(FlowDump)) {
        let flows = self.table.read().all();
        for flow in flows {
            f(flow.dump());
        }
    }

    fn flow_count(&self) -> usize {
        self.table.read().len()
    }

    fn flow_limit(&self) -> usize {
        self.table.read().limit()
    }

    fn masks(&self) -> Vec<(FlowMask, usize)> {
        self.table.read().masks()
    }

    fn sort_masks(&self) {
        self.table.write().sort_masks();
    }

    fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Ordering::Relaxed)
    }

    fn drops(&self, reason: Drop) -> u64 {
        self.counters[reason as usize].load(Ordering::Relaxed)
    }

    fn port_totals(&self, port: DpPort) -> PortTotals {
        self.ports.totals(port)
    }

    fn set_upcall_limit(&self, port: DpPort, rate: u64, burst: u64) -> Result<(), DatapathError> {
        self.ports.set_limit(port, rate, burst)
    }

    fn set_meter(&self, id: u32, per_byte: bool, rate: u64, burst: u64) -> Result<(), DatapathError> {
        self.meters.set(id, per_byte, rate, burst);
        Ok(())
    }

    fn meter_admits(&self, id: u32, len: u32) -> bool {
        self.meters.conforms(id, self.now_ns(), len)
    }

    fn now_ms(&self) -> u64 {
        self.now_ns() / 1_000_000
    }
}
