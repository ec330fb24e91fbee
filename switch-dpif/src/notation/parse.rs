//! Matches from text.

use std::net::{Ipv4Addr, Ipv6Addr};

use switch_common::key::{ETH_TYPE_NONE, FlowKey, FlowMask, VLAN_PRESENT};

use super::actions::parse_actions;
use super::field::*;
use crate::action::{DpAction, DpPort};

/// Numbers of named ports, for parsing.
pub type PortNumbers<'a> = Option<&'a dyn Fn(&str) -> Option<DpPort>>;

/// Why a text was not understood, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}, at `{part}` (character {at})")]
pub struct ParseError {
    /// Offset in characters, from 1.
    pub at: usize,
    /// The text from there on, cut short.
    pub part: String,
    pub reason: String,
}

/// Parses a match. What is not named is wildcarded, except for what every flow matches; a value without a mask
/// is matched whole. Without `vlan(...)` the match is for untagged packets, without `eth_type(...)` for IEEE
/// 802.3 frames.
///
/// # Errors
/// Says which part is not understood.
pub fn parse_match(text: &str, numbers: PortNumbers<'_>) -> Result<(FlowKey, FlowMask), ParseError> {
    let mut s = Scanner::new(text, numbers);
    let found = s.flow_match()?;
    s.end()?;
    Ok(found)
}

/// Parses a match and its actions: `MATCH,actions:ACTIONS` or `MATCH actions:ACTIONS`, and the lines of a dump,
/// whose statistics are skipped.
///
/// # Errors
/// Says which part is not understood.
pub fn parse_flow(
    text: &str,
    numbers: PortNumbers<'_>,
) -> Result<(FlowKey, FlowMask, Vec<DpAction>), ParseError> {
    const ACTIONS: &str = "actions:";
    let missing = || Scanner::new(text, None).error(text.len(), "`actions:` is missing");
    let split = text.find(ACTIONS).ok_or_else(missing)?;
    // The match ends at the first space, if statistics follow.
    let head = text[..split].trim_end();
    let head = head.find(", ").map_or(head, |i| &head[..i]).trim_end_matches(',');
    let (key, mask) = parse_match(head, numbers)?;
    let begin = split + ACTIONS.len();
    let actions = parse_actions(text[begin..].trim_end(), numbers).map_err(|mut e| {
        e.at += text[..begin].chars().count();
        e
    })?;
    Ok((key, mask, actions))
}

/// A place in a text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    numbers: PortNumbers<'a>,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str, numbers: PortNumbers<'a>) -> Scanner<'a> {
        Scanner { text, at: 0, numbers }
    }

    pub fn port_by_name(&self, name: &str) -> Option<DpPort> {
        self.numbers.and_then(|n| n(name))
    }

    pub fn error(&self, at: usize, reason: impl Into<String>) -> ParseError {
        let mut part: String = self.text[at..].chars().take(32).collect();
        if part.len() < self.text.len() - at {
            part.push_str("...");
        }
        ParseError { at: self.text[..at].chars().count() + 1, part, reason: reason.into() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn end(&self) -> Result<(), ParseError> {
        if self.rest().is_empty() {
            Ok(())
        } else {
            Err(self.error(self.at, "a comma or the end was expected"))
        }
    }

    pub fn peek(&self, c: char) -> bool {
        self.rest().starts_with(c)
    }

    /// Takes `c` if it is next.
    pub fn take(&mut self, c: char) -> bool {
        let found = self.peek(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    pub fn expect(&mut self, text: &str) -> Result<(), ParseError> {
        if !self.rest().starts_with(text) {
            return Err(self.error(self.at, format!("`{text}` was expected")));
        }
        self.at += text.len();
        Ok(())
    }

    /// What stands before the first `end`, or all; with its place.
    pub fn until(&mut self, end: char) -> (usize, &'a str) {
        let (start, rest) = (self.at, self.rest());
        let found = &rest[..rest.find(end).unwrap_or(rest.len())];
        self.at += found.len();
        (start, found)
    }

    /// What stands before the next `=`, comma or parenthesis; may be empty.
    pub fn word(&mut self) -> (usize, &'a str) {
        let (start, rest) = (self.at, self.rest());
        let found = &rest[..rest.find(['=', ',', '(', ')']).unwrap_or(rest.len())];
        self.at += found.len();
        (start, found)
    }

    pub fn in_parentheses<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        self.expect("(")?;
        let found = inner(self)?;
        self.expect(")")?;
        Ok(found)
    }

    /// A number, decimal or hexadecimal with `0x`.
    pub fn number(&mut self, max: u32) -> Result<u32, ParseError> {
        let (start, word) = self.word();
        let n = integer(word).ok_or_else(|| self.error(start, "not a number"))?;
        u32::try_from(n)
            .ok()
            .filter(|n| *n <= max)
            .ok_or_else(|| self.error(start, format!("more than {max}")))
    }

    fn flow_match(&mut self) -> Result<(FlowKey, FlowMask), ParseError> {
        let (mut key, mut mask) = (FlowKey::ZERO, FlowMask::floor());
        let mut seen = Seen { eth_type: false, names: Vec::new() };
        let mut depth = 0;
        if self.rest().is_empty() {
            return Err(self.error(0, "there is no match"));
        }
        self.level(&mut key, &mut mask, &mut seen, &mut depth)?;
        for tag in depth..2 {
            // No tag here: that is matched as well.
            set_tag_bits(&mut mask.0, tag, 0xffff);
        }
        if !seen.eth_type {
            key.eth_type = ETH_TYPE_NONE.to_be();
        }
        key.normalize_kind();
        mask.restrict(key.kind());
        Ok((key.masked(&mask), mask))
    }

    /// The groups inside one `encap`, or at the top.
    fn level(
        &mut self,
        key: &mut FlowKey,
        mask: &mut FlowMask,
        seen: &mut Seen<'a>,
        depth: &mut usize,
    ) -> Result<(), ParseError> {
        loop {
            let (start, name) = self.word();
            if name.is_empty() && self.peek(')') && seen.names.last() == Some(&"encap") {
                // An empty encap: nothing behind the tag is matched.
                return Ok(());
            }
            if name != "eth_type" && name != "vlan" && name != "encap" && seen.names.contains(&name) {
                return Err(self.error(start, format!("`{name}` stands twice")));
            }
            seen.names.push(name);
            match name {
                "tunnel" => self.tunnel(key, mask)?,
                "mpls" => {
                    self.require(start, is_mpls(key), "eth_type(0x8847)")?;
                    self.mpls(3, key, mask)?;
                }
                "eth_type" => self.eth_type(key, mask, seen)?,
                "vlan" | "encap" => {
                    return Err(self.error(start, "the tag's `eth_type` has to stand before it"));
                }
                _ => {
                    let group = metadata_group(name).or_else(|| header_group(name));
                    let group = group.ok_or_else(|| self.error(start, "unknown part of a match"))?;
                    if metadata_group(name).is_none() {
                        let fits = header_groups(key).iter().any(|g| g.name == name);
                        self.require(start, fits, prerequisite(name))?;
                    }
                    self.group(group, key, mask)?;
                }
            }
            // A tag and what is behind it.
            let tag = *depth;
            if name == "eth_type" && self.rest().starts_with(",vlan(") {
                if tag == 2 {
                    return Err(self.error(self.at + 1, "more than two tags"));
                }
                self.tag_and_encap(key, mask, seen, depth)?;
            }
            if !self.take(',') {
                return Ok(());
            }
        }
    }

    fn require(&self, at: usize, fits: bool, what: &str) -> Result<(), ParseError> {
        if fits { Ok(()) } else { Err(self.error(at, format!("this needs {what} before it"))) }
    }

    fn tag_and_encap(
        &mut self,
        key: &mut FlowKey,
        mask: &mut FlowMask,
        seen: &mut Seen<'a>,
        depth: &mut usize,
    ) -> Result<(), ParseError> {
        let tag = *depth;
        // What was read as the EtherType is the tag's TPID.
        let (et, et_mask) = (key.eth_type, mask.0.eth_type);
        *tpid_mut(key, tag) = if et == 0x8100u16.to_be() { 0 } else { et };
        *tpid_mut(&mut mask.0, tag) = et_mask;
        key.eth_type = 0;
        mask.0.eth_type = 0xffff;
        seen.eth_type = false;
        set_tag_bits(key, tag, VLAN_PRESENT);
        set_tag_bits(&mut mask.0, tag, VLAN_PRESENT);
        self.expect(",vlan")?;
        self.group(&VLAN[tag], key, mask)?;
        self.expect(",encap")?;
        seen.names.push("encap");
        *depth += 1;
        self.in_parentheses(|s| s.level(key, mask, seen, depth))
    }

    fn eth_type(
        &mut self,
        key: &mut FlowKey,
        mask: &mut FlowMask,
        seen: &mut Seen<'a>,
    ) -> Result<(), ParseError> {
        let start = self.at;
        if seen.eth_type {
            return Err(self.error(start, "`eth_type` stands twice"));
        }
        // The floor says that it is matched whole; the text decides.
        mask.0.eth_type = 0;
        self.group(&ETH_TYPE, key, mask)?;
        if key.eth_type == 0 && mask.0.eth_type == 0xffff {
            key.eth_type = ETH_TYPE_NONE.to_be();
        }
        seen.eth_type = true;
        Ok(())
    }

    /// `(value)` or `(field=value,...)`, maybe empty.
    pub fn group(&mut self, g: &Group, key: &mut FlowKey, mask: &mut FlowMask) -> Result<(), ParseError> {
        self.in_parentheses(|s| {
            if let [only] = g.fields
                && only.name.is_empty()
            {
                return s.value(only, key, mask);
            }
            if s.peek(')') {
                return Ok(());
            }
            loop {
                let (start, name) = s.word();
                let Some(f) = g.fields.iter().find(|f| f.name == name) else {
                    let known: Vec<_> = g.fields.iter().map(|f| f.name).collect();
                    let reason = format!("`{}` has no field `{name}`, only {}", g.name, known.join(", "));
                    return Err(s.error(start, reason));
                };
                s.expect("=")?;
                s.value(f, key, mask)?;
                if !s.take(',') {
                    return Ok(());
                }
            }
        })
    }

    /// A value, and its mask if there is one.
    fn value(&mut self, f: &Field, key: &mut FlowKey, mask: &mut FlowMask) -> Result<(), ParseError> {
        let start = self.at;
        let text = match f.style {
            Style::Bits(_) => self.until(')').1,
            _ => self.word().1,
        };
        let (v, m) = self.read(f, text).map_err(|reason| self.error(start, reason))?;
        if v > f.full() || m > f.full() {
            return Err(self.error(start, format!("does not fit into {} bits", f.width)));
        }
        (f.set)(key, v & m);
        (f.set)(&mut mask.0, m);
        Ok(())
    }

    fn read(&self, f: &Field, text: &str) -> Result<(u128, u128), String> {
        if let Style::Bits(names) = f.style {
            return bits(text, names, f.full());
        }
        let (value, mask) = match text.split_once('/') {
            Some((v, m)) => (v, Some(m)),
            None => (text, None),
        };
        if f.style == Style::Port
            && let Some(port) = self.port_by_name(value)
        {
            return Ok((u128::from(port.0), f.full()));
        }
        let read = |text: &str| match f.style {
            Style::Mac => mac(text).ok_or_else(|| format!("`{text}` is not an Ethernet address")),
            Style::Ipv4 => text
                .parse::<Ipv4Addr>()
                .map(|a| u128::from(u32::from(a)))
                .map_err(|_| format!("`{text}` is not an IPv4 address")),
            Style::Ipv6 => text
                .parse::<Ipv6Addr>()
                .map(u128::from)
                .map_err(|_| format!("`{text}` is not an IPv6 address")),
            Style::Fragment => match text {
                "no" => Ok(0),
                "first" => Ok(1),
                "later" => Ok(3),
                _ => integer(text).ok_or_else(|| format!("`{text}` is not no, first or later")),
            },
            Style::Port => integer(text).ok_or_else(|| format!("there is no port `{text}`")),
            _ => integer(text).ok_or_else(|| format!("`{text}` is not a number")),
        };
        Ok((read(value)?, mask.map_or(Ok(f.full()), read)?))
    }

    /// `(label=,tc=,ttl=,bos=,label=...)`, at most `entries` entries.
    pub fn mpls(&mut self, entries: usize, key: &mut FlowKey, mask: &mut FlowMask) -> Result<(), ParseError> {
        self.in_parentheses(|s| {
            if s.peek(')') {
                return Ok(());
            }
            let mut entry = None;
            loop {
                let (start, name) = s.word();
                if name == "label" {
                    entry = Some(entry.map_or(0, |e: usize| e + 1));
                }
                let parts = entry.filter(|e| *e < entries).and_then(|e| MPLS.get(e));
                let parts = parts.ok_or_else(|| {
                    s.error(start, format!("a stack begins with a label, and has at most {entries} here"))
                })?;
                let Some(f) = parts.iter().find(|f| f.name == name) else {
                    return Err(s.error(start, format!("`mpls` has no field `{name}`")));
                };
                s.expect("=")?;
                s.value(f, key, mask)?;
                if !s.take(',') {
                    return Ok(());
                }
            }
        })
    }

    fn tunnel(&mut self, key: &mut FlowKey, mask: &mut FlowMask) -> Result<(), ParseError> {
        self.in_parentheses(|s| {
            loop {
                let (start, name) = s.word();
                let plain = [&TUNNEL_ID].into_iter().chain(&TUNNEL_ADDR4).chain(&TUNNEL_ADDR6);
                let mut plain = plain.chain(&TUNNEL_REST);
                if let Some(f) = plain.find(|f| f.name == name) {
                    s.expect("=")?;
                    s.value(f, key, mask)?;
                    match name {
                        "src" => map_ipv4(&mut key.tun_src, &mut mask.0.tun_src),
                        "dst" => map_ipv4(&mut key.tun_dst, &mut mask.0.tun_dst),
                        _ => {}
                    }
                } else {
                    match name {
                        "vxlan" => s.in_parentheses(|s| {
                            s.expect("gbp")?;
                            s.group(&GBP, key, mask)
                        })?,
                        "erspan" => s.group(&ERSPAN, key, mask)?,
                        "gtpu" => s.group(&GTPU, key, mask)?,
                        "geneve" => s.group(&GENEVE, key, mask)?,
                        "flags" => s.in_parentheses(|s| s.value(&TUNNEL_FLAGS_FIELD, key, mask))?,
                        _ => return Err(s.error(start, format!("`tunnel` has no field `{name}`"))),
                    }
                }
                if !s.take(',') {
                    return Ok(());
                }
            }
        })
    }
}

struct Seen<'a> {
    eth_type: bool,
    names: Vec<&'a str>,
}

/// The first 96 bits of an IPv4-mapped address (RFC 4291, section 2.5.5.2), matched if any of the rest is.
fn map_ipv4(address: &mut [u32; 4], mask: &mut [u32; 4]) {
    if mask[3] != 0 {
        address[2] = 0xffffu32.to_be();
        mask[..3].fill(!0);
    }
}

fn metadata_group(name: &str) -> Option<&'static Group> {
    let all = [&PRIORITY, &MARK].into_iter().chain(&CT);
    let all = all.chain([&CT_TUPLE4, &CT_TUPLE6, &RECIRC_ID, &DP_HASH, &IN_PORT, &PACKET_TYPE, &ETH]);
    all.into_iter().find(|g| g.name == name)
}

fn header_group(name: &str) -> Option<&'static Group> {
    [&IPV4, &IPV6, &ARP, &TCP, &TCP_FLAGS_GROUP, &UDP, &SCTP, &ICMP, &ICMPV6, &ND, &ND_EXT, &NSH]
        .into_iter()
        .find(|g| g.name == name)
}

fn prerequisite(group: &str) -> &'static str {
    match group {
        "ipv4" => "eth_type(0x0800)",
        "ipv6" => "eth_type(0x86dd)",
        "arp" => "eth_type(0x0806)",
        "nsh" => "eth_type(0x894f)",
        "tcp" | "tcp_flags" => "ipv4(proto=6) or ipv6(proto=6)",
        "udp" => "ipv4(proto=17) or ipv6(proto=17)",
        "sctp" => "ipv4(proto=132) or ipv6(proto=132)",
        "icmp" => "ipv4(proto=1)",
        "icmpv6" => "ipv6(proto=58)",
        _ => "icmpv6(type=135) or icmpv6(type=136)",
    }
}

/// A number as C writes it, decimal or hexadecimal; signs are none.
fn integer(text: &str) -> Option<u128> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u128::from_str_radix(digits, radix).ok()
}

fn mac(text: &str) -> Option<u128> {
    let mut bytes = 0;
    let mut value = 0;
    for part in text.split(':') {
        if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        value = value << 8 | u128::from(u8::from_str_radix(part, 16).ok()?);
        bytes += 1;
        if bytes > 6 {
            return None;
        }
    }
    (bytes == 6).then_some(value)
}

/// `a|b`, `+a-b`, or a number with or without a mask.
fn bits(text: &str, names: &[&str], full: u128) -> Result<(u128, u128), String> {
    let bit = |name: &str| match names.iter().position(|n| *n == name) {
        Some(i) => Ok(1 << i),
        None => Err(format!("`{name}` is none of {}", names.join(", "))),
    };
    if text.starts_with(['+', '-']) {
        let (mut value, mut mask) = (0, 0);
        let mut rest = text;
        while let Some(sign) = rest.chars().next() {
            let end = rest[1..].find(['+', '-']).map_or(rest.len(), |i| i + 1);
            let b = bit(&rest[1..end])?;
            mask |= b;
            if sign == '+' {
                value |= b;
            }
            rest = &rest[end..];
        }
        return Ok((value, mask));
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let (v, m) = match text.split_once('/') {
            Some((v, m)) => (integer(v), integer(m)),
            None => (integer(text), Some(full)),
        };
        return v.zip(m).ok_or_else(|| format!("`{text}` is not a number"));
    }
    let mut value = 0;
    for name in text.split('|') {
        value |= bit(name)?;
    }
    Ok((value, full))
}
