//! OpenFlow actions, as the pipeline carries them out.
//!
//! This is the pipeline's own form, the same for all versions of OpenFlow; decoding and encoding them is a
//! codec's business. An action that passed [`OfAction::check`] cannot fail; whether a packet has the header that
//! it changes is seen packet by packet, and a packet that has not stays as it is.

use std::fmt;

use switch_classifier::Field;
use switch_classifier::fields::Format;
use switch_common::key::{VLAN_PRESENT, VLAN_VID_MASK};
use thiserror::Error;

use crate::eth::Eth;
use crate::port::OfPort;
use crate::rule::TableId;
use crate::vlan::{TPID_C, TPID_S};

/// One action.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum OfAction {
    /// To a port, real or reserved: NORMAL, FLOOD, ALL, IN_PORT, LOCAL, CONTROLLER.
    Output(OfPort),
    /// To a real port, IN_PORT or LOCAL, and at most this many bytes of it.
    OutputTruncated {
        port: OfPort,
        max_len: u32,
    },
    /// To the controller, at most this many bytes of it.
    Controller {
        max_len: u16,
    },
    /// The bits of `mask` in the field become those of `value`; both as numbers.
    SetField {
        field: Field,
        value: u128,
        mask: u128,
    },
    /// A tag with id and priority of the outermost one there is, or 0. `tpid` in host order.
    PushVlan {
        tpid: u16,
    },
    PopVlan,
    /// Sets the id of the outermost tag, and pushes an 802.1Q tag if there is none (OpenFlow 1.0).
    SetVlanVid(u16),
    /// The same for its priority, 0 to 7.
    SetVlanPcp(u8),
    /// One less TTL or hop limit; a packet whose TTL would become 0 is not forwarded.
    DecTtl,
    /// What the table (`None`: this one) says of the packet, as if it had come in on that port (`None`: as it
    /// did); then on with the next action.
    Resubmit {
        port: Option<OfPort>,
        table: Option<TableId>,
    },
    /// On in a later table, and not back here.
    GotoTable(TableId),
    /// Nothing: bytes that somebody wants to keep with the rule.
    Note(Vec<u8>),
}

/// An action that makes no sense.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ActionError {
    #[error("{0} is no port to output to")]
    OutputPort(OfPort),
    #[error("output to {0} cannot be truncated")]
    TruncatedPort(OfPort),
    #[error("{max_len} bytes are less than an Ethernet header")]
    TruncatedTooShort { max_len: u32 },
    #[error("field {0} cannot be set")]
    ReadOnly(&'static str),
    #[error("the value has bits that {0} or the mask has not")]
    Value(&'static str),
    #[error("{0:#06x} is no VLAN's EtherType")]
    Tpid(u16),
    #[error("{0} is no VLAN id")]
    VlanId(u16),
    #[error("{0} is no VLAN priority")]
    VlanPriority(u8),
    #[error("there is no table {0}")]
    NoTable(TableId),
    #[error("goto_table must lead to a later table than {from}, not {to}")]
    Backwards { from: TableId, to: TableId },
}

impl OfAction {
    /// Sets a whole field.
    pub fn set(field: Field, value: u128) -> OfAction {
        OfAction::SetField { field, value, mask: field.info().ones() }
    }

    /// Whether the action makes sense in a rule of this table.
    pub fn check(&self, table: TableId) -> Result<(), ActionError> {
        let is_target = |port: OfPort| port.is_real() || port == OfPort::IN_PORT;
        match self {
            OfAction::Output(port) => match *port {
                OfPort::UNSET | OfPort::NONE | OfPort(0) => Err(ActionError::OutputPort(*port)),
                port if port.is_real() || port >= OfPort::UNSET => Ok(()),
                port => Err(ActionError::OutputPort(port)),
            },
            OfAction::OutputTruncated { port, .. } if !is_target(*port) => {
                Err(ActionError::TruncatedPort(*port))
            }
            OfAction::OutputTruncated { max_len, .. } if *max_len < 14 => {
                Err(ActionError::TruncatedTooShort { max_len: *max_len })
            }
            OfAction::SetField { field, value, mask } => {
                let name = field.name();
                if !is_writable(*field) {
                    Err(ActionError::ReadOnly(name))
                } else if value & !mask != 0 || mask & !field.info().ones() != 0 {
                    Err(ActionError::Value(name))
                } else {
                    Ok(())
                }
            }
            OfAction::PushVlan { tpid } if !matches!(*tpid, TPID_C | TPID_S) => Err(ActionError::Tpid(*tpid)),
            OfAction::SetVlanVid(vid) if *vid > VLAN_VID_MASK => Err(ActionError::VlanId(*vid)),
            OfAction::SetVlanPcp(pcp) if *pcp > 7 => Err(ActionError::VlanPriority(*pcp)),
            OfAction::Resubmit { table: Some(to), .. } if *to > TableId::LAST => {
                Err(ActionError::NoTable(*to))
            }
            OfAction::GotoTable(to) if *to > TableId::LAST => Err(ActionError::NoTable(*to)),
            OfAction::GotoTable(to) if *to <= table => Err(ActionError::Backwards { from: table, to: *to }),
            _ => Ok(()),
        }
    }
}

/// Whether an action may set the field: those of headers that the datapath can change, and pipeline state.
/// `nw_proto` is the opcode of an ARP packet, and is set in no other.
pub fn is_writable(field: Field) -> bool {
    use Field::*;
    matches!(field, InPort | Metadata | PktMark | SkbPriority | EthDst | EthSrc | VlanTci | MplsLse0)
        || (Reg0 as u8..=Reg15 as u8).contains(&(field as u8))
        || matches!(field, NwProto | NwTos | NwTtl | NwSrc | NwDst | Ipv6Src | Ipv6Dst | Ipv6Label)
        || matches!(field, ArpSha | ArpTha | TpSrc | TpDst | NdTarget)
}

impl fmt::Display for OfAction {
    /// In `ovs-ofctl`'s notation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OfAction::Output(OfPort::CONTROLLER) => f.write_str("CONTROLLER:65535"),
            OfAction::Output(port) if port.0 <= OfPort::MAX.0 => write!(f, "output:{port}"),
            OfAction::Output(port) => port.fmt(f),
            OfAction::OutputTruncated { port, max_len } => write!(f, "output(port={port},max_len={max_len})"),
            OfAction::Controller { max_len } => write!(f, "CONTROLLER:{max_len}"),
            OfAction::SetField { field: Field::VlanTci, value, mask } => write_vlan_tci(f, *value, *mask),
            OfAction::SetField { field, value, mask } => {
                f.write_str("set_field:")?;
                write_value(f, *field, *value)?;
                if *mask != field.info().ones() {
                    f.write_str("/")?;
                    write_value(f, *field, *mask)?;
                }
                write!(f, "->{}", field.name())
            }
            OfAction::PushVlan { tpid } => write!(f, "push_vlan:{tpid:#06x}"),
            OfAction::PopVlan => f.write_str("pop_vlan"),
            OfAction::SetVlanVid(vid) => write!(f, "mod_vlan_vid:{vid}"),
            OfAction::SetVlanPcp(pcp) => write!(f, "mod_vlan_pcp:{pcp}"),
            OfAction::DecTtl => f.write_str("dec_ttl"),
            OfAction::Resubmit { port, table } => match (port, table) {
                (Some(port), None) => write!(f, "resubmit:{port}"),
                (port, table) => {
                    f.write_str("resubmit(")?;
                    if let Some(port) = port {
                        port.fmt(f)?;
                    }
                    f.write_str(",")?;
                    if let Some(table) = table {
                        table.fmt(f)?;
                    }
                    f.write_str(")")
                }
            },
            OfAction::GotoTable(table) => write!(f, "goto_table:{table}"),
            OfAction::Note(bytes) => {
                f.write_str("note:")?;
                for (i, byte) in bytes.iter().enumerate() {
                    write!(f, "{}{byte:02x}", if i == 0 { "" } else { "." })?;
                }
                Ok(())
            }
        }
    }
}

/// Id and presence as OpenFlow's `vlan_vid`, anything else as `vlan_tci`.
fn write_vlan_tci(f: &mut fmt::Formatter<'_>, value: u128, mask: u128) -> fmt::Result {
    let id_mask = u128::from(VLAN_VID_MASK);
    if mask == id_mask || mask == id_mask | u128::from(VLAN_PRESENT) {
        write!(f, "set_field:{}->vlan_vid", value & id_mask | u128::from(VLAN_PRESENT))
    } else if mask == 0xe000 {
        write!(f, "set_field:{}->vlan_pcp", value >> 13)
    } else {
        write!(f, "set_field:{value:#06x}/{mask:#06x}->vlan_tci")
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, field: Field, value: u128) -> fmt::Result {
    match field.info().format {
        Format::Decimal => write!(f, "{value}"),
        Format::Hex => write!(f, "{value:#x}"),
        Format::Ipv4 => write!(f, "{}", std::net::Ipv4Addr::from_bits(value as u32)),
        Format::Ipv6 => write!(f, "{}", std::net::Ipv6Addr::from_bits(value)),
        Format::Mac => {
            let [_, _, mac @ ..] = (value as u64).to_be_bytes();
            write!(f, "{}", Eth(&mac))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_as_ovs_ofctl_does() {
        let cases = [
            (OfAction::Output(OfPort(3)), "output:3"),
            (OfAction::Output(OfPort::NORMAL), "NORMAL"),
            (OfAction::Output(OfPort::LOCAL), "LOCAL"),
            (OfAction::OutputTruncated { port: OfPort(4), max_len: 100 }, "output(port=4,max_len=100)"),
            (OfAction::set(Field::EthSrc, 5), "set_field:00:00:00:00:00:05->eth_src"),
            (OfAction::SetField { field: Field::VlanTci, value: 5, mask: 0xfff }, "set_field:4101->vlan_vid"),
            (
                OfAction::SetField { field: Field::NwDst, value: 0x0a000000, mask: 0xff000000 },
                "set_field:10.0.0.0/255.0.0.0->nw_dst",
            ),
            (OfAction::PushVlan { tpid: 0x8100 }, "push_vlan:0x8100"),
            (OfAction::Resubmit { port: None, table: Some(TableId(5)) }, "resubmit(,5)"),
            (OfAction::Resubmit { port: Some(OfPort(4)), table: Some(TableId(6)) }, "resubmit(4,6)"),
            (OfAction::Resubmit { port: Some(OfPort(4)), table: None }, "resubmit:4"),
            (OfAction::Note(vec![1, 2, 0]), "note:01.02.00"),
        ];
        for (action, text) in cases {
            assert_eq!(action.to_string(), text);
            assert_eq!(action.check(TableId(0)), Ok(()), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let bad = [
            OfAction::Output(OfPort(0)),
            OfAction::Output(OfPort(0xff01)),
            OfAction::Output(OfPort::NONE),
            OfAction::OutputTruncated { port: OfPort::FLOOD, max_len: 100 },
            OfAction::OutputTruncated { port: OfPort(1), max_len: 13 },
            OfAction::set(Field::EthType, 5),
            OfAction::SetField { field: Field::NwTtl, value: 0x100, mask: 0x1ff },
            OfAction::SetField { field: Field::NwTtl, value: 3, mask: 1 },
            OfAction::PushVlan { tpid: 0x0800 },
            OfAction::SetVlanVid(4096),
            OfAction::SetVlanPcp(8),
            OfAction::GotoTable(TableId(3)),
            OfAction::GotoTable(TableId(254)),
        ];
        for action in bad {
            assert!(action.check(TableId(3)).is_err(), "{action}");
        }
        assert_eq!(OfAction::GotoTable(TableId(4)).check(TableId(3)), Ok(()));
    }
}
