//! The way of a packet through the userspace datapath, step by step as in the eBPF programs.

use switch_common::action::MAX_RECIRCULATIONS;
use switch_common::counter::{Counter, Drop};
use switch_common::key::FlowKey;
use switch_common::parse::{Malformed, PacketMeta};
use switch_common::upcall::{is_reserved_multicast, reason};

use super::table::Flow;
use super::{Datapath, UserspaceDatapath};
use crate::action::DpPort;
use crate::datapath::FlowId;
use crate::execute::{Output, PacketBuf, execute};

/// Where packets go from here.
pub trait Sink {
    /// A frame leaves through a port that takes it. The key holds its mark and priority.
    fn output(&mut self, port: DpPort, frame: &[u8], key: &FlowKey);

    /// A frame goes up to userspace: `reason` is one of `switch_common::upcall::reason`, the cookie that of a
    /// userspace action, else 0.
    fn upcall(&mut self, reason: u8, cookie: u64, frame: &[u8], key: &FlowKey);

    /// A random number, for samples.
    fn random(&mut self) -> u32;
}

/// What became of a packet at its first look-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// This flow took it, and its actions were carried out.
    Hit(FlowId),
    /// No flow: it went up.
    Missed,
    /// It had no key or no flow, and did not go up.
    Dropped(Drop),
}

const ETH_HEADER: usize = 14;
const VLAN_TAG: usize = 4;

impl UserspaceDatapath {
    /// Takes a frame that came in on `in_port`. Of `meta`, the tag beside the frame, mark and priority count.
    pub fn process(&self, in_port: DpPort, frame: &[u8], meta: &PacketMeta, sink: &mut dyn Sink) -> Verdict {
        if self.ports.get(in_port).is_none() {
            self.count_drop(0, Drop::NoPort);
            return Verdict::Dropped(Drop::NoPort);
        }
        let meta =
            PacketMeta { in_port: in_port.0, recirc_id: 0, dp_hash: 0, vlan_limit: self.vlan_limit, ..*meta };
        let Some(mut packet) = PacketBuf::new(frame, &meta) else {
            self.count_drop(in_port.0, Drop::Runt);
            return Verdict::Dropped(Drop::Runt);
        };
        self.look_up(&mut packet, 0, sink)
    }

    fn look_up(&self, packet: &mut PacketBuf, recirculations: u32, sink: &mut dyn Sink) -> Verdict {
        if packet.parsed().malformed != Malformed::No {
            self.count(Counter::Malformed as usize, 1);
        }
        // The lock is let go before anything is told to the sink, which may call back.
        let (flow, tried) = self.table.read().take(packet.key());
        self.count(Counter::MasksTried as usize, tried);
        match flow {
            Some(flow) => {
                self.count(Counter::MegaflowHit as usize, 1);
                self.deliver(&flow, packet, recirculations, sink);
                Verdict::Hit(flow.id)
            }
            None => self.missed(packet, sink),
        }
    }

    fn deliver(&self, flow: &Flow, packet: &mut PacketBuf, recirculations: u32, sink: &mut dyn Sink) {
        let key = packet.key();
        flow.account(packet.frame().len() as u64, self.now_ms(), key.tcp_flags());
        let in_port = key.in_port;
        let mut delivery = Delivery { datapath: self, in_port, recirculations, sink };
        execute(packet, &flow.actions, &mut delivery);
    }

    fn missed(&self, packet: &PacketBuf, sink: &mut dyn Sink) -> Verdict {
        self.count(Counter::Miss as usize, 1);
        let key = packet.key();
        let admitted = match self.ports.get(DpPort(key.in_port)) {
            Some(port) => port.admit_upcall(self.now_ns(), is_protocol(key)),
            None => Err(Drop::UpcallFailed),
        };
        match admitted {
            Ok(()) => {
                self.count(Counter::UpcallMiss as usize, 1);
                sink.upcall(reason::MISS, 0, packet.frame(), key);
                Verdict::Missed
            }
            Err(reason) => {
                self.count_drop(key.in_port, reason);
                Verdict::Dropped(reason)
            }
        }
    }

    /// Whether a port takes a frame; `tagged` if it begins with a VLAN tag.
    fn takes(&self, port: DpPort, len: usize, tagged: bool) -> Result<(), Drop> {
        let config = self.ports.get(port).map(|p| p.config()).filter(|c| c.up).ok_or(Drop::NoOutput)?;
        let most = config.mtu as usize + ETH_HEADER + if tagged { VLAN_TAG } else { 0 };
        if len > most { Err(Drop::Mtu) } else { Ok(()) }
    }
}

/// Traffic that must not wait behind misses: reserved multicast, slow protocols, LLDP, connectivity faults.
fn is_protocol(key: &FlowKey) -> bool {
    is_reserved_multicast(key.words()[1] & 0xffff_ffff_ffff)
        || matches!(u16::from_be(key.eth_type), 0x8809 | 0x88cc | 0x8902)
}

/// What comes out of one packet's action list.
struct Delivery<'a> {
    datapath: &'a UserspaceDatapath,
    in_port: u16,
    recirculations: u32,
    sink: &'a mut dyn Sink,
}

impl Output for Delivery<'_> {
    fn output(&mut self, port: DpPort, frame: &[u8], max_len: Option<u32>, key: &FlowKey) {
        let len = max_len.map_or(frame.len(), |max| frame.len().min(max as usize));
        let tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
        match self.datapath.takes(port, len, tagged) {
            Ok(()) => self.sink.output(port, &frame[..len], key),
            Err(reason) => self.datapath.count_drop(self.in_port, reason),
        }
    }

    fn userspace(&mut self, reason: u8, cookie: u64, frame: &[u8], key: &FlowKey) {
        self.datapath.count(Counter::UpcallAction as usize, 1);
        self.sink.upcall(reason, cookie, frame, key);
    }

    fn drop(&mut self, reason: Drop) {
        self.datapath.count_drop(self.in_port, reason);
    }

    fn recirculate(&mut self, packet: &mut PacketBuf) {
        if self.recirculations >= MAX_RECIRCULATIONS {
            self.datapath.count_drop(self.in_port, Drop::RecircLimit);
            return;
        }
        self.datapath.count(Counter::Recirculated as usize, 1);
        self.datapath.look_up(packet, self.recirculations + 1, self.sink);
    }

    fn meter(&mut self, id: u32, len: u32) -> bool {
        self.datapath.meters.conforms(id, self.datapath.now_ns(), len)
    }

    fn random(&mut self) -> u32 {
        self.sink.random()
    }
}
