//! A mask stored sparsely: only the bits that matter, cut into the stages of a look-up.
//!
//! Most rules match a handful of the [`FLOW_WORDS`] words of a flow. A [`SparseMask`] lists its words that are
//! not zero as [`Part`]s, stage by stage; a word whose bits belong to several stages (EtherType and ports share
//! one) has a part in each. Everything that is hashed or compared in a look-up runs over parts, so that a hash
//! of one stage continues into the next.

use core::cmp::Reverse;

use crate::fields::{STAGE_BITS, STAGES};
use crate::flow::{COSTLY, FLOW_WORDS, Flow, FlowWildcards};

/// Bits of one word that matter in one stage; never none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Part {
    /// Index of the word, below [`FLOW_WORDS`].
    pub word: u8,
    pub bits: u64,
}

const _: () = assert!(FLOW_WORDS * STAGES <= u16::MAX as usize && FLOW_WORDS <= u8::MAX as usize);

impl Part {
    /// The bits of the flow that this part looks at.
    #[inline]
    pub fn of(&self, flow: &Flow) -> u64 {
        flow.words()[usize::from(self.word)] & self.bits
    }

    /// How many bits a megaflow with these wildcards would match more, if this part came to matter.
    pub fn cost(&self, wildcards: &FlowWildcards) -> u32 {
        let word = usize::from(self.word);
        (self.bits & !wildcards.words()[word] & COSTLY.words()[word]).count_ones()
    }
}

/// A mask as a subtable keeps it.
///
/// The order is the precedence of rules of equal priority: of two masks the one with more bits comes first, and
/// of two with as many bits the one whose list of parts is smaller.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SparseMask {
    count: Reverse<u32>,
    parts: Box<[Part]>,
    /// For each stage, the number of parts up to its end.
    ends: [u16; STAGES],
}

impl SparseMask {
    pub fn new(mask: &FlowWildcards) -> SparseMask {
        let mut parts = Vec::new();
        let mut ends = [0; STAGES];
        for (stage, end) in STAGE_BITS.iter().zip(&mut ends) {
            for (word, (m, s)) in mask.words().iter().zip(stage).enumerate() {
                if m & s != 0 {
                    parts.push(Part { word: word as u8, bits: m & s });
                }
            }
            *end = parts.len() as u16;
        }
        SparseMask { count: Reverse(mask.count()), parts: parts.into(), ends }
    }

    /// All parts, those of earlier stages first.
    #[inline]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The number of parts in this stage and those before it.
    #[inline]
    pub fn end_of(&self, stage: usize) -> usize {
        usize::from(self.ends[stage])
    }

    /// The number of bits that matter.
    pub fn count(&self) -> u32 {
        self.count.0
    }

    /// The mask as a whole flow.
    pub fn dense(&self) -> FlowWildcards {
        let mut mask = FlowWildcards::EMPTY;
        unite_parts(&mut mask, &self.parts);
        mask
    }

    /// Whether every bit of `other` is one of this mask too.
    pub fn contains(&self, other: &FlowWildcards) -> bool {
        self.dense().contains(other)
    }
}

/// Adds the bits of these parts to the wildcards.
pub fn unite_parts(wildcards: &mut FlowWildcards, parts: &[Part]) {
    for part in parts {
        wildcards.words_mut()[usize::from(part.word)] |= part.bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Field;

    #[test]
    fn stages_split_a_shared_word() {
        let mut m = FlowWildcards::EMPTY;
        m.set_field(Field::EthType);
        m.set_field(Field::TpDst);
        m.set_field(Field::NwDst);
        m.set_field(Field::InPort);
        let s = SparseMask::new(&m);
        assert_eq!(s.parts().iter().map(|p| p.word).collect::<Vec<_>>(), [45, 3, 4, 3]);
        assert_eq!([0, 1, 2, 3].map(|i| s.end_of(i)), [1, 2, 3, 4]);
        assert_eq!(s.dense(), m);
        assert_eq!(s.count(), 32 + 16 + 32 + 16);
        assert!(s.contains(&m) && s.contains(&FlowWildcards::EMPTY) && !s.contains(&FlowWildcards::EXACT));
    }

    #[test]
    fn more_bits_come_first() {
        let mut m = FlowWildcards::EMPTY;
        m.set_prefix(Field::NwDst, 8);
        let wide = SparseMask::new(&m);
        m.set_prefix(Field::NwDst, 16);
        assert!(SparseMask::new(&m) < wide);
    }

    #[test]
    fn bits_that_follow_from_others_cost_nothing() {
        let mut m = FlowWildcards::EMPTY;
        m.set_field(Field::EthType);
        m.set_field(Field::Reg0);
        m.set_prefix(Field::NwDst, 8);
        let cost = |wc: &FlowWildcards| SparseMask::new(&m).parts().iter().map(|p| p.cost(wc)).sum::<u32>();
        assert_eq!(cost(&FlowWildcards::EMPTY), 8);
        let mut wc = FlowWildcards::EMPTY;
        wc.set_prefix(Field::NwDst, 5);
        assert_eq!(cost(&wc), 3);
    }
}
