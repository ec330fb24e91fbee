//! The datapath that the kernel carries out: the flow table of [`crate::table`] in mmapped maps, with what userspace
//! wants to know about each flow beside it.
//!
//! Locks, in the order in which they may be held together: attachments, then flows. Installing a flow takes only
//! the latter, which is never held while a grace period or an attachment is waited for.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use switch_common::action::{Action, MAX_ACTIONS, op};
use switch_common::bucket::RateLimit;
use switch_common::counter::{COUNTER_ROW, Counter, Drop};
use switch_common::flow::{FLOW_XDP_ACTIONS, FlowStats, MAX_MASKS, verdict};
use switch_common::key::{FlowKey, FlowMask, KINDS, Kind};
use switch_common::upcall::reason;
use switch_dpif::action::{DpAction, DpPort};
use switch_dpif::datapath::{Datapath, DatapathError, FlowDump, FlowId, PortTotals, RemovedFlow};
use switch_dpif::encode::encode;

use crate::attach::Attachments;
use crate::grace::Grace;
use crate::jiffies::Jiffies;
use crate::links::TcMode;
use crate::load::{self, LoadError, Sizes};
use crate::memory::Area;
use crate::pins::{PinError, Pins};
use crate::ports::{PortTables, admit, write_limit};
use crate::system::{self, SystemError};
use crate::table::{FlowTable, Program, TableError, bucket_count};

/// How a datapath is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names the instance's pins: letters, digits, `-`, `_`. Several instances live on one host.
    pub instance: String,
    /// Mount point of the BPF file system; mounted if it is not.
    pub bpffs: PathBuf,
    /// Flows at most.
    pub flows: u32,
    /// Flows of kind `Full` (ARP, MPLS, neighbour discovery, tunnels, ...) at most.
    pub full_flows: u32,
    /// Action records of all lists together; equal lists are stored once, and a plain output needs none.
    pub actions: u32,
    /// Hash buckets of four entries, rounded up to a power of two; 0 for enough that at most a quarter of the
    /// entries is in use. Fewer save memory, and cost look-ups that have to try second buckets.
    pub buckets: u32,
    /// Interface index of the near end of the upcall pair; 0 for none: misses are dropped then.
    pub upcall_ifindex: u32,
    /// VLAN tags that are parsed at most, 0 to 2.
    pub vlan_limit: u8,
    pub tc_mode: TcMode,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            instance: "default".to_owned(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            flows: 131_072,
            full_flows: 16_384,
            actions: 131_072,
            buckets: 0,
            upcall_ifindex: 0,
            vlan_limit: 2,
            tc_mode: TcMode::Auto,
        }
    }
}

/// Why there is no datapath.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("{0} flows cannot be had: 1 to {MAX_FLOWS} can")]
    Flows(u32),
    #[error("no way to wait for grace periods: {0}")]
    Grace(io::Error),
    #[error("the kernel's jiffies cannot be read: {0}")]
    Jiffies(io::Error),
}

/// Bits of a [`FlowId`] that hold the slot; the rest numbers the flows.
const SLOT_BITS: u32 = 24;

/// Flows that a datapath can be made for.
pub const MAX_FLOWS: u32 = (1 << SLOT_BITS) / 2;

/// Slots beyond the limit of flows, so that a full table whose flows come and go does not have to wait for each
/// grace period.
const fn with_slack(flows: u32) -> u32 {
    1 + flows + flows / 8 + 1024
}

/// Slots whose statistics or dumps are read under one lock.
const SWEEP: u32 = 1024;

/// What userspace knows about a flow besides what the table holds.
struct Mirror {
    id: FlowId,
    actions: Box<[DpAction]>,
    slow_path: bool,
    /// The output of a list that XDP can carry out if that port takes XDP output.
    xdp_output: Option<u16>,
    withdrawn: bool,
}

struct Flows {
    table: FlowTable,
    /// By slot.
    mirror: Vec<Option<Box<Mirror>>>,
    installed: u64,
}

impl Flows {
    /// The slot and mirror of a flow that is installed.
    fn get(&self, id: FlowId) -> Option<(u32, &Mirror)> {
        let slot = (id.0 & ((1 << SLOT_BITS) - 1)) as u32;
        let mirror = self.mirror.get(slot as usize)?.as_deref()?;
        (mirror.id == id && !mirror.withdrawn).then_some((slot, mirror))
    }

    fn id_at(&self, slot: u32) -> Option<FlowId> {
        self.mirror.get(slot as usize)?.as_deref().filter(|m| !m.withdrawn).map(|m| m.id)
    }

    fn withdraw_mirror(&mut self, slot: u32) {
        if let Some(Some(m)) = self.mirror.get_mut(slot as usize) {
            m.withdrawn = true;
            // The identity stays for the final statistics; the rest is not needed any more.
            m.actions = Box::default();
        }
    }
}

/// The eBPF datapath. Dropping it leaves everything in the kernel at work; [`EbpfDatapath::shut_down`] does not.
pub struct EbpfDatapath {
    flow_limit: u32,
    full_limit: u32,
    flows: Mutex<Flows>,
    moved: Arc<AtomicU64>,
    grace: Grace,
    /// One grace period at a time.
    reaping: Mutex<()>,
    jiffies: Jiffies,
    pub(crate) ports: PortTables,
    meters: Area<RateLimit>,
    counters: Area<[u64; COUNTER_ROW]>,
    programs: HashMap<String, OwnedFd>,
    pub(crate) tx: OwnedFd,
    pub(crate) xsks: OwnedFd,
    pub(crate) attachments: Mutex<Attachments>,
    pub(crate) pins: Pins,
    pub(crate) tc_mode: TcMode,
}

impl EbpfDatapath {
    /// Loads and pins everything; nothing is attached yet. Pins of an earlier instance of the same name must have
    /// been removed ([`EbpfDatapath::remove_stale`]).
    pub fn create(options: &Options) -> Result<EbpfDatapath, CreateError> {
        if options.flows == 0 || options.flows > MAX_FLOWS {
            return Err(CreateError::Flows(options.flows));
        }
        let pins = Pins::new(&options.bpffs, &options.instance)?;
        system::prepare(&options.bpffs)?;
        let slots = with_slack(options.flows);
        let sizes = Sizes {
            slots,
            full_slots: with_slack(options.full_flows.min(options.flows)),
            actions: options.actions.max(MAX_ACTIONS as u32),
            buckets: if options.buckets == 0 { bucket_count(slots) } else { bucket_count(options.buckets) },
            cpus: system::possible_cpus()?,
            upcall_ifindex: options.upcall_ifindex,
            vlan_limit: u32::from(options.vlan_limit.min(2)),
        };
        pins.create()?;
        let made = EbpfDatapath::load(options, &sizes, pins.clone());
        if made.is_err()
            && let Err(error) = pins.remove()
        {
            tracing::warn!(%error, "pins of a datapath that failed to load are left over");
        }
        made
    }

    fn load(options: &Options, sizes: &Sizes, pins: Pins) -> Result<EbpfDatapath, CreateError> {
        let grace = Grace::new().map_err(CreateError::Grace)?;
        let jiffies = Jiffies::calibrate().map_err(CreateError::Jiffies)?;
        let loaded = load::load(sizes, &pins)?;
        for name in [
            switch_common::program::XDP,
            switch_common::program::TC,
            switch_common::program::UPCALL_PUSH,
            switch_common::program::UPCALL_XDP,
        ] {
            loaded.program(name)?;
        }
        let table = FlowTable::new(loaded.table, loaded.hash_key, sizes.cpus);
        let mirror = std::iter::repeat_with(|| None).take(sizes.slots as usize).collect();
        Ok(EbpfDatapath {
            flow_limit: options.flows,
            full_limit: options.full_flows.min(options.flows),
            moved: table.moved(),
            flows: Mutex::new(Flows { table, mirror, installed: 0 }),
            grace,
            reaping: Mutex::new(()),
            jiffies,
            ports: loaded.ports,
            meters: loaded.meters,
            counters: loaded.counters,
            programs: loaded.programs,
            tx: loaded.tx,
            xsks: loaded.xsks,
            attachments: Mutex::new(Attachments::default()),
            pins,
            tc_mode: options.tc_mode,
        })
    }

    /// Detaches and unpins whatever an earlier instance of this name left behind in this network namespace.
    pub fn remove_stale(bpffs: &Path, instance: &str) -> Result<(), PinError> {
        Pins::new(bpffs, instance)?.remove()
    }

    /// Detaches everything and removes the pins: forwarding ends.
    pub fn shut_down(&self) -> Result<(), PinError> {
        self.detach_all();
        self.pins.remove()
    }

    /// A loaded program, for test runs.
    pub fn program(&self, name: &str) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.programs.get(name).map(|fd| fd.as_fd())
    }

    /// Entries of the hash table that had to move to make room for others, ever.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::SeqCst)
    }

    /// Flows that were withdrawn and wait for [`Datapath::reap`].
    pub fn in_limbo(&self) -> usize {
        self.flows.lock().table.in_limbo()
    }

    fn sum(&self, index: usize) -> u64 {
        (0..self.counters.len())
            .map(|cpu| self.counters.u64_at(cpu, 8 * index).load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }

    fn in_ms(&self, stats: FlowStats) -> FlowStats {
        FlowStats { used: self.jiffies.to_ms(stats.used), ..stats }
    }

    fn dump(&self, flows: &Flows, slot: u32) -> Option<FlowDump> {
        let mirror = flows.mirror.get(slot as usize)?.as_deref().filter(|m| !m.withdrawn)?;
        let (key, mask) = flows.table.flow_match(slot)?;
        Some(FlowDump {
            id: mirror.id,
            key,
            mask: *mask,
            actions: mirror.actions.to_vec(),
            stats: self.in_ms(flows.table.stats(slot)),
            slow_path: mirror.slow_path,
        })
    }

    /// Sets [`FLOW_XDP_ACTIONS`] of all flows that end in this port by whether it takes XDP output now: to be
    /// called after that has changed in the maps.
    pub(crate) fn set_xdp_output_of_flows(&self, port: u16) {
        let on = self.ports.takes_xdp_output(port);
        let flows = self.flows.lock();
        for (slot, mirror) in flows.mirror.iter().enumerate() {
            if mirror.as_deref().is_some_and(|m| !m.withdrawn && m.xdp_output == Some(port)) {
                flows.table.set_flags(slot as u32, if on { FLOW_XDP_ACTIONS } else { 0 });
            }
        }
    }
}

/// A list in the datapath's terms.
struct Encoded {
    verdict: u8,
    out_port: u16,
    drop_reason: u16,
    records: Vec<Action>,
    slow_path: bool,
    xdp_output: Option<u16>,
}

impl Encoded {
    /// `id`: what the packets of a flow that userspace carries out bring along.
    fn new(actions: &[DpAction], id: FlowId) -> Encoded {
        let list = encode(actions);
        let base = Encoded {
            verdict: verdict::ACTIONS,
            out_port: 0,
            drop_reason: 0,
            records: Vec::new(),
            slow_path: false,
            xdp_output: None,
        };
        if list.slow_path.is_some() {
            let up = Action::new(op::USERSPACE, u16::from(reason::SLOW_PATH), 0, [id.0, 0, 0, 0]);
            return Encoded { records: vec![up], slow_path: true, ..base };
        }
        match list.records.as_slice() {
            [] => Encoded { verdict: verdict::DROP, drop_reason: Drop::Policy as u16, ..base },
            [only] if only.op == op::DROP => {
                Encoded { verdict: verdict::DROP, drop_reason: only.arg as u16, ..base }
            }
            [only] if only.op == op::OUTPUT => {
                Encoded { verdict: verdict::OUTPUT, out_port: only.port, ..base }
            }
            [.., last] => {
                let xdp_output = (list.xdp && last.op == op::OUTPUT).then_some(last.port);
                Encoded { xdp_output, records: list.records, ..base }
            }
        }
    }
}

impl Datapath for EbpfDatapath {
    fn kind(&self) -> &'static str {
        "ebpf"
    }

    fn put_flow(
        &self,
        key: &FlowKey,
        mask: &FlowMask,
        actions: &[DpAction],
    ) -> Result<FlowId, DatapathError> {
        let full = || DatapathError::FlowTableFull {
            limit: if key.kind() == Kind::Full { self.full_limit } else { self.flow_limit },
        };
        let mut flows = self.flows.lock();
        if flows.table.len() >= self.flow_limit as usize && flows.table.find(key, mask).is_none() {
            return Err(full());
        }
        let next = flows.table.next_slot(key.kind()).ok_or_else(full)?;
        let id = FlowId((flows.installed + 1) << SLOT_BITS | u64::from(next));
        let encoded = Encoded::new(actions, id);
        // A port that changes has its new state in the maps before all flows are looked through for it, under the
        // lock that is held here: see `set_xdp_output_of_flows`.
        let xdp = encoded.xdp_output.is_some_and(|port| self.ports.takes_xdp_output(port));
        let program = Program {
            verdict: encoded.verdict,
            out_port: encoded.out_port,
            flags: if xdp { FLOW_XDP_ACTIONS } else { 0 },
            drop_reason: encoded.drop_reason,
            records: &encoded.records,
        };
        let put = flows.table.put(key, mask, &program).map_err(|error| match error {
            TableError::Full | TableError::Crowded => full(),
            TableError::Masks => DatapathError::MasksExhausted { limit: MAX_MASKS },
            TableError::Actions => DatapathError::ActionsFull { actions: program.records.len() },
            TableError::TooManyActions => DatapathError::TooManyActions(program.records.len()),
        })?;
        flows.installed += 1;
        flows.mirror[put.slot as usize] = Some(Box::new(Mirror {
            id,
            actions: actions.into(),
            slow_path: encoded.slow_path,
            xdp_output: encoded.xdp_output,
            withdrawn: false,
        }));
        if let Some(old) = put.replaced {
            flows.withdraw_mirror(old);
        }
        Ok(id)
    }

    fn remove_flow(&self, id: FlowId) -> Result<(), DatapathError> {
        let mut flows = self.flows.lock();
        let (slot, _) = flows.get(id).ok_or(DatapathError::NoFlow)?;
        flows.table.remove(slot);
        flows.withdraw_mirror(slot);
        Ok(())
    }

    fn reap(&self) -> Vec<RemovedFlow> {
        let _one = self.reaping.lock();
        let number = {
            let mut flows = self.flows.lock();
            if !flows.table.wants_grace() {
                return Vec::new();
            }
            flows.table.begin_grace()
        };
        if let Err(error) = self.grace.wait() {
            // Nothing is freed then, which is safe; the next call tries again.
            tracing::error!(%error, "waiting for a grace period failed");
            return Vec::new();
        }
        let mut flows = self.flows.lock();
        let done = flows.table.end_grace(number);
        done.into_iter()
            .filter_map(|(slot, stats)| {
                let mirror = flows.mirror.get_mut(slot as usize)?.take()?;
                Some(RemovedFlow { id: mirror.id, stats: self.in_ms(stats) })
            })
            .collect()
    }

    fn flow_stats(&self, id: FlowId) -> Option<FlowStats> {
        let flows = self.flows.lock();
        let (slot, _) = flows.get(id)?;
        Some(self.in_ms(flows.table.stats(slot)))
    }

    fn lookup(&self, key: &FlowKey) -> Option<FlowId> {
        let flows = self.flows.lock();
        flows.id_at(flows.table.lookup(key)?)
    }

    fn flow(&self, id: FlowId) -> Option<FlowDump> {
        let flows = self.flows.lock();
        let (slot, _) = flows.get(id)?;
        self.dump(&flows, slot)
    }

    fn for_each_flow(&self, f: &mut dyn FnMut(FlowDump)) {
        let mut next = 0u32;
        loop {
            let dumps: Vec<FlowDump> = {
                let flows = self.flows.lock();
                if next as usize >= flows.mirror.len() {
                    return;
                }
                (next..next.saturating_add(SWEEP)).filter_map(|slot| self.dump(&flows, slot)).collect()
            };
            dumps.into_iter().for_each(&mut *f);
            next += SWEEP;
        }
    }

    fn flow_count(&self) -> usize {
        self.flows.lock().table.len()
    }

    fn flow_limit(&self) -> usize {
        self.flow_limit as usize
    }

    fn masks(&self) -> Vec<(FlowMask, usize)> {
        self.flows.lock().table.masks()
    }

    fn sort_masks(&self) {
        let mut packets = [[0u64; MAX_MASKS]; KINDS];
        let mut next = 0u32;
        loop {
            let flows = self.flows.lock();
            if next as usize >= flows.mirror.len() {
                break;
            }
            for slot in (next..next.saturating_add(SWEEP)).filter(|slot| flows.table.is_live(*slot)) {
                let (kind, mask): (Kind, u8) = flows.table.mask_of(slot);
                if let Some(sum) = packets[kind as usize].get_mut(usize::from(mask)) {
                    *sum = sum.wrapping_add(flows.table.stats(slot).packets);
                }
            }
            next += SWEEP;
        }
        self.flows.lock().table.sort_masks(&packets);
    }

    fn counter(&self, counter: Counter) -> u64 {
        self.sum(counter as usize)
    }

    fn drops(&self, reason: Drop) -> u64 {
        self.sum(reason as usize)
    }

    fn port_totals(&self, port: DpPort) -> PortTotals {
        self.ports.totals(port.0)
    }

    fn set_upcall_limit(&self, port: DpPort, rate: u64, burst: u64) -> Result<(), DatapathError> {
        if !self.ports.exists(port.0) {
            return Err(DatapathError::NoPort(port.0));
        }
        self.ports.set_limit(port.0, RateLimit::packets(rate, burst));
        Ok(())
    }

    fn set_meter(&self, id: u32, per_byte: bool, rate: u64, burst: u64) -> Result<(), DatapathError> {
        if id as usize >= self.meters.len() {
            return Err(DatapathError::Kernel {
                what: format!("meter {id}: there are {} meters", self.meters.len()),
                source: io::ErrorKind::InvalidInput.into(),
            });
        }
        let limit = if per_byte { RateLimit::bytes(rate, burst) } else { RateLimit::packets(rate, burst) };
        write_limit(&self.meters, id as usize, limit);
        Ok(())
    }

    fn meter_admits(&self, id: u32, len: u32) -> bool {
        (id as usize) >= self.meters.len() || admit(&self.meters, id as usize, len)
    }

    fn now_ms(&self) -> u64 {
        self.jiffies.now_ms()
    }
}
