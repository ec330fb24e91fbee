//! Changes while old versions are alive: each version goes on answering as it did.

use std::sync::Arc;

use crate::model::*;
use proptest::prelude::*;
use switch_classifier::{Classifier, Field, Flow, FlowWildcards, Match};

#[derive(Clone, Debug)]
enum Op {
    Insert(i32, usize),
    Remove(i32, usize),
    Publish,
    Track(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3i32, 0..24usize).prop_map(|(p, m)| Op::Insert(p, m)),
        5 => (0..3i32, 0..24usize).prop_map(|(p, m)| Op::Remove(p, m)),
        1 => Just(Op::Publish),
        1 => any::<u8>().prop_map(Op::Track),
    ]
}

proptest! {
    #![proptest_config(config(80))]

    #[test]
    fn old_versions_answer_as_they_did(
        ops in prop::collection::vec(op(), 1..120),
        matches in prop::collection::vec(matching(), 24),
        packets in prop::collection::vec(packet(), 24),
    ) {
        let (mut classifier, mut linear) = (Classifier::new(), Linear::default());
        let mut versions: Vec<(Classifier<u32>, Linear)> = Vec::new();
        for (i, op) in ops.iter().enumerate() {
            match op {
                Op::Insert(priority, m) => {
                    let old = classifier.insert(*priority, &matches[*m], i as u32);
                    prop_assert_eq!(
                        old.map(|r| r.payload),
                        linear.insert(*priority, &matches[*m], i as u32)
                    );
                }
                Op::Remove(priority, m) => {
                    let old = classifier.remove(*priority, &matches[*m]);
                    prop_assert_eq!(old.map(|r| r.payload), linear.remove(*priority, &matches[*m]));
                }
                Op::Publish => versions.push((classifier.clone(), linear.clone())),
                Op::Track(0..128) => classifier.set_prefix_fields(&[Field::NwDst]),
                Op::Track(_) => classifier.set_prefix_fields(&[Field::EthDst, Field::Ipv6Src, Field::TpSrc]),
            }
            prop_assert_eq!(classifier.len(), linear.0.len());
        }
        versions.push((classifier.clone(), linear.clone()));
        for (version, model) in &versions {
            prop_assert_eq!(version.len(), model.0.len());
            prop_assert_eq!(version.iter().count(), model.0.len());
            for (i, p) in packets.iter().enumerate() {
                for flow in [*p, hit(&matches[i], p)] {
                    check_answer(version, model, &flow);
                    let mut wc = FlowWildcards::EMPTY;
                    let rule = version.lookup(&flow, Some(&mut wc)).map(|r| r.payload);
                    for other in &packets {
                        prop_assert_eq!(answer(version, &merge(&flow, other, &wc)), rule);
                    }
                }
            }
        }
        // Nothing is left behind when all rules are gone, so that proofs are again what they were.
        for (priority, m, _) in &linear.0 {
            prop_assert!(classifier.remove(*priority, m).is_some());
        }
        prop_assert!(classifier.is_empty() && classifier.masks() == 0);
        let mut wc = FlowWildcards::EMPTY;
        prop_assert!(classifier.lookup(&packets[0], Some(&mut wc)).is_none());
        prop_assert_eq!(wc, FlowWildcards::EMPTY);
    }
}

fn host_rule(i: u32) -> Match {
    Match::ANY.eth_type(0x0800).nw_dst((0x0a00_0000 + i).into(), 32)
}

#[test]
fn an_insertion_into_a_large_table_copies_a_path_only() {
    const RULES: u32 = 100_000;
    let mut table = Classifier::new();
    for i in 0..RULES {
        table.insert(100, &host_rule(i), i);
    }
    let old = table.clone();
    assert!(table.insert(100, &host_rule(RULES), RULES).is_none());
    assert_eq!(table.remove(100, &host_rule(7)).map(|r| r.payload), Some(7));
    table.insert(7, &host_rule(9), 0);

    // A rule that both versions reach by a node of their own is counted twice.
    let copied = old.iter().filter(|rule| Arc::strong_count(rule) > 1).count();
    assert!((1..400).contains(&copied), "{copied} of {RULES} rules copied");

    let packet = |i: u32| {
        let mut flow = Flow::ZERO;
        flow.set(Field::EthType, 0x0800);
        flow.set(Field::NwDst, (0x0a00_0000 + i).into());
        flow
    };
    assert_eq!((old.len(), table.len()), (100_000, 100_001));
    assert_eq!(answer(&old, &packet(RULES)), None);
    assert_eq!(answer(&table, &packet(RULES)), Some(RULES));
    assert_eq!(answer(&old, &packet(7)), Some(7));
    assert_eq!(answer(&table, &packet(7)), None);
    assert_eq!(answer(&table, &packet(9)), Some(9));
}

#[test]
fn readers_of_other_threads_hold_their_version() {
    let mut table = Classifier::new();
    for i in 0..64 {
        table.insert(1, &host_rule(i), i);
    }
    let version = Arc::new(table.clone());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let version = version.clone();
            scope.spawn(move || {
                for round in 0..2_000u32 {
                    let i = round % 64;
                    let flow = *host_rule(i).flow();
                    let mut wc = FlowWildcards::EMPTY;
                    assert_eq!(version.lookup(&flow, Some(&mut wc)).map(|r| r.payload), Some(i));
                }
            });
        }
        for round in 0..2_000u32 {
            let i = round % 64;
            table.remove(1, &host_rule(i));
            table.insert(1, &host_rule(i), 1_000 + round);
        }
    });
    assert_eq!(version.len(), 64);
}
