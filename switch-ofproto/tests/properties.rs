//! What must hold for every network and packet.

mod lab;

use lab::random::*;
use lab::*;
use proptest::prelude::*;
use switch_common::key::{FlowKey, FlowMask, KEY_WORDS};
use switch_ofproto::{Network, Translation};

/// What of a translation must be the same for all packets of a megaflow.
fn essence(t: &Translation) -> impl PartialEq + std::fmt::Debug + use<> {
    (t.actions.clone(), t.learns.clone(), t.deps.clone(), t.rules.clone(), t.drop_reason, t.error)
}

fn flipped(key: &FlowKey, mask: &FlowMask, noise: &[u64; KEY_WORDS]) -> FlowKey {
    let mut other = *key;
    let words = key.kind().words();
    for ((w, m), n) in other.words_mut()[..words].iter_mut().zip(mask.words()).zip(noise) {
        *w ^= n & !m;
    }
    other
}

/// Words of a key that any rule of these tests could depend on.
const MEANT_WORDS: usize = 20;

/// One bit of the key at a time, and several random sets of bits, as far as the mask leaves them open.
fn check_mask(
    network: &Network,
    macs: &FixedMacs,
    key: &FlowKey,
    seeds: &[u64],
) -> Result<(), TestCaseError> {
    let answer = run(network, macs, key);
    let floor = FlowMask::floor();
    prop_assert!(answer.mask.words().iter().zip(floor.words()).all(|(m, f)| f & !m == 0));
    prop_assert!(answer.mask.words()[key.kind().words()..].iter().all(|m| *m == 0));
    let try_one = |noise: &[u64; KEY_WORDS]| {
        let other = flipped(key, &answer.mask, noise);
        if other == *key {
            return Ok(());
        }
        let theirs = run(network, macs, &other);
        prop_assert_eq!(essence(&answer), essence(&theirs), "{:?}\n{:?}\n{:?}", key, other, answer.mask);
        Ok(())
    };
    for bit in 0..key.kind().words().min(MEANT_WORDS) * 64 {
        let mut noise = [0; KEY_WORDS];
        noise[bit / 64] = 1 << (bit % 64);
        try_one(&noise)?;
    }
    for seed in seeds {
        let mut state = *seed | 1;
        let mut noise = [0; KEY_WORDS];
        for word in &mut noise {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state;
        }
        try_one(&noise)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn normal_depends_on_the_mask_alone(
        bridges in bridges(), macs in macs(), packets in prop::collection::vec(packet(), 8), seeds: [u64; 6],
    ) {
        let network = network(bridges);
        for key in &packets {
            check_mask(&network, &macs, key, &seeds)?;
        }
    }

    #[test]
    fn rules_depend_on_the_mask_alone(
        bridges in bridges(), rules in rules(true), macs in macs(),
        packets in prop::collection::vec(packet(), 4), seeds: [u64; 6],
    ) {
        let network = network_with(bridges, rules);
        for key in &packets {
            check_mask(&network, &macs, key, &seeds)?;
        }
    }

    #[test]
    fn set_fields_depend_on_the_mask_alone(
        bridges in bridges(), rules in rules(false), packets in prop::collection::vec(packet(), 6), seeds: [u64; 6],
    ) {
        let network = network_with(bridges, rules);
        for key in &packets {
            check_mask(&network, &FixedMacs::default(), key, &seeds)?;
        }
    }

    #[test]
    fn tags_through_a_cable_depend_on_the_mask_alone(
        bridges in bridges(), rules in tag_rules(PORTS[1]), packets in prop::collection::vec(packet(), 6),
        seeds: [u64; 6],
    ) {
        let network = network_with(bridges, [Vec::new(), rules]);
        for key in &packets {
            check_mask(&network, &FixedMacs::default(), key, &seeds)?;
        }
    }

    #[test]
    fn any_bits_are_translated(
        bridges in bridges(), rules in rules(true), macs in macs(), keys in prop::collection::vec(noise(), 16),
    ) {
        let network = network_with(bridges, rules);
        for key in &keys {
            let answer = run(&network, &macs, key);
            prop_assert_eq!(answer.drop_reason.is_none(), !outputs(tags_of(key), &answer.actions).is_empty());
        }
    }

    #[test]
    fn nothing_goes_back_or_twice(bridges in bridges(), macs in macs(), key in packet()) {
        // Of two bridges with one cable, NORMAL reaches each port by one way.
        let sent = outputs(tags_of(&key), &run(&network(bridges), &macs, &key).actions);
        prop_assert!(!sent.contains_key(&key.in_port));
        prop_assert!(sent.values().all(|frames| frames.len() == 1));
    }
}
