//! The maps by which the programs know ports: what an output to one needs, and which one an interface is.

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use switch_common::bucket::RateLimit;
use switch_common::port::{
    IFINDEX_PROBES, IFINDEX_SLOTS, IfindexEntry, MAX_PORTS, PORT_ACTIVE, PORT_UPCALLS, PORT_XDP_OUTPUT,
    PortCounters, PortEntry,
};
use switch_dpif::datapath::PortTotals;

use crate::memory::Area;

/// The table of interfaces has no free entry where this one's would be looked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("too many interfaces share interface index {} modulo {IFINDEX_SLOTS}", .0 % IFINDEX_SLOTS)]
pub struct IfindexCrowded(pub u32);

/// What changes about a port while it is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortSettings {
    /// Bytes behind the Ethernet header.
    pub mtu: u32,
    /// Administratively up, and the device is there.
    pub up: bool,
    /// Its misses may go up.
    pub upcalls: bool,
    /// The device takes frames from an XDP redirect.
    pub xdp_output: bool,
    /// Queue of the upcall pair.
    pub upcall_queue: u32,
}

impl PortSettings {
    fn flags(&self) -> u32 {
        let bit = |on, bit| if on { bit } else { 0 };
        bit(self.up, PORT_ACTIVE) | bit(self.xdp_output, PORT_XDP_OUTPUT) | bit(self.upcalls, PORT_UPCALLS)
    }
}

/// The maps.
pub struct PortTables {
    pub ports: Area<PortEntry>,
    pub ifindex: Area<IfindexEntry>,
    pub limits: Area<RateLimit>,
    /// `cpus` rows of `MAX_PORTS`.
    pub counters: Area<PortCounters>,
    pub cpus: usize,
}

impl PortTables {
    /// Announces an interface as a port. Counters and limit start anew.
    pub fn add(&self, port: u16, ifindex: u32, settings: &PortSettings) -> Result<(), IfindexCrowded> {
        let index = (0..IFINDEX_PROBES)
            .map(|probe| (ifindex.wrapping_add(probe) % IFINDEX_SLOTS) as usize)
            .find(|i| self.ifindex_at(*i) as u32 == 0)
            .ok_or(IfindexCrowded(ifindex))?;
        for cpu in 0..self.cpus {
            self.counters.write(cpu * MAX_PORTS as usize + usize::from(port), PortCounters::default());
        }
        self.set_limit(port, RateLimit::default());
        let entry = PortEntry {
            ifindex,
            flags: settings.flags(),
            mtu: settings.mtu,
            upcall_queue: settings.upcall_queue,
        };
        self.ports.write(usize::from(port), entry);
        // Both halves at once: the interface's index in the low one, the port above it.
        self.ifindex.u64_at(index, 0).store(u64::from(ifindex) | u64::from(port) << 32, Ordering::Release);
        Ok(())
    }

    fn ifindex_at(&self, i: usize) -> u64 {
        self.ifindex.u64_at(i, 0).load(Ordering::Relaxed)
    }

    /// Forgets a port. Its program must be detached already.
    pub fn remove(&self, port: u16, ifindex: u32) {
        for probe in 0..IFINDEX_PROBES {
            let i = (ifindex.wrapping_add(probe) % IFINDEX_SLOTS) as usize;
            if self.ifindex_at(i) == u64::from(ifindex) | u64::from(port) << 32 {
                self.ifindex.u64_at(i, 0).store(0, Ordering::Release);
            }
        }
        let i = usize::from(port);
        self.ports.u32_at(i, offset_of!(PortEntry, flags)).store(0, Ordering::Release);
        self.ports.u32_at(i, offset_of!(PortEntry, ifindex)).store(0, Ordering::Release);
        self.set_limit(port, RateLimit::default());
    }

    /// Whether a port with this number has been added.
    pub fn exists(&self, port: u16) -> bool {
        port != 0
            && self.ports.u32_at(usize::from(port), offset_of!(PortEntry, ifindex)).load(Ordering::Acquire)
                != 0
    }

    /// Whether a port takes frames from an XDP redirect.
    pub fn takes_xdp_output(&self, port: u16) -> bool {
        let flags = self.ports.u32_at(usize::from(port), offset_of!(PortEntry, flags));
        flags.load(Ordering::Acquire) & PORT_XDP_OUTPUT != 0
    }

    /// Changes a port in place.
    pub fn update(&self, port: u16, settings: &PortSettings) {
        let i = usize::from(port);
        let word = |offset| self.ports.u32_at(i, offset);
        word(offset_of!(PortEntry, mtu)).store(settings.mtu, Ordering::Relaxed);
        word(offset_of!(PortEntry, upcall_queue)).store(settings.upcall_queue, Ordering::Relaxed);
        word(offset_of!(PortEntry, flags)).store(settings.flags(), Ordering::Release);
    }

    /// Sets the limit of a port's misses.
    pub fn set_limit(&self, port: u16, limit: RateLimit) {
        write_limit(&self.limits, usize::from(port), limit);
    }

    /// Sums of a port's counters over all CPUs.
    pub fn totals(&self, port: u16) -> PortTotals {
        let mut sum = PortTotals::default();
        for cpu in 0..self.cpus {
            let c = self.counters.read(cpu * MAX_PORTS as usize + usize::from(port));
            sum.upcalls += c.upcalls;
            sum.limited += c.limited;
            sum.dropped += c.dropped;
            sum.policy_dropped += c.policy_dropped;
        }
        sum
    }
}

/// Changes a limit that programs may be applying: while its numbers change it limits nothing. Its state stays, so
/// that a change grants no new burst.
pub fn write_limit(limits: &Area<RateLimit>, i: usize, limit: RateLimit) {
    let burst = limits.u64_at(i, offset_of!(RateLimit, burst));
    burst.store(0, Ordering::Release);
    limits.u64_at(i, offset_of!(RateLimit, cost)).store(limit.cost, Ordering::Release);
    limits.u32_at(i, offset_of!(RateLimit, per_byte)).store(limit.per_byte, Ordering::Release);
    burst.store(limit.burst, Ordering::Release);
}

/// Decides about a packet of `len` bytes as the programs do, with the state that they share.
pub fn admit(limits: &Area<RateLimit>, i: usize, len: u32) -> bool {
    let limit = limits.read(i);
    if limit.burst == 0 {
        return true;
    }
    let now = crate::jiffies::now_ns() as u64;
    let state = limits.u64_at(i, offset_of!(RateLimit, tat));
    let cost = limit.cost_of(len, 1);
    let admitted = |tat| switch_common::bucket::admit(tat, now, cost, limit.burst);
    state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admitted).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> PortTables {
        PortTables {
            ports: Area::heap(MAX_PORTS as usize),
            ifindex: Area::heap(IFINDEX_SLOTS as usize),
            limits: Area::heap(MAX_PORTS as usize),
            counters: Area::heap(2 * MAX_PORTS as usize),
            cpus: 2,
        }
    }

    /// As the programs read it.
    fn port_of(t: &PortTables, ifindex: u32) -> u16 {
        (0..IFINDEX_PROBES)
            .map(|p| t.ifindex.read((ifindex.wrapping_add(p) % IFINDEX_SLOTS) as usize))
            .find(|e| e.ifindex == ifindex)
            .map_or(0, |e| e.port)
    }

    const SETTINGS: PortSettings =
        PortSettings { mtu: 1500, up: true, upcalls: true, xdp_output: false, upcall_queue: 1 };

    #[test]
    fn interfaces_that_collide() {
        let t = tables();
        let indices: Vec<u32> = (0..IFINDEX_PROBES).map(|i| 7 + i * IFINDEX_SLOTS).collect();
        for (i, ifindex) in indices.iter().enumerate() {
            t.add(i as u16 + 1, *ifindex, &SETTINGS).unwrap();
        }
        assert_eq!(t.add(99, 7 + 9 * IFINDEX_SLOTS, &SETTINGS), Err(IfindexCrowded(7 + 9 * IFINDEX_SLOTS)));
        t.remove(2, indices[1]);
        assert_eq!(port_of(&t, indices[1]), 0);
        assert_eq!(port_of(&t, indices[3]), 4);
        t.add(2, indices[1], &SETTINGS).unwrap();
        for (i, ifindex) in indices.iter().enumerate() {
            assert_eq!(port_of(&t, *ifindex), i as u16 + 1);
        }
    }

    #[test]
    fn settings_and_totals() {
        let t = tables();
        t.add(5, 3, &SETTINGS).unwrap();
        t.update(5, &PortSettings { mtu: 9000, up: false, xdp_output: true, ..SETTINGS });
        let e = t.ports.read(5);
        assert_eq!((e.ifindex, e.mtu, e.flags), (3, 9000, PORT_XDP_OUTPUT | PORT_UPCALLS));
        t.counters.write(5, PortCounters { upcalls: 2, limited: 1, dropped: 0, policy_dropped: 4 });
        t.counters.write(5 + MAX_PORTS as usize, PortCounters { upcalls: 3, ..Default::default() });
        let totals = PortTotals { upcalls: 5, limited: 1, dropped: 0, policy_dropped: 4 };
        assert_eq!(t.totals(5), totals);
        t.remove(5, 3);
        assert_eq!((port_of(&t, 3), t.ports.read(5).flags), (0, 0));
        t.add(5, 4, &SETTINGS).unwrap();
        assert_eq!(t.totals(5), PortTotals::default());
    }
}
