//! The table of rules: tuple space search that also yields the megaflow's mask.
//!
//! # What a look-up promises
//!
//! [`Classifier::lookup`] returns the rule of the highest priority that matches a packet, and adds to the
//! wildcards the bits of the packet that decided it:
//!
//! > Every packet that agrees with this one in the bits of the wildcards gets the same rule.
//!
//! The datapath lives on that sentence. It keeps the masked key and the mask as a megaflow, and every later
//! packet that agrees is treated likewise and never seen here again.
//!
//! # What breaks if a mask has a false zero bit
//!
//! Take two rules: priority 10, TCP port 22, drop; priority 1, everything, forward. The first packet goes to
//! port 80 and is forwarded. Matching the second rule needs no bit at all; but that the *first* rule did not
//! match was decided by the port. If the mask leaves the port out, the megaflow says "everything: forward", and
//! ssh, which was to be dropped, is forwarded, not by an error of anything that anyone can see: the rules are
//! right, a trace of such a packet through the rules is right, and whether the hole is open depends on which
//! packet came first. It closes when the megaflow expires and opens with the next one. No counter shows it.
//! That is why a false zero bit is the worst thing that a classifier can do, worse than a slow look-up and
//! worse than a mask that is too narrow. A false *one* bit costs only megaflows: more of them, each for fewer
//! packets, more upcalls, and more masks for the datapath to try.
//!
//! # Why the wildcards are right
//!
//! Rules have a total order: higher priority first and, where OpenFlow leaves the outcome undefined because
//! rules of equal priority overlap, the one whose mask has more bits, then the lesser mask (the order of
//! [`SparseMask`]). Two different rules never tie, since within one mask a packet has one value. So the
//! winner depends on nothing but the rules and the packet, neither on the order of insertion nor on other
//! tables or threads.
//!
//! Let `W` win for packet `p`. That `W` wins for another packet `q` too follows from two facts, each of which
//! must follow from the bits that both share:
//!
//! 1. `W` matches `q`: the wildcards have all bits of `W`'s mask.
//! 2. No rule before `W` matches `q`. Those are in the subtables that the order puts before `W`; for each one
//!    the wildcards have bits that settle it: either all of its mask (then `q` has the very value that `p` has,
//!    so it finds there what `p` found, which came after `W`) or a proof that no rule of the subtable matches
//!    (see [`subtable`](crate::subtable)), which holds for every packet that shares its bits.
//!
//! If no rule matches `p`, only the second fact is needed, for all subtables. Nothing here speaks of how the
//! search went, in which order subtables were tried or what a hash did: a collision in a set of hashes can make
//! a stage look as if it had a rule and thereby the proof a costlier one, never a wrong one.
//!
//! # Why they are nearly as wide as can be
//!
//! The first fact's bits cannot be spared, since a packet that differs in one of them is not matched by `W`.
//! So they are added first, which makes many of the proofs free: what the winner matches often rules its
//! rivals out. The rivals are then settled one by one, each by the proof that adds the fewest bits to those
//! that matter by then, where bits that a megaflow matches in any case, or that follow from others (registers,
//! metadata), count nothing. To find the least set of bits for all rivals together would be a covering problem
//! (NP-hard); step by step is what can be had in the time of an upcall. Two proofs are taken wider than they
//! need be, to keep the number of *masks* small, which the datapath pays for in every look-up: stages are
//! taken whole, and bytes are not split.
//!
//! The caller gains from what it says in advance: give the wildcards that translation has gathered so far, not
//! empty ones.
//!
//! # Versions
//!
//! A classifier is a persistent structure: a clone takes a few pointer copies and shares everything, and a
//! change of either copies only the path to what changed. The control thread changes its own classifier, and
//! publishes a version by cloning it into an `Arc` that readers swap in; a reader holds its version as long as
//! it likes and is neither blocked nor changed. A bundle of changes is atomic because it is published at once.
//!
//! An insertion while old versions are alive costs `O(log n)`: the path in the ordered map of subtables; one
//! [`Subtable`] struct, whose fields are roots of persistent maps; and in each of those (values, hashes of up
//! to three stages, up to a few sets of prefixes, priorities) the path to one entry. Only an insertion that
//! makes a new mask creates a subtable.

use core::cmp::Reverse;
use core::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap};

use crate::fields::Field;
use crate::flow::{Flow, FlowWildcards};
use crate::mask::{SparseMask, unite_parts};
use crate::matching::Match;
use crate::rule::Rule;
use crate::subtable::Subtable;

/// The fields whose prefixes are tracked unless the owner says otherwise.
pub const DEFAULT_PREFIX_FIELDS: [Field; 6] =
    [Field::NwDst, Field::NwSrc, Field::Ipv6Dst, Field::Ipv6Src, Field::TpDst, Field::TpSrc];

/// The place of a rule in the order of rules, or of a subtable: that of the best rule it could hold. What comes
/// first wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Rank {
    priority: Reverse<i32>,
    mask: Arc<SparseMask>,
}

impl Rank {
    fn new(priority: i32, mask: &Arc<SparseMask>) -> Rank {
        Rank { priority: Reverse(priority), mask: mask.clone() }
    }

    /// Whether this comes before the rule's place, or is it.
    fn reaches<T>(&self, rule: &Rule<T>) -> bool {
        (self.priority, &self.mask) <= (Reverse(rule.priority), rule.mask())
    }
}

/// A table of rules with payloads `T`, or a version of one: cloning is cheap.
#[derive(Debug)]
pub struct Classifier<T> {
    /// Each subtable under its highest priority.
    subtables: OrdMap<Rank, Arc<Subtable<T>>>,
    /// The highest priority of the subtable of each mask.
    by_mask: GenericHashMap<Arc<SparseMask>, i32, DefaultHashBuilder, DefaultSharedPtr>,
    prefix_fields: Arc<[Field]>,
    seed: u64,
    len: usize,
}

// Not derived, which would ask for `T: Clone`: rules are shared.
impl<T> Clone for Classifier<T> {
    fn clone(&self) -> Self {
        Classifier {
            subtables: self.subtables.clone(),
            by_mask: self.by_mask.clone(),
            prefix_fields: self.prefix_fields.clone(),
            seed: self.seed,
            len: self.len,
        }
    }
}

impl<T> Default for Classifier<T> {
    fn default() -> Self {
        Classifier::new()
    }
}

impl<T> Classifier<T> {
    /// An empty table that tracks the prefixes of [`DEFAULT_PREFIX_FIELDS`].
    pub fn new() -> Classifier<T> {
        Classifier::with_prefix_fields(&DEFAULT_PREFIX_FIELDS)
    }

    /// An empty table that tracks the prefixes of these fields, in whose order equally cheap proofs are taken.
    pub fn with_prefix_fields(fields: &[Field]) -> Classifier<T> {
        Classifier {
            subtables: OrdMap::new(),
            by_mask: GenericHashMap::default(),
            prefix_fields: fields.into(),
            seed: std::hash::RandomState::new().hash_one(0),
            len: 0,
        }
    }

    pub fn prefix_fields(&self) -> &[Field] {
        &self.prefix_fields
    }

    /// Tracks the prefixes of these fields from now on. Rebuilds the table, in time linear in its rules.
    pub fn set_prefix_fields(&mut self, fields: &[Field]) {
        if *self.prefix_fields == *fields {
            return;
        }
        let mut rebuilt = Classifier::with_prefix_fields(fields);
        for rule in self.iter() {
            rebuilt.insert_rule(rule.clone());
        }
        *self = rebuilt;
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of masks, each of which costs a look-up time.
    pub fn masks(&self) -> usize {
        self.by_mask.len()
    }

    /// The rule that the packet gets. To `wildcards`, if given, all bits of the packet are added that decided
    /// it: see the head of this module.
    pub fn lookup(&self, flow: &Flow, wildcards: Option<&mut FlowWildcards>) -> Option<&Arc<Rule<T>>> {
        let mut winner: Option<&Arc<Rule<T>>> = None;
        for (rank, subtable) in &self.subtables {
            if winner.is_some_and(|w| !rank.reaches(w)) {
                break;
            }
            if let Some(rule) = subtable.find(flow)
                && winner.is_none_or(|w| precedes(rule, w))
            {
                winner = Some(rule);
            }
        }
        if let Some(wildcards) = wildcards {
            if let Some(rule) = winner {
                unite_parts(wildcards, rule.mask().parts());
            }
            for (rank, subtable) in &self.subtables {
                if winner.is_some_and(|w| !rank.reaches(w)) {
                    break;
                }
                subtable.settle(flow, wildcards);
            }
        }
        winner
    }

    /// Adds a rule. Returns the rule of the same priority and match that it replaced, if there was one.
    pub fn insert(&mut self, priority: i32, matching: &Match, payload: T) -> Option<Arc<Rule<T>>> {
        let mask = SparseMask::new(matching.mask());
        let mask = match self.by_mask.get_key_value(&mask) {
            Some((shared, _)) => shared.clone(),
            None => Arc::new(mask),
        };
        self.insert_rule(Arc::new(Rule::new(priority, mask, matching.flow(), payload)))
    }

    fn insert_rule(&mut self, rule: Arc<Rule<T>>) -> Option<Arc<Rule<T>>> {
        let mask = rule.mask().clone();
        let mut subtable = match self.take_subtable(&mask) {
            Some(subtable) => subtable,
            None => Arc::new(Subtable::new(mask, self.seed, &self.prefix_fields, &rule.matching())),
        };
        let replaced = Arc::make_mut(&mut subtable).insert(rule);
        self.len += usize::from(replaced.is_none());
        self.put_subtable(subtable);
        replaced
    }

    /// Takes out the rule of exactly this priority and match (OpenFlow's strict deletion).
    pub fn remove(&mut self, priority: i32, matching: &Match) -> Option<Arc<Rule<T>>> {
        self.find(priority, matching)?;
        let mut subtable = self.take_subtable(&SparseMask::new(matching.mask()))?;
        let removed = Arc::make_mut(&mut subtable).remove(priority, matching.flow());
        self.len -= usize::from(removed.is_some());
        self.put_subtable(subtable);
        removed
    }

    /// Takes the mask's subtable out, so that it can be changed and put back under what is then its rank.
    fn take_subtable(&mut self, mask: &SparseMask) -> Option<Arc<Subtable<T>>> {
        let (mask, priority) = self.by_mask.get_key_value(mask)?;
        let rank = Rank::new(*priority, mask);
        self.subtables.remove(&rank)
    }

    fn put_subtable(&mut self, subtable: Arc<Subtable<T>>) {
        match subtable.max_priority() {
            Some(priority) => {
                let mask = subtable.mask().clone();
                self.subtables.insert(Rank::new(priority, &mask), subtable);
                if self.by_mask.get(&mask) != Some(&priority) {
                    self.by_mask.insert(mask, priority);
                }
            }
            None => {
                self.by_mask.remove(subtable.mask());
            }
        }
    }

    /// The rule of exactly this priority and match.
    pub fn find(&self, priority: i32, matching: &Match) -> Option<&Arc<Rule<T>>> {
        let (mask, max) = self.by_mask.get_key_value(&SparseMask::new(matching.mask()))?;
        self.subtables.get(&Rank::new(*max, mask))?.find_exact(priority, matching.flow())
    }

    /// All rules, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule<T>>> {
        self.subtables.values().flat_map(|subtable| subtable.iter())
    }

    /// The rules that match no packet which `criteria` does not match, of whatever priority, in no order: those
    /// that OpenFlow's non-strict modify and delete are about.
    pub fn iter_within(&self, criteria: &Match) -> impl Iterator<Item = &Arc<Rule<T>>> {
        self.subtables
            .values()
            .filter(|subtable| subtable.mask().contains(criteria.mask()))
            .flat_map(|subtable| subtable.iter())
            .filter(|rule| rule.agrees(criteria.flow(), criteria.mask()))
    }

    /// A rule of this priority, other than one of exactly this match, that matches a packet which `matching`
    /// matches too (`CHECK_OVERLAP` of OpenFlow 1.5.1, section 6.4). Linear in the rules of the subtables that have this priority.
    pub fn find_overlap(&self, priority: i32, matching: &Match) -> Option<&Arc<Rule<T>>> {
        self.subtables
            .values()
            .filter(|subtable| subtable.has_priority(priority))
            .flat_map(|subtable| subtable.iter())
            .find(|r| r.priority == priority && r.overlaps(matching) && r.matching() != *matching)
    }
}

fn precedes<T>(a: &Rule<T>, b: &Rule<T>) -> bool {
    (Reverse(a.priority), a.mask()) < (Reverse(b.priority), b.mask())
}
