//! The hash table of megaflows: four entries a bucket, two possible buckets an entry.
//!
//! An entry stands in its first bucket, or, when that is full, in its second one; `spilled` of the first bucket
//! counts the latter, so that a reader looks into the second bucket only when there is reason to. When both are
//! full, entries that stand in their first bucket are moved to their second one, along the shortest chain of
//! moves that ends at a free lane.
//!
//! Readers look at the first bucket, then at the second. Hence the order of stores: an entry is written to its
//! new place before it is cleared from the old one, `spilled` is raised before that too, and nothing ever moves
//! from a second bucket to a first: a reader on its way from one to the other cannot overtake the entry.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use switch_common::flow::{
    BUCKET_ENTRIES, Bucket, NO_SLOT, first_bucket, matching_lanes, second_bucket, tag, tag_pattern,
};

use crate::memory::Area;

/// Buckets that one search for a free lane looks at, at most. At a load of a quarter, chains are rarely longer
/// than one move.
const MAX_SEARCH: usize = 256;

/// Where an entry stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub bucket: u32,
    pub lane: usize,
}

/// No chain of moves leads to a free lane.
#[derive(Debug, PartialEq, Eq)]
pub struct Crowded;

/// The buckets. Their number is a power of two.
pub struct Buckets {
    memory: Area<Bucket>,
    mask: u32,
    moved: Arc<AtomicU64>,
}

struct Step {
    bucket: u32,
    /// The step and the lane in it whose entry would move here.
    from: Option<(usize, usize)>,
}

impl Buckets {
    /// Panics unless the number of buckets is a power of two.
    pub fn new(memory: Area<Bucket>) -> Buckets {
        assert!(memory.len().is_power_of_two() && memory.len() <= 1 << 31, "buckets: {}", memory.len());
        Buckets { mask: (memory.len() - 1) as u32, memory, moved: Arc::default() }
    }

    /// Entries that were moved to make room, ever: can be read at any time. Counted before a move begins.
    pub fn moved(&self) -> Arc<AtomicU64> {
        self.moved.clone()
    }

    /// The two buckets of a hash.
    pub fn choices(&self, hash: u64) -> [u32; 2] {
        [first_bucket(hash, self.mask), second_bucket(hash, self.mask)]
    }

    fn tags(&self, bucket: u32) -> u64 {
        self.memory.u64_at(bucket as usize, offset_of!(Bucket, tags)).load(Ordering::Relaxed)
    }

    fn set_tag(&self, place: Place, tag: u16) {
        let shift = 16 * place.lane;
        let tags = self.tags(place.bucket) & !(0xffff << shift) | u64::from(tag) << shift;
        self.memory.u64_at(place.bucket as usize, offset_of!(Bucket, tags)).store(tags, Ordering::Release);
    }

    /// The slot at a place.
    pub fn slot(&self, place: Place) -> u32 {
        let offset = offset_of!(Bucket, slots) + 4 * place.lane;
        self.memory.u32_at(place.bucket as usize, offset).load(Ordering::Relaxed)
    }

    /// Puts another slot where one stands: a reader finds either the one or the other.
    pub fn swap(&self, place: Place, slot: u32) {
        let offset = offset_of!(Bucket, slots) + 4 * place.lane;
        // Release: also a reader that still holds an older tag must find the entry behind the slot written.
        self.memory.u32_at(place.bucket as usize, offset).store(slot, Ordering::Release);
    }

    fn add_spilled(&self, bucket: u32, by: i64) {
        let spilled = self.memory.u64_at(bucket as usize, offset_of!(Bucket, spilled));
        spilled.store(spilled.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Release);
    }

    fn spilled(&self, bucket: u32) -> u64 {
        self.memory.u64_at(bucket as usize, offset_of!(Bucket, spilled)).load(Ordering::Relaxed)
    }

    fn free_lane(&self, bucket: u32) -> Option<usize> {
        let tags = self.tags(bucket);
        (0..BUCKET_ENTRIES).find(|lane| tags >> (16 * lane) & 0xffff == 0)
    }

    /// Frees a lane. Its slot goes too: [`matching_lanes`] may report a free lane beside an equal one, and a reader
    /// must not find a withdrawn flow there.
    fn clear(&self, place: Place) {
        self.set_tag(place, 0);
        self.swap(place, NO_SLOT);
    }

    fn publish(&self, place: Place, hash: u64, slot: u32) {
        self.swap(place, slot);
        self.set_tag(place, tag(hash));
    }

    /// Looks for an entry as a reader does. `is_it` decides about a candidate slot.
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<Place> {
        let [first, second] = self.choices(hash);
        for bucket in [first, second] {
            let mut lanes = matching_lanes(self.tags(bucket), tag_pattern(hash));
            while lanes != 0 {
                let place = Place { bucket, lane: lanes.trailing_zeros() as usize / 16 };
                if is_it(self.slot(place)) {
                    return Some(place);
                }
                lanes &= lanes - 1;
            }
            if self.spilled(first) == 0 {
                break;
            }
        }
        None
    }

    /// Adds an entry whose slot is wholly written. `hash_of` answers the hash of any slot that is in the table.
    pub fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) -> Result<(), Crowded> {
        let [first, second] = self.choices(hash);
        if let Some(lane) = self.free_lane(first) {
            self.publish(Place { bucket: first, lane }, hash, slot);
            return Ok(());
        }
        let place = match self.free_lane(second) {
            Some(lane) => Place { bucket: second, lane },
            None => self.make_room([first, second], hash_of)?,
        };
        if place.bucket != first {
            self.add_spilled(first, 1);
        }
        self.publish(place, hash, slot);
        Ok(())
    }

    /// Breadth first, so that the fewest entries move.
    fn make_room(&mut self, start: [u32; 2], hash_of: impl Fn(u32) -> u64) -> Result<Place, Crowded> {
        let mut steps: Vec<Step> = vec![Step { bucket: start[0], from: None }];
        if start[1] != start[0] {
            steps.push(Step { bucket: start[1], from: None });
        }
        let mut at = 0;
        while at < steps.len() {
            let bucket = steps[at].bucket;
            for lane in 0..BUCKET_ENTRIES {
                let [home, other] = self.choices(hash_of(self.slot(Place { bucket, lane })));
                if home != bucket || other == bucket || steps.iter().any(|s| s.bucket == other) {
                    continue;
                }
                let from = Some((at, lane));
                if let Some(free) = self.free_lane(other) {
                    return Ok(self.move_along(&steps, from, Place { bucket: other, lane: free }, hash_of));
                }
                if steps.len() < MAX_SEARCH {
                    steps.push(Step { bucket: other, from });
                }
            }
            at += 1;
        }
        Err(Crowded)
    }

    /// Moves the entries of a chain, last one first; answers the lane that is free in the end.
    fn move_along(
        &mut self,
        steps: &[Step],
        mut from: Option<(usize, usize)>,
        mut free: Place,
        hash_of: impl Fn(u32) -> u64,
    ) -> Place {
        while let Some((step, lane)) = from {
            let place = Place { bucket: steps[step].bucket, lane };
            let slot = self.slot(place);
            self.moved.fetch_add(1, Ordering::SeqCst);
            self.publish(free, hash_of(slot), slot);
            self.add_spilled(place.bucket, 1);
            self.clear(place);
            free = place;
            from = steps[step].from;
        }
        free
    }

    /// Takes an entry out.
    pub fn remove(&self, place: Place, hash: u64) {
        self.clear(place);
        let [first, _] = self.choices(hash);
        if first != place.bucket {
            self.add_spilled(first, -1);
        }
    }

    /// Every entry's place and slot, and whether each `spilled` is right.
    #[cfg(test)]
    pub fn check(&self, hash_of: impl Fn(u32) -> u64) -> Vec<u32> {
        let mut slots = Vec::new();
        let mut spilled = vec![0; self.memory.len()];
        for bucket in 0..=self.mask {
            for lane in 0..BUCKET_ENTRIES {
                let t = (self.tags(bucket) >> (16 * lane)) as u16;
                if t == 0 {
                    continue;
                }
                let slot = self.slot(Place { bucket, lane });
                let hash = hash_of(slot);
                let [first, second] = self.choices(hash);
                assert_eq!(t, tag(hash));
                assert!(bucket == first || bucket == second);
                if bucket != first {
                    spilled[first as usize] += 1;
                }
                slots.push(slot);
            }
        }
        for bucket in 0..=self.mask {
            assert_eq!(self.spilled(bucket), spilled[bucket as usize], "bucket {bucket}");
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(slot: u32) -> u64 {
        switch_common::hash::finish(u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn fills_far_past_the_load_that_is_used() {
        let mut b = Buckets::new(Area::heap(1024));
        let mut n = 0;
        while b.insert(mix(n + 1), n + 1, mix).is_ok() {
            n += 1;
        }
        assert!(n > 4096 * 8 / 10, "{n} of 4096");
        assert!(b.moved().load(Ordering::Relaxed) > 0);
        assert_eq!(b.check(mix).len(), n as usize);
        for slot in 1..=n {
            let place = b.find(mix(slot), |s| s == slot).unwrap();
            b.remove(place, mix(slot));
            assert_eq!(b.find(mix(slot), |s| s == slot), None);
        }
        assert!(b.check(mix).is_empty());
    }

    /// Entries in their second bucket never move again. At the load that is used, that does not add up to a table
    /// that refuses, however long flows come and go.
    #[test]
    fn churn_does_not_clog() {
        const SLOTS: u32 = 2048;
        let mut b = Buckets::new(Area::heap(SLOTS as usize));
        let mut generation = vec![0u32; SLOTS as usize];
        let mut rng = 0x2545_f491_4f6c_dd1du64;
        for slot in 0..SLOTS {
            b.insert(mix(slot), slot, mix).unwrap();
        }
        for _ in 0..400_000 {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            let slot = (rng >> 32) as u32 % SLOTS;
            let hash = |g: &[u32], s: u32| mix(s | g[s as usize] << 11);
            let old = hash(&generation, slot);
            let place = b.find(old, |s| s == slot).unwrap();
            b.remove(place, old);
            generation[slot as usize] += 1;
            b.insert(hash(&generation, slot), slot, |s| hash(&generation, s)).unwrap();
        }
        assert_eq!(b.check(|s| mix(s | generation[s as usize] << 11)).len(), SLOTS as usize);
    }
}
