//! Encoding of action lists as the records that the eBPF datapath interprets, and the decision what it cannot
//! carry out.
//!
//! What cannot be encoded is carried out by userspace, as a whole list ([`crate::execute`]): the records then
//! are not to be used, and the datapath sends the packets up instead.

use std::fmt;

use switch_common::action::{Action, op};
use switch_common::counter::Drop;
use switch_common::key::FlowMask;

use crate::action::{DpAction, Layer, Set};

/// A list as the datapath needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Empty for a list that only drops, by policy; also if `slow_path` says that they are of no use.
    pub records: Vec<Action>,
    /// Why the datapath cannot carry the list out itself.
    pub slow_path: Option<SlowPath>,
    /// An XDP program can: header changes and then exactly one output.
    pub xdp: bool,
}

/// What an action list asks for that the datapath's programs cannot do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SlowPath {
    /// SCTP's CRC32c covers the whole packet (RFC 9260, section 6.8).
    SctpPorts,
    /// A truncated output is followed by something that needs the whole packet.
    Truncate,
    /// A sampled list would change a copy of the packet.
    Sample,
    /// Actions after a recirculation need a copy of the packet.
    Recirculate,
    /// Only some bits of a field that can only be set whole.
    PartialField,
}

impl SlowPath {
    pub const fn name(self) -> &'static str {
        match self {
            SlowPath::SctpPorts => "sctp-ports",
            SlowPath::Truncate => "truncate",
            SlowPath::Sample => "sample",
            SlowPath::Recirculate => "recirculate",
            SlowPath::PartialField => "partial-field",
        }
    }
}

impl fmt::Display for SlowPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes to which a frame can be cut at least: its Ethernet header.
pub const MIN_TRUNCATE: u32 = 14;

/// The part of a list that has an effect: without what follows a drop, and without changes to the packet that no
/// later action sees.
pub fn effective(actions: &[DpAction]) -> &[DpAction] {
    let end = actions.iter().position(|a| matches!(a, DpAction::Drop(_))).map_or(actions.len(), |i| i + 1);
    let last = actions[..end].iter().rposition(|a| !only_changes_packet(a));
    last.map_or(&[], |i| &actions[..=i])
}

/// Whether a packet that is through with this effective list ends there without having gone anywhere, which
/// counts as dropped by policy. Samples are for observers: they do not count as going somewhere.
pub fn drops_by_policy(effective: &[DpAction]) -> bool {
    effective
        .iter()
        .all(|a| only_changes_packet(a) || matches!(a, DpAction::Sample { .. } | DpAction::Meter(_)))
}

fn only_changes_packet(a: &DpAction) -> bool {
    match a {
        DpAction::PushVlan { .. }
        | DpAction::PopVlan
        | DpAction::Set(_)
        | DpAction::Truncate(_)
        | DpAction::Hash { .. } => true,
        DpAction::Output(_)
        | DpAction::Recirculate(_)
        | DpAction::Sample { .. }
        | DpAction::Meter(_)
        | DpAction::Userspace { .. }
        | DpAction::Drop(_) => false,
    }
}

/// Encodes a list. The number of records is not limited here.
pub fn encode(actions: &[DpAction]) -> Encoded {
    let actions = effective(actions);
    let mut records = Vec::with_capacity(actions.len() + 1);
    match push_list(actions, &mut records) {
        Ok(()) => {
            if !records.is_empty() && drops_by_policy(actions) {
                records.push(drop_record(Drop::Policy));
            }
            Encoded { records, slow_path: None, xdp: fits_xdp(actions) }
        }
        Err(reason) => Encoded { records: Vec::new(), slow_path: Some(reason), xdp: false },
    }
}

fn fits_xdp(actions: &[DpAction]) -> bool {
    let Some((DpAction::Output(_), changes)) = actions.split_last() else { return false };
    changes.iter().all(|a| match a {
        DpAction::PushVlan { .. } | DpAction::PopVlan => true,
        DpAction::Set(s) => !matches!(s.layer, Layer::Priority | Layer::Mark),
        _ => false,
    })
}

fn push_list(actions: &[DpAction], out: &mut Vec<Action>) -> Result<(), SlowPath> {
    for (i, action) in actions.iter().enumerate() {
        let rest = &actions[i + 1..];
        match action {
            DpAction::Output(p) => out.push(Action::output(p.0)),
            DpAction::PushVlan { tpid, tci } => {
                out.push(Action::new(op::PUSH_VLAN, tpid.to_be(), u32::from(*tci), [0; 4]));
            }
            DpAction::PopVlan => out.push(Action::new(op::POP_VLAN, 0, 0, [0; 4])),
            DpAction::Set(s) => push_set(s, out)?,
            DpAction::Truncate(max) => {
                let Some((DpAction::Output(_), changes)) = rest.split_last() else {
                    return Err(SlowPath::Truncate);
                };
                if !changes.iter().all(only_changes_packet) {
                    return Err(SlowPath::Truncate);
                }
                out.push(Action::new(op::TRUNCATE, 0, (*max).max(MIN_TRUNCATE), [0; 4]));
            }
            DpAction::Hash { basis, symmetric } => {
                out.push(Action::new(op::HASH, u16::from(*symmetric), *basis, [0; 4]));
            }
            DpAction::Recirculate(id) => {
                if !rest.is_empty() {
                    return Err(SlowPath::Recirculate);
                }
                out.push(Action::new(op::RECIRCULATE, 0, *id, [0; 4]));
            }
            DpAction::Sample { probability, actions } => push_sample(*probability, actions, out)?,
            DpAction::Meter(id) => out.push(Action::new(op::METER, 0, *id, [0; 4])),
            DpAction::Userspace { reason, cookie } => {
                out.push(Action::new(op::USERSPACE, u16::from(*reason), 0, [*cookie, 0, 0, 0]));
            }
            DpAction::Drop(reason) => out.push(drop_record(*reason)),
        }
    }
    Ok(())
}

const fn drop_record(reason: Drop) -> Action {
    Action::new(op::DROP, 0, reason as u32, [0; 4])
}

/// The records of a sample are skipped or not, but there is no copy of the packet: they may not change it.
fn push_sample(probability: u32, actions: &[DpAction], out: &mut Vec<Action>) -> Result<(), SlowPath> {
    let actions = effective(actions);
    if actions.is_empty() {
        return Ok(());
    }
    let plain = actions
        .iter()
        .all(|a| matches!(a, DpAction::Output(_) | DpAction::Userspace { .. } | DpAction::Sample { .. }));
    if !plain {
        return Err(SlowPath::Sample);
    }
    let at = out.len();
    out.push(Action::new(op::SAMPLE, 0, probability, [0; 4]));
    push_list(actions, out)?;
    let count = out.len() - at - 1;
    if count == 0 {
        out.truncate(at);
        return Ok(());
    }
    out[at].port = u16::try_from(count).map_err(|_| SlowPath::Sample)?;
    Ok(())
}

fn push_set(s: &Set, out: &mut Vec<Action>) -> Result<(), SlowPath> {
    let fields = s.layer.fields();
    let mask = FlowMask(s.mask.0.masked(&fields));
    let value = s.value.masked(&mask);
    let (v, m) = (value.words(), mask.words());
    let mut push = |op, port, arg, words: [u64; 4], used: bool| {
        if used {
            out.push(Action::new(op, port, arg, words));
        }
    };
    const LOW48: u64 = 0xffff_ffff_ffff;
    const LOW32: u64 = 0xffff_ffff;
    match s.layer {
        Layer::Ethernet => {
            let words = [v[1] & LOW48, m[1] & LOW48, v[2] & LOW48, m[2] & LOW48];
            push(op::SET_ETH, 0, 0, words, words[1] | words[3] != 0);
        }
        Layer::Vlan => {
            let tci = u32::from(u16::from_be(value.vlan_tci));
            let bits = u64::from(u16::from_be(mask.0.vlan_tci));
            push(op::SET_VLAN, 0, tci, [bits, 0, 0, 0], bits != 0);
        }
        Layer::Ipv4 => {
            let words = [v[4], m[4], v[0] >> 48, m[0] >> 48];
            push(op::SET_IPV4, 0, 0, words, words[1] | words[3] != 0);
        }
        Layer::Ipv6 => {
            push(op::SET_IPV6_SRC, 0, 0, [v[4], v[5], m[4], m[5]], m[4] | m[5] != 0);
            push(op::SET_IPV6_DST, 0, 0, [v[6], v[7], m[6], m[7]], m[6] | m[7] != 0);
            let rest = |w: &[u64]| w[8] & LOW32 | w[0] >> 48 << 32;
            push(op::SET_IPV6, 0, 0, [rest(v), rest(m), 0, 0], rest(m) != 0);
        }
        Layer::Arp => {
            let opcode = match mask.0.ip_proto {
                0 => 0,
                0xff => 1,
                _ => return Err(SlowPath::PartialField),
            };
            let number = u32::from(value.ip_proto);
            push(op::SET_ARP, opcode, number, [v[4], m[4], 0, 0], opcode == 1 || m[4] != 0);
            let words = [v[16] & LOW48, m[16] & LOW48, v[17] & LOW48, m[17] & LOW48];
            push(op::SET_ARP_HW, 0, 0, words, words[1] | words[3] != 0);
        }
        Layer::Tcp | Layer::Udp => {
            push(op::SET_PORTS, 0, 0, [v[3] & LOW32, m[3] & LOW32, 0, 0], m[3] & LOW32 != 0);
        }
        Layer::Sctp if m[3] & LOW32 != 0 => return Err(SlowPath::SctpPorts),
        Layer::Sctp => {}
        Layer::Icmp | Layer::Icmpv6 => {
            let bytes = |w: u64| (w >> 8 & 0xff) | (w >> 24 & 0xff) << 8;
            push(op::SET_ICMP, 0, 0, [bytes(v[3]), bytes(m[3]), 0, 0], bytes(m[3]) != 0);
        }
        Layer::Nd => {
            push(op::SET_ND_TARGET, 0, 0, [v[18], v[19], m[18], m[19]], m[18] | m[19] != 0);
            let words = [v[16] & LOW48, m[16] & LOW48, v[17] & LOW48, m[17] & LOW48];
            push(op::SET_ND_LL, 0, 0, words, words[1] | words[3] != 0);
        }
        Layer::Mpls => {
            push(op::SET_MPLS, 0, 0, [v[14] & LOW32, m[14] & LOW32, 0, 0], m[14] & LOW32 != 0);
        }
        Layer::Priority => {
            if !matches!(mask.0.skb_priority, 0 | u32::MAX) {
                return Err(SlowPath::PartialField);
            }
            push(op::SET_PRIORITY, 0, value.skb_priority, [0; 4], mask.0.skb_priority != 0);
        }
        Layer::Mark => {
            let bits = mask.0.skb_mark;
            push(op::SET_MARK, 0, value.skb_mark, [u64::from(bits), 0, 0, 0], bits != 0);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use switch_common::action::apply_to_key;
    use switch_common::key::FlowKey;

    use super::*;
    use crate::action::DpPort;

    const OUT: DpAction = DpAction::Output(DpPort(2));
    const USERSPACE: DpAction = DpAction::Userspace { reason: 1, cookie: 9 };

    fn ports(layer: Layer) -> DpAction {
        let value = FlowKey { tp_src: 53u16.to_be(), ..FlowKey::ZERO };
        let mask = FlowMask(FlowKey { tp_src: !0, ..FlowKey::ZERO });
        DpAction::Set(Set::new(layer, &value, &mask))
    }

    #[test]
    fn a_list_without_effect_is_empty() {
        for list in [vec![], vec![DpAction::push_vlan(5), DpAction::PopVlan], vec![DpAction::Truncate(64)]] {
            let e = encode(&list);
            assert_eq!((e.records.len(), e.slow_path, e.xdp), (0, None, false));
        }
        let e = encode(&[OUT, DpAction::PopVlan]);
        assert_eq!(e.records, [Action::output(2)]);
        let e = encode(&[DpAction::Drop(Drop::Reserved), OUT]);
        assert_eq!(e.records, [drop_record(Drop::Reserved)]);
    }

    #[test]
    fn what_goes_nowhere_is_dropped_by_policy() {
        let sample = DpAction::Sample { probability: 1 << 31, actions: vec![USERSPACE] };
        let e = encode(&[DpAction::Meter(3), sample.clone()]);
        assert_eq!(e.records.last(), Some(&drop_record(Drop::Policy)));
        assert_eq!(e.records[1], Action::new(op::SAMPLE, 1, 1 << 31, [0; 4]));
        let e = encode(&[sample, OUT]);
        assert_eq!(e.records.last(), Some(&Action::output(2)));
    }

    #[test]
    fn xdp_takes_changes_and_one_output() {
        assert!(encode(&[OUT]).xdp);
        assert!(encode(&[DpAction::push_vlan(5), ports(Layer::Tcp), OUT]).xdp);
        assert!(!encode(&[OUT, OUT]).xdp);
        assert!(!encode(&[DpAction::Set(Set::mark(1)), OUT]).xdp);
        assert!(!encode(&[USERSPACE, OUT]).xdp);
    }

    #[test]
    fn beyond_the_datapath() {
        let slow = |list: &[DpAction]| encode(list).slow_path;
        assert_eq!(slow(&[ports(Layer::Sctp), OUT]), Some(SlowPath::SctpPorts));
        assert_eq!(slow(&[ports(Layer::Udp), OUT]), None);
        assert_eq!(slow(&[DpAction::Truncate(64), OUT, OUT]), Some(SlowPath::Truncate));
        assert_eq!(slow(&[OUT, DpAction::Truncate(64), OUT]), None);
        assert_eq!(slow(&[DpAction::Recirculate(1), OUT]), Some(SlowPath::Recirculate));
        let changing = DpAction::Sample { probability: 1, actions: vec![DpAction::PopVlan, OUT] };
        assert_eq!(slow(&[changing, OUT]), Some(SlowPath::Sample));
    }

    #[test]
    fn records_change_a_key_as_the_set_says() {
        let from = FlowKey::ZERO;
        for layer in Layer::ALL {
            let to = FlowKey::from_words([0x0123_4567_89ab_cdef; switch_common::key::KEY_WORDS]);
            let Some(set) = Set::difference(layer, &from, &to) else { panic!("{layer:?}") };
            let want = *set.value;
            let e = encode(&[DpAction::Set(set), OUT]);
            let mut got = from;
            let records = e.records.split_last().map_or(&[][..], |(_, r)| r);
            let applied: Vec<bool> = records.iter().map(|a| apply_to_key(got.words_mut(), a)).collect();
            if applied.contains(&true) {
                assert_eq!(got, want, "{layer:?}");
            }
        }
    }
}
