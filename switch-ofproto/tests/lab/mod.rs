//! What the tests share: a network with fixed MAC tables, keys, and what action lists do to VLAN tags.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod random;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use switch_classifier::{Field, Flow, Match};
use switch_common::key::{FlowKey, VLAN_PCP_MASK, VLAN_PRESENT, VLAN_VID_MASK};
use switch_dpif::action::{DpAction, DpPort, Layer};
use switch_ofproto::bridge::{Bridge, BridgeId, FailMode};
use switch_ofproto::eth::EthAddr;
use switch_ofproto::mac::MacView;
use switch_ofproto::port::{Bundle, OfPort, Port};
use switch_ofproto::rule::TableId;
use switch_ofproto::vlan::VlanMode;
use switch_ofproto::{Network, OfAction, TranslateOptions, Translation, translate};

pub const BR0: BridgeId = BridgeId(1);
pub const BR1: BridgeId = BridgeId(2);

/// MAC tables that do not change.
#[derive(Clone, Debug, Default)]
pub struct FixedMacs(pub HashMap<(BridgeId, u16, EthAddr), OfPort>);

impl MacView for FixedMacs {
    fn port_of(&self, bridge: BridgeId, vlan: u16, mac: &EthAddr) -> Option<OfPort> {
        self.0.get(&(bridge, vlan, *mac)).copied()
    }
}

pub fn mac(n: u16) -> EthAddr {
    let [a, b] = n.to_be_bytes();
    [2, 0, 0, 0, a, b]
}

pub fn bridge(id: BridgeId, name: &str) -> Bridge {
    Bridge::new(id, name, FailMode::Standalone)
}

/// Adds a port whose datapath port has the same number.
pub fn add_port(bridge: &mut Bridge, number: u16, vlan: VlanMode) {
    add_bundle(bridge, number, Bundle::new(format!("p{number}"), vlan));
}

pub fn add_bundle(bridge: &mut Bridge, number: u16, bundle: Bundle) {
    let port = Port::datapath(OfPort(number), bundle.name.clone(), DpPort(number));
    bridge.add_bundle(bundle, vec![port]).unwrap();
}

pub fn add_rule(bridge: &mut Bridge, table: u8, priority: u16, matching: Match, actions: Vec<OfAction>) {
    bridge.add_rule(TableId(table), priority, &matching, 0, actions).unwrap();
}

pub fn network(bridges: Vec<Bridge>) -> Network {
    Network::new(1, bridges.into_iter().map(Arc::new).collect()).unwrap()
}

/// A key from fields.
pub fn key(in_port: u16, fields: &[(Field, u128)]) -> FlowKey {
    let mut flow = Flow::ZERO;
    flow.key.in_port = in_port;
    for (field, value) in fields {
        flow.set(*field, *value);
    }
    flow.key.normalize_kind();
    flow.key
}

pub fn mac_number(address: EthAddr) -> u128 {
    address.iter().fold(0, |v, b| v << 8 | u128::from(*b))
}

/// The fields of an Ethernet packet with these tags, outermost first.
pub fn frame(src: EthAddr, dst: EthAddr, eth_type: u16, tags: &[(u16, u16)]) -> Vec<(Field, u128)> {
    let mut fields = vec![
        (Field::EthSrc, mac_number(src)),
        (Field::EthDst, mac_number(dst)),
        (Field::EthType, eth_type.into()),
    ];
    for ((vid, pcp), field) in tags.iter().zip([Field::VlanTci, Field::InnerTci]) {
        fields.push((field, (vid | pcp << 13 | VLAN_PRESENT).into()));
    }
    fields
}

pub fn run(network: &Network, macs: &dyn MacView, key: &FlowKey) -> Translation {
    translate(network, macs, DpPort(key.in_port), key, &TranslateOptions::default())
}

/// Tags of a frame, outermost first: TPID and TCI without the present bit.
pub type Tags = Vec<(u16, u16)>;

pub fn tags_of(key: &FlowKey) -> Tags {
    [(key.vlan_tpid, key.vlan_tci), (key.inner_tpid, key.inner_tci)]
        .into_iter()
        .map(|(tpid, tci)| (u16::from_be(tpid), u16::from_be(tci)))
        .take_while(|(_, tci)| tci & VLAN_PRESENT != 0)
        .map(|(tpid, tci)| (if tpid == 0 { 0x8100 } else { tpid }, tci & !VLAN_PRESENT))
        .collect()
}

/// What each output of a list sends, as far as tags go.
pub fn outputs(mut tags: Tags, actions: &[DpAction]) -> BTreeMap<u16, Vec<Tags>> {
    let mut sent: BTreeMap<u16, Vec<Tags>> = BTreeMap::new();
    for action in actions {
        match action {
            DpAction::Output(port) => sent.entry(port.0).or_default().push(tags.clone()),
            DpAction::PushVlan { tpid, tci } => tags.insert(0, (*tpid, *tci)),
            DpAction::PopVlan => {
                assert!(!tags.is_empty(), "pops a tag that is not there: {actions:?}");
                tags.remove(0);
            }
            DpAction::Set(set) if set.layer == Layer::Vlan => {
                let (value, mask) = (u16::from_be(set.value.vlan_tci), u16::from_be(set.mask.0.vlan_tci));
                assert_eq!(mask & !(VLAN_VID_MASK | VLAN_PCP_MASK), 0);
                let tag = tags.first_mut().expect("sets a tag that is there");
                tag.1 = tag.1 & !mask | value;
            }
            _ => {}
        }
    }
    sent
}
