//! Packets dropped in userspace, by reason and by port: what the datapath cannot count.

use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use switch_common::counter::{COUNTER_ROW, Drop};
use switch_dpif::action::DpPort;

/// The counts.
pub struct UserDrops {
    reasons: [AtomicU64; COUNTER_ROW],
    /// Misses lost to a full queue.
    ports: Mutex<HashMap<DpPort, u64>>,
}

impl Default for UserDrops {
    fn default() -> Self {
        UserDrops { reasons: std::array::from_fn(|_| AtomicU64::new(0)), ports: Mutex::default() }
    }
}

impl UserDrops {
    pub fn count(&self, reason: Drop, packets: u64) {
        self.reasons[reason as usize].fetch_add(packets, Ordering::Relaxed);
    }

    pub fn total(&self, reason: Drop) -> u64 {
        self.reasons[reason as usize].load(Ordering::Relaxed)
    }

    /// Misses of a port that were lost to its full queue.
    pub fn count_port(&self, port: DpPort, packets: u64) {
        *self.ports.lock().entry(port).or_default() += packets;
    }

    pub fn port_total(&self, port: DpPort) -> u64 {
        self.ports.lock().get(&port).copied().unwrap_or(0)
    }

    /// The port's number may be used again.
    pub fn forget_port(&self, port: DpPort) {
        self.ports.lock().remove(&port);
    }
}
