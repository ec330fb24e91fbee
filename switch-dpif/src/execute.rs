//! Carries out action lists on packets in userspace: packets that missed, lists beyond the eBPF programs, and
//! everything in the userspace datapath.
//!
//! This does to a packet what the eBPF programs do to it, byte for byte. It does no IO: where a packet goes is
//! told to an [`Output`]. No packet, whatever its bytes, makes it panic.
//!
//! * `packet`: a packet with room in front, and its key, which is always that of the bytes as they stand;
//! * `headers`: Ethernet, VLAN, MPLS and ARP;
//! * `ip`: IPv4, IPv6, and the checksums that cover their addresses;
//! * `transport`: ports, ICMP, neighbour discovery.

pub mod packet;

mod headers;
mod ip;
mod transport;

use switch_common::counter::Drop;
use switch_common::hash;
use switch_common::key::FlowKey;

use crate::action::{DpAction, DpPort, Layer, Set};
use crate::encode::{self, MIN_TRUNCATE};
pub use packet::PacketBuf;

/// An action did not fit the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misfit {
    #[error("the packet has no header of this kind: {0:?}")]
    NoHeader(Layer),
    #[error("the packet has no VLAN tag")]
    NoTag,
    #[error("a fragment's SCTP checksum cannot be mended")]
    SctpFragment,
}

/// Where an action list sends a packet, and what it asks of its surroundings.
pub trait Output {
    /// The frame leaves through `port`, at most `max_len` bytes of it. The key holds its mark and priority.
    fn output(&mut self, port: DpPort, frame: &[u8], max_len: Option<u32>, key: &FlowKey);

    /// A copy goes to userspace: `reason` is one of `switch_common::upcall::reason`.
    fn userspace(&mut self, reason: u8, cookie: u64, frame: &[u8], key: &FlowKey);

    /// The packet ends here, for this reason.
    fn drop(&mut self, reason: Drop);

    /// The packet is to be looked up again, with a key that bears the recirculation id.
    fn recirculate(&mut self, packet: &mut PacketBuf);

    /// Whether a packet of this many bytes conforms to the meter.
    fn meter(&mut self, id: u32, len: u32) -> bool;

    /// A random number, for samples.
    fn random(&mut self) -> u32;
}

/// Carries out a list. A packet that goes nowhere is reported to [`Output::drop`] exactly once; one that goes
/// somewhere and then meets an action that does not fit it is as well.
pub fn execute(packet: &mut PacketBuf, actions: &[DpAction], out: &mut dyn Output) {
    let actions = encode::effective(actions);
    if run(packet, actions, out) && encode::drops_by_policy(actions) {
        out.drop(Drop::Policy);
    }
}

/// False if the packet was dropped, and said to be.
fn run(packet: &mut PacketBuf, actions: &[DpAction], out: &mut dyn Output) -> bool {
    let mut max_len = None;
    for (i, action) in actions.iter().enumerate() {
        let result = match action {
            DpAction::Output(port) => {
                out.output(*port, packet.frame(), max_len.take(), packet.key());
                Ok(())
            }
            DpAction::PushVlan { tpid, tci } => {
                packet.push_vlan(*tpid, *tci);
                Ok(())
            }
            DpAction::PopVlan => packet.pop_vlan(),
            DpAction::Set(set) => apply_set(packet, set),
            DpAction::Truncate(max) => {
                max_len = Some((*max).max(MIN_TRUNCATE));
                Ok(())
            }
            DpAction::Hash { basis, symmetric } => {
                let value = hash::connection(packet.key().words(), *basis, *symmetric);
                packet.set_hash(value);
                Ok(())
            }
            DpAction::Recirculate(id) => {
                if i + 1 == actions.len() {
                    packet.set_recirc_id(*id);
                    out.recirculate(packet);
                } else {
                    let mut copy = packet.clone();
                    copy.set_recirc_id(*id);
                    out.recirculate(&mut copy);
                }
                Ok(())
            }
            DpAction::Sample { probability, actions } => {
                if out.random() < *probability || *probability == u32::MAX {
                    let mut copy = packet.clone();
                    run(&mut copy, encode::effective(actions), out);
                }
                Ok(())
            }
            DpAction::Meter(id) => {
                let len = u32::try_from(packet.frame().len()).unwrap_or(u32::MAX);
                if !out.meter(*id, len) {
                    out.drop(Drop::Meter);
                    return false;
                }
                Ok(())
            }
            DpAction::Userspace { reason, cookie } => {
                out.userspace(*reason, *cookie, packet.frame(), packet.key());
                Ok(())
            }
            DpAction::Drop(reason) => {
                out.drop(*reason);
                return false;
            }
        };
        if result.is_err() {
            out.drop(Drop::ActionFailed);
            return false;
        }
    }
    true
}

/// Changes the fields of one layer, with all checksums that cover them, and brings the key up to date.
///
/// # Errors
/// The packet has no such header; it is unchanged then.
pub fn apply_set(packet: &mut PacketBuf, set: &Set) -> Result<(), Misfit> {
    let (value, mask) = (&*set.value, &*set.mask);
    match set.layer {
        Layer::Priority => {
            packet.set_priority(value.skb_priority, mask.0.skb_priority);
            return Ok(());
        }
        Layer::Mark => {
            packet.set_mark(value.skb_mark, mask.0.skb_mark);
            return Ok(());
        }
        Layer::Ethernet => headers::set_ethernet(packet.frame_mut(), value, mask),
        Layer::Vlan => headers::set_vlan(packet.frame_mut(), value, mask)?,
        Layer::Mpls => headers::set_mpls(packet, value, mask)?,
        Layer::Arp => headers::set_arp(packet, value, mask)?,
        Layer::Ipv4 => ip::set_ipv4(packet, value, mask)?,
        Layer::Ipv6 => ip::set_ipv6(packet, value, mask)?,
        Layer::Tcp | Layer::Udp | Layer::Sctp => transport::set_ports(packet, set.layer, value, mask)?,
        Layer::Icmp | Layer::Icmpv6 => transport::set_icmp(packet, set.layer, value, mask)?,
        Layer::Nd => transport::set_nd(packet, value, mask)?,
    }
    packet.refresh();
    Ok(())
}

/// Puts the bits of `mask` from `value` into `field`; the three have the same length.
fn merge(field: &mut [u8], value: &[u8], mask: &[u8]) {
    for ((f, v), m) in field.iter_mut().zip(value).zip(mask) {
        *f = *f & !m | v & m;
    }
}
