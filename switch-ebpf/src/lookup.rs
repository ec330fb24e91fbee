//! The way of every packet: port, key, exact-match cache, megaflows.

use switch_common::counter::{Counter, Drop};
use switch_common::flow::{FlowEntry, NO_SLOT};
use switch_common::key::Kind;
use switch_common::parse::{parse_common, parse_common_v6};

use crate::cache::{fill_long, fill_short, probe_long, probe_short};
use crate::count::{count, count_drop};
use crate::hook::{Hit, Hook};
use crate::maps::{FLOWS, SCRATCH};
use crate::megaflow::{megaflow_full, megaflow_long, megaflow_short};
use crate::port::port_of;
use crate::scratch::{Headers, Origin, Scratch};

/// A packet that has just come in.
#[inline(always)]
pub fn enter<H: Hook>(hook: H) -> i32 {
    let in_port = port_of(hook.ifindex());
    if in_port == 0 {
        count_drop(0, Drop::NoPort as u32);
        return H::DROPPED;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return H::DROPPED };
    hook.prepare();
    let origin = Origin::fresh(in_port);
    if hook.is_plain() {
        // SAFETY: the view is of this program's packet, the key a valid map value.
        unsafe {
            let key = &raw mut (*scratch).key;
            if parse_common(hook.view(), in_port, key) {
                return look_up(hook, scratch, Headers::COMMON, origin);
            }
            if parse_common_v6(hook.view(), in_port, key) {
                return look_up(hook, scratch, Headers::COMMON_V6, origin);
            }
        }
    }
    parse_and_look_up(hook, scratch, origin)
}

/// Any packet, from its parsing on.
#[inline(always)]
pub fn parse_and_look_up<H: Hook>(hook: H, scratch: *mut Scratch, origin: Origin) -> i32 {
    let headers = hook.parse(origin);
    if headers == Headers::RUNT {
        count_drop(origin.in_port as u32, Drop::Runt as u32);
        return H::DROPPED;
    }
    if headers.malformed() {
        count(Counter::Malformed);
    }
    look_up(hook, scratch, headers, origin)
}

#[inline(always)]
fn look_up<H: Hook>(hook: H, scratch: *mut Scratch, headers: Headers, origin: Origin) -> i32 {
    // SAFETY: a valid map value.
    let key = unsafe { &raw const (*scratch).key };
    let found = match hook.handed_over(origin.in_port) {
        Some(found) if origin.recirculations == 0 => Some(found),
        // SAFETY: the scratch holds the whole key of this kind, as the parser left it.
        _ => unsafe { find(key.cast(), headers) },
    };
    match found {
        // SAFETY: both are valid map values.
        Some((slot, flow)) => unsafe { hook.deliver(Hit { slot, flow, key, headers, origin }) },
        None => hook.missed(origin, headers),
    }
}

/// The flow of the key in the scratch, and its slot.
///
/// # Safety
/// `words` must point to the scratch's key, parsed.
#[inline(always)]
unsafe fn find(words: *const u64, headers: Headers) -> Option<(u32, *const FlowEntry)> {
    const SHORT: u8 = Kind::Short as u8;
    const LONG: u8 = Kind::Long as u8;
    // SAFETY: the caller's promise.
    unsafe {
        match headers.kind() {
            SHORT => {
                let probe = probe_short(words)?;
                if probe.hit.is_some() {
                    count(Counter::CacheHit);
                    return probe.hit;
                }
                let (slot, flow) = found(megaflow_short())?;
                fill_short(&probe, words, slot, seq(flow));
                Some((slot, flow))
            }
            LONG => {
                let probe = probe_long(words)?;
                if probe.hit.is_some() {
                    count(Counter::CacheHit);
                    return probe.hit;
                }
                let (slot, flow) = found(megaflow_long())?;
                fill_long(&probe, words, slot, seq(flow));
                Some((slot, flow))
            }
            _ => found(megaflow_full()),
        }
    }
}

/// The sequence number that goes into the cache. It is even while the flow is live; when the flow is withdrawn
/// between its comparison and this read, the next, odd number is read, and rounded down to one that is over.
///
/// # Safety
/// `flow` must be a valid map value.
#[inline(always)]
unsafe fn seq(flow: *const FlowEntry) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { (&raw const (*flow).seq).read_volatile() & !1 }
}

/// Counts a hit among the megaflows.
#[inline(always)]
fn found(slot: u32) -> Option<(u32, *const FlowEntry)> {
    if slot == NO_SLOT {
        return None;
    }
    let flow = FLOWS.get_ptr(slot)?;
    count(Counter::MegaflowHit);
    Some((slot, flow))
}
