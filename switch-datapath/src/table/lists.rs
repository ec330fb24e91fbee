//! Action lists in the map of actions: contiguous runs of records, each list stored once.
//!
//! A list is immutable, so flows with equal lists share one; a run is free again when the last of them has been
//! reaped. Free runs are found best fit and merged with their neighbours, so that a table whose lists come and go
//! for days does not end in pieces.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use switch_common::action::Action;

use crate::memory::Area;

/// Free runs of a range of numbers.
struct Runs {
    /// Start → length.
    by_start: BTreeMap<u32, u32>,
    /// (length, start).
    by_len: BTreeSet<(u32, u32)>,
}

impl Runs {
    fn new(len: u32) -> Runs {
        let mut runs = Runs { by_start: BTreeMap::new(), by_len: BTreeSet::new() };
        if len > 0 {
            runs.add(0, len);
        }
        runs
    }

    fn add(&mut self, start: u32, len: u32) {
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn remove(&mut self, start: u32, len: u32) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }

    fn take(&mut self, len: u32) -> Option<u32> {
        let &(found, start) = self.by_len.range((len, 0)..).next()?;
        self.remove(start, found);
        if found > len {
            self.add(start + len, found - len);
        }
        Some(start)
    }

    fn give_back(&mut self, mut start: u32, mut len: u32) {
        if let Some((&s, &l)) = self.by_start.range(..start).next_back()
            && s + l == start
        {
            self.remove(s, l);
            start = s;
            len += l;
        }
        if let Some(&l) = self.by_start.get(&(start + len)) {
            self.remove(start + len, l);
            len += l;
        }
        self.add(start, len);
    }
}

struct Shared {
    base: u32,
    users: u32,
}

/// The map of actions.
pub struct Lists {
    memory: Area<Action>,
    runs: Runs,
    shared: HashMap<Box<[Action]>, Shared>,
}

impl Lists {
    pub fn new(memory: Area<Action>) -> Lists {
        let len = u32::try_from(memory.len()).unwrap_or(u32::MAX);
        Lists { memory, runs: Runs::new(len), shared: HashMap::new() }
    }

    /// Stores a list for one more user and answers its base; `None` if there is no room. An empty list takes none.
    ///
    /// The records are written before this returns; the caller publishes the base with a release store.
    pub fn acquire(&mut self, list: &[Action]) -> Option<u32> {
        if list.is_empty() {
            return Some(0);
        }
        if let Some(shared) = self.shared.get_mut(list) {
            shared.users += 1;
            return Some(shared.base);
        }
        let base = self.runs.take(u32::try_from(list.len()).ok()?)?;
        for (i, action) in list.iter().enumerate() {
            self.memory.write(base as usize + i, *action);
        }
        self.shared.insert(list.into(), Shared { base, users: 1 });
        Some(base)
    }

    /// Takes one user off the list at `base`; only when no program can still be reading it for that user.
    pub fn release(&mut self, base: u32, len: u16) {
        if len == 0 {
            return;
        }
        let list = self.read(base, len);
        if let Some(shared) = self.shared.get_mut(list.as_slice()) {
            shared.users -= 1;
            if shared.users == 0 {
                self.shared.remove(list.as_slice());
                self.runs.give_back(base, u32::from(len));
            }
        }
    }

    /// The records of a list.
    pub fn read(&self, base: u32, len: u16) -> Vec<Action> {
        (0..usize::from(len)).map(|i| self.memory.read(base as usize + i)).collect()
    }

    /// Records that are free, in however many pieces.
    #[cfg(test)]
    fn free(&self) -> (u32, usize) {
        (self.runs.by_start.values().sum(), self.runs.by_start.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(seed: u16, len: usize) -> Vec<Action> {
        (0..len).map(|i| Action::output(seed.wrapping_mul(31).wrapping_add(i as u16))).collect()
    }

    proptest! {
        /// Lists read back as they were stored, equal ones share, and everything merges again in the end.
        #[test]
        fn lists_come_and_go(ops in proptest::collection::vec((0u16..20, 1usize..9, any::<bool>()), 1..200)) {
            let mut lists = Lists::new(Area::heap(256));
            let mut held: Vec<(Vec<Action>, u32)> = Vec::new();
            for (seed, len, add) in ops {
                if add || held.is_empty() {
                    let l = list(seed, len);
                    if let Some(base) = lists.acquire(&l) {
                        if let Some((_, b)) = held.iter().find(|(h, _)| *h == l) {
                            prop_assert_eq!(*b, base);
                        }
                        held.push((l, base));
                    }
                } else {
                    let (l, base) = held.swap_remove(usize::from(seed) % held.len());
                    lists.release(base, l.len() as u16);
                }
                for (l, base) in &held {
                    prop_assert_eq!(&lists.read(*base, l.len() as u16), l);
                }
            }
            for (l, base) in held {
                lists.release(base, l.len() as u16);
            }
            prop_assert_eq!(lists.free(), (256, 1));
        }
    }
}
