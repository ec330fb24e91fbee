//! The table against a map in plain Rust: same flows, whatever was done to it and in whatever order.

use hashbrown::HashMap;
use proptest::prelude::*;
use switch_common::flow::verdict;

use super::*;

const HASH_KEY: HashKey = {
    let (mut k, mut i, mut s) = ([0u32; hash::HASH_KEY_LEN], 0, 0x1234_5678_9abc_def1u64);
    while i < k.len() {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        k[i] = (s >> 32) as u32;
        i += 1;
    }
    k
};

fn table(slots: u32, full: u32) -> FlowTable {
    FlowTable::new(TableMemory::heap(slots, full, 512, 2), HASH_KEY, 2)
}

/// Key number `n` of a kind.
fn key(kind: Kind, n: u32) -> FlowKey {
    let mut k = FlowKey::ZERO;
    k.in_port = 1;
    k.addr[0] = n;
    match kind {
        Kind::Short => k.eth_type = 0x0800u16.to_be(),
        Kind::Long => k.eth_type = 0x86ddu16.to_be(),
        Kind::Full => {
            k.eth_type = 0x0806u16.to_be();
            k.words_mut()[18] = u64::from(n);
        }
    }
    k.set_kind(kind);
    k
}

/// Mask number `m` of a kind: matches the address with `m` bits fewer, but a different TOS bit for each `m`, so
/// that flows of different masks never cover each other's packets if the TOS says which is meant.
fn mask(kind: Kind, m: u8) -> FlowMask {
    let mut mask = FlowMask::floor();
    mask.0.ip_tos = 0xff;
    mask.0.addr[0] = (u32::MAX << m).to_be();
    if kind == Kind::Full {
        mask.words_mut()[18] = !0 << m;
    }
    mask
}

fn flow(kind: Kind, n: u32, m: u8) -> (FlowKey, FlowMask) {
    let mut k = key(kind, (n << m).to_be());
    if kind == Kind::Full {
        k.words_mut()[18] = u64::from(n) << m;
    }
    k.ip_tos = m + 1;
    (k, mask(kind, m))
}

fn program(records: &[Action]) -> Program<'_> {
    Program { verdict: verdict::ACTIONS, out_port: 0, flags: 0, drop_reason: 0, records }
}

#[derive(Clone, Debug)]
enum Op {
    Put { kind: u8, n: u32, m: u8, list: u8 },
    Remove { pick: usize },
    Grace,
    BeginGrace,
    EndGrace,
    Sort,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0u8..3, 0u32..40, 0u8..6, 0u8..8).prop_map(|(kind, n, m, list)| Op::Put { kind, n, m, list }),
        4 => any::<usize>().prop_map(|pick| Op::Remove { pick }),
        1 => Just(Op::Grace),
        1 => Just(Op::BeginGrace),
        1 => Just(Op::EndGrace),
        1 => Just(Op::Sort),
    ];
    proptest::collection::vec(op, 1..400)
}

/// What the table should hold: match → (slot, list).
type Oracle = HashMap<(FlowKey, FlowMask), (u32, Vec<Action>)>;

fn check(t: &FlowTable, oracle: &Oracle) {
    assert_eq!(t.len(), oracle.len());
    for ((k, m), (slot, list)) in oracle {
        assert_eq!(t.find(k, m), Some(*slot));
        assert_eq!(t.lookup(k), Some(*slot));
        let (key, mask) = t.flow_match(*slot).unwrap();
        assert_eq!((key, *mask), (k.masked(m), *m));
        let e = t.flows.read(*slot as usize);
        assert_eq!(t.lists.read(e.act_base, e.act_len), *list);
        assert!(e.kind != Kind::Full as u8 || *slot < t.rest.len() as u32);
    }
    let mut slots = t.buckets.check(|s| {
        let (key, kind, id) = read_key(&t.flows, &t.rest, s);
        t.hash(&key, kind, id)
    });
    slots.sort_unstable();
    let mut expected: Vec<u32> = oracle.values().map(|(s, _)| *s).collect();
    expected.sort_unstable();
    assert_eq!(slots, expected);
    for (kind, masks) in t.masks.iter().enumerate() {
        let mut listed: Vec<u8> = masks.listed(&t.order).collect();
        listed.sort_unstable();
        let before = listed.len();
        listed.dedup();
        assert_eq!(listed.len(), before, "kind {kind}: an id is listed twice");
        assert!(masks.iter().all(|(id, _)| listed.contains(&id)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn holds_what_was_put(ops in ops()) {
        let mut t = table(200, 60);
        let mut oracle = Oracle::new();
        let mut waiting: Option<u64> = None;
        let mut withdrawn: Vec<u32> = Vec::new();
        let mut last_seq: HashMap<u32, u32> = HashMap::new();
        for op in ops {
            match op {
                Op::Put { kind, n, m, list } => {
                    let (k, mask) = flow(Kind::from_bits(kind), n, m);
                    let list: Vec<Action> = (0..list).map(|i| Action::output(u16::from(i) + 1)).collect();
                    match t.put(&k, &mask, &program(&list)) {
                        Ok(put) => {
                            prop_assert!(!withdrawn.contains(&put.slot), "a slot in limbo was used again");
                            let seq = t.seq(put.slot);
                            prop_assert!(seq.is_multiple_of(2) && last_seq.insert(put.slot, seq).is_none_or(|s| s < seq));
                            let old = oracle.insert((k, mask), (put.slot, list));
                            prop_assert_eq!(put.replaced, old.map(|(s, _)| s));
                            withdrawn.extend(put.replaced);
                        }
                        Err(e) => prop_assert!(
                            matches!(e, TableError::Full | TableError::Actions),
                            "{e}"
                        ),
                    }
                }
                Op::Remove { pick } => {
                    if !oracle.is_empty() {
                        let k = *oracle.keys().nth(pick % oracle.len()).unwrap();
                        let (slot, _) = oracle.remove(&k).unwrap();
                        prop_assert!(t.remove(slot) && !t.remove(slot));
                        prop_assert_eq!(t.lookup(&k.0), None);
                        withdrawn.push(slot);
                    }
                }
                Op::BeginGrace => waiting = Some(t.begin_grace()),
                Op::EndGrace => {
                    if let Some(n) = waiting.take() {
                        for (slot, _) in t.end_grace(n) {
                            withdrawn.retain(|s| *s != slot);
                        }
                    }
                }
                Op::Grace => {
                    waiting = None;
                    let n = t.begin_grace();
                    let mut freed: Vec<u32> = t.end_grace(n).into_iter().map(|(s, _)| s).collect();
                    freed.sort_unstable();
                    withdrawn.sort_unstable();
                    prop_assert_eq!(freed, std::mem::take(&mut withdrawn));
                }
                Op::Sort => {
                    let mut packets = [[0; MAX_MASKS]; KINDS];
                    for (i, p) in packets.iter_mut().flatten().enumerate() {
                        *p = (i as u64 * 7919) % 101;
                    }
                    t.sort_masks(&packets);
                }
            }
            check(&t, &oracle);
        }
    }
}

/// 90 % of the slots of a large table, several masks, then all removed in another order.
#[test]
fn high_load() {
    let slots = 40_000u32;
    let mut t = table(slots, 20_000);
    let mut rng = 0x2545_f491_4f6c_dd1du64;
    let mut put: Vec<(FlowKey, FlowMask, u32)> = Vec::new();
    for i in 0..slots * 9 / 10 {
        let kind = Kind::ALL[(i % 3) as usize];
        let (k, m) = flow(kind, i, (i % 5) as u8);
        let p = t.put(&k, &m, &program(&[])).unwrap();
        put.push((k, m, p.slot));
    }
    assert_eq!(t.len(), put.len());
    for (k, _, slot) in &put {
        assert_eq!(t.lookup(k), Some(*slot));
    }
    for i in (1..put.len()).rev() {
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        put.swap(i, (rng % (i as u64 + 1)) as usize);
    }
    for (k, _, slot) in &put {
        assert!(t.remove(*slot));
        assert_eq!(t.lookup(k), None);
    }
    assert!(t.is_empty());
    let n = t.begin_grace();
    assert_eq!(t.end_grace(n).len(), put.len());
    assert!(t.masks().is_empty() && !t.wants_grace());
}

/// A table so crowded that entries have to move: nothing is lost, and the error is an answer, not a wrong state.
#[test]
fn crowded() {
    let mut memory = TableMemory::heap(300, 1, 16, 1);
    memory.buckets = Area::heap(64);
    let mut t = FlowTable::new(memory, HASH_KEY, 1);
    let mut oracle = Oracle::new();
    for n in 0..299 {
        let (k, m) = flow(Kind::Short, n, 0);
        match t.put(&k, &m, &program(&[])) {
            Ok(p) => {
                oracle.insert((k, m), (p.slot, vec![]));
            }
            Err(e) => {
                assert_eq!(e, TableError::Crowded);
                break;
            }
        }
    }
    assert!(oracle.len() > 200 && t.moved().load(Ordering::Relaxed) > 0, "{}", oracle.len());
    check(&t, &oracle);
}

#[test]
fn statistics_are_final_after_grace() {
    let mut t = table(8, 2);
    let (k, m) = flow(Kind::Short, 1, 0);
    let slot = t.put(&k, &m, &program(&[])).unwrap().slot;
    for cpu in 0..2 {
        let s = FlowStats { packets: 1 + cpu, bytes: 60, used: 5 - cpu, tcp_flags: 1 << cpu };
        t.stats.write(cpu as usize * 8 + slot as usize, s);
    }
    let sum = FlowStats { packets: 3, bytes: 120, used: 5, tcp_flags: 3 };
    assert_eq!(t.stats(slot), sum);
    assert!(t.remove(slot));
    let n = t.begin_grace();
    assert_eq!(t.end_grace(n), [(slot, sum)]);
    let again = t.put(&k, &m, &program(&[])).unwrap().slot;
    assert_eq!((again, t.stats(again)), (slot, FlowStats::default()));
}

#[test]
fn sequence_numbers_skip_zero() {
    assert_eq!((next_live(0), next_live(2), next_live(3)), (2, 4, 4));
    assert_eq!((next_live(u32::MAX), next_live(u32::MAX - 1)), (2, 2));
}
