//! The MAC table of a bridge: where each address was seen last.
//!
//! Handler threads look up during translation and apply what translations learnt; every method takes `&self`.
//! The table has no clock: callers pass the time in milliseconds, of any clock that does not go back. What
//! changes is answered as [`MacChange`]s, so that megaflows that relied on an entry can be corrected.
//!
//! When the table is full, a new address takes the place of the least recently seen one of that port which has
//! most entries, so that one port that makes up addresses pushes out only its own. Static entries neither age
//! nor move nor make place.
//!
//! The port of an entry stands for its bundle ([`crate::port::Bundle::face`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::bridge::BridgeId;
use crate::eth::{EthAddr, is_multicast};
use crate::port::OfPort;

/// Seconds after which an address that was not seen again is forgotten (`other_config:mac-aging-time`).
pub const DEFAULT_AGE_S: u64 = 300;
/// Entries of one table at most (`other_config:mac-table-size`).
pub const DEFAULT_LIMIT: usize = 8192;

/// What a table is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MacKey {
    /// 0 for no VLAN.
    pub vlan: u16,
    pub mac: EthAddr,
}

/// That a packet with this source address came in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Learn {
    pub bridge: BridgeId,
    pub vlan: u16,
    pub mac: EthAddr,
    pub port: OfPort,
}

/// That a translation relied on what the table said about this address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MacDep {
    pub bridge: BridgeId,
    pub vlan: u16,
    pub mac: EthAddr,
    /// What it said.
    pub seen: Option<OfPort>,
}

/// Why an entry went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Gone {
    Aged,
    /// The table was full.
    Evicted,
    /// Flushed, or its port is gone.
    Flushed,
}

/// How an entry changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    Added { port: OfPort },
    Moved { from: OfPort, to: OfPort },
    Removed { port: OfPort, why: Gone },
}

/// One change of one entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MacChange {
    pub bridge: BridgeId,
    pub key: MacKey,
    pub change: Change,
}

/// An entry, for listings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MacEntry {
    pub vlan: u16,
    pub mac: EthAddr,
    pub port: OfPort,
    /// ms since the address was seen last; 0 for a static entry.
    pub age_ms: u64,
    pub is_static: bool,
}

/// What happened in a table since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MacStats {
    pub learned: u64,
    pub expired: u64,
    pub evicted: u64,
    pub moved: u64,
    pub entries: usize,
    pub static_entries: usize,
    pub limit: usize,
}

/// What translation asks MAC tables.
pub trait MacView {
    /// Where the address was seen last.
    fn port_of(&self, bridge: BridgeId, vlan: u16, mac: &EthAddr) -> Option<OfPort>;
}

#[derive(Clone, Copy)]
struct Entry {
    port: OfPort,
    /// ms.
    used: u64,
    /// Place in the order of use; 0 for a static entry, which has none.
    stamp: u64,
}

impl Entry {
    fn is_static(&self) -> bool {
        self.stamp == 0
    }
}

struct Inner {
    age_ms: u64,
    limit: usize,
    entries: HashMap<MacKey, Entry>,
    /// For each port its learnt entries, least recently seen first.
    order: HashMap<OfPort, BTreeMap<u64, MacKey>>,
    /// Ports by number of learnt entries.
    crowd: BTreeSet<(usize, OfPort)>,
    last_stamp: u64,
    stats: MacStats,
}

/// See the head of this module.
pub struct MacTable {
    bridge: BridgeId,
    inner: RwLock<Inner>,
}

impl MacTable {
    /// An empty table with Open vSwitch's defaults.
    pub fn new(bridge: BridgeId) -> MacTable {
        MacTable {
            bridge,
            inner: RwLock::new(Inner {
                age_ms: DEFAULT_AGE_S * 1000,
                limit: DEFAULT_LIMIT,
                entries: HashMap::new(),
                order: HashMap::new(),
                crowd: BTreeSet::new(),
                last_stamp: 0,
                stats: MacStats::default(),
            }),
        }
    }

    /// Sets ageing time and size. Entries past a smaller limit go, in the order of eviction.
    pub fn configure(&self, age_ms: u64, limit: usize) -> Vec<MacChange> {
        let mut inner = self.inner.write();
        inner.age_ms = age_ms;
        inner.limit = limit;
        let mut gone = Vec::new();
        while inner.entries.len() > inner.limit
            && let Some(key) = inner.evict()
        {
            gone.push(key);
        }
        drop(inner);
        self.removed(gone, Gone::Evicted)
    }

    /// Where the address was seen last. An entry counts until [`MacTable::expire`] takes it out.
    pub fn lookup(&self, vlan: u16, mac: &EthAddr) -> Option<OfPort> {
        let key = MacKey { vlan, mac: *mac };
        self.inner.read().entries.get(&key).map(|e| e.port)
    }

    /// Notes that the address was seen at the port. Group addresses are no one's and are not learnt.
    pub fn learn(&self, vlan: u16, mac: &EthAddr, port: OfPort, now_ms: u64) -> Vec<MacChange> {
        let key = MacKey { vlan, mac: *mac };
        let mut changes = Vec::new();
        if is_multicast(mac) || self.is_fresh(&key, port, now_ms) {
            return changes;
        }
        let mut inner = self.inner.write();
        match inner.entries.get(&key).copied() {
            Some(entry) if entry.is_static() => {}
            Some(entry) => {
                inner.unlink(&entry);
                inner.link(key, port, now_ms.max(entry.used));
                if entry.port != port {
                    inner.stats.moved += 1;
                    changes.push(self.change(key, Change::Moved { from: entry.port, to: port }));
                }
            }
            None => {
                while inner.entries.len() >= inner.limit {
                    let Some((evicted, port)) = inner.evict() else {
                        // Static entries fill the table.
                        return changes;
                    };
                    changes.push(self.change(evicted, Change::Removed { port, why: Gone::Evicted }));
                }
                inner.link(key, port, now_ms);
                inner.stats.learned += 1;
                changes.push(self.change(key, Change::Added { port }));
            }
        }
        changes
    }

    /// Whether learning would change nothing: the usual case, for which a shared lock does.
    fn is_fresh(&self, key: &MacKey, port: OfPort, now_ms: u64) -> bool {
        let inner = self.inner.read();
        inner.entries.get(key).is_some_and(|e| e.port == port && (e.is_static() || e.used >= now_ms))
    }

    /// Adds an entry that stays until it is removed, in place of what was learnt.
    pub fn add_static(&self, vlan: u16, mac: &EthAddr, port: OfPort) -> Vec<MacChange> {
        let key = MacKey { vlan, mac: *mac };
        let mut inner = self.inner.write();
        let before = inner.entries.get(&key).copied();
        if let Some(entry) = &before {
            inner.unlink(entry);
        }
        inner.entries.insert(key, Entry { port, used: 0, stamp: 0 });
        drop(inner);
        match before {
            Some(entry) if entry.port == port => Vec::new(),
            Some(entry) => vec![self.change(key, Change::Moved { from: entry.port, to: port })],
            None => vec![self.change(key, Change::Added { port })],
        }
    }

    /// Takes out one entry, static or learnt.
    pub fn remove(&self, vlan: u16, mac: &EthAddr) -> Option<MacChange> {
        let key = MacKey { vlan, mac: *mac };
        let port = self.inner.write().remove(&key)?;
        Some(self.change(key, Change::Removed { port, why: Gone::Flushed }))
    }

    /// Takes out the learnt entries; static ones stay.
    pub fn flush(&self) -> Vec<MacChange> {
        self.remove_if(|_, e| !e.is_static(), Gone::Flushed)
    }

    /// Takes out all entries of a port that is gone.
    pub fn flush_port(&self, port: OfPort) -> Vec<MacChange> {
        self.remove_if(|_, e| e.port == port, Gone::Flushed)
    }

    /// Takes out the learnt entries of a VLAN.
    pub fn flush_vlan(&self, vlan: u16) -> Vec<MacChange> {
        self.remove_if(|k, e| k.vlan == vlan && !e.is_static(), Gone::Flushed)
    }

    /// Takes out what was not seen for the ageing time. Its cost is that of what it takes out.
    pub fn expire(&self, now_ms: u64) -> Vec<MacChange> {
        let mut inner = self.inner.write();
        let age_ms = inner.age_ms;
        let mut gone = Vec::new();
        for port in inner.order.keys().copied().collect::<Vec<_>>() {
            while let Some(key) = inner.oldest(port)
                && inner.entries.get(&key).is_some_and(|e| now_ms.saturating_sub(e.used) >= age_ms)
            {
                inner.remove(&key);
                inner.stats.expired += 1;
                gone.push((key, port));
            }
        }
        drop(inner);
        self.removed(gone, Gone::Aged)
    }

    /// When [`MacTable::expire`] will next have something to do, in ms of the same clock.
    pub fn next_expiry(&self) -> Option<u64> {
        let inner = self.inner.read();
        let oldest = inner.order.keys().filter_map(|port| inner.entries.get(&inner.oldest(*port)?));
        oldest.map(|e| e.used + inner.age_ms).min()
    }

    /// Every entry, by VLAN and address.
    pub fn entries(&self, now_ms: u64) -> Vec<MacEntry> {
        let inner = self.inner.read();
        let mut list: Vec<MacEntry> = inner
            .entries
            .iter()
            .map(|(key, e)| MacEntry {
                vlan: key.vlan,
                mac: key.mac,
                port: e.port,
                age_ms: if e.is_static() { 0 } else { now_ms.saturating_sub(e.used) },
                is_static: e.is_static(),
            })
            .collect();
        list.sort_unstable_by_key(|e| (e.vlan, e.mac));
        list
    }

    pub fn stats(&self) -> MacStats {
        let inner = self.inner.read();
        let learnt: usize = inner.order.values().map(BTreeMap::len).sum();
        let entries = inner.entries.len();
        MacStats { entries, static_entries: entries - learnt, limit: inner.limit, ..inner.stats }
    }

    fn remove_if(&self, mut doomed: impl FnMut(&MacKey, &Entry) -> bool, why: Gone) -> Vec<MacChange> {
        let mut inner = self.inner.write();
        let keys: Vec<_> =
            inner.entries.iter().filter(|(k, e)| doomed(k, e)).map(|(k, e)| (*k, e.port)).collect();
        for (key, _) in &keys {
            inner.remove(key);
        }
        drop(inner);
        self.removed(keys, why)
    }

    fn removed(&self, gone: Vec<(MacKey, OfPort)>, why: Gone) -> Vec<MacChange> {
        gone.into_iter().map(|(key, port)| self.change(key, Change::Removed { port, why })).collect()
    }

    fn change(&self, key: MacKey, change: Change) -> MacChange {
        MacChange { bridge: self.bridge, key, change }
    }
}

impl Inner {
    /// Puts a learnt entry at the end of its port's order.
    fn link(&mut self, key: MacKey, port: OfPort, used: u64) {
        self.last_stamp += 1;
        let stamp = self.last_stamp;
        self.entries.insert(key, Entry { port, used, stamp });
        let order = self.order.entry(port).or_default();
        self.crowd.remove(&(order.len(), port));
        order.insert(stamp, key);
        self.crowd.insert((order.len(), port));
    }

    /// Takes an entry out of its port's order; it stays in `entries`.
    fn unlink(&mut self, entry: &Entry) {
        if entry.is_static() {
            return;
        }
        let Some(order) = self.order.get_mut(&entry.port) else { return };
        self.crowd.remove(&(order.len(), entry.port));
        order.remove(&entry.stamp);
        if order.is_empty() {
            self.order.remove(&entry.port);
        } else {
            self.crowd.insert((order.len(), entry.port));
        }
    }

    fn remove(&mut self, key: &MacKey) -> Option<OfPort> {
        let entry = self.entries.remove(key)?;
        self.unlink(&entry);
        Some(entry.port)
    }

    fn oldest(&self, port: OfPort) -> Option<MacKey> {
        self.order.get(&port)?.first_key_value().map(|(_, key)| *key)
    }

    /// Makes place: see the head of this module. `None` if there is nothing but static entries.
    fn evict(&mut self) -> Option<(MacKey, OfPort)> {
        let (_, port) = *self.crowd.last()?;
        let key = self.oldest(port)?;
        self.remove(&key);
        self.stats.evicted += 1;
        Some((key, port))
    }
}

/// The MAC tables of all bridges.
#[derive(Default)]
pub struct MacTables {
    tables: RwLock<HashMap<BridgeId, Arc<MacTable>>>,
}

impl MacTables {
    pub fn new() -> MacTables {
        MacTables::default()
    }

    /// The bridge's table, which is made if there is none.
    pub fn table(&self, bridge: BridgeId) -> Arc<MacTable> {
        if let Some(table) = self.tables.read().get(&bridge) {
            return table.clone();
        }
        self.tables.write().entry(bridge).or_insert_with(|| Arc::new(MacTable::new(bridge))).clone()
    }

    /// Forgets a bridge that is gone.
    pub fn remove(&self, bridge: BridgeId) {
        self.tables.write().remove(&bridge);
    }

    /// Applies what translations learnt. Only for bridges whose table was made.
    pub fn apply(&self, learns: &[Learn], now_ms: u64) -> Vec<MacChange> {
        let tables = self.tables.read();
        learns
            .iter()
            .filter_map(|l| tables.get(&l.bridge).map(|table| table.learn(l.vlan, &l.mac, l.port, now_ms)))
            .flatten()
            .collect()
    }

    /// [`MacTable::expire`] of every table.
    pub fn expire(&self, now_ms: u64) -> Vec<MacChange> {
        self.tables.read().values().flat_map(|table| table.expire(now_ms)).collect()
    }

    /// Whether the tables still say what a translation relied on. Asked after a megaflow's dependencies were
    /// registered, this closes the gap in which a change would not have found them.
    pub fn holds(&self, dep: &MacDep) -> bool {
        self.port_of(dep.bridge, dep.vlan, &dep.mac) == dep.seen
    }
}

impl MacView for MacTables {
    fn port_of(&self, bridge: BridgeId, vlan: u16, mac: &EthAddr) -> Option<OfPort> {
        self.tables.read().get(&bridge)?.lookup(vlan, mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P1: OfPort = OfPort(1);
    const P2: OfPort = OfPort(2);

    fn mac(n: u16) -> EthAddr {
        let [a, b] = n.to_be_bytes();
        [2, 0, 0, 0, a, b]
    }

    fn table() -> MacTable {
        MacTable::new(BridgeId(1))
    }

    fn kinds(changes: &[MacChange]) -> Vec<Change> {
        changes.iter().map(|c| c.change).collect()
    }

    #[test]
    fn learns_moves_and_ages() {
        let t = table();
        assert_eq!(kinds(&t.learn(10, &mac(1), P1, 1_000)), [Change::Added { port: P1 }]);
        assert_eq!(t.lookup(10, &mac(1)), Some(P1));
        assert_eq!((t.lookup(20, &mac(1)), t.lookup(10, &mac(2))), (None, None));
        assert!(t.learn(10, &mac(1), P1, 2_000).is_empty());
        assert_eq!(t.next_expiry(), Some(302_000));
        assert_eq!(kinds(&t.learn(10, &mac(1), P2, 3_000)), [Change::Moved { from: P1, to: P2 }]);
        assert!(t.expire(302_999).is_empty());
        assert_eq!(t.entries(13_000)[0].age_ms, 10_000);
        assert_eq!(kinds(&t.expire(303_000)), [Change::Removed { port: P2, why: Gone::Aged }]);
        assert_eq!((t.lookup(10, &mac(1)), t.next_expiry()), (None, None));
        let s = t.stats();
        assert_eq!((s.learned, s.moved, s.expired, s.entries), (1, 1, 1, 0));
    }

    #[test]
    fn group_addresses_are_not_learnt() {
        let t = table();
        assert!(t.learn(0, &[0xff; 6], P1, 0).is_empty());
        assert!(t.learn(0, &[1, 0, 0x5e, 0, 0, 1], P1, 0).is_empty());
        assert_eq!(t.stats().entries, 0);
    }

    #[test]
    fn a_port_that_floods_pushes_out_only_its_own() {
        let t = table();
        t.configure(300_000, 100);
        for n in 0..10 {
            t.learn(0, &mac(n), P1, n.into());
        }
        for n in 1000..3000 {
            let changes = t.learn(0, &mac(n), P2, n.into());
            assert!(changes.iter().all(|c| !matches!(c.change, Change::Removed { port: P1, .. })));
        }
        assert_eq!(t.stats().entries, 100);
        for n in 0..10 {
            assert_eq!(t.lookup(0, &mac(n)), Some(P1));
        }
        // The least recently seen of the crowded port went first.
        assert_eq!((t.lookup(0, &mac(2909)), t.lookup(0, &mac(2910))), (None, Some(P2)));
        // One that was seen again stays.
        t.learn(0, &mac(2910), P2, 5000);
        t.learn(0, &mac(5000), P2, 5001);
        assert_eq!((t.lookup(0, &mac(2910)), t.lookup(0, &mac(2911))), (Some(P2), None));
        assert_eq!(t.configure(300_000, 10).len(), 90);
        assert_eq!(t.stats().entries, 10);
    }

    #[test]
    fn static_entries_stay() {
        let t = table();
        t.learn(5, &mac(1), P1, 0);
        assert_eq!(kinds(&t.add_static(5, &mac(1), P2)), [Change::Moved { from: P1, to: P2 }]);
        assert!(t.learn(5, &mac(1), P1, 10).is_empty());
        assert!(t.expire(u64::MAX).is_empty() && t.flush().is_empty());
        assert_eq!(t.lookup(5, &mac(1)), Some(P2));
        assert_eq!((t.stats().static_entries, t.entries(99)[0].is_static), (1, true));
        t.configure(1, 1);
        assert!(t.learn(5, &mac(2), P1, 10).is_empty(), "no place beside a static entry");
        assert_eq!(t.flush_port(P2).len(), 1);
        assert_eq!(t.lookup(5, &mac(1)), None);
        t.add_static(5, &mac(1), P2);
        assert!(t.remove(5, &mac(1)).is_some() && t.remove(5, &mac(1)).is_none());
    }

    #[test]
    fn flushes() {
        let t = table();
        t.learn(1, &mac(1), P1, 0);
        t.learn(2, &mac(1), P1, 0);
        t.learn(2, &mac(2), P2, 0);
        assert_eq!(t.flush_vlan(1).len(), 1);
        assert_eq!(t.flush_port(P1).len(), 1);
        assert_eq!(kinds(&t.flush()), [Change::Removed { port: P2, why: Gone::Flushed }]);
    }

    #[test]
    fn tables_of_many_bridges() {
        let tables = MacTables::new();
        let (a, b) = (BridgeId(1), BridgeId(2));
        tables.table(a);
        let learns = [
            Learn { bridge: a, vlan: 0, mac: mac(1), port: P1 },
            Learn { bridge: b, vlan: 0, mac: mac(1), port: P2 },
        ];
        assert_eq!(tables.apply(&learns, 5).len(), 1);
        assert_eq!(tables.port_of(a, 0, &mac(1)), Some(P1));
        let dep = MacDep { bridge: b, vlan: 0, mac: mac(1), seen: None };
        assert!(tables.holds(&dep));
        tables.table(b);
        tables.apply(&learns, 6);
        assert!(!tables.holds(&dep));
        assert_eq!(tables.expire(400_000).len(), 2);
        tables.remove(a);
        assert_eq!(tables.port_of(a, 0, &mac(1)), None);
    }
}
