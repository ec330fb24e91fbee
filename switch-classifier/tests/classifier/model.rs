//! Random rules and packets that meet each other often, and the linear table that is the oracle.

use proptest::prelude::*;
use switch_classifier::{Classifier, Field, Flow, FlowWildcards, Match};

/// Fixed, so that a run can be repeated; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` choose others.
pub fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = proptest::test_runner::RngSeed::Fixed(0x5eed);
    }
    config
}

/// The fields that rules match here, with values that lie close together.
const POOLS: &[(Field, &[u128])] = &[
    (Field::InPort, &[1, 2, 3]),
    (Field::Metadata, &[0, 1, 0x100, u64::MAX as u128]),
    (Field::Reg0, &[0, 1, 2]),
    (Field::Reg9, &[0, 7]),
    (Field::TunId, &[0, 5, 6]),
    (Field::CtState, &[0, 0x21, 0x22]),
    (
        Field::EthDst,
        &[0x0200_0000_0001, 0x0200_0000_0002, 0x0300_0000_0001, 0x0100_5e00_0001, 0xffff_ffff_ffff],
    ),
    (Field::EthSrc, &[0x0200_0000_0001, 0x0200_0000_0002, 0x0200_0100_0002]),
    (Field::EthType, &[0x0800, 0x0800, 0x86dd, 0x0806]),
    (Field::VlanTci, &[0, 0x100a, 0x1014, 0xf00a]),
    (Field::NwProto, &[6, 17, 1]),
    (Field::NwTos, &[0, 0xb8]),
    (Field::IpFrag, &[0, 1, 3]),
    (Field::NwSrc, &[0x0a00_0001, 0x0a00_0002, 0x0a01_0001, 0x0a80_0001, 0xc0a8_0101]),
    (Field::NwDst, &[0x0a00_0001, 0x0a00_0100, 0x0a01_0001, 0x0b01_0001, 0xc0a8_0101, 0xc0a8_0201]),
    (Field::Ipv6Src, &[1 << 125 | 1, 1 << 125 | 2, 1 << 125 | 1 << 64, 0xfe80 << 112]),
    (Field::Ipv6Dst, &[1 << 125 | 1, 1 << 125 | 3 << 80, 1 << 125 | 1 << 64, 0xff02 << 112 | 1]),
    (Field::TpSrc, &[1, 1024, 1025, 50000]),
    (Field::TpDst, &[22, 80, 443, 8080, 8443]),
    (Field::TcpFlags, &[0x02, 0x12, 0x10, 0x04]),
    (Field::NdTarget, &[0, 1 << 125]),
];

fn in_pool() -> impl Strategy<Value = (Field, u128)> {
    prop::sample::select(POOLS).prop_flat_map(|(f, values)| (Just(f), prop::sample::select(values)))
}

/// One condition: mostly whole fields and prefixes, sometimes any bits.
fn condition() -> impl Strategy<Value = (Field, u128, u128)> {
    (in_pool(), 0..8u8, any::<(u8, u128)>()).prop_map(|((field, value), how, (len, bits))| {
        let info = field.info();
        let mask = match how {
            0..=3 => info.ones(),
            4..=6 => info.prefix_mask(u32::from(len) % (info.width + 1)),
            _ => bits & info.ones(),
        };
        (field, value, mask)
    })
}

pub fn matching() -> impl Strategy<Value = Match> {
    (prop::collection::vec(condition(), 0..5), 0..10u8, any::<u64>()).prop_map(|(conditions, odd, bits)| {
        let mut m = Match::ANY;
        for (field, value, mask) in conditions {
            m = m.with_masked(field, value, mask);
        }
        if odd == 0 {
            // Tunnel options have no field.
            let (mut flow, mut mask) = (*m.flow(), *m.mask());
            flow.tun_metadata[1] = 3;
            mask.0.tun_metadata[1] = bits & 7;
            m = Match::new(&flow, &mask);
        }
        m
    })
}

/// A rule: priority, of which there are few, and match.
pub fn rule() -> impl Strategy<Value = (i32, Match)> {
    (-1..5i32, matching())
}

/// A packet of pool values, some of them with one bit changed.
pub fn packet() -> impl Strategy<Value = Flow> {
    let choices = prop::collection::vec((any::<prop::sample::Index>(), 0..12u8, any::<u8>()), POOLS.len());
    (choices, any::<u64>()).prop_map(|(choices, option)| {
        let mut flow = Flow::ZERO;
        let mut order: Vec<usize> = (0..POOLS.len()).collect();
        // IPv4 and IPv6 addresses share their place: let either be what is set last.
        if option & 8 != 0 {
            order.reverse();
        }
        for i in order {
            let (field, values) = POOLS[i];
            let (value, noise, bit) = &choices[i];
            let mut value = *value.get(values);
            if *noise == 0 {
                value ^= 1 << (u32::from(*bit) % field.info().width);
            }
            flow.set(field, value);
        }
        flow.tun_metadata[1] = option & 7;
        flow
    })
}

/// A packet that is made to match: the rule's bits, and those of another packet elsewhere.
pub fn hit(m: &Match, other: &Flow) -> Flow {
    merge(m.flow(), other, m.mask())
}

/// `a` where the mask is set, `b` elsewhere.
pub fn merge(a: &Flow, b: &Flow, mask: &FlowWildcards) -> Flow {
    let mut out = *b;
    for ((o, a), m) in out.words_mut().iter_mut().zip(a.words()).zip(mask.words()) {
        *o = a & m | *o & !m;
    }
    out
}

/// The trivial classifier: a list of priority, match and payload.
#[derive(Clone, Default, Debug)]
pub struct Linear(pub Vec<(i32, Match, u32)>);

impl Linear {
    pub fn insert(&mut self, priority: i32, m: &Match, payload: u32) -> Option<u32> {
        match self.0.iter_mut().find(|r| r.0 == priority && r.1 == *m) {
            Some(rule) => Some(core::mem::replace(&mut rule.2, payload)),
            None => {
                self.0.push((priority, *m, payload));
                None
            }
        }
    }

    pub fn remove(&mut self, priority: i32, m: &Match) -> Option<u32> {
        let at = self.0.iter().position(|r| r.0 == priority && r.1 == *m)?;
        Some(self.0.remove(at).2)
    }

    /// The payloads of the rules that may win: of the highest priority, and of those with the most mask bits.
    pub fn winners(&self, flow: &Flow) -> Vec<u32> {
        let matching = || self.0.iter().filter(|r| r.1.matches(flow));
        let Some(best) = matching().map(|r| (r.0, r.1.mask().count())).max() else { return Vec::new() };
        matching().filter(|r| (r.0, r.1.mask().count()) == best).map(|r| r.2).collect()
    }
}

pub fn build(rules: impl Iterator<Item = (usize, (i32, Match))>) -> Classifier<u32> {
    let mut classifier = Classifier::new();
    for (i, (priority, m)) in rules {
        classifier.insert(priority, &m, i as u32);
    }
    classifier
}

pub fn answer(classifier: &Classifier<u32>, flow: &Flow) -> Option<u32> {
    classifier.lookup(flow, None).map(|r| r.payload)
}

/// Panics unless the classifier's answer is one that the oracle allows.
pub fn check_answer(classifier: &Classifier<u32>, linear: &Linear, flow: &Flow) {
    let winners = linear.winners(flow);
    match answer(classifier, flow) {
        Some(payload) => assert!(winners.contains(&payload), "{payload} of {winners:?}"),
        None => assert!(winners.is_empty(), "none of {winners:?}"),
    }
}
