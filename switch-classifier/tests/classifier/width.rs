//! How wide wildcards are, on tables that can be checked by hand.

use std::net::Ipv4Addr;

use switch_classifier::{Classifier, Field, Flow, FlowWildcards, Match};

fn table(rules: &[(i32, Match)]) -> Classifier<u32> {
    crate::model::build(rules.iter().copied().enumerate())
}

fn packet(dst: [u8; 4], tp_dst: u16) -> Flow {
    let mut flow = Flow::ZERO;
    flow.set(Field::InPort, 1);
    flow.set(Field::EthDst, 0x0200_0000_0001);
    flow.set(Field::EthType, 0x0800);
    flow.set(Field::NwProto, 6);
    flow.set(Field::NwDst, Ipv4Addr::from(dst).to_bits().into());
    flow.set(Field::TpDst, tp_dst.into());
    flow
}

/// The rule that the packet gets and, as a match, the bits that decided it; bits that cost nothing left out.
#[track_caller]
fn check(table: &Classifier<u32>, flow: &Flow, rule: Option<u32>, bits: Match) {
    let mut wc = FlowWildcards::EMPTY;
    assert_eq!(table.lookup(flow, Some(&mut wc)).map(|r| r.payload), rule);
    for free in [Field::EthType, Field::InPort, Field::Reg0] {
        wc.0.set(free, 0);
    }
    let got = Match::new(flow, &wc);
    assert_eq!(got.mask(), bits.mask(), "decided by {got}, not {bits}");
}

fn net(address: [u8; 4], len: u32) -> Match {
    Match::ANY.eth_type(0x0800).nw_dst(address.into(), len)
}

/// Only the bits: the address does not matter.
fn dst_bits(len: u32) -> Match {
    Match::ANY.nw_dst(Ipv4Addr::UNSPECIFIED, len)
}

#[test]
fn routes_need_the_bits_that_tell_them_apart() {
    let t = table(&[(16, net([10, 1, 0, 0], 16)), (8, net([10, 0, 0, 0], 8)), (0, Match::ANY)]);
    check(&t, &packet([192, 168, 1, 1], 80), Some(2), dst_bits(1));
    check(&t, &packet([11, 0, 0, 1], 80), Some(2), dst_bits(8));
    check(&t, &packet([10, 128, 0, 1], 80), Some(1), dst_bits(9));
    check(&t, &packet([10, 0, 0, 1], 80), Some(1), dst_bits(16));
    check(&t, &packet([10, 1, 2, 3], 80), Some(0), dst_bits(16));
}

#[test]
fn a_packet_without_any_rule() {
    let t = table(&[(16, net([10, 1, 0, 0], 16)), (16, net([10, 3, 0, 0], 16))]);
    check(&t, &packet([10, 2, 0, 0], 80), None, dst_bits(16));
    check(&t, &packet([10, 4, 0, 0], 80), None, dst_bits(14));
    check(&table(&[]), &packet([10, 4, 0, 0], 80), None, Match::ANY);
}

#[test]
fn lower_priorities_are_not_looked_at() {
    let t = table(&[(9, Match::ANY.in_port(1)), (1, net([10, 1, 0, 0], 16)), (0, Match::ANY.tp_dst(80))]);
    check(&t, &packet([10, 1, 0, 1], 80), Some(0), Match::ANY);
    let mut other = packet([10, 1, 0, 1], 80);
    other.set(Field::InPort, 2);
    check(&t, &other, Some(1), dst_bits(16));
}

#[test]
fn early_stages_spare_late_ones() {
    // Another EtherType, port or register shows without looking at addresses or ports.
    let acl = Match::ANY.eth_type(0x86dd).nw_proto(6).tp_dst(22);
    let t = table(&[
        (9, acl),
        (9, acl.tp_dst(23)),
        (8, acl.in_port(2).eth_type(0x0800)),
        (8, acl.in_port(3).eth_type(0x0800).tp_dst(23)),
        (7, Match::ANY.with(Field::Reg0, 1).eth_dst([2, 0, 0, 0, 0, 1])),
        (0, Match::ANY),
    ]);
    check(&t, &packet([10, 0, 0, 1], 22), Some(5), Match::ANY);
}

#[test]
fn ports_need_few_bits() {
    let tcp = Match::ANY.eth_type(0x0800).nw_proto(6);
    let t = table(&[(9, tcp.tp_dst(22)), (9, tcp.tp_dst(80)), (9, tcp.tp_dst(443)), (0, Match::ANY)]);
    // 22, 80 and 443 are all below 512, so one of the upper seven bits tells: the first that is set.
    check(&t, &packet([10, 0, 0, 1], 50_000), Some(3), Match::ANY.with_prefix(Field::TpDst, 0, 1));
    check(&t, &packet([10, 0, 0, 1], 8080), Some(3), Match::ANY.with_prefix(Field::TpDst, 0, 4));
    check(&t, &packet([10, 0, 0, 1], 80), Some(1), Match::ANY.nw_proto(6).tp_dst(80));
    // One protocol is the only difference to UDP, and 8 bits are what it has.
    let mut udp = packet([10, 0, 0, 1], 80);
    udp.set(Field::NwProto, 17);
    check(&t, &udp, Some(3), Match::ANY.nw_proto(17));
}

#[test]
fn an_only_value_needs_one_byte() {
    let t = table(&[(9, Match::ANY.eth_dst([2, 0, 0, 0, 7, 9])), (0, Match::ANY)]);
    let mut wc = FlowWildcards::EMPTY;
    assert_eq!(t.lookup(&packet([1; 4], 1), Some(&mut wc)).map(|r| r.payload), Some(1));
    assert_eq!(wc.get(Field::EthDst), 0xff00);
}

#[test]
fn what_matters_already_is_used() {
    let t = table(&[
        (9, net([10, 1, 0, 0], 16).tp_dst(22)),
        (9, net([10, 2, 0, 0], 16).tp_dst(23)),
        (0, Match::ANY),
    ]);
    let flow = packet([10, 9, 0, 0], 80);
    check(&t, &flow, Some(2), dst_bits(13));
    // The address is in no rule, which shows before ports are looked at; whoever knows it already pays nothing.
    let mut wc = FlowWildcards::EMPTY;
    wc.set_prefix(Field::NwDst, 13);
    let given = wc;
    t.lookup(&flow, Some(&mut wc));
    wc.0.set(Field::EthType, 0);
    assert_eq!(wc, given);
    // The winner's own bits exclude its rivals.
    let t = table(&[(9, net([10, 1, 0, 0], 16)), (9, net([10, 3, 0, 0], 16)), (1, net([10, 9, 0, 0], 24))]);
    check(&t, &flow, Some(2), dst_bits(24));
}

#[test]
fn removed_rules_are_forgotten() {
    let kept = net([10, 1, 0, 0], 16).in_port(2);
    let gone = [net([192, 1, 0, 0], 16).in_port(1), net([192, 1, 0, 0], 16).in_port(2)];
    let mac = Match::ANY.eth_dst([2, 0, 0, 0, 7, 9]);
    let mut t = table(&[(9, kept), (8, mac), (0, Match::ANY)]);
    let mut flow = packet([192, 168, 1, 1], 80);
    let only_kept = |t: &Classifier<u32>, flow: &Flow| {
        let mut wc = FlowWildcards::EMPTY;
        assert_eq!(t.lookup(flow, Some(&mut wc)).map(|r| r.payload), Some(2));
        wc
    };
    let before = only_kept(&t, &flow);
    flow.set(Field::InPort, 2);
    let before_on_2 = only_kept(&t, &flow);
    for m in gone {
        t.insert(9, &m, 7);
        t.insert(8, &m, 8);
    }
    t.insert(8, &mac.eth_dst([2, 0, 0, 0, 7, 8]), 9);
    assert_ne!(only_kept(&t, &flow), before_on_2);
    for m in gone {
        assert!(t.remove(9, &m).is_some() && t.remove(8, &m).is_some() && t.remove(8, &m).is_none());
    }
    t.remove(8, &mac.eth_dst([2, 0, 0, 0, 7, 8]));
    assert_eq!(only_kept(&t, &flow), before_on_2);
    flow.set(Field::InPort, 1);
    assert_eq!(only_kept(&t, &flow), before);

    // The same with several rules left, where only prefixes tell.
    let mut t = table(&[(9, net([10, 1, 0, 0], 16)), (9, net([10, 3, 0, 0], 16)), (0, Match::ANY)]);
    check(&t, &flow, Some(2), dst_bits(1));
    t.insert(9, &net([192, 0, 0, 0], 16), 7);
    check(&t, &flow, Some(2), dst_bits(9));
    t.remove(9, &net([192, 0, 0, 0], 16));
    check(&t, &flow, Some(2), dst_bits(1));
}

#[test]
fn prefix_fields_can_be_chosen() {
    let rules = [(9, net([10, 1, 0, 0], 16)), (9, net([10, 3, 0, 0], 16)), (0, Match::ANY)];
    let mut t = table(&rules);
    let flow = packet([192, 168, 0, 1], 80);
    check(&t, &flow, Some(2), dst_bits(1));
    t.set_prefix_fields(&[]);
    check(&t, &flow, Some(2), dst_bits(16));
    t.set_prefix_fields(&[Field::NwDst]);
    check(&t, &flow, Some(2), dst_bits(1));
    assert_eq!(t.len(), 3);
}

#[test]
fn equal_priorities_are_decided_by_the_mask() {
    let t = table(&[(5, dst_bits(0).in_port(1)), (5, net([10, 0, 0, 0], 24)), (5, net([10, 0, 0, 0], 8))]);
    // 16 bits of EtherType and 24 of the address are more than 32 of the port.
    check(&t, &packet([10, 0, 0, 1], 80), Some(1), dst_bits(24));
    check(&t, &packet([10, 0, 1, 1], 80), Some(0), dst_bits(24));
}

#[test]
fn ten_thousand_routes_stay_wide() {
    let mut t = Classifier::new();
    t.insert(0, &Match::ANY, 0);
    for i in 0..10_000u32 {
        t.insert(1, &net((0x0a00_0000u32 + (i << 8)).to_be_bytes(), 24), i + 1);
    }
    check(&t, &packet([192, 168, 0, 1], 80), Some(0), dst_bits(1));
    check(&t, &packet([10, 0, 5, 1], 80), Some(6), dst_bits(24));
    // 10 000 << 8 ends within 10.39/16.
    check(&t, &packet([10, 64, 0, 1], 80), Some(0), dst_bits(10));
}
