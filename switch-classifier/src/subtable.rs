//! All rules of one mask: a hash table, with what shows quickly and cheaply that a packet is in none of them.
//!
//! A subtable answers two questions. [`find`](Subtable::find): which rule of it does this packet hit? One hash,
//! one look-up. [`settle`](Subtable::settle): which bits of the packet decided that? If it hit a rule, all of
//! the mask. If it hit none, any *proof* of that will do, and the cheapest is taken, in bits that the megaflow
//! would not match otherwise, among
//!
//! * the stages: no rule agrees with the packet in all bits of the first stages, which a set of hashes for each
//!   stage tells;
//! * a prefix: no rule has the first bits of this address or port ([`PrefixSet`]);
//! * a byte: the subtable holds one value only, and the packet differs from it there. A single bit would do,
//!   but then megaflows would come to have any of 48 masks for one MAC address; bytes keep the masks few.
//!
//! Prefixes and bytes are only taken from the stages up to the one that failed: ports of a packet whose
//! EtherType no rule has prove as much, but make megaflows that nobody can read.
//!
//! A subtable is cheap to clone: all that grows with the number of rules is in persistent maps.

use core::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap};
use smallvec::SmallVec;

use crate::fields::{Field, STAGES};
use crate::flow::{COSTLY, Flow, FlowWildcards};
use crate::mask::{Part, SparseMask, unite_parts};
use crate::matching::Match;
use crate::prefix::PrefixSet;
use crate::rule::Rule;

/// Passes on a number that is a hash already.
#[derive(Clone, Copy, Default, Debug)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = step(self.0, u64::from(*b));
        }
    }
}

type ByHash<V> = GenericHashMap<u64, V, BuildHasherDefault<Hashed>, DefaultSharedPtr>;

/// Rules whose values have the same hash, higher priorities first. Nearly always one; more for one match with
/// several priorities, whose number an insertion is linear in.
type Chain<T> = SmallVec<[Arc<Rule<T>>; 1]>;

/// One step of the hash: a folded multiplication, of which every bit depends on every bit of what went in.
#[inline]
fn step(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
    (product as u64) ^ (product >> 64) as u64
}

/// All rules of one mask.
#[derive(Debug)]
pub struct Subtable<T> {
    mask: Arc<SparseMask>,
    /// Where hashes start: random, so that nobody outside can aim at one of them.
    seed: u64,
    rules: ByHash<Chain<T>>,
    len: usize,
    /// Distinct values among the rules.
    distinct: usize,
    /// Number of rules of each priority.
    priorities: OrdMap<i32, usize>,
    /// For each stage but the last that has parts: the hashes of the rules' values up to its end, counted.
    stages: [Option<ByHash<usize>>; STAGES],
    prefixes: SmallVec<[PrefixSet; 2]>,
    /// The bits that `prefixes` look at.
    prefix_bits: Arc<SparseMask>,
}

// Not derived, which would ask for `T: Clone`: rules are shared.
impl<T> Clone for Subtable<T> {
    fn clone(&self) -> Self {
        Subtable {
            mask: self.mask.clone(),
            seed: self.seed,
            rules: self.rules.clone(),
            len: self.len,
            distinct: self.distinct,
            priorities: self.priorities.clone(),
            stages: self.stages.clone(),
            prefixes: self.prefixes.clone(),
            prefix_bits: self.prefix_bits.clone(),
        }
    }
}

/// What proves that a packet hits no rule of a subtable.
enum Proof {
    /// All parts up to this number.
    Parts(usize),
    Prefix(Field, u32),
    Bits(Part),
}

impl<T> Subtable<T> {
    /// An empty subtable. `example` is a match of its mask: its EtherType tells what the addresses are.
    pub(crate) fn new(mask: Arc<SparseMask>, seed: u64, fields: &[Field], example: &Match) -> Subtable<T> {
        let mut stages = [const { None }; STAGES];
        for (stage, index) in stages.iter_mut().enumerate() {
            let start = if stage == 0 { 0 } else { mask.end_of(stage - 1) };
            let end = mask.end_of(stage);
            if end > start && end < mask.parts().len() {
                *index = Some(ByHash::default());
            }
        }
        let mut prefixes = SmallVec::new();
        let mut prefix_bits = FlowWildcards::EMPTY;
        for &field in fields {
            let bits = example.mask().get(field);
            let fits = field.fits(example.flow().get(Field::EthType));
            if let Some(len) = field.info().prefix_len(bits)
                && len > 0
                && fits
            {
                prefixes.push(PrefixSet::new(field, len));
                prefix_bits.set_bits(field, bits);
            }
        }
        Subtable {
            mask,
            seed,
            rules: ByHash::default(),
            len: 0,
            distinct: 0,
            priorities: OrdMap::new(),
            stages,
            prefixes,
            prefix_bits: Arc::new(SparseMask::new(&prefix_bits)),
        }
    }

    pub fn mask(&self) -> &Arc<SparseMask> {
        &self.mask
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The highest priority among the rules.
    pub fn max_priority(&self) -> Option<i32> {
        self.priorities.get_max().map(|(priority, _)| *priority)
    }

    pub fn has_priority(&self, priority: i32) -> bool {
        self.priorities.contains_key(&priority)
    }

    /// All rules, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule<T>>> {
        self.rules.values().flatten()
    }

    fn hash(&self, values: impl Iterator<Item = u64>) -> u64 {
        values.fold(self.seed, step)
    }

    fn hash_of(&self, flow: &Flow, parts: &[Part]) -> u64 {
        self.hash(parts.iter().map(|p| p.of(flow)))
    }

    /// The rule of the highest priority that the packet hits.
    #[inline]
    pub fn find(&self, flow: &Flow) -> Option<&Arc<Rule<T>>> {
        self.find_hashed(self.hash_of(flow, self.mask.parts()), flow)
    }

    fn find_hashed(&self, hash: u64, flow: &Flow) -> Option<&Arc<Rule<T>>> {
        self.rules.get(&hash)?.iter().find(|rule| rule.matches(flow))
    }

    /// The rule of this priority whose flow, within the mask, is this one's.
    pub fn find_exact(&self, priority: i32, flow: &Flow) -> Option<&Arc<Rule<T>>> {
        let hash = self.hash_of(flow, self.mask.parts());
        self.rules.get(&hash)?.iter().find(|rule| rule.priority == priority && rule.matches(flow))
    }

    /// Adds a rule of this mask; returns the one of the same priority and values that it replaced.
    pub(crate) fn insert(&mut self, rule: Arc<Rule<T>>) -> Option<Arc<Rule<T>>> {
        let hash = self.hash(rule.values().iter().copied());
        let chain = self.rules.entry(hash).or_default();
        let mut alike = chain.iter_mut().filter(|r| r.values() == rule.values()).peekable();
        let first_of_its_values = alike.peek().is_none();
        if let Some(old) = alike.find(|r| r.priority == rule.priority) {
            return Some(core::mem::replace(old, rule));
        }
        let at = chain.partition_point(|r| r.priority >= rule.priority);
        chain.insert(at, rule.clone());
        self.len += 1;
        self.distinct += usize::from(first_of_its_values);
        *self.priorities.entry(rule.priority).or_insert(0) += 1;
        for (stage, index) in self.stages.iter_mut().enumerate() {
            if let Some(index) = index {
                let hash = rule.values()[..self.mask.end_of(stage)].iter().copied().fold(self.seed, step);
                *index.entry(hash).or_insert(0) += 1;
            }
        }
        if !self.prefixes.is_empty() {
            let matching = rule.matching();
            self.prefixes.iter_mut().for_each(|p| p.insert(matching.flow()));
        }
        None
    }

    /// Takes out the rule of this priority whose flow, within the mask, is this one's.
    pub(crate) fn remove(&mut self, priority: i32, flow: &Flow) -> Option<Arc<Rule<T>>> {
        let hash = self.hash_of(flow, self.mask.parts());
        let chain = self.rules.get_mut(&hash)?;
        let at = chain.iter().position(|r| r.priority == priority && r.matches(flow))?;
        let rule = chain.remove(at);
        let last_of_its_values = !chain.iter().any(|r| r.values() == rule.values());
        if chain.is_empty() {
            self.rules.remove(&hash);
        }
        self.len -= 1;
        self.distinct -= usize::from(last_of_its_values);
        match self.priorities.get_mut(&priority) {
            Some(rules) if *rules > 1 => *rules -= 1,
            _ => {
                self.priorities.remove(&priority);
            }
        }
        for (stage, index) in self.stages.iter_mut().enumerate() {
            let Some(index) = index else { continue };
            let hash = rule.values()[..self.mask.end_of(stage)].iter().copied().fold(self.seed, step);
            match index.get_mut(&hash) {
                Some(rules) if *rules > 1 => *rules -= 1,
                _ => {
                    index.remove(&hash);
                }
            }
        }
        self.prefixes.iter_mut().for_each(|p| p.remove(flow));
        Some(rule)
    }

    /// Adds bits of the packet to the wildcards, such that every packet that agrees with it in them hits the
    /// same rule of this subtable, or as this one none.
    pub fn settle(&self, flow: &Flow, wildcards: &mut FlowWildcards) {
        match self.failing_stage(flow) {
            None => unite_parts(wildcards, self.mask.parts()),
            Some(stage) => match self.cheapest_proof(flow, stage, wildcards) {
                Proof::Parts(end) => unite_parts(wildcards, &self.mask.parts()[..end]),
                Proof::Prefix(field, len) => wildcards.set_prefix(field, len),
                Proof::Bits(part) => unite_parts(wildcards, &[part]),
            },
        }
    }

    /// The first stage at which it shows that the packet hits no rule; none if it hits one.
    fn failing_stage(&self, flow: &Flow) -> Option<usize> {
        let mut hash = self.seed;
        let mut done = 0;
        for (stage, index) in self.stages.iter().enumerate() {
            if let Some(index) = index {
                let end = self.mask.end_of(stage);
                hash = self.mask.parts()[done..end].iter().map(|p| p.of(flow)).fold(hash, step);
                done = end;
                if !index.contains_key(&hash) {
                    return Some(stage);
                }
            }
        }
        hash = self.mask.parts()[done..].iter().map(|p| p.of(flow)).fold(hash, step);
        match self.find_hashed(hash, flow) {
            Some(_) => None,
            None => Some(STAGES - 1),
        }
    }

    fn cheapest_proof(&self, flow: &Flow, stage: usize, wildcards: &FlowWildcards) -> Proof {
        let end = self.mask.end_of(stage);
        let parts = &self.mask.parts()[..end];
        let mut best = Proof::Parts(end);
        let mut least: u32 = parts.iter().map(|p| p.cost(wildcards)).sum();
        for set in &self.prefixes {
            if least == 0 {
                return best;
            }
            if set.field().info().stage as usize > stage {
                continue;
            }
            if let Some(len) = set.bits_to_exclude(flow) {
                let cost = prefix_cost(set.field(), len, wildcards);
                if cost < least {
                    (best, least) = (Proof::Prefix(set.field(), len), cost);
                }
            }
        }
        let only = if self.distinct == 1 { self.iter().next() } else { None };
        for (part, value) in parts.iter().zip(only.iter().flat_map(|rule| rule.values())) {
            let differs = part.of(flow) ^ value;
            if let Some(bits) = self.least_difference(part, differs, wildcards) {
                let proof = Part { word: part.word, bits };
                let cost = proof.cost(wildcards);
                if cost < least {
                    (best, least) = (Proof::Bits(proof), cost);
                }
            }
        }
        best
    }

    /// Of the bits of a part that differ: those that cost nothing, if there are such; else the part's bits in
    /// the first byte with a difference that no prefix covers.
    fn least_difference(&self, part: &Part, differs: u64, wildcards: &FlowWildcards) -> Option<u64> {
        let word = usize::from(part.word);
        let free = differs & (wildcards.words()[word] | !COSTLY.words()[word]);
        if free != 0 {
            return Some(free);
        }
        let mut covered = 0;
        for p in self.prefix_bits.parts().iter().filter(|p| p.word == part.word) {
            covered |= p.bits;
        }
        let differs = differs & !covered;
        if differs == 0 {
            return None;
        }
        let byte = 0xff << (differs.trailing_zeros() & !7);
        Some(part.bits & byte & !covered)
    }
}

/// How many bits a megaflow with these wildcards would match more, if this prefix came to matter.
fn prefix_cost(field: Field, len: u32, wildcards: &FlowWildcards) -> u32 {
    (field.info().prefix_mask(len) & !wildcards.get(field) & COSTLY.get(field)).count_ones()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_steps_spread() {
        let mut seen = std::collections::HashSet::new();
        for i in 0..4096u64 {
            for shift in [0, 16, 48] {
                seen.insert(step(7, i << shift) as u32);
            }
        }
        // Values 0 to 4095 shifted by 0, 16 and 48 share only zero; a collision of 32 bits is unlikely.
        assert!(seen.len() > 3 * 4096 - 10);
    }
}
