//! Statistics of flows, and counters of what happened to packets.
//!
//! Each CPU has rows of its own in shared arrays, so that plain additions do; the daemon sums the rows.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use switch_common::counter::{Counter, Drop};
use switch_common::port::{MAX_PORTS, PortCounters};

use crate::maps::{COUNTERS, FLOW_STATS, PORT_COUNTERS, flow_slots};

/// What one frame stands for: a GSO frame is many packets.
#[derive(Clone, Copy)]
pub struct Amount {
    pub packets: u32,
    /// Bytes from the Ethernet header on, VLAN tags included, as on a wire.
    pub bytes: u32,
}

#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: the helper takes no arguments and has no conditions.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// One more of `counter` on this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    add(counter as usize, 1);
}

/// `n` more of counter number `index`.
#[inline(always)]
pub fn add(index: usize, n: u64) {
    if let Some(row) = COUNTERS.get_ptr_mut(cpu()) {
        // SAFETY: the row is this CPU's alone; every counter's number is under `COUNTER_ROW`.
        unsafe { *(row as *mut u64).add(index) += n };
    }
}

/// Adds a packet to its flow's statistics. `tcp_flags` in host order.
#[inline(always)]
pub fn account(slot: u32, amount: Amount, tcp_flags: u16) {
    if let Some(s) = FLOW_STATS.get_ptr_mut(cpu().wrapping_mul(flow_slots()).wrapping_add(slot)) {
        // SAFETY: the row is this CPU's alone. The helper has no conditions; the JIT makes a plain load of it.
        unsafe {
            (*s).packets += amount.packets as u64;
            (*s).bytes += amount.bytes as u64;
            (*s).used = bpf_jiffies64();
            if tcp_flags != 0 {
                (*s).tcp_flags |= tcp_flags as u64;
            }
        }
    }
}

/// The row of counters of a port on this CPU.
#[inline(always)]
pub fn port_row(port: u32) -> Option<*mut PortCounters> {
    PORT_COUNTERS.get_ptr_mut(cpu().wrapping_mul(MAX_PORTS).wrapping_add(port))
}

/// Counts a dropped packet: `reason` is the number of a [`Drop`], `in_port` 0 if it came from no port.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_drop(in_port: u32, reason: u32) -> u32 {
    let reason = if reason > Drop::Hairpin as u32 { Drop::Helper as u32 } else { reason };
    add(reason as usize, 1);
    if in_port != 0
        && let Some(row) = port_row(in_port & 0xffff)
    {
        // SAFETY: the row is this CPU's alone.
        unsafe {
            if reason == Drop::Policy as u32 {
                (*row).policy_dropped += 1;
            } else {
                (*row).dropped += 1;
            }
        }
    }
    0
}
