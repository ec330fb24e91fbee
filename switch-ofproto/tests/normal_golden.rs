//! NORMAL over all VLAN modes and kinds of tags, compared with the answers of Open vSwitch itself.

mod lab;

use lab::*;
use switch_common::key::FlowKey;
use switch_dpif::action::{DpAction, DpPort};
use switch_ofproto::bridge::Bridge;
use switch_ofproto::port::{Bundle, OfPort, Port};
use switch_ofproto::vlan::{PriorityTags, TPID_C, TPID_S, VlanMode, VlanSet};

const GOLDEN: &str = include_str!("golden/normal_vlan.txt");

/// The bridge that the head of the golden file describes.
fn golden_bridge() -> Bridge {
    use PriorityTags::*;
    let set = |vids: &[u16]| vids.iter().copied().collect::<VlanSet>();
    let all = || VlanSet::ALL;
    let ports = [
        (VlanMode::access(10), Never),
        (VlanMode::access(20), Never),
        (VlanMode::default(), Never),
        (VlanMode::trunk(set(&[10, 20])), Never),
        (VlanMode::native_tagged(10, all()), Never),
        (VlanMode::native_tagged(10, set(&[20])), Never),
        (VlanMode::native_untagged(10, all()), Never),
        (VlanMode::native_untagged(20, set(&[10])), Never),
        (VlanMode::access(10), IfNonzero),
        (VlanMode::access(10), Always),
        (VlanMode::native_untagged(10, all()), IfNonzero),
        (VlanMode::native_untagged(10, all()), Always),
        (VlanMode::default(), Always),
        (VlanMode::default(), IfNonzero),
        (VlanMode::dot1q_tunnel(10, TPID_S, all()), Never),
        (VlanMode::dot1q_tunnel(10, TPID_S, set(&[20])), Never),
        (VlanMode::access(10), Never),
        (VlanMode::default(), Never),
        (VlanMode::trunk(set(&[0, 10])), Never),
    ];
    let mut bridge = bridge(BR0, "br0");
    let local = Port::datapath(OfPort::LOCAL, "br0", DpPort(100));
    bridge.add_bundle(Bundle::new("br0", VlanMode::default()), vec![local]).unwrap();
    for (number, (vlan, priority_tags)) in (1..).zip(ports) {
        let protected = matches!(number, 17 | 18);
        let bundle = Bundle { priority_tags, protected, ..Bundle::new(format!("p{number}"), vlan) };
        add_bundle(&mut bridge, number, bundle);
    }
    bridge
}

fn parse_actions(text: &str) -> Vec<DpAction> {
    let mut actions = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = match rest.find(')') {
            Some(close) if rest.find('(') < rest.find(',') => close + 1,
            _ => rest.find(',').unwrap_or(rest.len()),
        };
        let (word, tail) = rest.split_at(end);
        rest = tail.trim_start_matches(',');
        actions.push(match word {
            "drop" => continue,
            "pop_vlan" => DpAction::PopVlan,
            _ if word.starts_with("push_vlan") => {
                let tpid = if word.contains("tpid=0x88a8") { TPID_S } else { TPID_C };
                let number = |name: &str| {
                    let digits = word.split(name).nth(1).unwrap();
                    digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u16>().unwrap()
                };
                DpAction::PushVlan { tpid, tci: number("vid=") | number("pcp=") << 13 }
            }
            _ => DpAction::Output(DpPort(word.parse().unwrap())),
        });
    }
    actions
}

fn golden_key(limit: usize, in_port: u16, tags: &str, dst: &str) -> FlowKey {
    let tags: Vec<(u16, u16)> = tags
        .split('+')
        .filter_map(|tag| tag.split_once('/'))
        .map(|(vid, pcp)| (vid.parse().unwrap(), pcp.parse().unwrap()))
        .collect();
    let dst = match dst {
        "*" => mac(0x99),
        port => mac(0x100 + port.parse::<u16>().unwrap()),
    };
    let seen = &tags[..tags.len().min(limit)];
    let eth_type = if tags.len() > limit { TPID_C } else { 0x1234 };
    key(in_port, &frame(mac(1), dst, eth_type, seen))
}

#[test]
fn normal_forwards_as_open_vswitch_does() {
    let network = network(vec![golden_bridge()]);
    let mut macs = FixedMacs::default();
    for port in 1..20 {
        for vlan in [0, 10, 20, 30] {
            macs.0.insert((BR0, vlan, mac(0x100 + port)), OfPort(port));
        }
    }
    let (mut lines, mut wrong) = (0, Vec::new());
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let [limit, in_port, tags, dst, actions] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let key = golden_key(limit.parse().unwrap(), in_port.parse().unwrap(), tags, dst);
        let expected = outputs(tags_of(&key), &parse_actions(actions));
        let ours = run(&network, &macs, &key);
        lines += 1;
        if outputs(tags_of(&key), &ours.actions) != expected {
            wrong.push(format!("{line}\n    ours: {:?}", ours.actions));
        }
    }
    assert!(wrong.is_empty(), "{} of {lines} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(lines > 1500);
}
