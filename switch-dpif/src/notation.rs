//! Datapath flows in Open vSwitch's notation, as `ovs-appctl dpctl/dump-flows` writes them and as its users read
//! them, and as JSON.
//!
//! A match is `name(value)` and `name(field=value,...)` with commas between; a value may have a mask behind a
//! slash; what is not matched is left out. The text was compared with Open vSwitch 3.1's, group by group. Where
//! a key cannot be said in that notation, it has the nearest form, and the JSON says it whole:
//!
//! * no `vlan(...)` stands for "untagged" as well as for "whatever tag": what is parsed is "untagged";
//! * a packet type is written only if it is not Ethernet's;
//! * Geneve options are written as the number of their set.
//!
//! Nothing that is parsed makes this panic.

mod actions;
mod field;
mod json;
mod parse;
mod print;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use switch_common::key::{FlowKey, FlowMask};

use crate::action::DpPort;
use crate::datapath::FlowDump;
pub use actions::{format_actions, parse_actions};
pub use json::{actions_json, flow_json, match_json};
pub use parse::{ParseError, PortNumbers, parse_flow, parse_match};

/// Names of ports, for printing: with `None`, or for a port without a name, its number is written.
pub type PortNames<'a> = Option<&'a dyn Fn(DpPort) -> Option<String>>;

/// A match: `recirc_id(0),in_port(2),eth(src=...),eth_type(0x0800),ipv4(...)`.
pub fn format_match(key: &FlowKey, mask: &FlowMask, names: PortNames<'_>) -> String {
    let key = &key.masked(mask);
    print::Printer { out: String::with_capacity(160), key, mask, names }.match_text()
}

/// A line of a dump: match, statistics, actions. `now_ms` is of the datapath's clock.
pub fn format_flow(flow: &FlowDump, now_ms: u64, names: PortNames<'_>) -> String {
    let mut out = format_match(&flow.key, &flow.mask, names);
    let s = &flow.stats;
    // Writing to a string cannot fail.
    let _ = write!(out, ", packets:{}, bytes:{}, used:", s.packets, s.bytes);
    match used_seconds(s.used, now_ms) {
        Some((seconds, ms)) => {
            let _ = write!(out, "{seconds}.{ms:03}s");
        }
        None => out.push_str("never"),
    }
    if s.tcp_flags != 0 {
        let _ = write!(out, ", flags:{}", tcp_flags_letters(s.tcp_flags));
    }
    out.push_str(", actions:");
    if flow.slow_path {
        out.push_str("userspace(pid=0,slow_path(action))");
    } else {
        out.push_str(&format_actions(&flow.actions, names));
    }
    out
}

/// Seconds and milliseconds since the last packet.
fn used_seconds(used_ms: u64, now_ms: u64) -> Option<(u64, u64)> {
    let age = now_ms.saturating_sub(used_ms);
    (used_ms != 0).then_some((age / 1000, age % 1000))
}

/// TCP flags seen, a letter each, as packet dumps write them: `SFP.`; `none` without any.
pub fn tcp_flags_letters(flags: u64) -> String {
    const LETTERS: [(u64, &str); 12] = [
        (0x002, "S"),
        (0x001, "F"),
        (0x008, "P"),
        (0x004, "R"),
        (0x020, "U"),
        (0x010, "."),
        (0x040, "E"),
        (0x080, "C"),
        (0x100, "N"),
        (0x200, "[200]"),
        (0x400, "[400]"),
        (0x800, "[800]"),
    ];
    let text: String = LETTERS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, l)| *l).collect();
    if text.is_empty() { "none".to_owned() } else { text }
}
