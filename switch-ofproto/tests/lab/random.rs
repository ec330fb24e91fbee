//! Random networks and packets, of few values so that they meet.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use switch_classifier::{Field, Match};
use switch_common::key::{FlowKey, KEY_WORDS, VLAN_PRESENT};
use switch_dpif::action::DpPort;
use switch_ofproto::bridge::Bridge;
use switch_ofproto::port::{Bundle, OfPort, Port};
use switch_ofproto::rule::TableId;
use switch_ofproto::vlan::{PriorityTags, TPID_C, TPID_S, VlanMode, VlanSet};
use switch_ofproto::{Network, OfAction};

use super::*;

/// Ports 1 to 6 are in the first bridge, 11 to 14 in the second; 50 and 51 are a cable between them.
pub const PORTS: [&[u16]; 2] = [&[1, 2, 3, 4, 5, 6], &[11, 12, 13, 14]];
const CABLE: [u16; 2] = [50, 51];
const VIDS: [u16; 4] = [0, 10, 20, 30];
const ETH_TYPES: [u16; 6] = [0x0800, 0x0800, 0x86dd, 0x0806, 0x8847, 0x1234];

fn vlan_set() -> impl Strategy<Value = VlanSet> {
    prop_oneof![Just(VlanSet::ALL), vec(select(&VIDS), 0..3).prop_map(VlanSet::from_iter)]
}

pub fn vlan_mode() -> impl Strategy<Value = VlanMode> {
    let tag = || select(&VIDS[1..]);
    prop_oneof![
        tag().prop_map(VlanMode::access),
        vlan_set().prop_map(VlanMode::trunk),
        (tag(), vlan_set()).prop_map(|(tag, set)| VlanMode::native_tagged(tag, set)),
        (tag(), vlan_set()).prop_map(|(tag, set)| VlanMode::native_untagged(tag, set)),
        (tag(), select(&[TPID_C, TPID_S]), vlan_set())
            .prop_map(|(tag, tpid, set)| VlanMode::dot1q_tunnel(tag, tpid, set)),
    ]
}

fn bundle() -> impl Strategy<Value = Bundle> {
    let priority_tags = select(&[PriorityTags::Never, PriorityTags::IfNonzero, PriorityTags::Always]);
    (vlan_mode(), priority_tags, proptest::bool::weighted(0.2)).prop_map(
        |(vlan, priority_tags, protected)| Bundle { priority_tags, protected, ..Bundle::new("", vlan) },
    )
}

/// Two bridges with a cable, and the rules that a fresh bridge has.
pub fn bridges() -> impl Strategy<Value = Vec<Bridge>> {
    let bundles = vec((bundle(), proptest::bool::weighted(0.9)), 12);
    // Modes that move a tag of the packet to another place.
    let cable = prop_oneof![
        vlan_mode(),
        select(&VIDS[1..]).prop_map(|tag| VlanMode::native_untagged(tag, VlanSet::ALL)),
        select(&VIDS[1..]).prop_map(|tag| VlanMode::dot1q_tunnel(tag, TPID_S, VlanSet::ALL)),
    ];
    (bundles, [cable.clone(), cable]).prop_map(|(bundles, cables)| {
        let mut bundles = bundles.into_iter();
        let mut bridges = vec![bridge(BR0, "br0"), bridge(BR1, "br1")];
        for (i, bridge) in bridges.iter_mut().enumerate() {
            for number in PORTS[i].iter().copied().chain([CABLE[i]]) {
                let Some((mut bundle, up)) = bundles.next() else { return Vec::new() };
                let name = |n: u16| format!("p{n}");
                let mut port = if number == CABLE[i] {
                    bundle.vlan = cables[i].clone();
                    Port::patch(OfPort(number), name(number), name(CABLE[1 - i]))
                } else {
                    Port::datapath(OfPort(number), name(number), DpPort(number))
                };
                port.up = up;
                bridge.add_bundle(bundle, vec![port]).unwrap();
            }
        }
        bridges
    })
}

pub fn address() -> impl Strategy<Value = EthAddr> {
    prop_oneof![
        8 => (1..6u16).prop_map(mac),
        1 => Just([0xff; 6]),
        1 => Just([1, 0x80, 0xc2, 0, 0, 2]),
    ]
}

pub fn macs() -> impl Strategy<Value = FixedMacs> {
    let port = |bridge: usize| prop_oneof![select(PORTS[bridge]), Just(CABLE[bridge]), Just(99)];
    let entry = move |id: BridgeId, bridge: usize| {
        ((Just(id), select(&VIDS), (1..6u16).prop_map(mac)), port(bridge).prop_map(OfPort))
    };
    (vec(entry(BR0, 0), 0..12), vec(entry(BR1, 1), 0..12))
        .prop_map(|(a, b)| FixedMacs(a.into_iter().chain(b).collect()))
}

/// Values of the fields that matches and actions are about.
pub fn value(field: Field) -> BoxedStrategy<u128> {
    match field {
        Field::InPort => select(PORTS.concat()).prop_map(u128::from).boxed(),
        Field::EthSrc | Field::EthDst | Field::ArpSha | Field::ArpTha => {
            address().prop_map(mac_number).boxed()
        }
        Field::EthType => select(&ETH_TYPES).prop_map(u128::from).boxed(),
        Field::VlanTci | Field::InnerTci => (select(&VIDS), select(&[0u16, 5]))
            .prop_map(|(vid, pcp)| u128::from(vid | pcp << 13 | VLAN_PRESENT))
            .boxed(),
        Field::NwProto => select(&[6u128, 17, 1, 58, 132, 2]).boxed(),
        Field::NwTtl => select(&[0u128, 1, 2, 64]).boxed(),
        Field::NwSrc | Field::NwDst => select(&[0x0a000001u128, 0x0a000002, 0x0a010001, 0xc0a80001]).boxed(),
        Field::Ipv6Src | Field::Ipv6Dst | Field::NdTarget => {
            (0u128..4).prop_map(|n| 0x2001_0db8 << 96 | n << 60 | n).boxed()
        }
        Field::TpSrc | Field::TpDst => select(&[0u128, 1, 80, 135, 136]).boxed(),
        _ => (0u128..4).boxed(),
    }
}

const MATCHED: [Field; 17] = {
    use Field::*;
    [
        InPort, EthSrc, EthDst, EthType, VlanTci, InnerTci, NwProto, NwTtl, NwTos, NwSrc, NwDst, Ipv6Dst,
        TpSrc, TpDst, Reg0, Metadata, ArpSha,
    ]
};

const SET: [Field; 22] = {
    use Field::*;
    [
        EthSrc, EthDst, VlanTci, VlanTci, NwProto, NwTtl, NwTos, NwSrc, NwDst, Ipv6Src, Ipv6Dst, Ipv6Label,
        TpSrc, TpDst, Reg0, Reg3, Metadata, ArpSha, ArpTha, NdTarget, MplsLse0, InPort,
    ]
};

/// Rules that send by VLAN tags alone, for one table.
pub fn tag_rules(ports: &'static [u16]) -> impl Strategy<Value = Rules> {
    let fields = select(&[Field::VlanTci, Field::InnerTci, Field::VlanTpid]).prop_flat_map(|field| {
        let mask = select(&[0x1fffu128, 0x1000, 0xffff, 0xf000, 0x1014]);
        let value = if field == Field::VlanTpid { select(&[0u128, 0x88a8]).boxed() } else { value(field) };
        (Just(field), value, mask).prop_map(|(field, value, mask)| {
            let mask = if field == Field::VlanTpid { 0xffff } else { mask };
            (field, value & mask, mask)
        })
    });
    let rule = (vec(fields, 1..3), select(ports)).prop_map(|(fields, port)| {
        let matching =
            fields.into_iter().fold(Match::ANY, |m, (f, value, mask)| m.with_masked(f, value, mask));
        (matching, vec![OfAction::Output(OfPort(port))])
    });
    vec(rule, 1..8).prop_map(|rules| {
        let numbered = rules.into_iter().enumerate();
        numbered.map(|(i, (matching, actions))| (0, 100 + i as u16, matching, actions)).collect()
    })
}

fn masked(field: Field) -> impl Strategy<Value = (Field, u128, u128)> {
    let ones = field.info().ones();
    let mask = prop_oneof![3 => Just(ones), 1 => any::<u128>().prop_map(move |m| m & ones)];
    (value(field), mask).prop_map(move |(value, mask)| (field, value & mask, mask))
}

pub fn matching() -> impl Strategy<Value = Match> {
    vec(select(&MATCHED).prop_flat_map(masked), 0..3).prop_map(|fields| {
        fields.into_iter().fold(Match::ANY, |m, (field, value, mask)| m.with_masked(field, value, mask))
    })
}

/// An action for a rule of a table; `normal`: NORMAL may be among them.
pub fn action(table: u8, normal: bool) -> BoxedStrategy<OfAction> {
    let ports = select(&[1, 2, 3, 11, 12, CABLE[0], CABLE[1], 77]).prop_map(OfPort);
    let reserved = select(&[OfPort::ALL, OfPort::FLOOD, OfPort::IN_PORT, OfPort::LOCAL, OfPort::CONTROLLER]);
    let resubmit = (proptest::option::of(select(PORTS[0])), 0..5u8)
        .prop_map(|(port, table)| OfAction::Resubmit { port: port.map(OfPort), table: Some(TableId(table)) });
    prop_oneof![
        6 => ports.clone().prop_map(OfAction::Output),
        2 => reserved.prop_map(OfAction::Output),
        if normal { 4 } else { 1 } => Just(OfAction::Output(if normal { OfPort::NORMAL } else { OfPort(1) })),
        1 => ports.prop_map(|port| OfAction::OutputTruncated { port, max_len: 64 }),
        8 => select(&SET).prop_flat_map(masked).prop_map(|(field, value, mask)| {
            let mask = if field == Field::VlanTci { mask & !u128::from(VLAN_PRESENT) } else { mask };
            OfAction::SetField { field, value: value & mask, mask }
        }),
        1 => select(&[TPID_C, TPID_S]).prop_map(|tpid| OfAction::PushVlan { tpid }),
        2 => Just(OfAction::PopVlan),
        1 => select(&VIDS).prop_map(OfAction::SetVlanVid),
        1 => (0..8u8).prop_map(OfAction::SetVlanPcp),
        1 => Just(OfAction::DecTtl),
        3 => resubmit,
        2 => (table + 1..table + 4).prop_map(|t| OfAction::GotoTable(TableId(t))),
        1 => Just(OfAction::Note(vec![1])),
    ]
    .boxed()
}

pub type Rules = Vec<(u8, u16, Match, Vec<OfAction>)>;

/// Rules for tables 0 to 3 of two bridges, with priorities of their own.
pub fn rules(normal: bool) -> impl Strategy<Value = [Rules; 2]> {
    [rules_of_one(normal), rules_of_one(normal)]
}

fn rules_of_one(normal: bool) -> impl Strategy<Value = Rules> {
    let rule = move || (0..4u8).prop_flat_map(move |t| (Just(t), matching(), vec(action(t, normal), 0..6)));
    vec(rule(), 1..24).prop_map(|rules| {
        let numbered = rules.into_iter().enumerate();
        numbered.map(|(i, (table, matching, actions))| (table, 100 + i as u16, matching, actions)).collect()
    })
}

/// A network whose bridges have these rules before their own.
pub fn network_with(mut bridges: Vec<Bridge>, rules: [Rules; 2]) -> Network {
    for (bridge, rules) in bridges.iter_mut().zip(rules) {
        for (table, priority, matching, actions) in rules {
            add_rule(bridge, table, priority, matching, actions);
        }
    }
    network(bridges)
}

/// The key of a packet that can be.
pub fn packet() -> impl Strategy<Value = FlowKey> {
    prop_oneof![7 => any_packet(), 1 => neighbour_discovery()]
}

fn neighbour_discovery() -> impl Strategy<Value = FlowKey> {
    let ports: Vec<u16> = PORTS.concat();
    let addresses = (value(Field::Ipv6Src), value(Field::Ipv6Dst), value(Field::NdTarget));
    (select(ports), address(), address(), select(&[135u128, 136]), addresses, value(Field::ArpSha)).prop_map(
        |(in_port, src, dst, ty, (ip_src, ip_dst, target), option)| {
            let mut fields = frame(src, dst, 0x86dd, &[]);
            fields.extend([(Field::NwProto, 58), (Field::NwTtl, 255), (Field::TpSrc, ty)]);
            fields.extend([(Field::Ipv6Src, ip_src), (Field::Ipv6Dst, ip_dst), (Field::NdTarget, target)]);
            fields.push((if ty == 135 { Field::ArpSha } else { Field::ArpTha }, option));
            key(in_port, &fields)
        },
    )
}

fn any_packet() -> impl Strategy<Value = FlowKey> {
    let ports: Vec<u16> = PORTS.concat();
    let tags = vec((select(&VIDS), select(&[0u16, 3, 5])), 0..3);
    let ethernet = (address(), address(), select(&ETH_TYPES), tags);
    let network = (value(Field::NwProto), value(Field::NwTtl), value(Field::NwSrc), value(Field::NwDst));
    let transport = (value(Field::TpSrc), value(Field::TpDst), select(&[0u128, 0, 0, 1, 3]), any::<u8>());
    let other = (select(&[0u16, 0, TPID_S]), value(Field::ArpSha), value(Field::NdTarget), any::<u16>());
    (select(ports), ethernet, network, transport, other).prop_map(
        |(in_port, (src, dst, eth_type, tags), (proto, ttl, nw_src, nw_dst), transport, other)| {
            let (tp_src, tp_dst, fragment, tos) = transport;
            let (tpid, sha, target, noise) = other;
            let mut fields = frame(src, dst, eth_type, &tags);
            if !tags.is_empty() {
                fields.push((Field::VlanTpid, tpid.into()));
            }
            let is_ip = matches!(eth_type, 0x0800 | 0x86dd);
            match eth_type {
                0x0800 | 0x0806 => fields.extend([(Field::NwSrc, nw_src), (Field::NwDst, nw_dst)]),
                0x86dd => fields.extend([
                    (Field::Ipv6Src, target + 1),
                    (Field::Ipv6Dst, target),
                    (Field::Ipv6Label, noise.into()),
                ]),
                0x8847 => fields.push((Field::MplsLse0, noise.into())),
                _ => {}
            }
            if eth_type == 0x0806 {
                fields.extend([(Field::NwProto, proto & 3), (Field::ArpSha, sha), (Field::ArpTha, sha + 1)]);
            }
            if is_ip {
                fields.extend([(Field::NwProto, proto), (Field::NwTtl, ttl), (Field::NwTos, tos.into())]);
                fields.push((Field::IpFrag, fragment));
                if fragment != 3 {
                    fields.extend([(Field::TpSrc, tp_src), (Field::TpDst, tp_dst)]);
                    if eth_type == 0x86dd && proto == 58 && matches!(tp_src, 135 | 136) {
                        fields.extend([
                            (Field::NdTarget, target),
                            (Field::ArpSha, sha),
                            (Field::ArpTha, sha),
                        ]);
                    }
                }
            }
            key(in_port, &fields)
        },
    )
}

/// Any bits at all, with an input port that exists.
pub fn noise() -> impl Strategy<Value = FlowKey> {
    let ports: Vec<u16> = PORTS.concat();
    let words = proptest::array::uniform32(any::<u64>());
    (select(ports), words, any::<[u64; 4]>(), any::<bool>(), select(&ETH_TYPES)).prop_map(
        |(in_port, words, more, recirculated, eth_type)| {
            let mut all = [0; KEY_WORDS];
            all[..32].copy_from_slice(&words);
            all[32..].copy_from_slice(&more);
            let mut key = FlowKey::from_words(all);
            key.in_port = in_port;
            key.eth_type = eth_type.to_be();
            if !recirculated {
                key.set_recirc_id(0);
            }
            key.normalize_kind();
            key
        },
    )
}
