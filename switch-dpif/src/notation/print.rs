//! Matches as text.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use switch_common::key::{ETH_TYPE_NONE, FlowKey, FlowMask, Kind};

use super::PortNames;
use super::field::*;
use crate::action::DpPort;

/// Writes the parts of a match, with commas between them.
pub(super) struct Printer<'a> {
    pub out: String,
    pub key: &'a FlowKey,
    pub mask: &'a FlowMask,
    pub names: PortNames<'a>,
}

impl Printer<'_> {
    /// The whole match.
    pub fn match_text(mut self) -> String {
        self.metadata();
        if self.key.packet_type == 0 {
            self.item();
            self.out.push_str("eth(");
            self.fields(ETH.fields);
            self.out.push(')');
        }
        let tags = self.tags();
        for (i, group) in VLAN.iter().enumerate().take(tags) {
            self.item();
            let value = match tpid(self.key, i) {
                0 => 0x8100,
                t => u16::from_be(t),
            };
            let mask = self.tpid_mask(i);
            write_eth_type(&mut self.out, value, mask);
            self.item();
            self.out.push_str("vlan(");
            self.fields(group.fields);
            self.out.push_str("),encap(");
        }
        self.headers();
        for _ in 0..tags {
            self.out.push(')');
        }
        self.out
    }

    /// Tags that the match says are there.
    fn tags(&self) -> usize {
        (0..2).take_while(|i| has_tag(self.key, *i) && has_tag(&self.mask.0, *i)).count()
    }

    /// The mask of a tag's TPID. A key too short to hold one says 0x8100 by its kind.
    fn tpid_mask(&self, i: usize) -> u16 {
        if self.key.kind() == Kind::Short { 0xffff } else { u16::from_be(tpid(&self.mask.0, i)) }
    }

    fn metadata(&mut self) {
        self.group(&PRIORITY);
        self.tunnel();
        self.group(&MARK);
        for g in &CT {
            self.group(g);
        }
        let ipv6 = u16::from_be(self.key.eth_type) == 0x86dd;
        self.group(if ipv6 { &CT_TUPLE6 } else { &CT_TUPLE4 });
        self.group(&RECIRC_ID);
        self.group(&DP_HASH);
        self.group(&IN_PORT);
        if self.key.packet_type != 0 {
            self.group(&PACKET_TYPE);
        }
    }

    fn headers(&mut self) {
        let mask = u16::from_be(self.mask.0.eth_type);
        if mask != 0 {
            self.item();
            match u16::from_be(self.key.eth_type) {
                // Open vSwitch has no such key attribute, only a mask of one.
                ETH_TYPE_NONE if mask == 0xffff => self.out.push_str("eth_type(0/0xffff)"),
                et => write_eth_type(&mut self.out, et, mask),
            }
        }
        if is_mpls(self.key) {
            self.mpls(3);
        }
        for g in header_groups(self.key) {
            self.group(g);
        }
    }

    /// One group, unless it is wholly wildcarded.
    pub fn group(&mut self, g: &Group) {
        if g.fields.iter().any(|f| self.matched(f)) {
            self.item();
            self.out.push_str(g.name);
            self.out.push('(');
            self.fields(g.fields);
            self.out.push(')');
        }
    }

    fn matched(&self, f: &Field) -> bool {
        (f.get)(&self.mask.0) != 0
    }

    /// A comma, unless something just began.
    fn item(&mut self) {
        if !matches!(self.out.as_bytes().last(), None | Some(b'(')) {
            self.out.push(',');
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        for f in fields {
            self.field(f);
        }
    }

    fn field(&mut self, f: &Field) {
        let mask = (f.get)(&self.mask.0);
        if mask == 0 {
            return;
        }
        self.item();
        if matches!(f.style, Style::Bits(_)) && !f.name.is_empty() {
            self.out.push_str(f.name);
            self.out.push('(');
            write_value(&mut self.out, f, (f.get)(self.key), mask, self.names);
            self.out.push(')');
            return;
        }
        if !f.name.is_empty() {
            self.out.push_str(f.name);
            self.out.push('=');
        }
        write_value(&mut self.out, f, (f.get)(self.key), mask, self.names);
    }

    /// Label stack entries up to the last one that is matched, at most `entries`.
    pub fn mpls(&mut self, entries: usize) {
        let Some(last) = self.mask.0.mpls_lse[..entries].iter().rposition(|m| *m != 0) else { return };
        self.item();
        self.out.push_str("mpls(");
        for (i, parts) in MPLS.iter().enumerate().take(last + 1) {
            let exact = self.mask.0.mpls_lse[i] == !0;
            for f in parts {
                self.item();
                let (v, m) = ((f.get)(self.key), (f.get)(&self.mask.0));
                // Writing to a string cannot fail.
                let _ = write!(self.out, "{}={v}", f.name);
                if !exact {
                    let prefix = if matches!(f.name, "label" | "ttl") { "0x" } else { "" };
                    let _ = write!(self.out, "/{prefix}{m:x}");
                }
            }
        }
        self.out.push(')');
    }

    fn tunnel(&mut self) {
        let m = &self.mask.0;
        let addresses = m.tun_src != [0; 4] || m.tun_dst != [0; 4];
        let some = addresses
            || self.matched(&TUNNEL_ID)
            || self.matched(&TUNNEL_FLAGS_FIELD)
            || TUNNEL_REST.iter().any(|f| self.matched(f))
            || [&GBP, &ERSPAN, &GTPU, &GENEVE].iter().any(|g| g.fields.iter().any(|f| self.matched(f)));
        if !some {
            return;
        }
        self.item();
        self.out.push_str("tunnel(");
        self.field(&TUNNEL_ID);
        if is_tunnel_ipv4(self.key) {
            self.fields(&TUNNEL_ADDR4);
        } else {
            self.fields(&TUNNEL_ADDR6);
        }
        self.fields(&TUNNEL_REST);
        if GBP.fields.iter().any(|f| self.matched(f)) {
            self.item();
            self.out.push_str("vxlan(");
            self.group(&GBP);
            self.out.push(')');
        }
        for g in [&GENEVE, &ERSPAN, &GTPU] {
            self.group(g);
        }
        self.field(&TUNNEL_FLAGS_FIELD);
        self.out.push(')');
    }
}

/// Whether a tunnel's addresses are to be written as IPv4 ones: mapped, or not matched at all.
pub(super) fn is_tunnel_ipv4(key: &FlowKey) -> bool {
    let mapped = |a: &[u32; 4]| a[0] == 0 && a[1] == 0 && (a[2] == 0xffffu32.to_be() || a[2] == 0);
    let plain = |a: &[u32; 4]| a[2] == 0 && a[3] != 0;
    mapped(&key.tun_src) && mapped(&key.tun_dst) && !plain(&key.tun_src) && !plain(&key.tun_dst)
}

fn write_eth_type(out: &mut String, et: u16, mask: u16) {
    let _ = match mask {
        0xffff => write!(out, "eth_type(0x{et:04x})"),
        _ => write!(out, "eth_type(0x{et:04x}/0x{mask:04x})"),
    };
}

/// One value, with its mask if that does not cover all of it.
pub(super) fn write_value(out: &mut String, f: &Field, v: u128, mask: u128, names: PortNames<'_>) {
    let exact = mask == f.full();
    let slash = |out: &mut String| {
        if !exact {
            let _ = write!(out, "/{mask:#x}");
        }
    };
    // Writing to a string cannot fail.
    match f.style {
        Style::Decimal => {
            let _ = write!(out, "{v}");
            slash(out);
        }
        Style::Port => {
            match names.and_then(|n| n(DpPort(v as u16))) {
                Some(name) if exact => out.push_str(&name),
                _ => {
                    let _ = write!(out, "{v}");
                }
            }
            slash(out);
        }
        Style::Hex => {
            write_hex(out, v);
            slash(out);
        }
        Style::EthType => write_eth_type(out, v as u16, mask as u16),
        Style::Mac => {
            write_mac(out, v);
            if !exact {
                out.push('/');
                write_mac(out, mask);
            }
        }
        Style::Ipv4 => {
            let _ = write!(out, "{}", Ipv4Addr::from(v as u32));
            if !exact {
                let _ = write!(out, "/{}", Ipv4Addr::from(mask as u32));
            }
        }
        Style::Ipv6 => {
            let _ = write!(out, "{}", Ipv6Addr::from(v));
            if !exact {
                let _ = write!(out, "/{}", Ipv6Addr::from(mask));
            }
        }
        Style::Fragment if exact => out.push_str(fragment_name(v)),
        Style::Fragment => {
            let _ = write!(out, "{v}/{mask:#x}");
        }
        Style::Bits(names) => write_bits(out, names, v, mask, exact),
    }
}

/// As C's `%#x`: zero has no prefix.
pub(super) fn write_hex(out: &mut String, v: u128) {
    let _ = if v == 0 { write!(out, "0") } else { write!(out, "{v:#x}") };
}

pub(super) fn fragment_name(v: u128) -> &'static str {
    match v {
        0 => "no",
        1 => "first",
        // A later fragment has both bits.
        _ => "later",
    }
}

fn write_mac(out: &mut String, v: u128) {
    let b = v.to_be_bytes();
    let _ =
        write!(out, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[10], b[11], b[12], b[13], b[14], b[15]);
}

fn write_bits(out: &mut String, names: &[&str], v: u128, mask: u128, exact: bool) {
    if exact && v == 0 {
        out.push('0');
        return;
    }
    let mut first = true;
    for (i, name) in names.iter().enumerate() {
        let (set, matched) = (v >> i & 1 != 0, mask >> i & 1 != 0);
        if exact {
            if set {
                if !core::mem::take(&mut first) {
                    out.push('|');
                }
                out.push_str(name);
            }
        } else if matched {
            out.push(if set { '+' } else { '-' });
            out.push_str(name);
        }
    }
}
