//! The masks of one kind of key: their ids, and the list in whose order the datapath tries them.
//!
//! What a program on another CPU may be reading is never changed under it in a way that could hide a mask:
//! * a mask is written before its id is listed, and its id is used again only after a grace period;
//! * ids are appended to the list that is being read (the id first, then the count);
//! * any other change is made in the other list, which then becomes the one that is read. That other list may
//!   still have readers until a grace period after the last such switch has ended, so the next switch waits for
//!   that ([`Masks::can_reorder`]).

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use switch_common::flow::{FullMasks, LongMasks, MAX_MASKS, MaskList, MaskOrder, ShortMasks};
use switch_common::key::{FlowMask, Kind};

use crate::memory::{Area, Plain};

use super::grace::{GraceCount, Stamp};

/// Where the masks of a kind lie.
pub enum MaskMemory {
    Short(Area<ShortMasks>),
    Long(Area<LongMasks>),
    Full(Area<FullMasks>),
}

impl MaskMemory {
    fn kind(&self) -> Kind {
        match self {
            MaskMemory::Short(_) => Kind::Short,
            MaskMemory::Long(_) => Kind::Long,
            MaskMemory::Full(_) => Kind::Full,
        }
    }

    fn write(&self, id: u8, mask: &FlowMask) {
        fn words<T: Plain>(area: &Area<T>, first: usize, words: &[u64]) {
            for (i, w) in words.iter().enumerate() {
                area.u64_at(0, (first + i) * 8).store(*w, Ordering::Relaxed);
            }
        }
        let n = self.kind().words();
        let (first, used) = (usize::from(id) * n, &mask.words()[..n]);
        match self {
            MaskMemory::Short(a) => words(a, first, used),
            MaskMemory::Long(a) => words(a, first, used),
            MaskMemory::Full(a) => words(a, first, used),
        }
    }
}

/// One mask in use.
pub struct InUse {
    pub mask: Arc<FlowMask>,
    /// Flows that have it and can be found.
    pub flows: usize,
    listed: bool,
    /// When it was left out of the list.
    unlisted: Option<Stamp>,
    /// Packets of its flows when the order was last made, and how many came since then: see [`Masks::weigh`].
    packets: u64,
    weight: u64,
}

/// All `MAX_MASKS` ids are in use.
#[derive(Debug, PartialEq, Eq)]
pub struct NoMaskId;

/// The masks of one kind.
pub struct Masks {
    memory: MaskMemory,
    by_id: Vec<Option<InUse>>,
    ids: HashMap<Arc<FlowMask>, u8>,
    free: Vec<u8>,
    reordered: Option<Stamp>,
    reorder_wanted: bool,
}

const fn list_at(list: usize) -> usize {
    offset_of!(MaskOrder, lists) + list * size_of::<MaskList>()
}

impl Masks {
    pub fn new(memory: MaskMemory) -> Masks {
        Masks {
            memory,
            by_id: (0..MAX_MASKS).map(|_| None).collect(),
            ids: HashMap::new(),
            free: (0..MAX_MASKS as u8).rev().collect(),
            reordered: None,
            reorder_wanted: false,
        }
    }

    /// The id of a mask that is in use.
    pub fn find(&self, mask: &FlowMask) -> Option<u8> {
        self.ids.get(mask).copied()
    }

    /// The mask with this id, if it is in use.
    pub fn get(&self, id: u8) -> Option<&InUse> {
        self.by_id.get(usize::from(id))?.as_ref()
    }

    /// All masks that have flows.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &InUse)> {
        self.by_id
            .iter()
            .enumerate()
            .filter_map(|(id, m)| Some((id as u8, m.as_ref().filter(|m| m.flows > 0)?)))
    }

    /// The id for one more flow with this mask, listed for the datapath when this returns.
    pub fn acquire(&mut self, mask: &FlowMask, order: &Area<MaskOrder>) -> Result<u8, NoMaskId> {
        let id = match self.ids.get(mask) {
            Some(id) => *id,
            None => {
                let id = self.free.pop().ok_or(NoMaskId)?;
                self.memory.write(id, mask);
                let mask = Arc::new(*mask);
                self.ids.insert(mask.clone(), id);
                self.by_id[usize::from(id)] =
                    Some(InUse { mask, flows: 0, listed: false, unlisted: None, packets: 0, weight: 0 });
                id
            }
        };
        let kind = self.memory.kind() as usize;
        if let Some(entry) = &mut self.by_id[usize::from(id)] {
            entry.flows += 1;
            if !entry.listed {
                entry.listed = true;
                entry.unlisted = None;
                append(order, kind, id);
            }
        }
        Ok(id)
    }

    /// One flow less. A mask without flows stays listed until the next reordering.
    pub fn release(&mut self, id: u8) {
        if let Some(entry) = &mut self.by_id[usize::from(id)] {
            entry.flows -= 1;
            self.reorder_wanted |= entry.flows == 0;
        }
    }

    /// Tells how many packets all flows of mask `id` have had; the more came since the last time, the earlier
    /// the mask is tried after the next reordering.
    pub fn weigh(&mut self, id: u8, packets: u64) {
        if let Some(entry) = &mut self.by_id[usize::from(id)] {
            // Flows that have gone took their packets with them.
            entry.weight = packets.saturating_sub(entry.packets);
            entry.packets = packets;
            self.reorder_wanted = true;
        }
    }

    /// Whether [`Masks::reorder`] has something to do.
    pub fn wants_reorder(&self) -> bool {
        self.reorder_wanted
    }

    /// Whether nobody can be reading the other list any more.
    pub fn can_reorder(&self, grace: &GraceCount) -> bool {
        self.reordered.is_none_or(|stamp| grace.has_passed(stamp))
    }

    /// Whether there is a mask that is out of the list and waits for its id to be free.
    pub fn has_unlisted(&self) -> bool {
        self.by_id.iter().flatten().any(|m| m.unlisted.is_some())
    }

    /// Makes the other list the one that is read: without the masks that have no flows, heaviest first.
    /// Only if [`Masks::can_reorder`].
    pub fn reorder(&mut self, order: &Area<MaskOrder>, grace: &GraceCount) {
        let kind = self.memory.kind() as usize;
        let now = grace.stamp();
        for entry in self.by_id.iter_mut().flatten() {
            if entry.flows == 0 && entry.listed {
                entry.listed = false;
                entry.unlisted = Some(now);
            }
        }
        let mut ids: Vec<(u64, u8)> = self
            .by_id
            .iter()
            .enumerate()
            .filter_map(|(id, m)| m.as_ref().filter(|m| m.listed).map(|m| (m.weight, id as u8)))
            .collect();
        ids.sort_by_key(|&(weight, id)| (std::cmp::Reverse(weight), id));
        let next = 1 - active(order, kind);
        let at = list_at(next);
        for (i, (_, id)) in ids.iter().enumerate() {
            order.store_byte(kind, at + offset_of!(MaskList, ids) + i, *id);
        }
        order.u32_at(kind, at + offset_of!(MaskList, count)).store(ids.len() as u32, Ordering::Release);
        order.u32_at(kind, offset_of!(MaskOrder, active)).store(next as u32, Ordering::Release);
        self.reordered = Some(now);
        self.reorder_wanted = false;
    }

    /// Frees the ids of masks that were left out of the list before a grace period that has ended.
    pub fn free_unlisted(&mut self, grace: &GraceCount) {
        for id in 0..MAX_MASKS {
            let Some(entry) = &self.by_id[id] else { continue };
            if entry.unlisted.is_some_and(|stamp| grace.has_passed(stamp)) {
                self.ids.remove(&entry.mask);
                self.by_id[id] = None;
                self.free.push(id as u8);
            }
        }
    }

    /// Ids as the datapath tries them now.
    pub fn listed<'a>(&self, order: &'a Area<MaskOrder>) -> impl Iterator<Item = u8> + use<'a> {
        let kind = self.memory.kind() as usize;
        let at = list_at(active(order, kind));
        let count = order.u32_at(kind, at + offset_of!(MaskList, count)).load(Ordering::Acquire) as usize;
        (0..count.min(MAX_MASKS)).map(move |i| order.load_byte(kind, at + offset_of!(MaskList, ids) + i))
    }
}

fn active(order: &Area<MaskOrder>, kind: usize) -> usize {
    (order.u32_at(kind, offset_of!(MaskOrder, active)).load(Ordering::Relaxed) & 1) as usize
}

fn append(order: &Area<MaskOrder>, kind: usize, id: u8) {
    let at = list_at(active(order, kind));
    let count = order.u32_at(kind, at + offset_of!(MaskList, count));
    let n = count.load(Ordering::Relaxed);
    // Each id is listed once, so that there is always room.
    order.store_byte(kind, at + offset_of!(MaskList, ids) + n as usize, id);
    count.store(n + 1, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(i: u64) -> FlowMask {
        let mut m = FlowMask::floor();
        m.words_mut()[4] = i;
        m
    }

    #[test]
    fn ids_wait_for_a_grace_period() {
        let order = Area::heap(3);
        let mut grace = GraceCount::default();
        let mut masks = Masks::new(MaskMemory::Short(Area::heap(1)));
        let a = masks.acquire(&mask(1), &order).unwrap();
        let b = masks.acquire(&mask(2), &order).unwrap();
        assert_eq!(masks.listed(&order).collect::<Vec<_>>(), [a, b]);
        masks.release(a);
        assert!(masks.can_reorder(&grace));
        masks.reorder(&order, &grace);
        assert_eq!(masks.listed(&order).collect::<Vec<_>>(), [b]);
        assert!(!masks.can_reorder(&grace) && masks.has_unlisted());
        masks.free_unlisted(&grace);
        assert_eq!(masks.find(&mask(1)), Some(a));

        // Taken into use again before its id was free: the same id, appended.
        assert_eq!(masks.acquire(&mask(1), &order), Ok(a));
        assert_eq!(masks.listed(&order).collect::<Vec<_>>(), [b, a]);
        let n = grace.begin();
        grace.end(n);
        masks.free_unlisted(&grace);
        assert_eq!(masks.find(&mask(1)), Some(a));

        // Heaviest first.
        masks.weigh(a, 10);
        masks.weigh(b, 5);
        assert!(masks.can_reorder(&grace));
        masks.reorder(&order, &grace);
        assert_eq!(masks.listed(&order).collect::<Vec<_>>(), [a, b]);
    }

    #[test]
    fn all_ids() {
        let order = Area::heap(3);
        let mut masks = Masks::new(MaskMemory::Long(Area::heap(1)));
        for i in 0..MAX_MASKS as u64 {
            assert!(masks.acquire(&mask(i), &order).is_ok());
        }
        assert_eq!(masks.acquire(&mask(1 << 40), &order), Err(NoMaskId));
        assert_eq!(masks.listed(&order).count(), MAX_MASKS);
    }
}
