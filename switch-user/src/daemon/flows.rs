//! What userspace knows of each installed megaflow, beyond what the datapath does (match, actions, statistics):
//! which rules and MAC table
//! entries its translation looked at, what it teaches the MAC table, what was counted for it already.
//!
//! One lock orders everything that must not race: an upcall's installation, a revalidation, a removal. A flow
//! is only installed if, under that lock, the configuration is still the version that it was translated
//! against and the MAC table still says what it said: so whoever changes one of those and then takes the lock
//! finds every flow that was made before the change.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use switch_common::flow::FlowStats;
use switch_dpif::action::DpAction;
use switch_dpif::datapath::{FlowId, RemovedFlow};
use switch_ofproto::mac::{Change, Learn, MacChange, MacDep, MacKey};
use switch_ofproto::rule::RuleRef;
use switch_ofproto::{BridgeId, OfPort};

/// A MAC table entry: bridge, VLAN and address.
pub type Station = (BridgeId, MacKey);

/// One installed flow.
#[derive(Clone, Debug)]
pub struct Installed {
    pub actions: Arc<[DpAction]>,
    pub learns: SmallVec<[Learn; 1]>,
    pub deps: SmallVec<[MacDep; 1]>,
    pub rules: SmallVec<[RuleRef; 1]>,
    /// Statistics of earlier flows with the same match, which this one continues.
    pub base: FlowStats,
    /// Packets at the last sweep.
    pub seen_packets: u64,
    /// When its last packet came, or it was installed; ms of the datapath's clock.
    pub used_at: u64,
}

/// Flows by the MAC table entry that they have to do with. A gateway's address has as many as there are.
type ByStation = HashMap<Station, HashSet<FlowId>>;

/// All flows, which of them depend on which MAC table entry, and which teach it.
#[derive(Default)]
pub struct Flows {
    /// Boxed, so that the table itself stays small: it is moved whenever it grows, on the packets' time.
    by_id: HashMap<FlowId, Box<Installed>>,
    by_dep: ByStation,
    by_lesson: ByStation,
    /// Flows that were replaced and whose final statistics are still to come, with what took their place.
    replaced: HashMap<FlowId, FlowId>,
}

impl Flows {
    pub fn get(&self, id: FlowId) -> Option<&Installed> {
        self.by_id.get(&id).map(|flow| &**flow)
    }

    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut Installed> {
        self.by_id.get_mut(&id).map(|flow| &mut **flow)
    }

    pub fn ids(&self) -> Vec<FlowId> {
        self.by_id.keys().copied().collect()
    }

    pub fn insert(&mut self, id: FlowId, flow: Installed) {
        for dep in &flow.deps {
            self.by_dep.entry(station_of(dep)).or_default().insert(id);
        }
        for lesson in &flow.learns {
            self.by_lesson.entry(station_taught(lesson)).or_default().insert(id);
        }
        self.by_id.insert(id, Box::new(flow));
    }

    pub fn remove(&mut self, id: FlowId) -> Option<Installed> {
        let flow = self.by_id.remove(&id)?;
        for dep in &flow.deps {
            forget(&mut self.by_dep, &station_of(dep), id);
        }
        for lesson in &flow.learns {
            forget(&mut self.by_lesson, &station_taught(lesson), id);
        }
        Some(*flow)
    }

    /// The flow has another number now: what the old one counted goes to the new one.
    pub fn replace(&mut self, old: FlowId, new: FlowId, flow: Installed) {
        self.replaced.insert(old, new);
        self.insert(new, flow);
    }

    /// The final statistics of a flow that was removed or replaced.
    pub fn settle(&mut self, removed: RemovedFlow) {
        let Some(mut id) = self.replaced.remove(&removed.id) else { return };
        while let Some(next) = self.replaced.get(&id) {
            id = *next;
        }
        if let Some(flow) = self.by_id.get_mut(&id) {
            flow.base = sum(flow.base, removed.stats);
        }
    }

    /// The flow was translated again with the same result; what it depends on may be others now.
    pub fn renew(&mut self, id: FlowId, renew: impl FnOnce(&mut Installed)) {
        if let Some(mut flow) = self.remove(id) {
            renew(&mut flow);
            self.insert(id, flow);
        }
    }

    /// Flows whose translation looked this entry up, found or not.
    pub fn dependents(&self, station: &Station) -> impl Iterator<Item = FlowId> + '_ {
        self.by_dep.get(station).into_iter().flatten().copied()
    }

    /// Flows whose packets say that this address is at that port.
    pub fn teachers(&self, station: Station, port: OfPort) -> impl Iterator<Item = FlowId> + '_ {
        let teaches = move |l: &Learn| l.port == port && station_taught(l) == station;
        let ids = self.by_lesson.get(&station).into_iter().flatten().copied();
        ids.filter(move |id| self.by_id.get(id).is_some_and(|f| f.learns.iter().any(teaches)))
    }

    /// Whether a change of this entry concerns any flow. If it does not, none that is installed later either: that
    /// one is translated after the change.
    pub fn concerns(&self, change: &MacChange) -> bool {
        let station = (change.bridge, change.key);
        self.by_dep.contains_key(&station)
            || (matches!(change.change, Change::Moved { .. }) && self.by_lesson.contains_key(&station))
    }
}

fn station_of(dep: &MacDep) -> Station {
    (dep.bridge, MacKey { vlan: dep.vlan, mac: dep.mac })
}

fn station_taught(lesson: &Learn) -> Station {
    (lesson.bridge, MacKey { vlan: lesson.vlan, mac: lesson.mac })
}

fn forget(map: &mut ByStation, station: &Station, id: FlowId) {
    if let Some(ids) = map.get_mut(station) {
        ids.remove(&id);
        if ids.is_empty() {
            map.remove(station);
        }
    }
}

/// The two as one flow's statistics.
pub fn sum(a: FlowStats, b: FlowStats) -> FlowStats {
    FlowStats {
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
        used: a.used.max(b.used),
        tcp_flags: a.tcp_flags | b.tcp_flags,
    }
}

/// The flows behind their lock.
#[derive(Default)]
pub struct FlowIndex(Mutex<Flows>);

impl FlowIndex {
    pub fn lock(&self) -> MutexGuard<'_, Flows> {
        self.0.lock()
    }
}
