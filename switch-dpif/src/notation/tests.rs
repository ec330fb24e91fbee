use proptest::prelude::*;
use switch_common::counter::Drop;
use switch_common::flow::FlowStats;
use switch_common::key::{FlowKey, FlowMask, KEY_WORDS, VLAN_PRESENT};

use super::*;
use crate::action::{DpAction, Layer, Set};
use crate::datapath::FlowId;

/// Lines that Open vSwitch 3.1 writes exactly so (without its `packet_type(ns=0,id=0)`).
const MATCHES: &[&str] = &[
    "recirc_id(0),in_port(1),eth(src=00:01:02:03:04:05,dst=10:11:12:13:14:15),eth_type(0x0800),\
     ipv4(src=35.8.2.0/255.255.255.0,dst=172.16.0.20,proto=17,ttl=64,frag=no),udp(src=5,dst=6)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=6,tos=0/0x3,frag=later)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=6,frag=no),tcp(src=5,dst=6),tcp_flags(+syn-ack)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=6,frag=no),tcp(dst=2),tcp_flags(syn|ack)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=6,frag=no),tcp(src=1,dst=2),tcp_flags(0)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=6,frag=no),tcp_flags(+ack-ns)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=17,frag=no),udp(dst=48/0xfff8)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=132,frag=no),sctp(src=5,dst=6)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(proto=1,frag=no),icmp(type=8)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),ipv4(frag=first)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x0800),\
     ipv4(src=10.0.0.0/255.0.255.0,tos=0x10/0xfc,ttl=64/0xf0,frag=no)",
    "recirc_id(0),in_port(1),eth(dst=01:00:00:00:00:00/01:00:00:00:00:00),eth_type(0x0800),ipv4(frag=no)",
    "recirc_id(0),in_port(1),eth(src=02:00:00:00:00:01,dst=ff:ff:ff:ff:ff:ff),eth_type(0/0xffff)",
    "recirc_id(0),in_port(1),eth(src=00:01:02:03:04:05,dst=10:11:12:13:14:15),eth_type(0x0806),\
     arp(sip=1.2.3.4,tip=5.6.0.0/255.255.0.0,op=1,sha=00:0f:10:11:12:13)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x86dd),ipv6(src=::1,dst=fe80::/ffff::,label=0x1234,proto=58,\
     tclass=0x70,hlimit=128,frag=no),icmpv6(type=136,code=0),\
     nd(target=::3,sll=00:05:06:07:08:09,tll=00:0a:0b:0c:0d:0e)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x86dd),ipv6(src=::ffff:1.2.3.4,tclass=0x70/0xf0,frag=no)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x8847),mpls(label=100,tc=3,ttl=64,bos=1)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x8847),\
     mpls(label=100/0xff,tc=0/0,ttl=0/0x0,bos=0/1,label=0/0x0,tc=0/0,ttl=0/0x0,bos=1/1)",
    "recirc_id(0),in_port(1),eth(),eth_type(0x8100),vlan(vid=99,pcp=7),\
     encap(eth_type(0x0800),ipv4(proto=17,frag=no),udp(src=1,dst=2))",
    "recirc_id(0),in_port(1),eth(),eth_type(0x8100),vlan(vid=99),encap(eth_type(0x0800),ipv4(frag=no))",
    "recirc_id(0),in_port(1),eth(),eth_type(0x8100),vlan(vid=5/0xf,pcp=0/0x4),\
     encap(eth_type(0x0800),ipv4(frag=no))",
    "recirc_id(0),in_port(1),eth(),eth_type(0x8100),vlan(vid=0,pcp=0),encap(eth_type(0x0800),ipv4(frag=no))",
    "recirc_id(0),in_port(1),eth(),eth_type(0x88a8),vlan(vid=5),encap(eth_type(0x8100))",
    "recirc_id(0),in_port(1),eth(),eth_type(0x88a8),vlan(vid=99,pcp=7),\
     encap(eth_type(0x8100),vlan(vid=5,pcp=0),encap(eth_type(0x0800),ipv4(frag=no)))",
    "skb_priority(0x5),skb_mark(0x1230/0xfff0),recirc_id(0),in_port(1),eth(),eth_type(0x1234)",
    "ct_state(-new+trk),ct_zone(0x5),ct_mark(0x7/0xff),ct_label(0x1/0xff),recirc_id(0),in_port(1),eth(),\
     eth_type(0x1234)",
    "ct_label(0x10000000000000002),recirc_id(0x12),dp_hash(0x9/0xf),in_port(1),eth(),eth_type(0x1234)",
    "tunnel(tun_id=0x54/0xff,src=10.10.10.0/255.255.255.0,dst=20.20.20.20,tos=0x8,ttl=64,\
     flags(-df+csum+key)),recirc_id(0),in_port(1),eth(),eth_type(0x1234)",
    "tunnel(tun_id=0x7f10354,ipv6_src=fe80::1,ipv6_dst=::2,tos=0x8,ttl=64,tp_src=7,tp_dst=4789,\
     vxlan(gbp(id=10,flags=0x8)),flags(key)),recirc_id(0),in_port(1),eth(),eth_type(0x1234)",
    "tunnel(tun_id=0x1,src=1.1.1.1,dst=2.2.2.2,ttl=64,gtpu(flags=0x1,msgtype=255),flags(key)),recirc_id(0),\
     in_port(1),eth(),eth_type(0x1234)",
    "recirc_id(0),in_port(1),packet_type(ns=1,id=0x800),eth_type(0x0800),ipv4(frag=no)",
    "ct_tuple4(src=10.10.10.10,dst=20.20.20.20,proto=17,tp_src=1,tp_dst=2),recirc_id(0),in_port(1),eth(),\
     eth_type(0x0800),ipv4(frag=no)",
];

#[test]
fn matches_are_written_as_they_were_read() {
    for text in MATCHES {
        let (key, mask) = parse_match(text, None).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(&format_match(&key, &mask, None), text);
        let again = parse_match(&format_match(&key, &mask, None), None);
        assert_eq!(again, Ok((key, mask)));
        assert!(match_json(&key, &mask, None).is_object());
    }
}

/// Likewise, of actions.
const ACTIONS: &[&str] = &[
    "2,push_vlan(vid=10,pcp=0),1",
    "drop",
    "set(eth(src=00:00:00:00:00:01,dst=00:00:00:00:00:02)),set(ipv4(src=1.2.3.4,ttl=63)),1",
    "set(eth(dst=00:01:00:00:00:00/00:ff:00:00:00:00)),2",
    "set(tcp(src=5)),2",
    "set(tcp(src=1/0xff,dst=2)),set(icmp(type=1,code=2)),trunc(65535),2",
    "set(arp(sip=1.2.3.4,tip=1.2.3.4,op=1,sha=00:00:00:00:00:01,tha=00:00:00:00:00:02)),2",
    "set(mpls(label=9,tc=0,ttl=3,bos=1)),2",
    "set(ipv6(src=::1,dst=::/ffff::,label=0x5,tclass=0x10,hlimit=4)),2",
    "set(nd(target=::1,sll=00:00:00:00:00:01)),set(icmpv6(type=1)),set(udp(src=1,dst=2)),set(sctp(src=1)),2",
    "set(vlan(vid=5,pcp=1)),2",
    "pop_vlan,push_vlan(tpid=0x88a8,vid=3,pcp=1),2",
    "trunc(100),2,sample(sample=50.0%,actions(userspace(pid=0,userdata(0102030405060708)))),meter(3),1",
    "sample(sample=12.5%,actions(2)),sample(sample=100.0%,actions(1)),2",
    "set(skb_priority(0x3)),set(skb_mark(0x9/0xf)),2",
    "set(ipv4(tos=0,ttl=0)),set(ipv4(tos=0x8/0xfc)),2",
    "meter(0),hash(l4(0)),recirc(0x5)",
    "hash(sym_l4(7)),recirc(0x13)",
];

#[test]
fn actions_are_written_as_they_were_read() {
    for text in ACTIONS {
        let list = parse_actions(text, None).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(&format_actions(&list, None), text);
        assert!(actions_json(&list, None).is_array());
    }
    let list = [DpAction::Userspace { reason: 2, cookie: 7 }, DpAction::Drop(Drop::Reserved)];
    let text = format_actions(&list, None);
    assert_eq!(
        text,
        "userspace(pid=0,slow_path(action),userdata(0000000000000007)),drop(reserved_multicast)"
    );
    assert_eq!(parse_actions(&text, None).as_deref(), Ok(&list[..]));
}

#[test]
fn a_line_of_a_dump() {
    let (key, mask) = parse_match("in_port(2),eth(),eth_type(0x0800),ipv4(frag=no)", None).unwrap();
    let stats = FlowStats { packets: 3, bytes: 180, used: 9_000, tcp_flags: 0x1a };
    let actions = vec![DpAction::output(1), DpAction::output(9)];
    let mut flow = FlowDump { id: FlowId(1), key, mask, actions, stats, slow_path: false };
    let names = |p: DpPort| (p.0 != 9).then(|| format!("p{}", p.0));
    let text = format_flow(&flow, 9_123, Some(&names));
    let head = "recirc_id(0),in_port(p2),eth(),eth_type(0x0800),ipv4(frag=no)";
    assert_eq!(text, format!("{head}, packets:3, bytes:180, used:0.123s, flags:SP., actions:p1,9"));
    let number = |name: &str| name.strip_prefix('p').and_then(|n| n.parse().ok()).map(DpPort);
    assert_eq!(parse_flow(&text, Some(&number)), Ok((flow.key, flow.mask, flow.actions.clone())));
    assert_eq!(flow_json(&flow, 9_123, None)["idle_ms"], 123);

    flow.stats = FlowStats::default();
    flow.slow_path = true;
    let text = format_flow(&flow, 9_123, None);
    assert!(text.ends_with(", packets:0, bytes:0, used:never, actions:userspace(pid=0,slow_path(action))"));
}

#[test]
fn json_says_what_is_matched() {
    let text = "in_port(2),eth(dst=01:00:00:00:00:00/01:00:00:00:00:00),eth_type(0x8100),vlan(vid=7),\
                encap(eth_type(0x0800),ipv4(src=10.0.0.0/255.0.0.0,proto=6,frag=no),tcp_flags(+syn-ack))";
    let (key, mask) = parse_match(text, None).unwrap();
    let want = serde_json::json!({
        "kind": "short",
        "recirc_id": 0,
        "in_port": 2,
        "eth": { "dst": { "value": "01:00:00:00:00:00", "mask": "01:00:00:00:00:00" } },
        "vlans": [{ "tpid": "0x8100", "vid": 7 }],
        "eth_type": "0x0800",
        "ipv4": { "src": { "value": "10.0.0.0", "mask": "255.0.0.0" }, "proto": 6, "frag": "no" },
        "tcp_flags": "+syn-ack",
    });
    assert_eq!(match_json(&key, &mask, None), want);
    let list = parse_actions("set(ipv4(ttl=3)),push_vlan(vid=1,pcp=2),2", None).unwrap();
    let want = serde_json::json!([
        { "set": { "ipv4": { "ttl": 3 } } },
        { "push_vlan": { "tpid": "0x8100", "vid": 1, "pcp": 2 } },
        { "output": { "port": 2 } },
    ]);
    assert_eq!(actions_json(&list, None), want);
}

#[test]
fn errors_name_the_part() {
    let error = |text: &str| match parse_match(text, None) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("{text} was taken"),
    };
    let is = |text, want: &str| assert_eq!(error(text), want, "{text}");
    is("", "there is no match, at `` (character 1)");
    is("in_port(x)", "there is no port `x`, at `x)` (character 9)");
    is("in_port(1),eth_typ(0x0800)", "unknown part of a match, at `eth_typ(0x0800)` (character 12)");
    is("eth_type(0x0800),ipv4(src=10.0.0)", "`10.0.0` is not an IPv4 address, at `10.0.0)` (character 27)");
    is("in_port(1),ipv4(ttl=3)", "this needs eth_type(0x0800) before it, at `ipv4(ttl=3)` (character 12)");
    is(
        "eth_type(0x0800),ipv4(frag=no),udp(src=1)",
        "this needs ipv4(proto=17) or ipv6(proto=17) before it, at `udp(src=1)` (character 32)",
    );
    is("eth_type(0x0800),ipv4(ttl=300)", "does not fit into 8 bits, at `300)` (character 27)");
    is("in_port(1),in_port(2)", "`in_port` stands twice, at `in_port(2)` (character 12)");
    is("in_port(1", "`)` was expected, at `` (character 10)");
    is("in_port(1)x", "a comma or the end was expected, at `x` (character 11)");
    is("vlan(vid=1)", "the tag's `eth_type` has to stand before it, at `vlan(vid=1)` (character 1)");
    let actions = |text: &str| parse_actions(text, None).map_err(|e| e.to_string());
    assert_eq!(actions("1,2,frob(3)"), Err("unknown action, at `frob(3)` (character 5)".to_owned()));
    assert_eq!(actions("1,"), Err("an action is missing here, at `` (character 3)".to_owned()));
}

/// Bits that a text can say for the key's headers, made of random words.
fn sayable(mut key: FlowKey, mask: FlowKey, tags: u8) -> (FlowKey, FlowMask) {
    key.eth_type = [0x0800u16, 0x86dd, 0x0806, 0x8847, 0x1234, 0x05ff]
        [usize::from(key.eth_type.to_le_bytes()[0]) % 6]
        .to_be();
    key.ip_proto = match u16::from_be(key.eth_type) {
        0x0800 | 0x86dd => [6, 17, 1, 58, 132, 47][usize::from(key.ip_proto) % 6],
        0x0806 => key.ip_proto,
        _ => 0,
    };
    let icmp = key.ip_proto == 58 || key.ip_proto == 1;
    if icmp && key.tp_src & 1 == 1 {
        key.tp_src = 135u16.to_be();
    }
    let mut text = vec![&field::PRIORITY, &field::MARK, &field::RECIRC_ID, &field::DP_HASH, &field::IN_PORT];
    text.extend(&field::CT);
    text.push(&field::ETH);
    text.extend(field::header_groups(&key));
    let (mut k, mut m) = (FlowKey::ZERO, FlowMask::floor());
    k.eth_type = key.eth_type;
    for f in text.iter().flat_map(|g| g.fields) {
        let bits = if f.name == "proto" { f.full() } else { (f.get)(&m.0) | (f.get)(&mask) };
        // Only whole fragment values have names, and only a matched type makes it neighbour discovery.
        let whole = matches!(f.style, field::Style::Fragment) || f.name == "type";
        let bits = if whole { f.full() } else { bits };
        let value = if matches!(f.style, field::Style::Fragment) { 0 } else { (f.get)(&key) };
        (f.set)(&mut k, value & bits);
        (f.set)(&mut m.0, bits);
    }
    if field::is_mpls(&key) {
        m.0.mpls_lse = mask.mpls_lse;
        k.mpls_lse = std::array::from_fn(|i| key.mpls_lse[i] & mask.mpls_lse[i]);
    }
    k.vlan_tci = VLAN_PRESENT.to_be();
    k.inner_tci = VLAN_PRESENT.to_be();
    m.0.vlan_tci = !0;
    m.0.inner_tci = !0;
    match tags % 3 {
        0 => (k.vlan_tci, k.inner_tci) = (0, 0),
        1 => k.inner_tci = 0,
        _ => {
            k.inner_tci |= key.inner_tci & 0xffefu16;
            k.inner_tci |= VLAN_PRESENT.to_be();
        }
    }
    k.normalize_kind();
    if !tags.is_multiple_of(3) && k.kind() != switch_common::key::Kind::Short {
        m.0.vlan_tpid = !0;
    }
    if tags % 3 > 1 && k.kind() != switch_common::key::Kind::Short {
        m.0.inner_tpid = !0;
    }
    m.restrict(k.kind());
    (k.masked(&m), m)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_match_survives(
        words: [u64; KEY_WORDS],
        bits: [u64; KEY_WORDS],
        more: [u64; KEY_WORDS],
        tags: u8,
    ) {
        let bits = FlowKey::from_words(std::array::from_fn(|i| if more[i] & 1 == 0 { !0 } else { bits[i] & more[i] }));
        let (key, mask) = sayable(FlowKey::from_words(words), bits, tags);
        let text = format_match(&key, &mask, None);
        let (k, m) = parse_match(&text, None).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert_eq!(format_match(&k, &m, None), text.clone());
        prop_assert_eq!(k, key, "{}", text);
        prop_assert_eq!(m, mask, "{}", text);
    }

    #[test]
    fn any_set_survives(words: [u64; KEY_WORDS], bits: [u64; KEY_WORDS], layer in 0..Layer::ALL.len()) {
        let mut mask = FlowMask(FlowKey::from_words(bits));
        // Of fragments and the like a set can say nothing.
        mask.0.mpls_lse[0] |= 1;
        let set = Set::new(Layer::ALL[layer], &FlowKey::from_words(words), &mask);
        let list = vec![DpAction::Set(set)];
        let text = format_actions(&list, None);
        prop_assert_eq!(parse_actions(&text, None), Ok(list), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}", cut in 0usize..400, at in 0usize..64, junk in "[(),=/+|0x:%a-z\\PC]{0,4}") {
        let _ = parse_match(&text, None);
        let _ = parse_actions(&text, None);
        for list in [MATCHES, ACTIONS] {
            let mut damaged = list[at % list.len()].to_owned();
            let cut = cut % (damaged.len() + 1);
            damaged.truncate(cut);
            damaged.push_str(&junk);
            damaged.push_str(&list[at % list.len()][cut..]);
            let _ = parse_match(&damaged, None);
            let _ = parse_actions(&damaged, None);
            let _ = parse_flow(&damaged, None);
        }
    }
}
