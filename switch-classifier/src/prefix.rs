//! The prefixes that a subtable's rules have in one field.
//!
//! What a prefix tree is asked in a classifier is: how many leading bits of this value prove that no rule has
//! its prefix? With prefixes of one length, as they are within one subtable, that is one more than the longest
//! common prefix of the value with any of them, and among numbers in order the neighbours of a value share more
//! leading bits with it than all others do. So the tree is an ordered map, persistent like everything a
//! classifier version is made of, and the answer takes two look-ups in it.

use imbl::OrdMap;

use crate::fields::Field;
use crate::flow::Flow;

/// The set of `len`-bit prefixes that the rules of one subtable have in one field.
#[derive(Clone, Debug)]
pub struct PrefixSet {
    field: Field,
    /// Bits of every prefix, at least 1.
    len: u32,
    /// Prefix as a number of `len` bits, and the number of rules that have it.
    prefixes: OrdMap<u128, usize>,
}

impl PrefixSet {
    /// An empty set of prefixes of `len` bits, which must be from 1 to the field's width.
    pub(crate) fn new(field: Field, len: u32) -> PrefixSet {
        debug_assert!(len >= 1 && len <= field.info().width);
        PrefixSet { field, len, prefixes: OrdMap::new() }
    }

    pub fn field(&self) -> Field {
        self.field
    }

    fn prefix(&self, flow: &Flow) -> u128 {
        flow.get(self.field) >> (self.field.info().width - self.len)
    }

    /// Counts a rule that matches this flow's prefix.
    pub(crate) fn insert(&mut self, flow: &Flow) {
        *self.prefixes.entry(self.prefix(flow)).or_insert(0) += 1;
    }

    /// Takes one such rule away again.
    pub(crate) fn remove(&mut self, flow: &Flow) {
        let prefix = self.prefix(flow);
        match self.prefixes.get_mut(&prefix) {
            Some(rules) if *rules > 1 => *rules -= 1,
            _ => {
                self.prefixes.remove(&prefix);
            }
        }
    }

    /// The least number of leading bits of the flow's field that prove that no rule has its prefix: every value
    /// that begins with them has a prefix that no rule has. None if a rule has it.
    pub fn bits_to_exclude(&self, flow: &Flow) -> Option<u32> {
        let prefix = self.prefix(flow);
        let common = |other: &u128| self.len - (128 - (prefix ^ other).leading_zeros());
        let below = self.prefixes.get_prev(&prefix).map(|(p, _)| common(p));
        let above = self.prefixes.get_next(&prefix).map(|(p, _)| common(p));
        match below.max(above) {
            None => Some(0),
            Some(bits) if bits == self.len => None,
            Some(bits) => Some(bits + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(value: u128) -> Flow {
        let mut flow = Flow::ZERO;
        flow.set(Field::TpDst, value);
        flow
    }

    #[test]
    fn least_bits_against_all_values() {
        for len in [1, 5, 16] {
            let mut set = PrefixSet::new(Field::TpDst, len);
            assert_eq!(set.bits_to_exclude(&flow(1)), Some(0));
            let members = [80u128, 443, 8080, 8443, 80, 65535];
            for m in members {
                set.insert(&flow(m));
            }
            let has = |v: u128, bits: u32| members.iter().any(|m| m >> (16 - bits) == v >> (16 - bits));
            for v in (0..65536u128).step_by(37).chain(members) {
                let expected = if has(v, len) { None } else { (1..=len).find(|bits| !has(v, *bits)) };
                assert_eq!(set.bits_to_exclude(&flow(v)), expected, "{v} in /{len}");
            }
            set.remove(&flow(80));
            assert_eq!(set.bits_to_exclude(&flow(80)), None);
            for m in &members[1..] {
                set.remove(&flow(*m));
            }
            assert_eq!(set.bits_to_exclude(&flow(80)), Some(0));
        }
    }

    #[test]
    fn whole_ipv6_address() {
        let mut set = PrefixSet::new(Field::Ipv6Src, 128);
        let mut f = Flow::ZERO;
        f.set(Field::Ipv6Src, 5);
        set.insert(&f);
        assert_eq!(set.bits_to_exclude(&f), None);
        f.set(Field::Ipv6Src, 4);
        assert_eq!(set.bits_to_exclude(&f), Some(128));
        f.set(Field::Ipv6Src, u128::MAX);
        assert_eq!(set.bits_to_exclude(&f), Some(1));
    }
}
