//! Action lists as text.

use std::fmt::Write;

use switch_common::counter::Drop;
use switch_common::key::{FlowKey, FlowMask, VLAN_VID_MASK};
use switch_common::upcall::reason;

use super::PortNames;
use super::field::{self, Group};
use super::parse::{ParseError, PortNumbers, Scanner};
use super::print::{Printer, write_hex};
use crate::action::{DpAction, DpPort, Layer, Set};

/// Deepest nesting of samples that is parsed.
const MAX_DEPTH: usize = 8;

/// `2,push_vlan(vid=10,pcp=0),3`, or `drop` for a list that is empty. Drops for another reason than policy name
/// it: `drop(reason)`.
pub fn format_actions(actions: &[DpAction], names: PortNames<'_>) -> String {
    if actions.is_empty() {
        return "drop".to_owned();
    }
    let mut out = String::new();
    for (i, a) in actions.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_action(&mut out, a, names);
    }
    out
}

fn write_action(out: &mut String, action: &DpAction, names: PortNames<'_>) {
    // Writing to a string cannot fail.
    let _ = match action {
        DpAction::Output(port) => match names.and_then(|n| n(*port)) {
            Some(name) => write!(out, "{name}"),
            None => write!(out, "{}", port.0),
        },
        DpAction::PushVlan { tpid, tci } => {
            out.push_str("push_vlan(");
            if *tpid != 0x8100 {
                let _ = write!(out, "tpid=0x{tpid:04x},");
            }
            write!(out, "vid={},pcp={})", tci & VLAN_VID_MASK, tci >> 13)
        }
        DpAction::PopVlan => write!(out, "pop_vlan"),
        DpAction::Set(s) => {
            out.push_str("set(");
            write_set(out, s);
            write!(out, ")")
        }
        DpAction::Truncate(max) => write!(out, "trunc({max})"),
        DpAction::Hash { basis, symmetric: false } => write!(out, "hash(l4({basis}))"),
        DpAction::Hash { basis, symmetric: true } => write!(out, "hash(sym_l4({basis}))"),
        DpAction::Recirculate(id) => {
            out.push_str("recirc(");
            write_hex(out, u128::from(*id));
            write!(out, ")")
        }
        DpAction::Sample { probability, actions } => {
            let percent = 100.0 * f64::from(*probability) / f64::from(u32::MAX);
            let body = format_actions(actions, names);
            write!(out, "sample(sample={percent:.1}%,actions({body}))")
        }
        DpAction::Meter(id) => write!(out, "meter({id})"),
        // There is no such thing as a netlink port id here; Open vSwitch's userspace datapath writes 0 as well.
        DpAction::Userspace { reason: reason::SLOW_PATH, cookie } => {
            write!(out, "userspace(pid=0,slow_path(action),userdata({cookie:016x}))")
        }
        DpAction::Userspace { reason: reason::ACTION, cookie } => {
            write!(out, "userspace(pid=0,userdata({cookie:016x}))")
        }
        DpAction::Userspace { reason, cookie } => {
            write!(out, "userspace(pid=0,reason={reason},userdata({cookie:016x}))")
        }
        DpAction::Drop(Drop::Policy) => write!(out, "drop"),
        DpAction::Drop(reason) => write!(out, "drop({})", reason.name()),
    };
}

fn write_set(out: &mut String, s: &Set) {
    let mut p = Printer { out: std::mem::take(out), key: &s.value, mask: &s.mask, names: None };
    let begin = p.out.len();
    match set_group(s.layer) {
        Some(g) => p.group(g),
        None => p.mpls(1),
    }
    let empty = p.out.len() == begin;
    *out = p.out;
    if empty {
        // A set that sets nothing has no notation of its own.
        let _ = write!(out, "{}()", set_group(s.layer).map_or("mpls", |g| g.name));
    }
}

/// The group with which a layer's fields are written; MPLS is none.
pub(super) fn set_group(layer: Layer) -> Option<&'static Group> {
    Some(match layer {
        Layer::Ethernet => &field::ETH,
        Layer::Vlan => &field::VLAN[0],
        Layer::Ipv4 => &field::IPV4,
        Layer::Ipv6 => &field::IPV6,
        Layer::Arp => &field::ARP,
        Layer::Tcp => &field::TCP,
        Layer::Udp => &field::UDP,
        Layer::Sctp => &field::SCTP,
        Layer::Icmp => &field::ICMP,
        Layer::Icmpv6 => &field::ICMPV6,
        Layer::Nd => &field::ND,
        Layer::Priority => &field::PRIORITY,
        Layer::Mark => &field::MARK,
        Layer::Mpls => return None,
    })
}

/// Parses a list of actions, in all forms that [`format_actions`] writes; `drop` alone is an empty list.
///
/// # Errors
/// Says which part is not understood.
pub fn parse_actions(text: &str, numbers: PortNumbers<'_>) -> Result<Vec<DpAction>, ParseError> {
    let mut s = Scanner::new(text, numbers);
    let list = parse_list(&mut s, 0)?;
    s.end()?;
    Ok(list)
}

/// A list up to the end or a closing parenthesis, which is left.
fn parse_list(s: &mut Scanner<'_>, depth: usize) -> Result<Vec<DpAction>, ParseError> {
    let mut list = Vec::new();
    loop {
        list.push(parse_action(s, depth)?);
        if !s.take(',') {
            break;
        }
    }
    if list == [DpAction::Drop(Drop::Policy)] {
        list.clear();
    }
    Ok(list)
}

fn parse_action(s: &mut Scanner<'_>, depth: usize) -> Result<DpAction, ParseError> {
    let (start, word) = s.word();
    if word.is_empty() {
        return Err(s.error(start, "an action is missing here"));
    }
    if let Some(port) = word.parse().ok().map(DpPort).or_else(|| s.port_by_name(word)) {
        return Ok(DpAction::Output(port));
    }
    Ok(match word {
        "pop_vlan" => DpAction::PopVlan,
        "push_vlan" => parse_push_vlan(s)?,
        "set" => DpAction::Set(parse_set(s)?),
        "trunc" => DpAction::Truncate(s.in_parentheses(|s| s.number(u32::MAX))?),
        "hash" => s.in_parentheses(|s| {
            let (start, kind) = s.word();
            let symmetric = match kind {
                "l4" | "hash_l4" => false,
                "sym_l4" => true,
                _ => return Err(s.error(start, "unknown hash: l4 or sym_l4 is known")),
            };
            Ok(DpAction::Hash { basis: s.in_parentheses(|s| s.number(u32::MAX))?, symmetric })
        })?,
        "recirc" => DpAction::Recirculate(s.in_parentheses(|s| s.number(0xff_ffff))?),
        "meter" => DpAction::Meter(s.in_parentheses(|s| s.number(u32::MAX))?),
        "sample" if depth < MAX_DEPTH => s.in_parentheses(|s| {
            s.expect("sample=")?;
            let (start, percent) = s.until('%');
            let percent: f64 = percent.parse().map_err(|_| s.error(start, "not a percentage"))?;
            if !(0.0..=100.0).contains(&percent) {
                return Err(s.error(start, "not a percentage between 0 and 100"));
            }
            s.expect("%,actions")?;
            let actions = s.in_parentheses(|s| parse_list(s, depth + 1))?;
            let probability = (percent / 100.0 * f64::from(u32::MAX)).round() as u32;
            Ok(DpAction::Sample { probability, actions })
        })?,
        "sample" => return Err(s.error(start, "samples are nested too deep")),
        "userspace" => parse_userspace(s)?,
        "drop" if s.peek('(') => s.in_parentheses(|s| {
            let (start, name) = s.word();
            let known = Drop::ALL.iter().find(|d| d.name() == name);
            known.map(|d| DpAction::Drop(*d)).ok_or_else(|| s.error(start, "unknown reason"))
        })?,
        "drop" => DpAction::Drop(Drop::Policy),
        _ => return Err(s.error(start, "unknown action")),
    })
}

fn parse_push_vlan(s: &mut Scanner<'_>) -> Result<DpAction, ParseError> {
    let (mut tpid, mut vid, mut pcp) = (0x8100, 0, 0);
    s.in_parentheses(|s| {
        loop {
            let (start, name) = s.word();
            s.expect("=")?;
            match name {
                "tpid" => tpid = s.number(0xffff)? as u16,
                "vid" => vid = s.number(0xfff)? as u16,
                "pcp" => pcp = s.number(7)? as u16,
                "cfi" if s.number(1)? == 1 => {}
                "cfi" => return Err(s.error(start, "a tag that is pushed is there: cfi=1")),
                _ => return Err(s.error(start, "unknown field: tpid, vid and pcp are known")),
            }
            if !s.take(',') {
                return Ok(());
            }
        }
    })?;
    Ok(DpAction::PushVlan { tpid, tci: vid | pcp << 13 })
}

fn parse_userspace(s: &mut Scanner<'_>) -> Result<DpAction, ParseError> {
    let (mut reason, mut cookie) = (reason::ACTION, 0);
    s.in_parentheses(|s| {
        loop {
            let (start, name) = s.word();
            match name {
                "pid" => {
                    s.expect("=")?;
                    s.number(u32::MAX)?;
                }
                "reason" => {
                    s.expect("=")?;
                    reason = s.number(0xff)? as u8;
                }
                "slow_path" => {
                    reason = reason::SLOW_PATH;
                    s.in_parentheses(|s| {
                        s.until(')');
                        Ok(())
                    })?;
                }
                "userdata" => {
                    cookie = s.in_parentheses(|s| {
                        let (start, hex) = s.word();
                        let value = u64::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 16);
                        value.ok_or_else(|| s.error(start, "not sixteen hexadecimal digits"))
                    })?;
                }
                _ => return Err(s.error(start, "unknown field: pid, slow_path and userdata are known")),
            }
            if !s.take(',') {
                return Ok(());
            }
        }
    })?;
    Ok(DpAction::Userspace { reason, cookie })
}

fn parse_set(s: &mut Scanner<'_>) -> Result<Set, ParseError> {
    s.in_parentheses(|s| {
        let (start, name) = s.word();
        let layer = Layer::ALL.into_iter().find(|l| set_group(*l).map_or("mpls", |g| g.name) == name);
        let layer = layer.ok_or_else(|| s.error(start, "no header that can be set"))?;
        let (mut key, mut mask) = (FlowKey::ZERO, FlowMask::EMPTY);
        match set_group(layer) {
            Some(g) => s.group(g, &mut key, &mut mask)?,
            None => s.mpls(1, &mut key, &mut mask)?,
        }
        Ok(Set::new(layer, &key, &mask))
    })
}
