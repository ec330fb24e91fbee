//! Rate limits: the state of a bucket is one number, changed by compare-and-exchange.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use switch_common::bucket::{RateLimit, admit};

/// Attempts to change a state that other CPUs change at the same time. Who fails as often lets the packet pass
/// without counting it.
const ATTEMPTS: u32 = 4;

/// Whether a frame of `len` bytes, standing for `packets`, passes a limit that lives in a map.
///
/// # Safety
/// `limit` must be a valid map value.
#[inline(always)]
pub unsafe fn admitted(limit: *mut RateLimit, len: u32, packets: u32) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let now = RateLimit {
            tat: 0,
            cost: (*limit).cost,
            burst: (*limit).burst,
            per_byte: (*limit).per_byte,
            pad: 0,
        };
        now.burst == 0 || conforms(&raw mut (*limit).tat, &now, len, packets)
    }
}

/// The same with the state apart from the limit.
///
/// # Safety
/// `tat` must be a valid map value.
#[inline(always)]
pub unsafe fn conforms(tat: *mut u64, limit: &RateLimit, len: u32, packets: u32) -> bool {
    let cost = limit.cost_of(len, packets);
    // SAFETY: the helper has no conditions; the caller's promise.
    unsafe {
        let now = bpf_ktime_get_ns();
        let mut attempt = 0;
        while attempt < ATTEMPTS {
            let old = tat.read_volatile();
            let Some(new) = admit(old, now, cost, limit.burst) else { return false };
            if exchange(tat, old, new) {
                return true;
            }
            attempt += 1;
        }
    }
    true
}

/// Compare and exchange. The target has the instruction, but `core` offers no atomic type for it.
///
/// # Safety
/// `place` must be a valid, aligned map value.
#[inline(always)]
unsafe fn exchange(place: *mut u64, old: u64, new: u64) -> bool {
    let seen: u64;
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({place} + 0, r0, {new})",
            place = in(reg) place,
            new = in(reg) new,
            inout("r0") old => seen,
            options(nostack),
        );
    }
    seen == old
}
