//! The userspace datapath: look-ups, counters, drop reasons, limits, recirculation.

mod packets;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use packets::{Spec, specs};
use proptest::prelude::*;
use switch_common::counter::{Counter, Drop};
use switch_common::flow::MAX_MASKS;
use switch_common::key::{FLAGS_KIND_MASK, FlowKey, FlowMask, KEY_WORDS};
use switch_common::parse::{OffloadedTag, PacketMeta, parse_frame};
use switch_common::upcall::reason;
use switch_dpif::action::{DpAction, DpPort};
use switch_dpif::datapath::{Datapath, DatapathError, FlowId};
use switch_dpif::notation::{format_flow, parse_actions, parse_match};
use switch_dpif::userspace::{Options, PortConfig, Sink, UserspaceDatapath, Verdict};

#[derive(Default)]
struct Out {
    frames: Vec<(u16, Vec<u8>)>,
    upcalls: Vec<(u8, u64, FlowKey)>,
}

impl Sink for Out {
    fn output(&mut self, port: DpPort, frame: &[u8], _: &FlowKey) {
        self.frames.push((port.0, frame.to_vec()));
    }

    fn upcall(&mut self, reason: u8, cookie: u64, _: &[u8], key: &FlowKey) {
        self.upcalls.push((reason, cookie, *key));
    }

    fn random(&mut self) -> u32 {
        0
    }
}

const UP: PortConfig = PortConfig { mtu: 1500, up: true, upcalls: true };

struct Bench {
    dp: UserspaceDatapath,
    now_ns: Arc<AtomicU64>,
}

impl Bench {
    fn new(flows: u32) -> Bench {
        let now_ns = Arc::new(AtomicU64::new(5_000_000_000));
        let clock = Arc::clone(&now_ns);
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let dp = UserspaceDatapath::new(Options { flows, vlan_limit: 2, clock });
        for port in 1..=3 {
            dp.add_port(DpPort(port), UP).unwrap();
        }
        Bench { dp, now_ns }
    }

    fn put(&self, rule: &str, actions: &str) -> FlowId {
        let (key, mask) = parse_match(rule, None).unwrap();
        self.dp.put_flow(&key, &mask, &parse_actions(actions, None).unwrap()).unwrap()
    }

    fn send(&self, port: u16, frame: &[u8]) -> (Verdict, Out) {
        let mut out = Out::default();
        let verdict = self.dp.process(DpPort(port), frame, &PacketMeta::default(), &mut out);
        (verdict, out)
    }

    fn pass_ms(&self, ms: u64) {
        self.now_ns.fetch_add(ms * 1_000_000, Ordering::Relaxed);
    }
}

const UDP: &str = "in_port(1),eth(),eth_type(0x0800),ipv4(proto=17,frag=no)";

#[test]
fn a_miss_and_then_hits() {
    let b = Bench::new(10);
    let frame = Spec::udp4().build();
    let (verdict, out) = b.send(1, &frame);
    assert_eq!(verdict, Verdict::Missed);
    assert_eq!((out.upcalls[0].0, out.upcalls[0].1, out.frames.len()), (reason::MISS, 0, 0));
    let key = out.upcalls[0].2;
    assert_eq!(b.dp.lookup(&key), None);
    let id = b.put(UDP, "2,push_vlan(vid=7,pcp=0),3");
    assert_eq!(b.dp.lookup(&key), Some(id));
    for _ in 0..3 {
        let (verdict, out) = b.send(1, &frame);
        assert_eq!(verdict, Verdict::Hit(id));
        assert_eq!(out.frames[0], (2, frame.clone()));
        assert_eq!(out.frames[1].1.len(), frame.len() + 4);
        b.pass_ms(100);
    }
    assert_eq!(b.send(2, &frame).0, Verdict::Missed);
    let stats = b.dp.flow_stats(id).unwrap();
    assert_eq!((stats.packets, stats.bytes, stats.used), (3, 3 * frame.len() as u64, 5200));
    assert_eq!(b.dp.counter(Counter::MegaflowHit), 3);
    assert_eq!(b.dp.counter(Counter::Miss), 2);
    assert_eq!(b.dp.counter(Counter::UpcallMiss), 2);
    assert_eq!(b.dp.port_totals(DpPort(2)).upcalls, 1);
    let line = format_flow(&b.dp.flow(id).unwrap(), b.dp.now_ms(), None);
    assert!(
        line.ends_with("packets:3, bytes:147, used:0.100s, actions:2,push_vlan(vid=7,pcp=0),3"),
        "{line}"
    );
}

#[test]
fn every_drop_has_its_reason() {
    let b = Bench::new(10);
    let frame = Spec::udp4().build();
    let drops = |reason| b.dp.drops(reason);
    assert_eq!(b.send(9, &frame).0, Verdict::Dropped(Drop::NoPort));
    assert_eq!(b.send(1, &frame[..13]).0, Verdict::Dropped(Drop::Runt));
    b.put(UDP, "drop");
    b.send(1, &frame);
    b.put(UDP, "pop_vlan,2");
    b.send(1, &frame);
    b.put(UDP, "7");
    b.send(1, &frame);
    b.put(UDP, "2");
    b.dp.update_port(DpPort(2), PortConfig { up: false, ..UP }).unwrap();
    b.send(1, &frame);
    b.dp.update_port(DpPort(2), PortConfig { mtu: 20, ..UP }).unwrap();
    b.send(1, &frame);
    b.put(UDP, "drop(reserved_multicast)");
    b.send(1, &frame);
    b.put(UDP, "recirc(0x1)");
    b.put(&format!("recirc_id(0x1),{UDP}"), "recirc(0x1)");
    b.send(1, &frame);
    b.dp.update_port(DpPort(3), PortConfig { upcalls: false, ..UP }).unwrap();
    assert_eq!(b.send(3, &frame).0, Verdict::Dropped(Drop::UpcallFailed));
    for (reason, n) in [
        (Drop::NoPort, 1),
        (Drop::Runt, 1),
        (Drop::Policy, 1),
        (Drop::ActionFailed, 1),
        (Drop::NoOutput, 2),
        (Drop::Mtu, 1),
        (Drop::Reserved, 1),
        (Drop::RecircLimit, 1),
        (Drop::UpcallFailed, 1),
    ] {
        assert_eq!(drops(reason), n, "{reason:?}");
    }
    assert_eq!(b.dp.counter(Counter::Recirculated), 8);
    let totals = b.dp.port_totals(DpPort(1));
    assert_eq!((totals.policy_dropped, totals.dropped), (1, 7));
}

#[test]
fn a_tag_beside_the_frame_counts_and_leaves_room() {
    let b = Bench::new(10);
    b.put("in_port(1),eth(),eth_type(0x8100),vlan(vid=9),encap(eth_type(0x0800),ipv4(frag=no))", "2");
    b.dp.update_port(DpPort(2), PortConfig { mtu: 35, ..UP }).unwrap();
    let frame = Spec::udp4().build();
    assert_eq!(frame.len(), 35 + 14);
    let meta = PacketMeta { tag: OffloadedTag { tpid: 0x8100u16.to_be(), tci: 9 }, ..PacketMeta::default() };
    let mut out = Out::default();
    b.dp.process(DpPort(1), &frame, &meta, &mut out);
    assert_eq!(out.frames[0].1[12..16], [0x81, 0, 0, 9]);
}

#[test]
fn recirculation_looks_up_the_changed_packet() {
    let b = Bench::new(10);
    b.put(UDP, "set(ipv4(ttl=9)),hash(l4(0)),recirc(0x5)");
    let frame = Spec::udp4().build();
    let (_, out) = b.send(1, &frame);
    let key = out.upcalls[0].2;
    assert_eq!((key.recirc_id(), key.ip_ttl), (5, 9));
    assert_ne!(key.dp_hash, 0);
    let next = format!(
        "recirc_id(0x5),dp_hash({:#x}/0x1),in_port(1),eth(),eth_type(0x0800),ipv4(ttl=9,frag=no)",
        key.dp_hash & 1
    );
    let id = b.put(&next, "3");
    let (_, out) = b.send(1, &frame);
    assert_eq!(out.frames.len(), 1);
    assert_eq!(out.frames[0].0, 3);
    assert_eq!(b.dp.flow_stats(id).map(|s| s.packets), Some(1));
}

#[test]
fn limits_hold_and_spare_protocols() {
    let b = Bench::new(10);
    b.dp.set_upcall_limit(DpPort(1), 10, 2).unwrap();
    let mut frame = Spec::udp4().build();
    let sent = |b: &Bench, frame: &[u8], n| (0..n).filter(|_| b.send(1, frame).0 == Verdict::Missed).count();
    assert_eq!(sent(&b, &frame, 10), 2);
    b.pass_ms(1000);
    assert_eq!(sent(&b, &frame, 10), 2);
    assert_eq!(b.dp.drops(Drop::UpcallLimit), 16);
    assert_eq!(b.dp.port_totals(DpPort(1)).limited, 16);
    frame[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 2]);
    assert_eq!(sent(&b, &frame, 10), 10);
    assert!(matches!(b.dp.set_upcall_limit(DpPort(9), 1, 1), Err(DatapathError::NoPort(9))));

    b.dp.set_meter(4, false, 10, 1).unwrap();
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    b.put(UDP, "meter(4),2");
    assert_eq!((0..5).filter(|_| !b.send(1, &frame).1.frames.is_empty()).count(), 1);
    assert_eq!(b.dp.drops(Drop::Meter), 4);
    b.dp.set_meter(4, false, 0, 0).unwrap();
    assert_eq!((0..5).filter(|_| !b.send(1, &frame).1.frames.is_empty()).count(), 5);
}

#[test]
fn flows_are_replaced_removed_and_reaped() {
    let b = Bench::new(2);
    let frame = Spec::udp4().build();
    let first = b.put(UDP, "2");
    b.send(1, &frame);
    let second = b.put(UDP, "3");
    assert_ne!(first, second);
    assert_eq!((b.dp.flow_count(), b.dp.flow(first).is_none()), (1, true));
    let reaped = b.dp.reap();
    assert_eq!((reaped.len(), reaped[0].id, reaped[0].stats.packets), (1, first, 1));
    assert_eq!(b.send(1, &frame).1.frames[0].0, 3);

    b.put("in_port(2),eth(),eth_type(0x0800),ipv4(frag=no)", "1");
    let (key, mask) = parse_match("in_port(3),eth(),eth_type(0x0800)", None).unwrap();
    let full = b.dp.put_flow(&key, &mask, &[]);
    assert!(matches!(full, Err(DatapathError::FlowTableFull { limit: 2 })));
    // A replacement needs no room.
    let third = b.put(UDP, "drop");
    b.dp.remove_flow(third).unwrap();
    assert!(matches!(b.dp.remove_flow(third), Err(DatapathError::NoFlow)));
    assert_eq!(b.send(1, &frame).0, Verdict::Missed);
    assert_eq!(b.dp.reap().len(), 2);
    let mut seen = 0;
    b.dp.for_each_flow(&mut |_| seen += 1);
    assert_eq!((seen, b.dp.masks().len()), (1, 1));
}

#[test]
fn masks_are_limited_for_each_kind() {
    let b = Bench::new(1000);
    let (key, mut mask) = parse_match("in_port(1),eth(),eth_type(0x0800),ipv4(frag=no)", None).unwrap();
    for i in 0..MAX_MASKS as u32 {
        mask.0.addr[0] = i;
        b.dp.put_flow(&key, &mask, &[]).unwrap();
    }
    mask.0.addr[0] = 1 << 30;
    let more = b.dp.put_flow(&key, &mask, &[]);
    assert!(matches!(more, Err(DatapathError::MasksExhausted { limit: MAX_MASKS })));
    b.put("in_port(1),eth(),eth_type(0x86dd),ipv6(frag=no)", "2");
}

#[test]
fn the_mask_that_hits_most_comes_first() {
    let b = Bench::new(10);
    b.put("in_port(2),eth(),eth_type(0x0800),ipv4(proto=6,frag=no)", "2");
    b.put(UDP, "2");
    b.put("in_port(1),eth(),eth_type(0x0800),ipv4(src=10.1.2.3,frag=no)", "2");
    let frame = Spec::udp4().build();
    let tried = |b: &Bench| {
        let before = b.dp.counter(Counter::MasksTried);
        b.send(1, &frame);
        b.dp.counter(Counter::MasksTried) - before
    };
    assert_eq!(tried(&b), 1);
    let (key, _) =
        parse_frame(&frame, &PacketMeta { in_port: 1, vlan_limit: 2, ..PacketMeta::default() }).unwrap();
    let id = b.dp.lookup(&key).unwrap();
    b.dp.remove_flow(id).unwrap();
    assert_eq!(tried(&b), 2);
    tried(&b);
    b.dp.sort_masks();
    assert_eq!(tried(&b), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A packet takes a flow made from it under any mask; so does a packet that differs in what is wildcarded.
    #[test]
    fn wildcarded_bits_do_not_matter(spec in specs(), bits: [u64; KEY_WORDS], flips: [u64; KEY_WORDS]) {
        let b = Bench::new(10);
        let frame = spec.build();
        let meta = PacketMeta { in_port: 1, vlan_limit: 2, ..PacketMeta::default() };
        let (key, parsed) = parse_frame(&frame, &meta).unwrap();
        let mut mask = FlowMask(FlowKey::from_words(bits));
        mask.unite(&FlowMask::floor());
        mask.restrict(parsed.kind);
        let id = b.dp.put_flow(&key, &mask, &[DpAction::output(2)]).unwrap();
        prop_assert_eq!(b.send(1, &frame).0, Verdict::Hit(id));
        let mut other = key;
        for (i, w) in other.words_mut().iter_mut().enumerate() {
            *w ^= flips[i] & !mask.words()[i];
        }
        other.flags = other.flags & !FLAGS_KIND_MASK.to_be() | key.flags & FLAGS_KIND_MASK.to_be();
        prop_assert_eq!(b.dp.lookup(&other), Some(id));
        other.in_port ^= 1;
        prop_assert_eq!(b.dp.lookup(&other), None);
    }
}
