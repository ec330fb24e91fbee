//! Ports with their limits and counters, and meters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use switch_common::bucket::{RateLimit, admit};
use switch_common::counter::Drop;

use crate::action::DpPort;
use crate::datapath::{DatapathError, PortTotals};

/// What the datapath knows of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// Bytes behind the Ethernet header (a VLAN tag does not count) that it takes.
    pub mtu: u32,
    /// Frames can leave through it.
    pub up: bool,
    /// Its misses may go up.
    pub upcalls: bool,
}

/// Protocol traffic of one port: packets a second and at once, as in the eBPF programs.
const PROTOCOL_RATE: u64 = 4000;
const PROTOCOL_BURST: u64 = 1000;

pub(super) struct Port {
    config: Mutex<PortConfig>,
    limit: Mutex<RateLimit>,
    protocol_limit: Mutex<RateLimit>,
    upcalls: AtomicU64,
    limited: AtomicU64,
    dropped: AtomicU64,
    policy_dropped: AtomicU64,
}

impl Port {
    fn new(config: PortConfig) -> Port {
        Port {
            config: Mutex::new(config),
            limit: Mutex::new(RateLimit::packets(0, 0)),
            protocol_limit: Mutex::new(RateLimit::packets(PROTOCOL_RATE, PROTOCOL_BURST)),
            upcalls: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            policy_dropped: AtomicU64::new(0),
        }
    }

    pub fn config(&self) -> PortConfig {
        *self.config.lock()
    }

    /// Whether a miss may go up now; counts that.
    pub fn admit_upcall(&self, now_ns: u64, protocol: bool) -> Result<(), Drop> {
        if !self.config().upcalls {
            return Err(Drop::UpcallFailed);
        }
        let limit = if protocol { &self.protocol_limit } else { &self.limit };
        if !conforms(&mut limit.lock(), now_ns, 0) {
            self.limited.fetch_add(1, Ordering::Relaxed);
            return Err(Drop::UpcallLimit);
        }
        self.upcalls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn conforms(limit: &mut RateLimit, now_ns: u64, len: u32) -> bool {
    if limit.burst == 0 {
        return true;
    }
    match admit(limit.tat, now_ns, limit.cost_of(len, 1), limit.burst) {
        Some(tat) => {
            limit.tat = tat;
            true
        }
        None => false,
    }
}

#[derive(Default)]
pub(super) struct Ports(RwLock<HashMap<DpPort, Arc<Port>>>);

impl Ports {
    pub fn add(&self, port: DpPort, config: PortConfig) -> Result<(), DatapathError> {
        let mut ports = self.0.write();
        if port.0 == 0 || ports.contains_key(&port) {
            return Err(DatapathError::PortTaken(port.0));
        }
        ports.insert(port, Arc::new(Port::new(config)));
        Ok(())
    }

    pub fn update(&self, port: DpPort, config: PortConfig) -> Result<(), DatapathError> {
        let port = self.get(port).ok_or(DatapathError::NoPort(port.0))?;
        *port.config.lock() = config;
        Ok(())
    }

    pub fn remove(&self, port: DpPort) -> Result<(), DatapathError> {
        self.0.write().remove(&port).map(|_| ()).ok_or(DatapathError::NoPort(port.0))
    }

    pub fn get(&self, port: DpPort) -> Option<Arc<Port>> {
        self.0.read().get(&port).cloned()
    }

    pub fn set_limit(&self, port: DpPort, rate: u64, burst: u64) -> Result<(), DatapathError> {
        let port = self.get(port).ok_or(DatapathError::NoPort(port.0))?;
        *port.limit.lock() = RateLimit::packets(rate, burst);
        Ok(())
    }

    pub fn totals(&self, port: DpPort) -> PortTotals {
        self.get(port).map_or_else(PortTotals::default, |p| PortTotals {
            upcalls: p.upcalls.load(Ordering::Relaxed),
            limited: p.limited.load(Ordering::Relaxed),
            dropped: p.dropped.load(Ordering::Relaxed),
            policy_dropped: p.policy_dropped.load(Ordering::Relaxed),
        })
    }

    /// Counts a drop on the port that the packet came in on, if there is one.
    pub fn count_drop(&self, in_port: DpPort, reason: Drop) {
        if let Some(port) = self.0.read().get(&in_port) {
            let counter = if reason == Drop::Policy { &port.policy_dropped } else { &port.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
pub(super) struct Meters(Mutex<HashMap<u32, RateLimit>>);

impl Meters {
    /// A rate of 0 removes the meter.
    pub fn set(&self, id: u32, per_byte: bool, rate: u64, burst: u64) {
        let mut meters = self.0.lock();
        if rate == 0 {
            meters.remove(&id);
        } else {
            let limit =
                if per_byte { RateLimit::bytes(rate, burst) } else { RateLimit::packets(rate, burst) };
            meters.insert(id, limit);
        }
    }

    /// Whether a packet of `len` bytes passes. A meter that does not exist limits nothing.
    pub fn conforms(&self, id: u32, now_ns: u64, len: u32) -> bool {
        self.0.lock().get_mut(&id).is_none_or(|limit| conforms(limit, now_ns, len))
    }
}
