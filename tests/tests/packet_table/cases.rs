//! The table: packet in, actions, and what must come out, as built from scratch.

use switch_common::counter::Drop as DropReason;
use switch_common::key::{FlowKey, FlowMask};
use switch_dpif::action::{DpAction, Layer, Set};

use crate::frames::*;

pub struct Case {
    pub name: &'static str,
    pub frame: Vec<u8>,
    pub actions: Vec<DpAction>,
    pub out: Vec<(u16, Vec<u8>)>,
    pub dropped: Vec<DropReason>,
}

fn case(name: &'static str, frame: Vec<u8>, actions: Vec<DpAction>, out: Vec<(u16, Vec<u8>)>) -> Case {
    Case { name, frame, actions, out, dropped: Vec::new() }
}

fn drops(name: &'static str, frame: Vec<u8>, actions: Vec<DpAction>, reason: DropReason) -> Case {
    Case { name, frame, actions, out: Vec::new(), dropped: vec![reason] }
}

const OUT: DpAction = DpAction::output(3);
const OTHER: DpAction = DpAction::output(4);

/// A set of those fields of a layer in which `value` is not zero.
fn set(layer: Layer, value: FlowKey) -> DpAction {
    let mut mask = FlowMask::EMPTY;
    for (m, v) in mask.words_mut().iter_mut().zip(value.words()) {
        for byte in 0..8 {
            if v >> (8 * byte) & 0xff != 0 {
                *m |= 0xff << (8 * byte);
            }
        }
    }
    DpAction::Set(Set::new(layer, &value, &mask))
}

/// A set of exactly these bits.
fn set_bits(layer: Layer, value: FlowKey, mask: FlowKey) -> DpAction {
    DpAction::Set(Set::new(layer, &value, &FlowMask(mask)))
}

const ZERO: FlowKey = FlowKey::ZERO;

fn words4(address: [u8; 4]) -> u32 {
    u32::from_ne_bytes(address)
}

fn words6(address: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|i| {
        u32::from_ne_bytes([address[4 * i], address[4 * i + 1], address[4 * i + 2], address[4 * i + 3]])
    })
}

fn addresses6(src: [u8; 16], dst: [u8; 16]) -> [u32; 8] {
    let (s, d) = (words6(src), words6(dst));
    [s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]]
}

const SRC4: [u8; 4] = [172, 31, 253, 7];
const DST4: [u8; 4] = [9, 8, 7, 6];
const SRC6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const DST6: [u8; 16] = [0x20, 2, 0xd, 0xb8, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5];
const C: [u8; 6] = [2, 0xc, 0xc, 0xc, 0xc, 0xc];
const D: [u8; 6] = [2, 0xd, 0xd, 0xd, 0xd, 0xd];

pub fn all() -> Vec<Case> {
    let mut all = outputs();
    all.extend(vlans());
    all.extend(ipv4());
    all.extend(ipv6());
    all.extend(others());
    all
}

fn outputs() -> Vec<Case> {
    let f = Ip4::new(17, &udp(7, 9)).frame();
    let changed = Ip4 { macs: (D, C), ..Ip4::new(17, &udp(7, 9)) }.frame();
    let macs = DpAction::Set(Set::ethernet(Some(C), Some(D)));
    let first = |n: usize| f[..n].to_vec();
    vec![
        case("one output", f.clone(), vec![OUT], vec![(3, f.clone())]),
        case("two outputs", f.clone(), vec![OUT, OTHER], vec![(3, f.clone()), (4, f.clone())]),
        case(
            "an output, a change, an output",
            f.clone(),
            vec![OUT, macs.clone(), OTHER],
            vec![(3, f.clone()), (4, changed.clone())],
        ),
        case("a change, an output", f.clone(), vec![macs.clone(), OUT], vec![(3, changed)]),
        case("truncated", f.clone(), vec![DpAction::Truncate(40), OUT], vec![(3, first(40))]),
        case(
            "a copy, and the rest truncated",
            f.clone(),
            vec![OUT, DpAction::Truncate(36), OTHER],
            vec![(3, f.clone()), (4, first(36))],
        ),
        case(
            "truncated to more than it has",
            f.clone(),
            vec![DpAction::Truncate(999), OUT],
            vec![(3, f.clone())],
        ),
        case(
            "a sample always",
            f.clone(),
            vec![DpAction::Sample { probability: u32::MAX, actions: vec![OTHER] }, OUT],
            vec![(3, f.clone()), (4, f.clone())],
        ),
        case("a meter that is not there", f.clone(), vec![DpAction::Meter(9), OUT], vec![(3, f.clone())]),
        drops("nothing", f.clone(), vec![], DropReason::Policy),
        drops("nothing but changes", f.clone(), vec![macs], DropReason::Policy),
        drops(
            "a drop with its reason",
            f.clone(),
            vec![DpAction::Drop(DropReason::Hairpin)],
            DropReason::Hairpin,
        ),
        drops("a port that is not there", f.clone(), vec![DpAction::output(77)], DropReason::NoOutput),
        drops(
            "a port that is down",
            f.clone(),
            vec![DpAction::output(crate::bench::DOWN)],
            DropReason::NoOutput,
        ),
        Case {
            name: "one of two ports is down",
            frame: f.clone(),
            actions: vec![DpAction::output(crate::bench::DOWN), OUT],
            out: vec![(3, f)],
            dropped: vec![DropReason::NoOutput],
        },
    ]
}

fn vlans() -> Vec<Case> {
    let f = Ip4::new(6, &tcp(7, 9)).frame();
    let one = tagged(&f, 0x8100, 0x600a);
    let two = tagged(&tagged(&f, 0x8100, 11), 0x88a8, 10);
    let push = |tpid, tci| DpAction::PushVlan { tpid, tci };
    vec![
        case("one tag passes", one.clone(), vec![OUT], vec![(3, one.clone())]),
        case("two tags pass", two.clone(), vec![OUT], vec![(3, two.clone())]),
        case("push", f.clone(), vec![push(0x8100, 0xa064), OUT], vec![(3, tagged(&f, 0x8100, 0xa064))]),
        case("push another", one.clone(), vec![push(0x88a8, 5), OUT], vec![(3, tagged(&one, 0x88a8, 5))]),
        case(
            "push two",
            f.clone(),
            vec![push(0x8100, 5), push(0x88a8, 6), OUT],
            vec![(3, tagged(&tagged(&f, 0x8100, 5), 0x88a8, 6))],
        ),
        case("pop", one.clone(), vec![DpAction::PopVlan, OUT], vec![(3, f.clone())]),
        case("pop the outer", two.clone(), vec![DpAction::PopVlan, OUT], vec![(3, tagged(&f, 0x8100, 11))]),
        case("pop both", two.clone(), vec![DpAction::PopVlan, DpAction::PopVlan, OUT], vec![(3, f.clone())]),
        drops("pop none", f.clone(), vec![DpAction::PopVlan, OUT], DropReason::ActionFailed),
        case(
            "another id and priority",
            one.clone(),
            vec![DpAction::Set(Set::vlan(0x4123)), OUT],
            vec![(3, tagged(&f, 0x8100, 0x4123))],
        ),
        case(
            "another id only",
            one.clone(),
            vec![
                set_bits(
                    Layer::Vlan,
                    FlowKey { vlan_tci: 0x0123u16.to_be(), ..ZERO },
                    FlowKey { vlan_tci: 0x0fffu16.to_be(), ..ZERO },
                ),
                OUT,
            ],
            vec![(3, tagged(&f, 0x8100, 0x6123))],
        ),
        case(
            "the outer of two",
            two.clone(),
            vec![DpAction::Set(Set::vlan(0x4123)), OUT],
            vec![(3, tagged(&tagged(&f, 0x8100, 11), 0x88a8, 0x4123))],
        ),
        case(
            "to access and trunk ports",
            f.clone(),
            vec![OUT, push(0x8100, 30), OTHER],
            vec![(3, f.clone()), (4, tagged(&f, 0x8100, 30))],
        ),
        case(
            "pop, rewrite behind it",
            one,
            vec![DpAction::PopVlan, set(Layer::Tcp, FlowKey { tp_dst: 4242u16.to_be(), ..ZERO }), OUT],
            vec![(3, Ip4::new(6, &tcp(7, 4242)).frame())],
        ),
    ]
}

fn ipv4() -> Vec<Case> {
    let both = FlowKey { addr: [words4(SRC4), words4(DST4), 0, 0, 0, 0, 0, 0], ..ZERO };
    let readdressed = |p: &Ip4| Ip4 { src: SRC4, dst: DST4, ..p.clone() }.frame();
    let mut cases = Vec::new();
    for (name, p) in [
        ("IPv4 addresses, TCP", Ip4::new(6, &tcp(7, 9))),
        ("IPv4 addresses, UDP", Ip4::new(17, &udp(7, 9))),
        ("IPv4 addresses, ICMP", Ip4::new(1, &icmp(8, 0))),
        ("IPv4 addresses, options", Ip4 { options: vec![1; 8], ..Ip4::new(6, &tcp(7, 9)) }),
        ("IPv4 addresses, later fragment", Ip4 { fragment: 0x2011, sum: false, ..Ip4::new(17, &udp(7, 9)) }),
        ("IPv4 addresses, another protocol", Ip4::new(47, &[3; 20])),
        ("IPv4 addresses, UDP without checksum", Ip4 { sum: false, ..Ip4::new(17, &udp(7, 9)) }),
    ] {
        cases.push(case(name, p.frame(), vec![set(Layer::Ipv4, both), OUT], vec![(3, readdressed(&p))]));
    }
    let p = Ip4::new(17, &udp(7, 9));
    let tagged_in = tagged(&p.frame(), 0x8100, 7);
    cases.push(case(
        "IPv4 addresses behind a tag",
        tagged_in.clone(),
        vec![set(Layer::Ipv4, both), OUT],
        vec![(3, tagged(&readdressed(&p), 0x8100, 7))],
    ));
    cases.push(case(
        "IPv4 addresses, then a tag",
        p.frame(),
        vec![set(Layer::Ipv4, both), DpAction::push_vlan(7), OUT],
        vec![(3, tagged(&readdressed(&p), 0x8100, 7))],
    ));
    cases.push(case(
        "a tag, then IPv4 addresses",
        p.frame(),
        vec![DpAction::push_vlan(7), set(Layer::Ipv4, both), OUT],
        vec![(3, tagged(&readdressed(&p), 0x8100, 7))],
    ));
    cases.push(case(
        "TOS and TTL",
        p.frame(),
        vec![set(Layer::Ipv4, FlowKey { ip_tos: 0xb8, ip_ttl: 63, ..ZERO }), OUT],
        vec![(3, Ip4 { tos: 0xb8, ttl: 63, ..p.clone() }.frame())],
    ));
    let dscp = set_bits(Layer::Ipv4, FlowKey { ip_tos: 0x28, ..ZERO }, FlowKey { ip_tos: 0xfc, ..ZERO });
    cases.push(case(
        "DSCP without ECN",
        Ip4 { tos: 3, ..p.clone() }.frame(),
        vec![dscp, OUT],
        vec![(3, Ip4 { tos: 0x2b, ..p.clone() }.frame())],
    ));
    let ports = FlowKey { tp_src: 0xabcdu16.to_be(), tp_dst: 0x1357u16.to_be(), ..ZERO };
    for (name, layer, p, want) in [
        ("TCP ports", Layer::Tcp, Ip4::new(6, &tcp(7, 9)), Ip4::new(6, &tcp(0xabcd, 0x1357))),
        ("UDP ports", Layer::Udp, Ip4::new(17, &udp(7, 9)), Ip4::new(17, &udp(0xabcd, 0x1357))),
        (
            "UDP ports without checksum",
            Layer::Udp,
            Ip4 { sum: false, ..Ip4::new(17, &udp(7, 9)) },
            Ip4 { sum: false, ..Ip4::new(17, &udp(0xabcd, 0x1357)) },
        ),
    ] {
        cases.push(case(name, p.frame(), vec![set(layer, ports), OUT], vec![(3, want.frame())]));
    }
    let later = Ip4 { fragment: 0x0011, sum: false, ..p.clone() };
    cases.push(drops(
        "ports of a later fragment",
        later.frame(),
        vec![set(Layer::Udp, ports), OUT],
        DropReason::ActionFailed,
    ));
    cases.push(drops(
        "IPv4 addresses of ARP",
        arp(1, (A, SRC4), (B, DST4)),
        vec![set(Layer::Ipv4, both), OUT],
        DropReason::ActionFailed,
    ));
    let kind = FlowKey { tp_src: 13u16.to_be(), tp_dst: 5u16.to_be(), ..ZERO };
    cases.push(case(
        "ICMP type and code",
        Ip4::new(1, &icmp(8, 0)).frame(),
        vec![set(Layer::Icmp, kind), OUT],
        vec![(3, Ip4::new(1, &icmp(13, 5)).frame())],
    ));
    cases
}

fn ipv6() -> Vec<Case> {
    let both = FlowKey { addr: addresses6(SRC6, DST6), ..ZERO };
    let readdressed = |p: &Ip6| Ip6 { src: SRC6, dst: DST6, ..p.clone() }.frame();
    let mut cases = Vec::new();
    for (name, p) in [
        ("IPv6 addresses, TCP", Ip6::new(6, &tcp(7, 9))),
        ("IPv6 addresses, UDP", Ip6::new(17, &udp(7, 9))),
        ("IPv6 addresses, ICMPv6", Ip6::new(58, &icmp(128, 0))),
        ("IPv6 addresses, options", Ip6 { extensions: vec![hop_by_hop()], ..Ip6::new(6, &tcp(7, 9)) }),
        (
            "IPv6 addresses, another hop",
            Ip6 { extensions: vec![routing_header(1)], last_hop: Some(HOP), ..Ip6::new(17, &udp(7, 9)) },
        ),
        ("IPv6 addresses, last hop", Ip6 { extensions: vec![routing_header(0)], ..Ip6::new(17, &udp(7, 9)) }),
        (
            "IPv6 addresses, later fragment",
            Ip6 { extensions: vec![fragment_header(0x109)], sum: false, ..Ip6::new(17, &udp(7, 9)) },
        ),
    ] {
        cases.push(case(name, p.frame(), vec![set(Layer::Ipv6, both), OUT], vec![(3, readdressed(&p))]));
    }
    let p = Ip6::new(6, &tcp(7, 9));
    let rest = FlowKey { ip_tos: 0x2e, ip_ttl: 5, ipv6_label: 0xf_9f3du32.to_be(), ..ZERO };
    let changed = Ip6 { class: 0x2e, hops: 5, label: 0xf_9f3d, ..p.clone() };
    let all_bits = FlowKey { ip_tos: 0xff, ip_ttl: 0xff, ipv6_label: 0xf_ffffu32.to_be(), ..ZERO };
    cases.push(case(
        "traffic class, label, hop limit",
        p.frame(),
        vec![set_bits(Layer::Ipv6, rest, all_bits), OUT],
        vec![(3, changed.frame())],
    ));
    let ports = FlowKey { tp_src: 0xabcdu16.to_be(), tp_dst: 0x1357u16.to_be(), ..ZERO };
    cases.push(case(
        "TCP ports over IPv6 behind a tag",
        tagged(&p.frame(), 0x8100, 5),
        vec![set(Layer::Tcp, ports), OUT],
        vec![(3, tagged(&Ip6::new(6, &tcp(0xabcd, 0x1357)).frame(), 0x8100, 5))],
    ));
    let kind = FlowKey { tp_src: 129u16.to_be(), tp_dst: 3u16.to_be(), ..ZERO };
    cases.push(case(
        "ICMPv6 type and code",
        Ip6::new(58, &icmp(128, 0)).frame(),
        vec![set(Layer::Icmpv6, kind), OUT],
        vec![(3, Ip6::new(58, &icmp(129, 3)).frame())],
    ));
    let target = [0xfe; 16];
    let nd_key = FlowKey { nd_target: words6(DST6), arp_sha: C, arp_tha: D, ..ZERO };
    let solicitation = Ip6::new(58, &nd(135, target, &[(1, A)]));
    cases.push(case(
        "solicitation",
        solicitation.frame(),
        vec![set(Layer::Nd, nd_key), OUT],
        vec![(3, Ip6::new(58, &nd(135, DST6, &[(1, C)])).frame())],
    ));
    cases.push(case(
        "advertisement with another option",
        Ip6::new(58, &nd(136, target, &[(14, A), (2, B)])).frame(),
        vec![set(Layer::Nd, nd_key), OUT],
        vec![(3, Ip6::new(58, &nd(136, DST6, &[(14, A), (2, D)])).frame())],
    ));
    cases.push(drops(
        "a target where there is none",
        Ip6::new(58, &icmp(128, 0)).frame(),
        vec![set(Layer::Nd, nd_key), OUT],
        DropReason::ActionFailed,
    ));
    cases
}

fn others() -> Vec<Case> {
    let request = arp(1, (A, [10, 0, 0, 1]), ([0; 6], [10, 0, 0, 2]));
    let reply = FlowKey {
        addr: [words4(SRC4), words4(DST4), 0, 0, 0, 0, 0, 0],
        ip_proto: 2,
        arp_sha: C,
        arp_tha: D,
        ..ZERO
    };
    let entry = FlowKey { mpls_lse: [0x0abc_d51fu32.to_be(), 0, 0], ..ZERO };
    let unknown = ethernet(B, A, 0x1234, &[7; 50]);
    vec![
        case("ARP", request, vec![set(Layer::Arp, reply), OUT], vec![(3, arp(2, (C, SRC4), (D, DST4)))]),
        case(
            "MPLS",
            mpls(&[0x0001_2040, 0x0002_313f]),
            vec![set(Layer::Mpls, entry), OUT],
            vec![(3, mpls(&[0x0abc_d51f, 0x0002_313f]))],
        ),
        case(
            "an unknown EtherType",
            unknown.clone(),
            vec![DpAction::Set(Set::ethernet(Some(C), None)), OUT],
            vec![(3, ethernet(B, C, 0x1234, &[7; 50]))],
        ),
        drops(
            "ports of what has none",
            unknown,
            vec![set(Layer::Tcp, FlowKey { tp_src: 1, ..ZERO }), OUT],
            DropReason::ActionFailed,
        ),
        case(
            "mark and priority stay in the host",
            Ip4::new(17, &udp(7, 9)).frame(),
            vec![DpAction::Set(Set::mark(7)), DpAction::Set(Set::priority(3)), OUT],
            vec![(3, Ip4::new(17, &udp(7, 9)).frame())],
        ),
    ]
}
