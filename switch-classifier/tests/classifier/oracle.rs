//! The classifier against a linear table, and the promise of its wildcards.

use crate::model::*;
use proptest::prelude::*;
use switch_classifier::{Classifier, Flow, FlowWildcards, Match};

/// Looks the packet up, and then packets that differ from it only where the wildcards say it does not matter:
/// in the bits of each other packet, in all bits at once, and in each single bit that some rule looks at.
fn check_promise(classifier: &Classifier<u32>, looked_at: &FlowWildcards, flow: &Flow, others: &[Flow]) {
    for given in [FlowWildcards::EMPTY, sample_of(looked_at, flow)] {
        let mut wc = given;
        let expected = classifier.lookup(flow, Some(&mut wc)).map(|r| r.payload);
        assert_eq!(expected, answer(classifier, flow), "wildcards change the answer");
        assert!(wc.contains(&given), "wildcards only grow");
        let same = |other: &Flow| {
            let q = merge(flow, other, &wc);
            assert_eq!(answer(classifier, &q), expected, "packet {flow:?}\nother {q:?}\nwildcards {wc:?}");
        };
        others.iter().for_each(same);
        same(&Flow::ZERO);
        same(&FlowWildcards::EXACT.0);
        let mut inverted = *flow;
        inverted.words_mut().iter_mut().for_each(|w| *w = !*w);
        same(&inverted);
        for (word, bits) in looked_at.words().iter().enumerate() {
            let mut left = bits & !wc.words()[word];
            while left != 0 {
                let bit = left & left.wrapping_neg();
                left ^= bit;
                let mut q = *flow;
                q.words_mut()[word] ^= bit;
                same(&q);
            }
        }
    }
}

/// Some bits of a mask, as a caller might give that has other bits already: which ones, the packet decides.
fn sample_of(mask: &FlowWildcards, flow: &Flow) -> FlowWildcards {
    let mut sample = *mask;
    let salt =
        flow.words().iter().fold(1u64, |h, w| (h ^ w).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
    sample.words_mut().iter_mut().for_each(|w| *w &= salt);
    sample
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn same_rule_and_wildcards_keep_their_promise(
        rules in prop::collection::vec(rule(), 0..40),
        packets in prop::collection::vec(packet(), 24),
        which in prop::collection::vec(any::<prop::sample::Index>(), 24),
    ) {
        let mut linear = Linear::default();
        for (i, (priority, m)) in rules.iter().enumerate() {
            linear.insert(*priority, m, i as u32);
        }
        let classifier = build(rules.iter().copied().enumerate());
        prop_assert_eq!(classifier.len(), linear.0.len());
        let mut looked_at = FlowWildcards::EMPTY;
        rules.iter().for_each(|(_, m)| looked_at.unite(m.mask()));
        let mut flows = packets.clone();
        if !rules.is_empty() {
            flows.extend(packets.iter().zip(&which).map(|(p, i)| hit(&i.get(&rules).1, p)));
        }
        for flow in &flows {
            check_answer(&classifier, &linear, flow);
            check_promise(&classifier, &looked_at, flow, &flows);
        }
    }

    #[test]
    fn few_rules_of_few_masks(
        // Subtables with one value, or with several that share first stages.
        masks in prop::collection::vec(matching(), 1..3),
        values in prop::collection::vec((0..3i32, any::<prop::sample::Index>(), packet()), 1..8),
        packets in prop::collection::vec(packet(), 16),
    ) {
        let rules: Vec<(i32, Match)> = values
            .iter()
            .map(|(priority, i, flow)| (*priority, Match::new(flow, i.get(&masks).mask())))
            .collect();
        let mut linear = Linear::default();
        for (i, (priority, m)) in rules.iter().enumerate() {
            linear.insert(*priority, m, i as u32);
        }
        let classifier = build(rules.iter().copied().enumerate());
        let mut looked_at = FlowWildcards::EMPTY;
        masks.iter().for_each(|m| looked_at.unite(m.mask()));
        for flow in &packets {
            check_answer(&classifier, &linear, flow);
            check_promise(&classifier, &looked_at, flow, &packets);
        }
    }

    #[test]
    fn ties_do_not_depend_on_history(
        rules in prop::collection::vec((0..2i32, matching()), 1..40),
        others in prop::collection::vec(rule(), 0..20),
        packets in prop::collection::vec(packet(), 24),
    ) {
        // The same match may come twice, and then the later payload counts: keep the first only.
        let mut unique: Vec<(usize, (i32, Match))> = Vec::new();
        for (i, r) in rules.iter().enumerate() {
            if !unique.iter().any(|u| u.1 == *r) {
                unique.push((i, *r));
            }
        }
        let forward = build(unique.iter().copied());
        let mut backward = build(unique.iter().rev().copied());
        for (priority, m) in &others {
            if backward.find(*priority, m).is_none() {
                backward.insert(*priority, m, u32::MAX);
                backward.remove(*priority, m);
            }
        }
        for (i, p) in packets.iter().enumerate() {
            for flow in [*p, hit(&rules[i % rules.len()].1, p)] {
                prop_assert_eq!(answer(&forward, &flow), answer(&backward, &flow));
            }
        }
    }

    #[test]
    fn strict_loose_and_overlap(
        rules in prop::collection::vec(rule(), 0..60),
        criteria in prop::collection::vec(rule(), 1..12),
    ) {
        let mut linear = Linear::default();
        for (i, (priority, m)) in rules.iter().enumerate() {
            linear.insert(*priority, m, i as u32);
        }
        let classifier = build(rules.iter().copied().enumerate());
        let mut all: Vec<u32> = classifier.iter().map(|r| r.payload).collect();
        all.sort_unstable();
        let mut expected: Vec<u32> = linear.0.iter().map(|r| r.2).collect();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
        for (priority, m) in criteria.iter().chain(&rules) {
            let strict = linear.0.iter().find(|r| r.0 == *priority && r.1 == *m).map(|r| r.2);
            let found = classifier.find(*priority, m);
            prop_assert_eq!(found.map(|r| r.payload), strict);
            if let Some(rule) = found {
                prop_assert_eq!((rule.priority, rule.matching()), (*priority, *m));
            }
            let mut loose: Vec<u32> = classifier.iter_within(m).map(|r| r.payload).collect();
            loose.sort_unstable();
            let within = |r: &&(i32, Match, u32)| {
                m.mask().words().iter().zip(r.1.mask().words()).all(|(a, b)| a & !b == 0) && m.matches(r.1.flow())
            };
            let mut expected: Vec<u32> = linear.0.iter().filter(within).map(|r| r.2).collect();
            expected.sort_unstable();
            prop_assert_eq!(loose, expected);
            for rule in classifier.iter() {
                prop_assert_eq!(rule.is_within(m), m.is_at_least_as_general_as(&rule.matching()));
            }
            // Two matches overlap if the packet that has the bits of both matches both.
            let overlapping = |r: &&(i32, Match, u32)| {
                let both = merge(r.1.flow(), m.flow(), r.1.mask());
                r.0 == *priority && r.1 != *m && m.matches(&both)
            };
            prop_assert_eq!(
                classifier.find_overlap(*priority, m).is_some(),
                linear.0.iter().find(overlapping).is_some()
            );
        }
    }
}
