//! Megaflow lookup: masks in the order of their hits, each a probe of one hash table.
//!
//! The table is the daemon's, which writes to it while this reads (see `switch_common::flow`). What is found is
//! trusted only after the whole masked key, the mask's id and the kind have been compared.
//!
//! Form follows what the verifier takes: the loop over the masks hashes and tests the four tags of a bucket
//! inline, which nearly always says "not here"; the rest is a function that is verified once.

use switch_common::counter::Counter;
use switch_common::flow::*;
use switch_common::hash;
use switch_common::key::{KEY_WORDS, Kind, LONG_WORDS, SHORT_WORDS};

use crate::count;
use crate::maps::*;

/// A key's or mask's first `W` words, as an argument whose size the verifier can see.
#[repr(C)]
pub struct Words<const W: usize> {
    pub w: [u64; W],
}

pub type ShortWords = Words<SHORT_WORDS>;
pub type LongWords = Words<LONG_WORDS>;
pub type FullWords = Words<KEY_WORDS>;

#[inline(always)]
unsafe fn hash_masked<const W: usize>(key: *const u64, mask: *const u64, id: u64) -> u64 {
    let random = hash_key();
    let mut sum = hash::begin(id);
    let mut i = 0;
    while i < W {
        // SAFETY: both have `W` words.
        sum = hash::step(sum, unsafe { *key.add(i) & *mask.add(i) }, i, random);
        i += 1;
    }
    hash::finish(sum)
}

/// Whether the flow in `slot` is of this mask and has this masked key.
#[inline(always)]
unsafe fn is_flow<const W: usize>(slot: u32, key: *const u64, mask: *const u64, id: u32, kind: Kind) -> bool {
    let Some(flow) = FLOWS.get_ptr(slot) else { return false };
    // SAFETY: valid map values; key and mask have `W` words, the entry `LONG_WORDS`, its rest the others.
    unsafe {
        if (*flow).mask_id as u32 != id || (*flow).kind != kind as u8 {
            return false;
        }
        let here: *const u64 = (&raw const (*flow).key).cast();
        let mut differ = 0;
        let mut i = 0;
        while i < W && i < LONG_WORDS {
            differ |= (*key.add(i) & *mask.add(i)) ^ *here.add(i);
            i += 1;
        }
        if differ != 0 {
            return false;
        }
        if W > LONG_WORDS {
            let Some(rest) = FLOW_REST.get_ptr(slot) else { return false };
            let rest: *const u64 = rest.cast();
            while i < W {
                differ |= (*key.add(i) & *mask.add(i)) ^ *rest.add(i - LONG_WORDS);
                i += 1;
            }
        }
        differ == 0
    }
}

/// The flow in one bucket, or `NO_SLOT`.
#[inline(always)]
unsafe fn in_bucket<const W: usize>(
    index: u32,
    hash: u64,
    key: *const u64,
    mask: *const u64,
    id: u32,
    kind: Kind,
) -> u32 {
    let Some(bucket) = BUCKETS.get_ptr(index) else { return NO_SLOT };
    // SAFETY: a valid map value; volatile, since the daemon changes it at any time.
    unsafe {
        let lanes = matching_lanes((&raw const (*bucket).tags).read_volatile(), tag_pattern(hash));
        let mut lane = 0;
        while lane < BUCKET_ENTRIES {
            if lanes >> (16 * lane + 15) & 1 != 0 {
                let slot = (&raw const (*bucket).slots[lane]).read_volatile();
                if slot != NO_SLOT && is_flow::<W>(slot, key, mask, id, kind) {
                    return slot;
                }
            }
            lane += 1;
        }
    }
    NO_SLOT
}

/// The flow of a hash in either of its buckets. The first is always searched: a flow that moves to its second
/// bucket is written there before it leaves the first, so that searching in this order never overlooks it.
#[inline(always)]
unsafe fn candidate<const W: usize>(
    key: *const u64,
    mask: *const u64,
    id: u32,
    hash: u64,
    kind: Kind,
) -> u32 {
    // SAFETY: key and mask have `W` words.
    unsafe {
        let slot = in_bucket::<W>(first_bucket(hash, bucket_mask()), hash, key, mask, id, kind);
        if slot != NO_SLOT {
            return slot;
        }
        in_bucket::<W>(second_bucket(hash, bucket_mask()), hash, key, mask, id, kind)
    }
}

#[inline(always)]
unsafe fn search<const W: usize>(
    masks: *const MaskTable<W>,
    kind: Kind,
    candidate: impl Fn(*const u64, *const u64, u32, u64) -> u32,
) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr(0) else { return NO_SLOT };
    let Some(order) = MASK_ORDER.get_ptr(kind as u32) else { return NO_SLOT };
    // SAFETY: valid map values; indices are brought into their bounds below.
    unsafe {
        let key: *const u64 = (&raw const (*scratch).key).cast();
        let active = (&raw const (*order).active).read_volatile() & 1;
        let list = (&raw const (*order).lists).cast::<MaskList>().add(active as usize);
        let count = (&raw const (*list).count).read_volatile();
        let mut found = NO_SLOT;
        let mut tried = 0u32;
        while (tried as usize) < MAX_MASKS {
            if tried >= count {
                break;
            }
            let mut id = (&raw const (*list).ids).cast::<u8>().add(tried as usize).read_volatile() as u64;
            tried += 1;
            // The compiler knows that ids are under 128 by what it has seen, or thinks so; the verifier needs to
            // be shown.
            core::arch::asm!("{0} &= 127", inout(reg) id, options(nomem, nostack));
            let mask = (&raw const (*masks).masks).cast::<u64>().add(id as usize * W);
            let hash = hash_masked::<W>(key, mask, id);
            let Some(bucket) = BUCKETS.get_ptr(first_bucket(hash, bucket_mask())) else { break };
            let tags = (&raw const (*bucket).tags).read_volatile();
            let spilled = (&raw const (*bucket).spilled).read_volatile();
            if matching_lanes(tags, tag_pattern(hash)) | spilled == 0 {
                continue;
            }
            found = candidate(key, mask, id as u32, hash);
            if found != NO_SLOT {
                break;
            }
        }
        count::add(Counter::MasksTried as usize, tried as u64);
        found
    }
}

macro_rules! kind {
    ($lookup:ident, $candidate:ident, $words:ty, $n:ident, $masks:ident, $kind:expr) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $candidate(key: *const $words, mask: *const $words, id: u32, hash: u64) -> u32 {
            if key.is_null() || mask.is_null() {
                return NO_SLOT;
            }
            // SAFETY: not null, so valid: the verifier proves it of every caller.
            unsafe { candidate::<$n>(key.cast(), mask.cast(), id, hash, $kind) }
        }

        /// The slot of the flow that the key in the scratch belongs to, or `NO_SLOT`.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $lookup() -> u32 {
            let Some(masks) = $masks.get_ptr(0) else { return NO_SLOT };
            // SAFETY: a valid map value.
            unsafe { search::<$n>(masks, $kind, |k, m, id, hash| $candidate(k.cast(), m.cast(), id, hash)) }
        }
    };
}

kind!(megaflow_short, candidate_short, ShortWords, SHORT_WORDS, MASKS_SHORT, Kind::Short);
kind!(megaflow_long, candidate_long, LongWords, LONG_WORDS, MASKS_LONG, Kind::Long);
kind!(megaflow_full, candidate_full, FullWords, KEY_WORDS, MASKS_FULL, Kind::Full);
