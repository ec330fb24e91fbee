//! Megaflows: for each kind of key a list of masks, each with a hash table of masked keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use switch_common::flow::{FlowStats, MAX_MASKS};
use switch_common::key::{FlowKey, FlowMask, KINDS};

use crate::action::DpAction;
use crate::datapath::{DatapathError, FlowDump, FlowId, RemovedFlow};

/// An installed flow. Only its statistics change.
pub(super) struct Flow {
    pub id: FlowId,
    pub key: FlowKey,
    pub mask: FlowMask,
    pub actions: Box<[DpAction]>,
    packets: AtomicU64,
    bytes: AtomicU64,
    used: AtomicU64,
    tcp_flags: AtomicU64,
}

impl Flow {
    /// Counts a packet; `now_ms` of the datapath's clock, `tcp_flags` in host order.
    pub fn account(&self, bytes: u64, now_ms: u64, tcp_flags: u16) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // 0 would say that it was never used.
        self.used.store(now_ms.max(1), Ordering::Relaxed);
        if tcp_flags != 0 {
            self.tcp_flags.fetch_or(u64::from(tcp_flags), Ordering::Relaxed);
        }
    }

    pub fn stats(&self) -> FlowStats {
        FlowStats {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            used: self.used.load(Ordering::Relaxed),
            tcp_flags: self.tcp_flags.load(Ordering::Relaxed),
        }
    }

    pub fn dump(&self) -> FlowDump {
        FlowDump {
            id: self.id,
            key: self.key,
            mask: self.mask,
            actions: self.actions.to_vec(),
            stats: self.stats(),
            slow_path: false,
        }
    }
}

/// The flows of one mask.
struct Subtable {
    mask: FlowMask,
    flows: HashMap<FlowKey, Arc<Flow>>,
    /// Hits, for the order of masks; halved at each sort.
    hits: AtomicU64,
}

pub(super) struct Table {
    /// By the kind of key; the list is tried in its order.
    kinds: [Vec<Subtable>; KINDS],
    ids: HashMap<FlowId, Arc<Flow>>,
    /// Withdrawn, maybe still in use by a packet.
    withdrawn: Vec<Arc<Flow>>,
    next_id: u64,
    limit: u32,
}

impl Table {
    pub fn new(limit: u32) -> Table {
        Table {
            kinds: std::array::from_fn(|_| Vec::new()),
            ids: HashMap::new(),
            withdrawn: Vec::new(),
            next_id: 1,
            limit,
        }
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    pub fn by_id(&self, id: FlowId) -> Option<&Arc<Flow>> {
        self.ids.get(&id)
    }

    pub fn all(&self) -> Vec<Arc<Flow>> {
        self.ids.values().cloned().collect()
    }

    /// The flow of a key, for a packet that takes it, and how many masks were tried.
    pub fn take(&self, key: &FlowKey) -> (Option<Arc<Flow>>, u64) {
        let (found, tried) = self.find(key);
        let flow = found.map(|(flow, subtable)| {
            subtable.hits.fetch_add(1, Ordering::Relaxed);
            Arc::clone(flow)
        });
        (flow, tried)
    }

    /// The flow that a packet with this key would take.
    pub fn look_up(&self, key: &FlowKey) -> Option<FlowId> {
        self.find(key).0.map(|(flow, _)| flow.id)
    }

    fn find(&self, key: &FlowKey) -> (Option<(&Arc<Flow>, &Subtable)>, u64) {
        let mut tried = 0;
        for subtable in &self.kinds[key.kind() as usize] {
            tried += 1;
            if let Some(flow) = subtable.flows.get(&key.masked(&subtable.mask)) {
                return (Some((flow, subtable)), tried);
            }
        }
        (None, tried)
    }

    pub fn put(
        &mut self,
        key: &FlowKey,
        mask: &FlowMask,
        actions: &[DpAction],
    ) -> Result<FlowId, DatapathError> {
        let kind = key.kind();
        let mut mask = *mask;
        mask.unite(&FlowMask::floor());
        mask.restrict(kind);
        let key = key.masked(&mask);
        let subtables = &mut self.kinds[kind as usize];
        let known = subtables.iter().position(|s| s.mask == mask);
        let replaces = known.is_some_and(|i| subtables[i].flows.contains_key(&key));
        if !replaces && self.ids.len() >= self.limit as usize {
            return Err(DatapathError::FlowTableFull { limit: self.limit });
        }
        let at = match known {
            Some(i) => i,
            None if subtables.len() >= MAX_MASKS => {
                return Err(DatapathError::MasksExhausted { limit: MAX_MASKS });
            }
            None => {
                subtables.push(Subtable { mask, flows: HashMap::new(), hits: AtomicU64::new(0) });
                subtables.len() - 1
            }
        };
        let id = FlowId(self.next_id);
        self.next_id += 1;
        let flow = Arc::new(Flow {
            id,
            key,
            mask,
            actions: actions.into(),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            used: AtomicU64::new(0),
            tcp_flags: AtomicU64::new(0),
        });
        if let Some(old) = subtables[at].flows.insert(key, Arc::clone(&flow)) {
            self.ids.remove(&old.id);
            self.withdrawn.push(old);
        }
        self.ids.insert(id, flow);
        Ok(id)
    }

    pub fn remove(&mut self, id: FlowId) -> Result<(), DatapathError> {
        let flow = self.ids.remove(&id).ok_or(DatapathError::NoFlow)?;
        let subtables = &mut self.kinds[flow.key.kind() as usize];
        if let Some(i) = subtables.iter().position(|s| s.mask == flow.mask) {
            subtables[i].flows.remove(&flow.key);
            if subtables[i].flows.is_empty() {
                subtables.remove(i);
            }
        }
        self.withdrawn.push(flow);
        Ok(())
    }

    /// Lets go of the withdrawn flows that no packet is using.
    pub fn reap(&mut self) -> Vec<RemovedFlow> {
        let mut reaped = Vec::new();
        self.withdrawn.retain(|flow| {
            // It cannot be found any more, so nobody can begin to use it.
            let in_use = Arc::strong_count(flow) > 1;
            if !in_use {
                reaped.push(RemovedFlow { id: flow.id, stats: flow.stats() });
            }
            in_use
        });
        reaped
    }

    pub fn masks(&self) -> Vec<(FlowMask, usize)> {
        self.kinds.iter().flatten().map(|s| (s.mask, s.flows.len())).collect()
    }

    pub fn sort_masks(&mut self) {
        for subtables in &mut self.kinds {
            subtables.sort_by_key(|s| std::cmp::Reverse(s.hits.load(Ordering::Relaxed)));
            for s in subtables {
                *s.hits.get_mut() /= 2;
            }
        }
    }
}
