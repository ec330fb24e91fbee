//! From the actual state to the view that translation reads.

use std::sync::Arc;

use hashbrown::HashMap;
use switch_ofproto::bridge::FailMode;
use switch_ofproto::network::NetworkError;
use switch_ofproto::port::{Bundle, Port};
use switch_ofproto::vlan::{self, VlanSet};
use switch_ofproto::{Bridge, Network, OfPort};

use super::control::Control;
use super::forwarding::View;
use crate::config::{PriorityTags, VlanConfig, VlanMode};

/// The view of this moment, as this version.
pub fn view(control: &Control, version: u64, vlan_limit: u8) -> Result<View, NetworkError> {
    let mut ifindexes = HashMap::new();
    let mut bridges = Vec::new();
    for (name, actual) in &control.actual.bridges {
        let (Some(id), Some(config)) = (control.bridge_ids.get(name), control.config.bridges.get(name))
        else {
            continue;
        };
        let mut bridge = Bridge::new(*id, name.as_str(), FailMode::Standalone);
        bridge.datapath_id = control.datapath_ids.get(name).copied().unwrap_or(0);
        bridge.forward_bpdu = config.forward_bpdu;
        for (port_name, actual) in &actual.ports {
            let mut bundle = Bundle::new(port_name.as_str(), vlan_mode(&actual.config.vlan));
            bundle.priority_tags = match actual.config.vlan.priority_tags {
                PriorityTags::Never => vlan::PriorityTags::Never,
                PriorityTags::IfNonzero => vlan::PriorityTags::IfNonzero,
                PriorityTags::Always => vlan::PriorityTags::Always,
            };
            let mut port = Port::datapath(OfPort(actual.ofport), port_name.as_str(), actual.dp_port);
            port.up = actual.attached.as_ref().is_some_and(|a| a.live);
            if let Some(attached) = &actual.attached {
                ifindexes.insert(actual.dp_port, attached.ifindex);
            }
            if let Err(error) = bridge.add_bundle(bundle, vec![port]) {
                tracing::error!(bridge = name, port = port_name, %error, "port left out");
            }
        }
        bridges.push(Arc::new(bridge));
    }
    Ok(View {
        network: Network::new(version, bridges)?,
        ifindexes,
        flow_limit: control.config.flow_limit,
        max_idle_ms: control.config.max_idle.as_millis() as u64,
        vlan_limit,
    })
}

/// As Open vSwitch reads a `Port` row: a native port without a tag is a trunk, an empty set of trunks is all.
fn vlan_mode(config: &VlanConfig) -> vlan::VlanMode {
    let trunks = if config.trunks.is_empty() {
        VlanSet::ALL
    } else {
        config.trunks.iter().copied().collect::<VlanSet>()
    };
    match (config.mode, config.tag) {
        (VlanMode::Access, tag) => vlan::VlanMode::access(tag.unwrap_or(0)),
        (VlanMode::NativeTagged, Some(tag)) => vlan::VlanMode::native_tagged(tag, trunks),
        (VlanMode::NativeUntagged, Some(tag)) => vlan::VlanMode::native_untagged(tag, trunks),
        (VlanMode::Trunk | VlanMode::NativeTagged | VlanMode::NativeUntagged, _) => {
            vlan::VlanMode::trunk(trunks)
        }
    }
}
