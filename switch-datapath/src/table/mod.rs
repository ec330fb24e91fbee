//! The flow table's writer: pure over memory, so that it runs in tests without a kernel.
//!
//! One writer changes the table while programs on every CPU read it without a lock; [`switch_common::flow`] says
//! what the readers rely on, and the parts of this module how each promise is kept:
//!
//! * [`slots`]: which slots are free;
//! * [`lists`]: action lists;
//! * [`masks`]: masks, their ids and their order;
//! * [`buckets`]: the hash table;
//! * [`grace`]: when a thing that was withdrawn can be used again.
//!
//! **Sequence numbers.** A slot's `seq` is even while its flow can be found and odd once it was withdrawn; it
//! starts at 2 with the first flow and skips 0, so that a zeroed cache entry never holds a live flow. A program
//! that fills a cache from an entry whose `seq` is odd would store what is already gone: it must not. A number
//! comes again for a slot after 2^31 - 1 flows in it.
//!
//! This module waits for nothing: [`FlowTable::begin_grace`] and [`FlowTable::end_grace`] stand around a wait that
//! the caller makes, with its lock released.

pub mod buckets;
pub mod grace;
pub mod lists;
pub mod masks;
pub mod slots;

use std::collections::VecDeque;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use switch_common::action::{Action, MAX_ACTIONS};
use switch_common::flow::{Bucket, FlowEntry, FlowRest, FlowStats, MAX_MASKS, MaskOrder};
use switch_common::hash::{self, HashKey};
use switch_common::key::{FlowKey, FlowMask, KEY_WORDS, KINDS, Kind, LONG_WORDS};

use crate::memory::Area;
use buckets::{Buckets, Place};
use grace::{GraceCount, Stamp};
use lists::Lists;
use masks::{MaskMemory, Masks};
use slots::Slots;

/// What cannot be put into the table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("no free slot")]
    Full,
    #[error("no bucket has room for this flow")]
    Crowded,
    #[error("all masks of this kind are in use")]
    Masks,
    #[error("no room for the action list")]
    Actions,
    #[error("the action list is too long")]
    TooManyActions,
}

/// The maps' memory.
pub struct TableMemory {
    pub flows: Area<FlowEntry>,
    /// One for each slot that `Full` flows can have.
    pub rest: Area<FlowRest>,
    /// One for each CPU and slot.
    pub stats: Area<FlowStats>,
    pub actions: Area<Action>,
    pub buckets: Area<Bucket>,
    pub masks: [MaskMemory; KINDS],
    pub order: Area<MaskOrder>,
}

impl TableMemory {
    /// Heap memory for a table of `slots` slots, for tests.
    pub fn heap(slots: u32, full_slots: u32, actions: u32, cpus: u32) -> TableMemory {
        TableMemory {
            flows: Area::heap(slots as usize),
            rest: Area::heap(full_slots as usize),
            stats: Area::heap(slots as usize * cpus as usize),
            actions: Area::heap(actions as usize),
            buckets: Area::heap(bucket_count(slots) as usize),
            masks: [
                MaskMemory::Short(Area::heap(1)),
                MaskMemory::Long(Area::heap(1)),
                MaskMemory::Full(Area::heap(1)),
            ],
            order: Area::heap(KINDS),
        }
    }
}

/// Buckets for a table of this many slots: at most a quarter of the entries is ever in use.
pub const fn bucket_count(slots: u32) -> u32 {
    if slots > 1 << 30 { 1 << 30 } else { slots.next_power_of_two() }
}

/// What a flow does, in the datapath's terms.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// [`switch_common::flow::verdict`].
    pub verdict: u8,
    pub out_port: u16,
    /// `FLOW_` bits.
    pub flags: u16,
    /// [`switch_common::counter::Drop`], for a verdict of `DROP`.
    pub drop_reason: u16,
    pub records: &'a [Action],
}

/// What [`FlowTable::put`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Put {
    pub slot: u32,
    /// The flow that had the same match and was withdrawn.
    pub replaced: Option<u32>,
}

/// The table.
pub struct FlowTable {
    flows: Area<FlowEntry>,
    rest: Area<FlowRest>,
    stats: Area<FlowStats>,
    cpus: usize,
    order: Area<MaskOrder>,
    lists: Lists,
    masks: [Masks; KINDS],
    buckets: Buckets,
    slots: Slots,
    hash_key: HashKey,
    grace: GraceCount,
    limbo: VecDeque<(Stamp, u32)>,
    count: usize,
}

impl FlowTable {
    /// An empty table; the memory must be zero.
    pub fn new(memory: TableMemory, hash_key: HashKey, cpus: u32) -> FlowTable {
        let slots = memory.flows.len() as u32;
        let full = memory.rest.len() as u32;
        assert!(memory.stats.len() >= slots as usize * cpus as usize, "statistics of every CPU and slot");
        // Slot 0 means "none", and zeroed cache entries name it with a sequence number of 0.
        memory.flows.u32_at(0, offset_of!(FlowEntry, seq)).store(1, Ordering::Relaxed);
        FlowTable {
            flows: memory.flows,
            rest: memory.rest,
            stats: memory.stats,
            cpus: cpus as usize,
            order: memory.order,
            lists: Lists::new(memory.actions),
            masks: memory.masks.map(Masks::new),
            buckets: Buckets::new(memory.buckets),
            slots: Slots::new(slots, full),
            hash_key,
            grace: GraceCount::default(),
            limbo: VecDeque::new(),
            count: 0,
        }
    }

    /// Flows that can be found.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Flows that were withdrawn and wait for a grace period.
    pub fn in_limbo(&self) -> usize {
        self.limbo.len()
    }

    /// Entries that had to move in the hash table, ever; can be read at any time.
    pub fn moved(&self) -> Arc<AtomicU64> {
        self.buckets.moved()
    }

    /// The slot that the next flow of this kind will have.
    pub fn next_slot(&self, kind: Kind) -> Option<u32> {
        self.slots.peek(kind == Kind::Full)
    }

    /// Adds a flow, or puts it in the place of the one with the same match. `key` need not be masked; bits of
    /// `mask` past the key's kind are left out.
    pub fn put(&mut self, key: &FlowKey, mask: &FlowMask, program: &Program<'_>) -> Result<Put, TableError> {
        let kind = key.kind();
        let mask = &restricted(mask, kind);
        let masked = key.masked(mask);
        if program.records.len() > MAX_ACTIONS {
            return Err(TableError::TooManyActions);
        }
        let slot = self.slots.take(kind == Kind::Full).ok_or(TableError::Full)?;
        let Some(act_base) = self.lists.acquire(program.records) else {
            self.slots.give_back(slot);
            return Err(TableError::Actions);
        };
        let act_len = program.records.len() as u16;
        let Ok(mask_id) = self.masks[kind as usize].acquire(mask, &self.order) else {
            self.lists.release(act_base, act_len);
            self.slots.give_back(slot);
            return Err(TableError::Masks);
        };

        self.write_rest(slot, kind, &masked);
        let mut entry = FlowEntry {
            seq: next_live(self.seq(slot)),
            mask_id,
            kind: kind as u8,
            verdict: program.verdict,
            pad: 0,
            out_port: program.out_port,
            act_len,
            act_base,
            flags: program.flags,
            drop_reason: program.drop_reason,
            pad2: 0,
            key: [0; LONG_WORDS],
            reserved: [0; 4],
        };
        entry.key[..kind.words().min(LONG_WORDS)]
            .copy_from_slice(&masked.words()[..kind.words().min(LONG_WORDS)]);
        self.flows.write(slot as usize, entry);
        fence(Ordering::Release);

        let hash = self.hash(&masked, kind, mask_id);
        if let Some(place) = self.place(hash, &masked, kind, mask_id) {
            let old = self.buckets.slot(place);
            self.buckets.swap(place, slot);
            self.masks[kind as usize].release(mask_id);
            self.retire(old);
            return Ok(Put { slot, replaced: Some(old) });
        }
        let FlowTable { buckets, flows, rest, hash_key, .. } = self;
        let hash_of = |s: u32| {
            let (key, kind, mask_id) = read_key(flows, rest, s);
            hash::plain(&key.words()[..kind.words()], u64::from(mask_id), hash_key)
        };
        if buckets.insert(hash, slot, hash_of).is_err() {
            self.masks[kind as usize].release(mask_id);
            self.lists.release(act_base, act_len);
            self.flows
                .u32_at(slot as usize, offset_of!(FlowEntry, seq))
                .store(entry.seq | 1, Ordering::Relaxed);
            self.slots.give_back(slot);
            return Err(TableError::Crowded);
        }
        self.count += 1;
        Ok(Put { slot, replaced: None })
    }

    /// Withdraws the flow in a slot: when this returns, no program finds it any more. `false` if there is none.
    pub fn remove(&mut self, slot: u32) -> bool {
        if !self.is_live(slot) {
            return false;
        }
        let (key, kind, mask_id) = read_key(&self.flows, &self.rest, slot);
        let hash = self.hash(&key, kind, mask_id);
        let Some(place) = self.buckets.find(hash, |s| s == slot) else { return false };
        self.buckets.remove(place, hash);
        self.masks[kind as usize].release(mask_id);
        self.retire(slot);
        self.count -= 1;
        true
    }

    fn retire(&mut self, slot: u32) {
        let seq = self.flows.u32_at(slot as usize, offset_of!(FlowEntry, seq));
        seq.store(seq.load(Ordering::Relaxed) | 1, Ordering::Release);
        // A later packet on any CPU must see this before it can see anything that the caller does next.
        fence(Ordering::SeqCst);
        self.limbo.push_back((self.grace.stamp(), slot));
    }

    /// The slot of the flow with just this match.
    pub fn find(&self, key: &FlowKey, mask: &FlowMask) -> Option<u32> {
        let kind = key.kind();
        let mask = restricted(mask, kind);
        let masked = key.masked(&mask);
        let mask_id = self.masks[kind as usize].find(&mask)?;
        let place = self.place(self.hash(&masked, kind, mask_id), &masked, kind, mask_id)?;
        Some(self.buckets.slot(place))
    }

    /// The slot of the flow that a packet with this key takes, found as the programs find it.
    pub fn lookup(&self, key: &FlowKey) -> Option<u32> {
        let kind = key.kind();
        let masks = &self.masks[kind as usize];
        masks.listed(&self.order).find_map(|mask_id| {
            let masked = key.masked(&masks.get(mask_id)?.mask);
            let place = self.place(self.hash(&masked, kind, mask_id), &masked, kind, mask_id)?;
            Some(self.buckets.slot(place))
        })
    }

    fn hash(&self, masked: &FlowKey, kind: Kind, mask_id: u8) -> u64 {
        hash::plain(&masked.words()[..kind.words()], u64::from(mask_id), &self.hash_key)
    }

    fn place(&self, hash: u64, masked: &FlowKey, kind: Kind, mask_id: u8) -> Option<Place> {
        self.buckets.find(hash, |slot| {
            let (key, k, m) = read_key(&self.flows, &self.rest, slot);
            k == kind && m == mask_id && key == *masked
        })
    }

    fn seq(&self, slot: u32) -> u32 {
        self.flows.u32_at(slot as usize, offset_of!(FlowEntry, seq)).load(Ordering::Relaxed)
    }

    /// Whether a flow that can be found is in this slot.
    pub fn is_live(&self, slot: u32) -> bool {
        let seq = if (slot as usize) < self.flows.len() { self.seq(slot) } else { 0 };
        seq != 0 && seq & 1 == 0
    }

    fn write_rest(&self, slot: u32, kind: Kind, masked: &FlowKey) {
        if kind != Kind::Full {
            return;
        }
        let mut rest = FlowRest { key: [0; KEY_WORDS - LONG_WORDS] };
        rest.key.copy_from_slice(&masked.words()[LONG_WORDS..]);
        self.rest.write(slot as usize, rest);
    }

    /// The masked key and the mask of the flow in a slot.
    pub fn flow_match(&self, slot: u32) -> Option<(FlowKey, Arc<FlowMask>)> {
        if !self.is_live(slot) {
            return None;
        }
        let (key, kind, mask_id) = read_key(&self.flows, &self.rest, slot);
        Some((key, self.masks[kind as usize].get(mask_id)?.mask.clone()))
    }

    /// Kind and mask id of the flow in a slot.
    pub fn mask_of(&self, slot: u32) -> (Kind, u8) {
        let e = self.flows.read(slot as usize);
        (Kind::from_bits(e.kind), e.mask_id)
    }

    /// The sum of a slot's statistics over all CPUs: `used` is the latest.
    pub fn stats(&self, slot: u32) -> FlowStats {
        let mut sum = FlowStats::default();
        for cpu in 0..self.cpus {
            let s = self.stats.read(cpu * self.flows.len() + slot as usize);
            sum.packets = sum.packets.wrapping_add(s.packets);
            sum.bytes = sum.bytes.wrapping_add(s.bytes);
            sum.used = sum.used.max(s.used);
            sum.tcp_flags |= s.tcp_flags;
        }
        sum
    }

    /// Sets or clears `FLOW_` bits of a live flow. They say what a program *may* do with it, and either value is
    /// right at any time, so this is the one field that changes in place.
    pub fn set_flags(&self, slot: u32, flags: u16) {
        self.flows.u16_at(slot as usize, offset_of!(FlowEntry, flags)).store(flags, Ordering::Release);
    }

    /// Masks with the number of their flows.
    pub fn masks(&self) -> Vec<(FlowMask, usize)> {
        self.masks.iter().flat_map(|m| m.iter().map(|(_, m)| (*m.mask, m.flows))).collect()
    }

    /// Tells how many packets the flows of each mask have had, by kind and id, and puts those masks first that
    /// had most since the last time; at once if nobody can be reading the list that this needs, else with the
    /// next grace period.
    pub fn sort_masks(&mut self, packets: &[[u64; MAX_MASKS]; KINDS]) {
        for (masks, packets) in self.masks.iter_mut().zip(packets) {
            let ids: Vec<u8> = masks.iter().map(|(id, _)| id).collect();
            for id in ids {
                masks.weigh(id, packets[usize::from(id)]);
            }
        }
        self.reorder();
    }

    fn reorder(&mut self) {
        for masks in &mut self.masks {
            if masks.wants_reorder() && masks.can_reorder(&self.grace) {
                masks.reorder(&self.order, &self.grace);
            }
        }
    }

    /// Whether a grace period would free anything.
    pub fn wants_grace(&self) -> bool {
        !self.limbo.is_empty() || self.masks.iter().any(|m| m.wants_reorder() || m.has_unlisted())
    }

    /// To be called before waiting for a grace period; the answer goes to [`FlowTable::end_grace`].
    pub fn begin_grace(&mut self) -> u64 {
        self.reorder();
        self.grace.begin()
    }

    /// The grace period that [`FlowTable::begin_grace`] numbered has ended: frees what was withdrawn before it
    /// began, and answers those slots with their final statistics.
    pub fn end_grace(&mut self, number: u64) -> Vec<(u32, FlowStats)> {
        self.grace.end(number);
        let mut done = Vec::new();
        while let Some(&(stamp, slot)) = self.limbo.front()
            && self.grace.has_passed(stamp)
        {
            self.limbo.pop_front();
            done.push((slot, self.stats(slot)));
            for cpu in 0..self.cpus {
                self.stats.write(cpu * self.flows.len() + slot as usize, FlowStats::default());
            }
            let entry = self.flows.read(slot as usize);
            self.lists.release(entry.act_base, entry.act_len);
            self.slots.give_back(slot);
        }
        for masks in &mut self.masks {
            masks.free_unlisted(&self.grace);
        }
        done
    }
}

/// The `seq` of a slot's next flow: even, and never 0.
const fn next_live(seq: u32) -> u32 {
    let next = (seq | 1).wrapping_add(1);
    if next == 0 { 2 } else { next }
}

fn restricted(mask: &FlowMask, kind: Kind) -> FlowMask {
    let mut mask = *mask;
    mask.restrict(kind);
    mask
}

fn read_key(flows: &Area<FlowEntry>, rest: &Area<FlowRest>, slot: u32) -> (FlowKey, Kind, u8) {
    let e = flows.read(slot as usize);
    let kind = Kind::from_bits(e.kind);
    let mut key = FlowKey::ZERO;
    let words = key.words_mut();
    words[..LONG_WORDS].copy_from_slice(&e.key);
    if kind == Kind::Full {
        words[LONG_WORDS..].copy_from_slice(&rest.read(slot as usize).key);
    }
    (key, kind, e.mask_id)
}

#[cfg(test)]
mod tests;
