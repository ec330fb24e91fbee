//! The exact-match cache: a stretch of one array for each CPU, indexed by the hash of the whole key.
//!
//! A per-CPU map would do the same with one more table to read and entries that straddle cache lines, which costs
//! a tenth of the rate when many flows are in use. An mmappable array begins on a page, so that an entry of 64
//! bytes is one line.
//!
//! An entry holds the whole key, which is compared in full, and the slot and sequence number of its flow. Nobody
//! deletes from it: a flow whose sequence number has moved on no longer matches. Keys of kind `Full` (ARP, MPLS,
//! neighbour discovery, recirculated hashes) are rare and go to the megaflows directly.

use switch_common::flow::{CACHE_ENTRIES, FlowEntry, LongCached, ShortCached};
use switch_common::hash;
use switch_common::key::{LONG_WORDS, SHORT_WORDS};

use crate::count;
use crate::maps::{CACHE_LONG, CACHE_SHORT, FLOWS, hash_key};

/// The hash of the first `W` words of a key.
///
/// # Safety
/// They must be readable.
#[inline(always)]
unsafe fn hash_words<const W: usize>(words: *const u64) -> u64 {
    let key = hash_key();
    let mut sum = hash::begin(0);
    let mut i = 0;
    while i < W {
        // SAFETY: the caller's promise.
        sum = hash::step(sum, unsafe { *words.add(i) }, i, key);
        i += 1;
    }
    hash::finish(sum)
}

#[inline(always)]
unsafe fn same<const W: usize>(a: *const u64, b: *const u64) -> bool {
    let mut i = 0;
    while i < W {
        // SAFETY: both have `W` words, as the callers below see to.
        if unsafe { *a.add(i) != *b.add(i) } {
            return false;
        }
        i += 1;
    }
    true
}

/// The live flow with this number, with its sequence number.
#[inline(always)]
pub fn live(slot: u32, seq: u32) -> Option<*const FlowEntry> {
    let flow = FLOWS.get_ptr(slot)?;
    // SAFETY: a valid map value; volatile, since the daemon changes it at any time.
    if unsafe { (&raw const (*flow).seq).read_volatile() } == seq { Some(flow) } else { None }
}

/// What a probe of the cache found.
pub struct Probe<E> {
    /// Where the key's flow is, or would be put.
    entry: *mut E,
    /// The flow, with its slot.
    pub hit: Option<(u32, *const FlowEntry)>,
}

macro_rules! cache {
    ($probe:ident, $fill:ident, $entry:ty, $map:ident, $words:ident) => {
        /// Looks the key up.
        ///
        /// # Safety
        /// `words` must point to the words of a key of this kind.
        #[inline(always)]
        pub unsafe fn $probe(words: *const u64) -> Option<Probe<$entry>> {
            // SAFETY: the caller's promise; the entry is a valid map value.
            unsafe {
                let index = (hash_words::<$words>(words) >> 8) as u32 & (CACHE_ENTRIES - 1);
                let entry = $map.get_ptr_mut(count::cpu() * CACHE_ENTRIES + index)?;
                let mut hit = None;
                if same::<$words>(words, (&raw const (*entry).key).cast()) {
                    let slot = (*entry).slot;
                    if let Some(flow) = live(slot, (*entry).seq) {
                        hit = Some((slot, flow));
                    }
                }
                Some(Probe { entry, hit })
            }
        }

        /// Puts the key's flow where `probe` looked.
        ///
        /// When far more flows than entries are in use, nearly each packet replaces an entry in vain. Doing so
        /// for one in sixteen only was measured: it gains 7 ns of 110 at a million flows, and costs every new
        /// flow its first packets.
        ///
        /// # Safety
        /// `words` must be the words that were probed, `seq` the flow's when it was compared.
        #[inline(always)]
        pub unsafe fn $fill(probe: &Probe<$entry>, words: *const u64, slot: u32, seq: u32) {
            let entry = probe.entry;
            // SAFETY: a valid map value, of this CPU alone; the key has as many words.
            unsafe {
                let to: *mut u64 = (&raw mut (*entry).key).cast();
                let mut i = 0;
                while i < $words {
                    to.add(i).write_volatile(*words.add(i));
                    i += 1;
                }
                (*entry).slot = slot;
                (*entry).seq = seq;
            }
        }
    };
}

cache!(probe_short, fill_short, ShortCached, CACHE_SHORT, SHORT_WORDS);
cache!(probe_long, fill_long, LongCached, CACHE_LONG, LONG_WORDS);
