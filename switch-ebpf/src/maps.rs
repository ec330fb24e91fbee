//! Every map and every constant that the loader sets.
//!
//! Names and meaning are the contract with the daemon (`switch-datapath`), layouts are `switch-common`'s. The
//! numbers of entries here are only defaults: the loader sets them for the machine and the configuration.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, DevMap, PerCpuArray, ProgramArray, XskMap};
use switch_common::action::Action;
use switch_common::bucket::RateLimit;
use switch_common::counter::COUNTER_ROW;
use switch_common::flow::*;
use switch_common::hash::{HASH_KEY_LEN, HashKey};
use switch_common::key::KINDS;
use switch_common::port::*;

use crate::scratch::Scratch;
use crate::upcall::Upcall;

const MMAP: u32 = BPF_F_MMAPABLE;

const FLOWS_DEFAULT: u32 = 4096;
const CPUS_DEFAULT: u32 = 8;

#[map]
pub static FLOWS: Array<FlowEntry> = Array::with_max_entries(FLOWS_DEFAULT, MMAP);
#[map]
pub static FLOW_REST: Array<FlowRest> = Array::with_max_entries(FLOWS_DEFAULT, MMAP);
#[map]
pub static FLOW_STATS: Array<FlowStats> = Array::with_max_entries(FLOWS_DEFAULT * CPUS_DEFAULT, MMAP);
#[map]
pub static ACTIONS: Array<Action> = Array::with_max_entries(4 * FLOWS_DEFAULT, MMAP);
#[map]
pub static BUCKETS: Array<Bucket> = Array::with_max_entries(FLOWS_DEFAULT, MMAP);
#[map]
pub static MASKS_SHORT: Array<ShortMasks> = Array::with_max_entries(1, MMAP);
#[map]
pub static MASKS_LONG: Array<LongMasks> = Array::with_max_entries(1, MMAP);
#[map]
pub static MASKS_FULL: Array<FullMasks> = Array::with_max_entries(1, MMAP);
#[map]
pub static MASK_ORDER: Array<MaskOrder> = Array::with_max_entries(KINDS as u32, MMAP);
#[map]
pub static CACHE_SHORT: Array<ShortCached> = Array::with_max_entries(CACHE_ENTRIES * CPUS_DEFAULT, MMAP);
#[map]
pub static CACHE_LONG: Array<LongCached> = Array::with_max_entries(CACHE_ENTRIES * CPUS_DEFAULT, MMAP);
#[map]
pub static PORTS: Array<PortEntry> = Array::with_max_entries(MAX_PORTS, MMAP);
#[map]
pub static PORT_LIMITS: Array<RateLimit> = Array::with_max_entries(MAX_PORTS, MMAP);
#[map]
pub static IFINDEX: Array<IfindexEntry> = Array::with_max_entries(IFINDEX_SLOTS, MMAP);
#[map]
pub static PORT_COUNTERS: Array<PortCounters> = Array::with_max_entries(MAX_PORTS * CPUS_DEFAULT, MMAP);
#[map]
pub static METERS: Array<RateLimit> = Array::with_max_entries(1024, MMAP);
#[map]
pub static COUNTERS: Array<[u64; COUNTER_ROW]> = Array::with_max_entries(CPUS_DEFAULT, MMAP);
#[map]
pub static TX: DevMap = DevMap::with_max_entries(MAX_PORTS, 0);
#[map]
pub static XSKS: XskMap = XskMap::with_max_entries(64, 0);
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static XDP_PROGS: ProgramArray = ProgramArray::with_max_entries(4, 0);
#[map]
pub static TC_PROGS: ProgramArray = ProgramArray::with_max_entries(4, 0);

/// What `upcall_push` writes in front of the next frame that this CPU sends to up0. Private to the programs.
#[map]
pub static UPCALL: PerCpuArray<Upcall> = PerCpuArray::with_max_entries(1, 0);
/// State of each port's limit of protocol traffic ([`crate::upcall`]). Private to the programs.
#[map]
pub static PROTOCOL_LIMITS: Array<u64> = Array::with_max_entries(MAX_PORTS, 0);

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident / $read:ident: $ty:ty;)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub static $name: $ty = 0;

        $(#[$doc])*
        #[inline(always)]
        pub fn $read() -> $ty {
            // SAFETY: a valid static; volatile because the loader changes what the compiler takes for a constant.
            unsafe { (&raw const $name).read_volatile() }
        }
    )*};
}

constants! {
    /// Number of buckets less one.
    BUCKET_MASK / bucket_mask: u32;
    /// Slots of `FLOWS`: the stride of `FLOW_STATS`.
    FLOW_SLOTS / flow_slots: u32;
    /// The instance's random number in hand-overs.
    MAGIC / magic: u64;
    /// Interface index of up0.
    UPCALL_IFINDEX / upcall_ifindex: u32;
    /// VLAN tags that are parsed at most.
    VLAN_LIMIT / vlan_limit: u32;
}

/// The random key of [`switch_common::hash`].
#[unsafe(no_mangle)]
pub static HASH_KEY: HashKey = [0; HASH_KEY_LEN];

/// The hash key, in a form that the compiler cannot take for the zeroes that it is before loading.
#[inline(always)]
pub fn hash_key() -> &'static HashKey {
    let mut key = &raw const HASH_KEY;
    // SAFETY: the statement leaves the register as it is, so that it still points to the static.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) key, options(nomem, nostack, preserves_flags));
        &*key
    }
}
