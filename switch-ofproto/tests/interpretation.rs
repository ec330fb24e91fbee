//! What a translation sends, compared with a naive interpretation of the tables: rules tried one by one, actions
//! carried out on the packet at once, no wildcards, no datapath.

mod lab;

use lab::random::*;
use lab::*;
use proptest::prelude::*;
use switch_classifier::{Field, Flow};
use switch_common::key::{FlowKey, VLAN_PRESENT};
use switch_dpif::action::{DpAction, DpPort, Layer};
use switch_ofproto::bridge::BridgeId;
use switch_ofproto::network::PortRef;
use switch_ofproto::port::{OfPort, PortKind};
use switch_ofproto::rule::{OfRule, TableId};
use switch_ofproto::xlate::TranslateError;
use switch_ofproto::{Network, OfAction};

/// A frame as it was sent: port, headers, bytes at most.
type Sent = (u16, FlowKey, Option<u32>);

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const MPLS: u16 = 0x8847;

struct Naive<'a> {
    network: &'a Network,
    bridge: BridgeId,
    flow: Flow,
    sent: Vec<Sent>,
    /// Tables run so far, and those inside each other.
    steps: usize,
    depth: usize,
    failed: bool,
}

impl Naive<'_> {
    fn table(&mut self, table: TableId, port: u32) {
        let mut view = self.flow;
        view.in_port = port;
        let network = self.network;
        let bridge = network.bridge(self.bridge).unwrap();
        let rules = bridge.table(table).into_iter().flat_map(|t| t.iter());
        let Some(rule) = rules.filter(|r| r.matching().matches(&view)).max_by_key(|r| r.priority) else {
            return;
        };
        self.actions(&rule.payload);
    }

    fn inside(&mut self, what: impl FnOnce(&mut Self)) {
        self.steps += 1;
        if self.failed || self.depth >= 64 || self.steps > 4096 || self.sent.len() > 4096 {
            self.failed = true;
            return;
        }
        self.depth += 1;
        what(self);
        self.depth -= 1;
    }

    fn actions(&mut self, rule: &OfRule) {
        for action in &*rule.actions {
            if self.failed {
                return;
            }
            match action {
                OfAction::Output(port) => self.output(*port, None),
                OfAction::OutputTruncated { port, max_len } => self.output(*port, Some(*max_len)),
                OfAction::SetField { field, value, mask } => self.set(*field, *value, *mask),
                OfAction::PushVlan { tpid } => self.push(*tpid),
                OfAction::PopVlan => {
                    let k = &mut self.flow.key;
                    if u16::from_be(k.vlan_tci) & VLAN_PRESENT != 0 {
                        (k.vlan_tci, k.vlan_tpid) = (k.inner_tci, k.inner_tpid);
                        (k.inner_tci, k.inner_tpid) = (0, 0);
                    }
                }
                OfAction::SetVlanVid(vid) => self.set_tag((*vid).into(), 0xfff),
                OfAction::SetVlanPcp(pcp) => self.set_tag(u128::from(*pcp) << 13, 0xe000),
                OfAction::DecTtl => {
                    if matches!(u16::from_be(self.flow.key.eth_type), IPV4 | IPV6) {
                        if self.flow.key.ip_ttl <= 1 {
                            return;
                        }
                        self.flow.key.ip_ttl -= 1;
                    }
                }
                OfAction::Resubmit { port, table } => {
                    let port = port.map_or(self.flow.in_port, |p| p.number());
                    let table = table.unwrap_or(rule.table);
                    self.inside(|n| n.table(table, port));
                }
                OfAction::GotoTable(table) => {
                    // Not one deeper: the rule is done with.
                    self.steps += 1;
                    self.failed |= self.steps > 4096;
                    return self.table(*table, self.flow.in_port);
                }
                OfAction::Controller { .. } | OfAction::Note(_) => {}
            }
        }
    }

    fn is_tagged(&self) -> bool {
        u16::from_be(self.flow.key.vlan_tci) & VLAN_PRESENT != 0
    }

    fn push(&mut self, tpid: u16) {
        let tagged = self.is_tagged();
        let k = &mut self.flow.key;
        if u16::from_be(k.inner_tci) & VLAN_PRESENT != 0 && tagged {
            self.failed = true;
            return;
        }
        (k.inner_tci, k.inner_tpid) = if tagged { (k.vlan_tci, k.vlan_tpid) } else { (0, 0) };
        k.vlan_tci |= VLAN_PRESENT.to_be();
        k.vlan_tpid = if tpid == 0x8100 { 0 } else { tpid.to_be() };
    }

    fn set_tag(&mut self, value: u128, mask: u128) {
        if !self.is_tagged() {
            self.flow.key.vlan_tci = 0;
            self.push(0x8100);
        }
        self.set(Field::VlanTci, value, mask);
    }

    fn set(&mut self, field: Field, value: u128, mask: u128) {
        let k = &self.flow.key;
        let eth_type = u16::from_be(k.eth_type);
        let is_ip = matches!(eth_type, IPV4 | IPV6);
        let l4 = is_ip && self.flow.get(Field::IpFrag) & 2 == 0;
        let (ty, code) = (u16::from_be(k.tp_src), u16::from_be(k.tp_dst));
        let nd =
            |wanted: &[u16]| l4 && eth_type == IPV6 && k.ip_proto == 58 && code == 0 && wanted.contains(&ty);
        let has = match field {
            Field::VlanTci => self.is_tagged(),
            Field::NwSrc | Field::NwDst => matches!(eth_type, IPV4 | ARP),
            Field::Ipv6Src | Field::Ipv6Dst | Field::Ipv6Label => eth_type == IPV6,
            Field::NwTos | Field::NwTtl => is_ip,
            Field::NwProto => eth_type == ARP,
            Field::MplsLse0 => matches!(eth_type, MPLS | 0x8848),
            Field::TpSrc | Field::TpDst => match k.ip_proto {
                6 | 17 | 132 => l4,
                1 => l4 && eth_type == IPV4,
                58 => l4 && eth_type == IPV6,
                _ => false,
            },
            Field::ArpSha => eth_type == ARP || nd(&[135]),
            Field::ArpTha => eth_type == ARP || nd(&[136]),
            Field::NdTarget => nd(&[135, 136]),
            _ => true,
        };
        if has {
            let old = self.flow.get(field);
            self.flow.set(field, old & !mask | value & mask);
        }
    }

    fn output(&mut self, port: OfPort, max_len: Option<u32>) {
        let in_port = self.flow.in_port;
        match port {
            OfPort::ALL | OfPort::FLOOD => {
                let bridge = self.network.bridge(self.bridge).unwrap().clone();
                for other in bridge.ports().filter(|p| p.up && p.number.number() != in_port) {
                    self.send(other.number, None);
                }
            }
            OfPort::IN_PORT => self.send(OfPort::from_number(in_port), max_len),
            port if port.number() == in_port => {}
            port => self.send(port, max_len),
        }
    }

    fn send(&mut self, port: OfPort, max_len: Option<u32>) {
        let bridge = self.network.bridge(self.bridge).unwrap().clone();
        let at = PortRef { bridge: self.bridge, port };
        match bridge.port(port).map(|p| &p.kind) {
            None => {}
            Some(PortKind::Datapath(dp)) => self.sent.push((dp.0, self.flow.key, max_len)),
            Some(PortKind::Patch { .. }) => {
                let Some(peer) = self.network.peer(at) else { return };
                let flow = self.flow;
                self.inside(|n| {
                    n.bridge = peer.bridge;
                    n.flow.in_port = peer.port.number();
                    n.flow.metadata = 0;
                    n.flow.regs = [0; 16];
                    n.table(TableId(0), peer.port.number());
                });
                (self.bridge, self.flow) = (bridge.id, flow);
            }
        }
    }
}

/// What the actions send, with a datapath's eyes: a set must fit the packet.
fn execute(key: &FlowKey, actions: &[DpAction]) -> Vec<Sent> {
    let (mut key, mut max_len, mut sent) = (*key, None, Vec::new());
    for action in actions {
        match action {
            DpAction::Output(port) => sent.push((port.0, key, max_len.take())),
            DpAction::Truncate(len) => max_len = Some(*len),
            DpAction::PopVlan => {
                assert_ne!(u16::from_be(key.vlan_tci) & VLAN_PRESENT, 0);
                (key.vlan_tci, key.vlan_tpid) = (key.inner_tci, key.inner_tpid);
                (key.inner_tci, key.inner_tpid) = (0, 0);
            }
            DpAction::PushVlan { tpid, tci } => {
                assert_eq!(tci & VLAN_PRESENT, 0);
                (key.inner_tci, key.inner_tpid) = (key.vlan_tci, key.vlan_tpid);
                key.vlan_tci = (tci | VLAN_PRESENT).to_be();
                key.vlan_tpid = if *tpid == 0x8100 { 0 } else { tpid.to_be() };
            }
            DpAction::Set(set) => {
                let (eth_type, proto) = (u16::from_be(key.eth_type), key.ip_proto);
                let is_ip = matches!(eth_type, IPV4 | IPV6);
                assert!(match set.layer {
                    Layer::Vlan => u16::from_be(key.vlan_tci) & VLAN_PRESENT != 0,
                    Layer::Ipv4 => eth_type == IPV4,
                    Layer::Ipv6 => eth_type == IPV6,
                    Layer::Arp => eth_type == ARP,
                    Layer::Mpls => matches!(eth_type, MPLS | 0x8848),
                    Layer::Tcp => is_ip && proto == 6,
                    Layer::Udp => is_ip && proto == 17,
                    Layer::Sctp => is_ip && proto == 132,
                    Layer::Icmp => eth_type == IPV4 && proto == 1,
                    Layer::Icmpv6 | Layer::Nd => eth_type == IPV6 && proto == 58,
                    Layer::Ethernet | Layer::Priority | Layer::Mark => true,
                });
                let fields = set.layer.fields();
                let words = key.words_mut().iter_mut().zip(set.value.words()).zip(set.mask.words());
                for (((w, v), m), f) in words.zip(fields.words()) {
                    assert_eq!((m & !f, v & !m), (0, 0), "bits of another layer");
                    *w = *w & !m | v;
                }
                assert!(!set.is_empty());
            }
            DpAction::Drop(_) => {}
            other => panic!("{other:?}"),
        }
    }
    sent
}

/// ICMP types and codes have one byte.
fn as_on_the_wire(mut key: FlowKey) -> FlowKey {
    if matches!(key.ip_proto, 1 | 58) && matches!(u16::from_be(key.eth_type), IPV4 | IPV6) {
        key.tp_src &= 0xffu16.to_be();
        key.tp_dst &= 0xffu16.to_be();
    }
    key
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sends_what_the_tables_say(
        bridges in bridges(), rules in rules(false), packets in prop::collection::vec(packet(), 8),
    ) {
        let mut bridges = bridges;
        for bridge in &mut bridges {
            bridge.clear_rules();
        }
        let network = network_with(bridges, rules);
        for key in &packets {
            let key = as_on_the_wire(*key);
            let at = network.port_of(DpPort(key.in_port)).unwrap();
            let mut naive = Naive {
                network: &network,
                bridge: at.bridge,
                flow: Flow::new(key, at.port.number()),
                sent: Vec::new(),
                steps: 0,
                depth: 0,
                failed: false,
            };
            naive.table(TableId(0), at.port.number());
            let ours = run(&network, &FixedMacs::default(), &key);
            if ours.error == Some(TranslateError::TooManyActions) {
                continue;
            }
            prop_assert_eq!(naive.failed, ours.error.is_some(), "{:?}", ours.error);
            if !naive.failed {
                let clean = |sent: Vec<Sent>| -> Vec<Sent> {
                    sent.into_iter().map(|(port, key, len)| (port, as_on_the_wire(key), len)).collect()
                };
                prop_assert_eq!(clean(execute(&key, &ours.actions)), clean(naive.sent));
            }
        }
    }
}
