//! Flows as JSON: the same fields and names as in the text, complete and without tricks.
//!
//! A field that is matched whole is its value; one that is matched in part is `{"value": ..., "mask": ...}`; one
//! that is not matched is not there. Addresses, EtherTypes, flags and numbers of more than 32 bits are strings.

use serde_json::{Map, Value, json};
use switch_common::key::{ETH_TYPE_NONE, FlowKey, FlowMask, Kind, VLAN_VID_MASK};
use switch_common::upcall::reason;

use super::actions::set_group;
use super::field::*;
use super::print::{is_tunnel_ipv4, write_hex, write_value};
use super::{PortNames, tcp_flags_letters};
use crate::action::{DpAction, DpPort};
use crate::datapath::FlowDump;

/// A match.
pub fn match_json(key: &FlowKey, mask: &FlowMask, names: PortNames<'_>) -> Value {
    let key = &key.masked(mask);
    let m = Matched { key, mask, names };
    let mut out = Map::new();
    let kind = match key.kind() {
        Kind::Short => "short",
        Kind::Long => "long",
        Kind::Full => "full",
    };
    out.insert("kind".to_owned(), kind.into());
    let ipv6 = u16::from_be(key.eth_type) == 0x86dd;
    m.group(&mut out, &PRIORITY);
    m.tunnel(&mut out);
    m.group(&mut out, &MARK);
    for g in &CT {
        m.group(&mut out, g);
    }
    m.group(&mut out, if ipv6 { &CT_TUPLE6 } else { &CT_TUPLE4 });
    for g in [&RECIRC_ID, &DP_HASH, &IN_PORT, &PACKET_TYPE, &ETH] {
        m.group(&mut out, g);
    }
    m.tags(&mut out);
    if key.eth_type == ETH_TYPE_NONE.to_be() && mask.0.eth_type == 0xffff {
        out.insert("eth_type".to_owned(), "802.3".into());
    } else {
        m.group(&mut out, &ETH_TYPE);
    }
    if is_mpls(key) {
        let last = mask.0.mpls_lse.iter().rposition(|l| *l != 0).map_or(0, |i| i + 1);
        let entries: Vec<Value> = MPLS[..last].iter().map(|f| Value::Object(m.fields(f))).collect();
        if !entries.is_empty() {
            out.insert("mpls".to_owned(), entries.into());
        }
    }
    for g in header_groups(key) {
        m.group(&mut out, g);
    }
    Value::Object(out)
}

/// A list of actions.
pub fn actions_json(actions: &[DpAction], names: PortNames<'_>) -> Value {
    actions.iter().map(|a| action_json(a, names)).collect()
}

/// A flow of a dump; `now_ms` is of the datapath's clock. `idle_ms` is null for a flow that was never used.
pub fn flow_json(flow: &FlowDump, now_ms: u64, names: PortNames<'_>) -> Value {
    let s = &flow.stats;
    json!({
        "id": flow.id.0,
        "match": match_json(&flow.key, &flow.mask, names),
        "packets": s.packets,
        "bytes": s.bytes,
        "idle_ms": (s.used != 0).then(|| now_ms.saturating_sub(s.used)),
        "tcp_flags": (s.tcp_flags != 0).then(|| tcp_flags_letters(s.tcp_flags)),
        "slow_path": flow.slow_path,
        "actions": actions_json(&flow.actions, names),
    })
}

struct Matched<'a> {
    key: &'a FlowKey,
    mask: &'a FlowMask,
    names: PortNames<'a>,
}

impl Matched<'_> {
    fn field(&self, f: &Field) -> Option<Value> {
        let (v, mask) = ((f.get)(self.key), (f.get)(&self.mask.0));
        if mask == 0 {
            return None;
        }
        if mask == f.full() {
            return Some(scalar(f, v, self.names));
        }
        if let Style::Bits(_) = f.style {
            let mut text = String::new();
            write_value(&mut text, f, v, mask, None);
            return Some(text.into());
        }
        Some(json!({ "value": scalar(f, v, None), "mask": scalar_mask(f, mask) }))
    }

    fn fields(&self, fields: &[Field]) -> Map<String, Value> {
        fields.iter().filter_map(|f| Some((f.name.to_owned(), self.field(f)?))).collect()
    }

    fn group(&self, out: &mut Map<String, Value>, g: &Group) {
        if let [only] = g.fields
            && only.name.is_empty()
        {
            if let Some(v) = self.field(only) {
                out.insert(g.name.to_owned(), v);
            }
            return;
        }
        let fields = self.fields(g.fields);
        if !fields.is_empty() {
            out.insert(g.name.to_owned(), Value::Object(fields));
        }
    }

    /// `"vlans": []` for untagged packets; absent if tags do not matter.
    fn tags(&self, out: &mut Map<String, Value>) {
        if !has_tag(&self.mask.0, 0) {
            return;
        }
        let mut tags = Vec::new();
        for (i, group) in VLAN.iter().enumerate() {
            if !has_tag(self.key, i) || !has_tag(&self.mask.0, i) {
                break;
            }
            let mut tag = Map::new();
            let value = match tpid(self.key, i) {
                0 => 0x8100,
                t => u16::from_be(t),
            };
            tag.insert("tpid".to_owned(), format!("0x{value:04x}").into());
            tag.extend(self.fields(group.fields));
            tags.push(Value::Object(tag));
        }
        out.insert("vlans".to_owned(), tags.into());
    }

    fn tunnel(&self, out: &mut Map<String, Value>) {
        let mut t = self.fields(&[TUNNEL_ID]);
        t.extend(self.fields(if is_tunnel_ipv4(self.key) { &TUNNEL_ADDR4 } else { &TUNNEL_ADDR6 }));
        t.extend(self.fields(&TUNNEL_REST));
        for g in [&GBP, &GENEVE, &ERSPAN, &GTPU] {
            self.group(&mut t, g);
        }
        t.extend(self.fields(&[TUNNEL_FLAGS_FIELD]));
        if !t.is_empty() {
            out.insert("tunnel".to_owned(), Value::Object(t));
        }
    }
}

/// A whole value.
fn scalar(f: &Field, v: u128, names: PortNames<'_>) -> Value {
    match f.style {
        Style::Decimal | Style::Hex if f.width <= 32 => Value::from(v as u64),
        Style::Port => match names.and_then(|n| n(DpPort(v as u16))) {
            Some(name) => json!({ "port": v as u64, "name": name }),
            None => Value::from(v as u64),
        },
        Style::EthType => format!("0x{v:04x}").into(),
        _ => {
            let mut text = String::new();
            write_value(&mut text, f, v, f.full(), None);
            text.into()
        }
    }
}

fn scalar_mask(f: &Field, mask: u128) -> Value {
    match f.style {
        Style::Fragment => Value::from(mask as u64),
        _ => scalar(f, mask, None),
    }
}

fn action_json(action: &DpAction, names: PortNames<'_>) -> Value {
    match action {
        DpAction::Output(port) => match names.and_then(|n| n(*port)) {
            Some(name) => json!({ "output": { "port": port.0, "name": name } }),
            None => json!({ "output": { "port": port.0 } }),
        },
        DpAction::PushVlan { tpid, tci } => json!({ "push_vlan": {
            "tpid": format!("0x{tpid:04x}"), "vid": tci & VLAN_VID_MASK, "pcp": tci >> 13,
        } }),
        DpAction::PopVlan => json!({ "pop_vlan": {} }),
        DpAction::Set(s) => {
            let m = Matched { key: &s.value, mask: &s.mask, names: None };
            let mut fields = Map::new();
            match set_group(s.layer) {
                Some(g) => m.group(&mut fields, g),
                None => {
                    fields.insert("mpls".to_owned(), Value::Object(m.fields(&MPLS[0])));
                }
            }
            json!({ "set": fields })
        }
        DpAction::Truncate(max) => json!({ "truncate": { "max_bytes": max } }),
        DpAction::Hash { basis, symmetric } => {
            json!({ "hash": { "basis": basis, "symmetric": symmetric } })
        }
        DpAction::Recirculate(id) => json!({ "recirculate": { "id": id } }),
        DpAction::Sample { probability, actions } => json!({ "sample": {
            "probability": f64::from(*probability) / f64::from(u32::MAX),
            "actions": actions_json(actions, names),
        } }),
        DpAction::Meter(id) => json!({ "meter": { "id": id } }),
        DpAction::Userspace { reason, cookie } => json!({ "userspace": {
            "reason": match *reason {
                reason::MISS => "miss".to_owned(),
                reason::ACTION => "action".to_owned(),
                reason::SLOW_PATH => "slow_path".to_owned(),
                other => other.to_string(),
            },
            "cookie": cookie_text(*cookie),
        } }),
        DpAction::Drop(reason) => json!({ "drop": { "reason": reason.name() } }),
    }
}

fn cookie_text(cookie: u64) -> String {
    let mut text = String::new();
    write_hex(&mut text, u128::from(cookie));
    text
}
