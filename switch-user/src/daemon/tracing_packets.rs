//! `sluice trace-packet`: what a packet would do, without doing it.

use switch_common::key::{FlowKey, FlowMask};
use switch_common::parse::{PacketMeta, parse_frame};
use switch_dpif::action::DpPort;
use switch_dpif::notation;
use switch_ofproto::TranslateOptions;
use switch_ofproto::xlate::translate;

use super::answer::{port_name, rule_report};
use super::forwarding::{Forwarding, View};
use crate::control::report::TraceReport;

/// Traces a packet, given as hexadecimal bytes or as a flow, from a port.
pub fn trace(
    forwarding: &Forwarding,
    port: &str,
    packet: Option<&str>,
    flow: Option<&str>,
) -> Result<TraceReport, String> {
    let view = forwarding.view.load();
    let dp_port = port_number(&view, port).ok_or_else(|| unknown_port(&view, port))?;
    let key = match (packet, flow) {
        (Some(hex), None) => key_of_packet(hex, dp_port, view.vlan_limit)?,
        (None, Some(text)) => key_of_flow(&view, text, dp_port)?,
        _ => return Err("give either the packet's bytes or a flow".to_owned()),
    };
    let names = |p| port_name(&view, p);
    let options = TranslateOptions { trace: true };
    let t = translate(&view.network, &forwarding.macs, dp_port, &key, &options);
    let installed = forwarding
        .datapath
        .lookup(&key)
        .and_then(|id| forwarding.datapath.flow(id))
        .map(|dump| notation::format_match(&dump.key, &dump.mask, Some(&names)));
    Ok(TraceReport {
        flow: notation::format_match(&key, &exact(&key), Some(&names)),
        steps: t
            .trace
            .map(|trace| trace.to_string().lines().map(str::to_owned).collect())
            .unwrap_or_default(),
        megaflow: notation::format_match(&key, &t.mask, Some(&names)),
        actions: notation::format_actions(&t.actions, None),
        actions_named: notation::format_actions(&t.actions, Some(&names)),
        rules: t.rules.iter().map(|r| rule_report(&view, r)).collect(),
        drop: t.drop_reason.map(|reason| reason.name().to_owned()),
        installed,
    })
}

/// A mask of everything that the key's kind has.
fn exact(key: &FlowKey) -> FlowMask {
    let mut mask = FlowMask::EXACT;
    mask.restrict(key.kind());
    mask
}

fn key_of_packet(hex: &str, port: DpPort, vlan_limit: u8) -> Result<FlowKey, String> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b':').collect();
    if !digits.len().is_multiple_of(2) {
        return Err("the packet has half a byte: an odd number of hexadecimal digits".to_owned());
    }
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for (i, pair) in digits.chunks_exact(2).enumerate() {
        let text = std::str::from_utf8(pair).unwrap_or("??");
        let byte = u8::from_str_radix(text, 16)
            .map_err(|_| format!("byte {i} of the packet, '{text}', is not hexadecimal"))?;
        bytes.push(byte);
    }
    let meta = PacketMeta { in_port: port.0, vlan_limit, ..PacketMeta::default() };
    let (key, _) = parse_frame(&bytes, &meta)
        .ok_or_else(|| format!("{} bytes are less than an Ethernet header (14)", bytes.len()))?;
    Ok(key)
}

fn key_of_flow(view: &View, text: &str, port: DpPort) -> Result<FlowKey, String> {
    let numbers = |name: &str| port_number(view, name);
    let (mut key, _) = notation::parse_match(text, Some(&numbers)).map_err(|e| format!("the flow: {e}"))?;
    if key.in_port == 0 {
        key.in_port = port.0;
    } else if key.in_port != port.0 {
        return Err("the flow names another in_port than the port to trace from".to_owned());
    }
    key.normalize_kind();
    Ok(key)
}

/// A port by its name in any bridge.
fn port_number(view: &View, name: &str) -> Option<DpPort> {
    view.network.bridges().find_map(|bridge| {
        let port = bridge.port_named(name)?;
        view.network.datapath_port(switch_ofproto::network::PortRef { bridge: bridge.id, port: port.number })
    })
}

fn unknown_port(view: &View, name: &str) -> String {
    let names: Vec<String> = view.network.bridges().flat_map(|b| b.ports().map(|p| p.name.clone())).collect();
    format!("no port is called {name}; there are: {}", names.join(", "))
}
