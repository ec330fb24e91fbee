//! A rule as the classifier keeps it: priority, match, and a payload that only its owner understands.

use std::sync::Arc;

use crate::flow::{Flow, FlowWildcards};
use crate::mask::SparseMask;
use crate::matching::Match;

/// One rule of a table. It never changes: a modified rule is another rule in its place.
///
/// The match is kept sparsely (a whole [`Match`] is 1 280 bytes), and its mask is shared by all rules that have
/// the same one.
#[derive(Debug)]
pub struct Rule<T> {
    /// 0 to 65535 for OpenFlow's rules, where more wins; rules of the switch itself may lie outside.
    pub priority: i32,
    pub payload: T,
    mask: Arc<SparseMask>,
    /// The match's flow: one value for each part of the mask.
    values: Box<[u64]>,
}

impl<T> Rule<T> {
    pub(crate) fn new(priority: i32, mask: Arc<SparseMask>, flow: &Flow, payload: T) -> Rule<T> {
        let values = mask.parts().iter().map(|p| p.of(flow)).collect();
        Rule { priority, payload, mask, values }
    }

    /// The match, unpacked.
    pub fn matching(&self) -> Match {
        let mut flow = Flow::ZERO;
        for (part, value) in self.mask.parts().iter().zip(&self.values) {
            flow.words_mut()[usize::from(part.word)] |= value;
        }
        Match::new(&flow, &self.mask.dense())
    }

    pub(crate) fn mask(&self) -> &Arc<SparseMask> {
        &self.mask
    }

    pub(crate) fn values(&self) -> &[u64] {
        &self.values
    }

    /// Whether the packet is one that this rule applies to.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.mask.parts().iter().zip(&self.values).all(|(p, v)| p.of(flow) == *v)
    }

    /// Whether there is a packet that both this rule and the match apply to.
    pub fn overlaps(&self, other: &Match) -> bool {
        self.agrees(other.flow(), other.mask())
    }

    /// Whether the rule's match has no packet that `criteria` does not match: what OpenFlow's non-strict modify
    /// and delete go by (OpenFlow 1.5.1, section 6.4).
    pub fn is_within(&self, criteria: &Match) -> bool {
        self.mask.contains(criteria.mask()) && self.agrees(criteria.flow(), criteria.mask())
    }

    /// Agreement in the bits that both masks have.
    pub(crate) fn agrees(&self, flow: &Flow, mask: &FlowWildcards) -> bool {
        self.mask
            .parts()
            .iter()
            .zip(&self.values)
            .all(|(p, v)| (p.of(flow) ^ v) & mask.words()[usize::from(p.word)] == 0)
    }
}
