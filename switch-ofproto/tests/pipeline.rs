//! Tables, actions and what a translation answers besides actions, one case at a time.

mod lab;

use std::net::Ipv4Addr;

use lab::*;
use switch_classifier::{Field, Match};
use switch_common::counter::Drop;
use switch_common::key::FlowMask;
use switch_dpif::action::{DpAction, DpPort, Layer};
use switch_ofproto::bridge::{Bridge, BridgeError, FailMode};
use switch_ofproto::mac::{Learn, MacDep};
use switch_ofproto::network::NetworkError;
use switch_ofproto::port::{Bundle, OfPort, Port};
use switch_ofproto::rule::TableId;
use switch_ofproto::vlan::{VlanMode, VlanSet};
use switch_ofproto::xlate::{Slow, TranslateError};
use switch_ofproto::{Network, OfAction, TranslateOptions, Translation, translate};

fn udp(in_port: u16) -> Vec<(Field, u128)> {
    let mut fields = frame(mac(1), mac(0x99), 0x0800, &[]);
    fields.extend([
        (Field::NwDst, 0x0a01_0101),
        (Field::NwProto, 17),
        (Field::NwTtl, 64),
        (Field::DpPort, in_port.into()),
    ]);
    fields
}

fn ports(bridge: &mut Bridge, numbers: &[u16]) {
    for number in numbers {
        add_port(bridge, *number, VlanMode::default());
    }
}

/// One bridge with ports 1 to 4 and these rules for table 0.
fn with_rules(rules: Vec<(Match, Vec<OfAction>)>) -> Network {
    let mut br0 = bridge(BR0, "br0");
    ports(&mut br0, &[1, 2, 3, 4]);
    for (i, (matching, actions)) in (100..).zip(rules) {
        add_rule(&mut br0, 0, i, matching, actions);
    }
    network(vec![br0])
}

fn send(network: &Network, in_port: u16) -> Translation {
    run(network, &FixedMacs::default(), &key(in_port, &udp(in_port)))
}

fn out(ports: &[u16]) -> Vec<DpAction> {
    ports.iter().map(|p| DpAction::Output(DpPort(*p))).collect()
}

#[test]
fn a_fresh_bridge_learns_and_floods() {
    let network = with_rules(Vec::new());
    let t = send(&network, 1);
    assert_eq!(t.actions, out(&[2, 3, 4]));
    assert_eq!(t.learns, [Learn { bridge: BR0, vlan: 0, mac: mac(1), port: OfPort(1) }]);
    assert_eq!(t.deps, [MacDep { bridge: BR0, vlan: 0, mac: mac(0x99), seen: None }]);
    assert_eq!((t.rules.len(), t.rules[0].priority, t.drop_reason, t.trace), (1, 0, None, None));
    let mut mask = FlowMask::floor();
    mask.0.eth_dst = [0xff; 6];
    mask.0.eth_src = [0xff; 6];
    mask.0.vlan_tci = 0x1fffu16.to_be();
    assert_eq!(t.mask, mask, "nothing else matters");
}

#[test]
fn known_addresses_go_to_their_port() {
    let network = with_rules(Vec::new());
    let mut macs = FixedMacs::default();
    let key = key(1, &udp(1));
    for (seen, actions, reason) in [
        (OfPort(3), out(&[3]), None),
        (OfPort(1), vec![DpAction::Drop(Drop::Hairpin)], Some(Drop::Hairpin)),
        (OfPort(77), vec![DpAction::Drop(Drop::NoOutput)], Some(Drop::NoOutput)),
    ] {
        macs.0.insert((BR0, 0, mac(0x99)), seen);
        let t = run(&network, &macs, &key);
        assert_eq!((t.actions, t.drop_reason), (actions, reason));
        assert_eq!(t.deps[0].seen, Some(seen));
    }
}

#[test]
fn what_normal_does_not_forward() {
    let case = |change: &dyn Fn(&mut Bridge), dst: [u8; 6], src: [u8; 6]| {
        let mut br0 = bridge(BR0, "br0");
        ports(&mut br0, &[1, 2]);
        change(&mut br0);
        let fields = frame(src, dst, 0x1234, &[(30, 0)]);
        run(&network(vec![br0]), &FixedMacs::default(), &key(1, &fields))
    };
    let bpdu = [1, 0x80, 0xc2, 0, 0, 0];
    let t = case(&|_| {}, bpdu, mac(1));
    assert_eq!((t.drop_reason, t.learns.len()), (Some(Drop::Reserved), 0));
    assert_eq!(case(&|b| b.forward_bpdu = true, bpdu, mac(1)).actions, out(&[2]));
    let t = case(&|_| {}, mac(2), [0xff; 6]);
    assert_eq!((t.actions, t.learns.len()), (out(&[2]), 0), "a group address is nobody's");
    let t = case(&|b| b.flood_vlans.insert(30), mac(2), mac(1));
    assert_eq!((t.actions, t.learns.len(), t.deps.len()), (out(&[2]), 0, 0));
    let t = case(&|b| b.port_mut(OfPort(2)).unwrap().up = false, mac(2), mac(1));
    assert_eq!((t.actions, t.drop_reason), (vec![DpAction::Drop(Drop::Hairpin)], Some(Drop::Hairpin)));
    assert!(case(&|b| b.port_mut(OfPort(2)).unwrap().flood = false, mac(2), mac(1)).drop_reason.is_some());
    let t = case(&|b| b.port_mut(OfPort(1)).unwrap().receive = false, mac(2), mac(1));
    assert_eq!((t.actions, t.drop_reason), (Vec::new(), Some(Drop::Policy)));
    let mut br0 = bridge(BR0, "br0");
    add_port(&mut br0, 1, VlanMode::trunk([10].into_iter().collect()));
    let t =
        run(&network(vec![br0]), &FixedMacs::default(), &key(1, &frame(mac(1), mac(2), 0x1234, &[(30, 0)])));
    assert_eq!((t.drop_reason, t.learns.len()), (Some(Drop::VlanFilter), 0));
}

#[test]
fn tags_that_nobody_looks_at_stay_out_of_the_mask() {
    let mut br0 = bridge(BR0, "br0");
    add_port(&mut br0, 1, VlanMode::access(10));
    add_port(&mut br0, 2, VlanMode::trunk(VlanSet::ALL));
    add_port(&mut br0, 3, VlanMode::access(10));
    add_port(&mut br0, 4, VlanMode::trunk(VlanSet::ALL));
    let network = network(vec![br0]);
    // Trunk to trunk and access: ports that take the frame as it is come first, the priority does not matter.
    let t = run(&network, &FixedMacs::default(), &key(2, &frame(mac(1), mac(2), 0x1234, &[(10, 5)])));
    let expected = [out(&[4]), vec![DpAction::PopVlan], out(&[1, 3])].concat();
    assert_eq!(t.actions, expected);
    assert_eq!(t.mask.0.vlan_tci, 0x1fffu16.to_be());
    // A priority tag becomes the VLAN's by a change of its id alone.
    let t = run(&network, &FixedMacs::default(), &key(1, &frame(mac(1), [0xff; 6], 0x1234, &[(0, 5)])));
    let [DpAction::Set(set), DpAction::Output(DpPort(2)), ..] = &t.actions[..] else {
        panic!("{:?}", t.actions)
    };
    assert_eq!((set.value.vlan_tci, set.mask.0.vlan_tci), (10u16.to_be(), 0xfffu16.to_be()));
}

/// The pipeline of this trace was given to Open vSwitch 3.1 too, and its answer is the model of this text.
#[test]
fn trace_reads_as_ofproto_trace() {
    let mut br0 = bridge(BR0, "br0");
    ports(&mut br0, &[1, 2, 3, 4]);
    br0.add_bundle(
        Bundle::new("patch0", VlanMode::default()),
        vec![Port::patch(OfPort(50), "patch0", "patch1")],
    )
    .unwrap();
    let mut br1 = bridge(BR1, "br1");
    br1.add_bundle(
        Bundle::new("patch1", VlanMode::default()),
        vec![Port::patch(OfPort(51), "patch1", "patch0")],
    )
    .unwrap();
    ports(&mut br1, &[20]);
    let ip = Match::ANY.eth_type(0x0800);
    let mut add = |table: u8, priority, matching: Match, cookie, actions| {
        br0.add_rule(TableId(table), priority, &matching, cookie, actions).unwrap();
    };
    use OfAction::*;
    let resubmit =
        |port: Option<u16>, table| Resubmit { port: port.map(OfPort), table: Some(TableId(table)) };
    add(
        0,
        100,
        ip.in_port(3).nw_dst(Ipv4Addr::new(10, 0, 0, 0), 8),
        5,
        vec![
            OfAction::set(Field::NwDst, 0x0102_0304),
            DecTtl,
            resubmit(None, 5),
            Output(OfPort(1)),
            Note(vec![1, 2]),
        ],
    );
    add(
        5,
        7,
        ip.nw_proto(17),
        9,
        vec![OfAction::set(Field::EthSrc, 5), resubmit(Some(4), 6), GotoTable(TableId(7))],
    );
    add(
        6,
        7,
        Match::ANY.in_port(4),
        0,
        vec![
            PushVlan { tpid: 0x8100 },
            SetField { field: Field::VlanTci, value: 5, mask: 0xfff },
            Output(OfPort::ALL),
            PopVlan,
        ],
    );
    add(
        7,
        7,
        Match::ANY,
        0,
        vec![
            Output(OfPort(50)),
            Output(OfPort(3)),
            Output(OfPort::IN_PORT),
            OutputTruncated { port: OfPort(4), max_len: 100 },
            resubmit(None, 9),
        ],
    );
    let network = network(vec![br0, br1]);
    let options = TranslateOptions { trace: true };
    let t = translate(&network, &FixedMacs::default(), DpPort(3), &key(3, &udp(3)), &options);
    let trace = t.trace.unwrap();
    let expected = r#"
bridge("br0")
-------------
 0. in_port=3,eth_type=0x800,nw_dst=10.0.0.0/8, priority 100, cookie 0x5
    set_field:1.2.3.4->nw_dst
    dec_ttl
    resubmit(,5)
     5. eth_type=0x800,nw_proto=17, priority 7, cookie 0x9
            set_field:00:00:00:00:00:05->eth_src
            resubmit(4,6)
             6. in_port=4, priority 7
                    push_vlan:0x8100
                    set_field:4101->vlan_vid
                    ALL

                    bridge("br1")
                    -------------
                         0. priority 0
                            NORMAL
                             -> no learned MAC for destination, flooding
                    pop_vlan
            goto_table:7
         7. priority 7
            output:50

            bridge("br1")
            -------------
                 0. priority 0
                    NORMAL
                     -> no learned MAC for destination, flooding
            output:3
             >> skipping output to input port
            IN_PORT
            output(port=4,max_len=100)
            resubmit(,9)
             9. No match.
                    drop
    output:1
    note:01.02
"#;
    assert_eq!(trace.to_string(), expected);
    let json = serde_json::to_value(&trace).unwrap();
    assert_eq!(json[0]["kind"], "bridge");
    assert_eq!(json[0]["steps"][0]["steps"][1]["text"], "dec_ttl");

    let sent = outputs(tags_of(&key(3, &udp(3))), &t.actions);
    assert_eq!(sent[&20], [vec![(0x8100, 5)], vec![]]);
    assert_eq!((sent[&3].clone(), sent[&4].len(), sent[&1].len()), (vec![vec![]], 2, 2));
    assert!(t.actions.contains(&DpAction::Truncate(100)));
    assert_eq!(t.rules.len(), 6);
    assert_eq!((t.mask.0.ip_ttl, t.mask.0.addr[1], t.mask.0.tp_dst), (0xff, !0, 0));
}

#[test]
fn limits_end_in_an_error() {
    let this = |port| OfAction::Resubmit { port, table: Some(TableId(0)) };
    let network = with_rules(vec![
        (Match::ANY, vec![OfAction::Output(OfPort(2)), this(None)]),
        (Match::ANY.in_port(3), vec![]),
        (Match::ANY.in_port(2), vec![this(Some(OfPort(3))); 4097]),
        (Match::ANY.in_port(4), vec![OfAction::Output(OfPort(2)); 4097]),
    ]);
    for (in_port, error) in [
        (1, TranslateError::TooDeep),
        (2, TranslateError::TooManyResubmits),
        (4, TranslateError::TooManyActions),
    ] {
        let t = send(&network, in_port);
        assert_eq!(t.error, Some(error));
        assert_eq!(
            (t.actions, t.drop_reason),
            (vec![DpAction::Drop(Drop::Translation)], Some(Drop::Translation))
        );
    }
}

#[test]
fn bridges_in_a_circle_end_in_an_error() {
    let mut a = bridge(BR0, "a");
    let mut b = bridge(BR1, "b");
    ports(&mut a, &[1]);
    for n in [1, 2] {
        let cable =
            |at: &str, to: &str| vec![Port::patch(OfPort(50 + n), format!("{at}{n}"), format!("{to}{n}"))];
        a.add_bundle(Bundle::new("", VlanMode::default()), cable("a", "b")).unwrap();
        b.add_bundle(Bundle::new("", VlanMode::default()), cable("b", "a")).unwrap();
    }
    assert_eq!(send(&network(vec![a, b]), 1).error, Some(TranslateError::TooDeep));
}

#[test]
fn ttl_that_would_become_zero() {
    let network = with_rules(vec![(Match::ANY, vec![OfAction::DecTtl, OfAction::Output(OfPort(2))])]);
    let mut fields = udp(1);
    fields.push((Field::NwTtl, 1));
    let t = run(&network, &FixedMacs::default(), &key(1, &fields));
    assert_eq!((t.actions, t.drop_reason, t.mask.0.ip_ttl), (Vec::new(), Some(Drop::Policy), 0xff));
    assert_eq!(send(&network, 1).actions.len(), 2);
}

#[test]
fn a_set_that_changes_nothing_is_no_action() {
    let set = |n| OfAction::set(Field::EthDst, mac_number(mac(n)));
    let network = with_rules(vec![(Match::ANY, vec![set(0x99), OfAction::Output(OfPort(2))])]);
    let t = send(&network, 1);
    assert_eq!((t.actions, t.mask.0.eth_dst), (out(&[2]), [0xff; 6]));
    // Changed and back again between two outputs.
    let network = with_rules(vec![(
        Match::ANY,
        vec![set(7), OfAction::Output(OfPort(2)), set(0x99), OfAction::Output(OfPort(3))],
    )]);
    let t = send(&network, 1);
    let [DpAction::Set(a), DpAction::Output(_), DpAction::Set(b), DpAction::Output(_)] = &t.actions[..]
    else {
        panic!("{:?}", t.actions)
    };
    assert_eq!((a.value.eth_dst, b.value.eth_dst), (mac(7), mac(0x99)));
    assert_eq!(a.mask.0.eth_src, [0; 6]);
}

#[test]
fn reserved_ports() {
    let one = |actions: Vec<OfAction>| with_rules(vec![(Match::ANY, actions)]);
    assert_eq!(send(&one(vec![OfAction::Output(OfPort::IN_PORT)]), 1).actions, out(&[1]));
    assert_eq!(send(&one(vec![OfAction::Output(OfPort::FLOOD)]), 1).actions, out(&[2, 3, 4]));
    let t = send(&one(vec![OfAction::Output(OfPort(1))]), 1);
    assert_eq!(t.drop_reason, Some(Drop::Hairpin));
    let t = send(&one(vec![OfAction::Output(OfPort::LOCAL)]), 1);
    assert_eq!(t.drop_reason, Some(Drop::NoOutput));
    let t = send(&one(vec![]), 1);
    assert_eq!((t.actions, t.drop_reason), (Vec::new(), Some(Drop::Policy)));
    let t = send(&one(vec![OfAction::Output(OfPort::CONTROLLER)]), 1);
    assert_eq!((t.slow, t.packet_ins.len()), (None, 0));

    let mut br0 = bridge(BR0, "br0");
    ports(&mut br0, &[1, 2]);
    br0.has_controller = true;
    add_rule(
        &mut br0,
        0,
        1,
        Match::ANY,
        vec![OfAction::Controller { max_len: 128 }, OfAction::Output(OfPort(2))],
    );
    let t = send(&network(vec![br0]), 1);
    assert_eq!((t.slow, t.packet_ins[0].max_len, t.actions), (Some(Slow::Controller), 128, out(&[2])));
}

#[test]
fn packets_that_are_nowhere() {
    let network = with_rules(Vec::new());
    assert_eq!(send(&network, 9).drop_reason, Some(Drop::NoPort));
    let mut key = key(1, &udp(1));
    key.set_recirc_id(7);
    let t = run(&network, &FixedMacs::default(), &key);
    assert_eq!(t.error, Some(TranslateError::NoRecirculation(7)));
    let secure = Bridge::new(BR0, "br0", FailMode::Secure);
    assert_eq!(secure.tables().count(), 0);
}

#[test]
fn versions_are_independent() {
    let mut br0 = bridge(BR0, "br0");
    ports(&mut br0, &[1, 2, 3]);
    let before = network(vec![br0.clone()]);
    add_rule(&mut br0, 0, 5, Match::ANY, vec![OfAction::Output(OfPort(3))]);
    let after = network(vec![br0.clone()]);
    assert_eq!(send(&before, 1).actions, out(&[2, 3]));
    assert_eq!(send(&after, 1).actions, out(&[3]));
    assert!(br0.remove_rule(TableId(0), 5, &Match::ANY).is_some());
    assert_eq!(send(&network(vec![br0]), 1).actions, out(&[2, 3]));
    assert_eq!(send(&after, 1).actions, out(&[3]));
}

#[test]
fn bridges_and_networks_refuse_what_cannot_be() {
    let mut br0 = bridge(BR0, "br0");
    ports(&mut br0, &[1]);
    let port = |n| vec![Port::datapath(OfPort(n), "x", DpPort(9))];
    let mut add = |p| br0.add_bundle(Bundle::new("x", VlanMode::default()), p);
    assert!(matches!(add(port(1)), Err(BridgeError::PortTaken { .. })));
    assert!(matches!(add(port(0)), Err(BridgeError::PortNumber { .. })));
    assert!(matches!(add(Vec::new()), Err(BridgeError::NoMember(_))));
    let refused = br0.add_rule(TableId(254), 1, &Match::ANY, 0, Vec::new());
    assert!(matches!(refused, Err(BridgeError::NoTable(254))));
    let same = |id, name: &str| {
        let mut b = bridge(id, name);
        ports(&mut b, &[1]);
        std::sync::Arc::new(b)
    };
    let refuse = |a, b| Network::new(1, vec![a, b]).unwrap_err();
    assert!(matches!(refuse(same(BR0, "a"), same(BR1, "a")), NetworkError::Name(_)));
    assert!(matches!(refuse(same(BR0, "a"), same(BR0, "b")), NetworkError::Number(1)));
    assert!(matches!(refuse(same(BR0, "a"), same(BR1, "b")), NetworkError::PortTaken { port: 1, .. }));
}

#[test]
fn neighbour_discovery_is_changed_while_it_is_that() {
    let set = OfAction::set;
    let message = |code: u128| {
        let mut fields = frame(mac(1), mac(2), 0x86dd, &[]);
        fields.extend([(Field::NwProto, 58), (Field::TpSrc, 135), (Field::TpDst, code), (Field::ArpSha, 7)]);
        key(1, &fields)
    };
    let layers = |actions: Vec<OfAction>, code| {
        let t = run(&with_rules(vec![(Match::ANY, actions)]), &FixedMacs::default(), &message(code));
        let layer = |a: &DpAction| if let DpAction::Set(set) = a { Some(set.layer) } else { None };
        t.actions.iter().filter_map(layer).collect::<Vec<_>>()
    };
    let out = || OfAction::Output(OfPort(2));
    // Until it is another message, and once it is one.
    let first = vec![set(Field::ArpSha, 8), set(Field::TpDst, 1), out()];
    assert_eq!(layers(first, 0), [Layer::Nd, Layer::Icmpv6]);
    let then = vec![set(Field::TpDst, 0), set(Field::ArpSha, 8), out()];
    assert_eq!(layers(then, 1), [Layer::Icmpv6, Layer::Nd]);
}

#[test]
fn a_rule_behind_a_cable_matches_the_tag_where_it_was() {
    let answer = |port: VlanMode, cable: VlanMode, matching: Match, tags: &[(u16, u16)]| {
        let (mut br0, mut br1) = (bridge(BR0, "br0"), bridge(BR1, "br1"));
        add_port(&mut br0, 1, port);
        ports(&mut br1, &[20]);
        br0.add_bundle(Bundle::new("a", cable), vec![Port::patch(OfPort(50), "a", "b")]).unwrap();
        let end = vec![Port::patch(OfPort(51), "b", "a")];
        br1.add_bundle(Bundle::new("b", VlanMode::default()), end).unwrap();
        add_rule(&mut br1, 0, 5, matching, vec![OfAction::Output(OfPort(20))]);
        let t = run(
            &network(vec![br0, br1]),
            &FixedMacs::default(),
            &key(1, &frame(mac(1), mac(2), 0x1234, tags)),
        );
        assert_eq!((t.rules.len(), t.rules[1].priority), (2, 5));
        (t.actions, u16::from_be(t.mask.0.vlan_tci), u16::from_be(t.mask.0.inner_tci))
    };
    // The packet's inner tag is the outer one there.
    let cable = VlanMode::native_untagged(10, VlanSet::ALL);
    let (actions, outer, inner) =
        answer(VlanMode::default(), cable, Match::ANY.vlan_vid(20), &[(10, 1), (20, 3)]);
    assert_eq!(actions, [vec![DpAction::PopVlan], out(&[20])].concat());
    assert_eq!((outer, inner), (0x1fff, 0x1fff));
    // And the other way round: its one tag is the inner one there.
    let tunnel = VlanMode::dot1q_tunnel(10, 0x88a8, VlanSet::ALL);
    let priority = Match::ANY.with_masked(Field::InnerTci, 0xa000, 0xe000);
    let (actions, outer, _) = answer(tunnel, VlanMode::default(), priority, &[(20, 5)]);
    assert_eq!(actions, [vec![DpAction::PushVlan { tpid: 0x88a8, tci: 10 }], out(&[20])].concat());
    assert_eq!(outer, 0xffff);
}
