//! Megaflow lookup: masks in the order of their hits, each a probe of one hash table.
//!
//! The table is the daemon's, which writes to it while this reads (see `switch_common::flow`). What is found is
//! trusted only after the whole masked key, the mask's id and the kind have been compared.
//!
//! Form follows what the verifier takes: the loop over the masks hashes and tests the four tags of a bucket
//! inline, which nearly always says "not here"; the rest is a function that is verified once. For the longest
//! kind the whole step is one, called by `bpf_loop`.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
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

/// One look-up under way.
#[repr(C)]
struct Search<const W: usize> {
    key: *const u64,
    masks: *const MaskTable<W>,
    list: *const MaskList,
    // Whole words, since LLVM joins stores to halves and then misaligns them.
    count: u64,
    tried: u64,
    found: u64,
}

impl<const W: usize> Search<W> {
    #[inline(always)]
    fn new(masks: *const MaskTable<W>, kind: Kind) -> Option<Search<W>> {
        let scratch = SCRATCH.get_ptr(0)?;
        let order = MASK_ORDER.get_ptr(kind as u32)?;
        // SAFETY: valid map values.
        unsafe {
            let active = (&raw const (*order).active).read_volatile() & 1;
            let list = (&raw const (*order).lists).cast::<MaskList>().add(active as usize);
            Some(Search {
                key: (&raw const (*scratch).key).cast(),
                masks,
                list,
                count: (&raw const (*list).count).read_volatile() as u64,
                tried: 0,
                found: NO_SLOT as u64,
            })
        }
    }

    /// Tries the mask at place `i` of the list, which must be under `MAX_MASKS`. True if the search is over.
    #[inline(always)]
    unsafe fn step(&mut self, i: u64, candidate: impl Fn(*const u64, *const u64, u32, u64) -> u32) -> bool {
        if i >= self.count {
            return true;
        }
        self.tried += 1;
        // SAFETY: valid map values; `i` and `id` are in their bounds.
        unsafe {
            let mut id = (&raw const (*self.list).ids).cast::<u8>().add(i as usize).read_volatile() as u64;
            // LLVM knows, or takes for granted, that ids are under 128; the verifier needs to be shown.
            core::arch::asm!("{0} &= 127", inout(reg) id, options(nomem, nostack));
            let mask = (&raw const (*self.masks).masks).cast::<u64>().add(id as usize * W);
            let hash = hash_masked::<W>(self.key, mask, id);
            let Some(bucket) = BUCKETS.get_ptr(first_bucket(hash, bucket_mask())) else { return true };
            let tags = (&raw const (*bucket).tags).read_volatile();
            let spilled = (&raw const (*bucket).spilled).read_volatile();
            if matching_lanes(tags, tag_pattern(hash)) | spilled == 0 {
                return false;
            }
            self.found = candidate(self.key, mask, id as u32, hash) as u64;
        }
        self.found != NO_SLOT as u64
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
            let Some(mut search) = Search::new(masks, $kind) else { return NO_SLOT };
            let mut i = 0;
            while i < MAX_MASKS as u64 {
                // SAFETY: `i` is under `MAX_MASKS`.
                if unsafe { search.step(i, |k, m, id, hash| $candidate(k.cast(), m.cast(), id, hash)) } {
                    break;
                }
                i += 1;
            }
            count::add(Counter::MasksTried as usize, search.tried);
            search.found as u32
        }
    };
}

kind!(megaflow_short, candidate_short, ShortWords, SHORT_WORDS, MASKS_SHORT, Kind::Short);
kind!(megaflow_long, candidate_long, LongWords, LONG_WORDS, MASKS_LONG, Kind::Long);

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn candidate_full(key: *const FullWords, mask: *const FullWords, id: u32, hash: u64) -> u32 {
    if key.is_null() || mask.is_null() {
        return NO_SLOT;
    }
    // SAFETY: not null, so valid: the verifier proves it of every caller.
    unsafe { candidate::<KEY_WORDS>(key.cast(), mask.cast(), id, hash, Kind::Full) }
}

unsafe extern "C" fn step_full(i: u64, search: *mut Search<KEY_WORDS>) -> u64 {
    if i >= MAX_MASKS as u64 {
        return 1;
    }
    // SAFETY: the search of `megaflow_full`, which waits for this.
    unsafe { (*search).step(i, |k, m, id, hash| candidate_full(k.cast(), m.cast(), id, hash)) as u64 }
}

/// The slot of the flow that the key in the scratch belongs to, or `NO_SLOT`.
///
/// Long keys are rare; the call for each mask, which is the price of verifying their many words only once, is
/// little beside comparing them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn megaflow_full() -> u32 {
    let Some(masks) = MASKS_FULL.get_ptr(0) else { return NO_SLOT };
    let Some(mut search) = Search::new(masks, Kind::Full) else { return NO_SLOT };
    // SAFETY: the callback has the helper's signature, and the search outlives the call. Volatile, since LLVM
    // does not see that the callback writes.
    unsafe {
        bpf_loop(MAX_MASKS as u32, step_full as *mut c_void, (&raw mut search).cast(), 0);
        count::add(Counter::MasksTried as usize, (&raw const search.tried).read_volatile());
        (&raw const search.found).read_volatile() as u32
    }
}
