//! A handler thread: takes frames from one queue of the upcall pair, decides, forwards.
//!
//! One round empties the socket's ring into the ports' queues, handles a bounded number of packets, one port
//! after the other, and sends what came of it in one batch. A packet is forwarded after the flow that it caused
//! is in place; packets of the same flow that came up meanwhile wait behind it in their port's queue, find the
//! flow, and follow in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use switch_common::counter::Drop;
use switch_common::key::FlowKey;
use switch_common::parse::{OffloadedTag, PacketMeta};
use switch_common::upcall::{UPCALL_HEADER, UpcallHeader, reason};
use switch_dpif::action::{DpAction, DpPort};
use switch_dpif::datapath::FlowId;
use switch_dpif::execute::{self, PacketBuf};
use switch_netdev::{PacketOut, Receiver, Sent};

use super::drops::UserDrops;
use super::forwarding::Forwarding;
use super::queue::FairQueues;

/// Packets handled between two looks at the ring.
const ROUND: usize = 64;
/// Batches taken from the ring at one look.
const BATCHES: usize = 16;
/// How long a handler sleeps at most, so that it sees that it is to stop.
const NAP: Duration = Duration::from_millis(200);
/// Times that one packet may be looked up again.
const MAX_RECIRCULATIONS: u32 = switch_common::action::MAX_RECIRCULATIONS;

/// A packet that waits for its turn.
struct Waiting {
    reason: u8,
    cookie: u64,
    packet: PacketBuf,
}

/// One handler.
pub struct Handler {
    forwarding: Arc<Forwarding>,
    drops: Arc<UserDrops>,
    receiver: Receiver,
    /// It serves protocol traffic.
    protocol: bool,
    sender: Sender,
    queues: FairQueues<Waiting>,
    ring_dropped: u64,
}

impl Handler {
    pub fn new(
        forwarding: Arc<Forwarding>,
        drops: Arc<UserDrops>,
        receiver: Receiver,
        out: PacketOut,
        protocol: bool,
    ) -> Handler {
        let sender = Sender { out, forwarding: Arc::clone(&forwarding), drops: Arc::clone(&drops) };
        Handler {
            forwarding,
            drops,
            receiver,
            protocol,
            sender,
            queues: FairQueues::default(),
            ring_dropped: 0,
        }
    }

    /// Works until `stop` is set.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.receive() {
                tracing::warn!(%error, "receiving upcalls");
                std::thread::sleep(NAP);
            }
            for _ in 0..ROUND {
                let Some(waiting) = self.queues.pop() else { break };
                self.handle(waiting);
            }
            self.sender.flush();
        }
    }

    /// Empties the ring into the queues; waits for a frame if there is nothing else to do.
    fn receive(&mut self) -> std::io::Result<()> {
        let Handler { receiver, queues, forwarding, drops, protocol, .. } = self;
        let receiver = receiver.as_dyn();
        if queues.is_empty() && !receiver.wait(NAP)? {
            return Ok(());
        }
        let counters = &forwarding.counters;
        let vlan_limit = forwarding.view.load().vlan_limit;
        let mut batches = 0;
        loop {
            let frames = receiver.recv_batch(&mut |frame| {
                let Some(header) = UpcallHeader::read(frame) else {
                    drops.count(Drop::UpcallFailed, 1);
                    return;
                };
                match packet_of(&header, &frame[UPCALL_HEADER..], vlan_limit) {
                    Some(packet) => {
                        let waiting = Waiting { reason: header.reason, cookie: header.cookie, packet };
                        // What a full queue refuses is counted by the queue.
                        let _ = queues.push(DpPort(header.in_port), waiting);
                    }
                    None => drops.count(Drop::Runt, 1),
                }
            })?;
            let counter = if *protocol { &counters.protocol } else { &counters.received };
            counter.fetch_add(frames as u64, Ordering::Relaxed);
            batches += 1;
            if frames == 0 || batches == BATCHES {
                break;
            }
        }
        queues.take_overflows(|port, packets| {
            counters.queue_full.fetch_add(packets, Ordering::Relaxed);
            drops.count(Drop::QueueFull, packets);
            drops.count_port(port, packets);
        });
        let statistics = receiver.statistics();
        let lost = statistics.dropped + statistics.ring_full + statistics.oversized;
        if lost > self.ring_dropped {
            counters.ring_dropped.fetch_add(lost - self.ring_dropped, Ordering::Relaxed);
            drops.count(Drop::QueueFull, lost - self.ring_dropped);
            self.ring_dropped = lost;
        }
        Ok(())
    }

    fn handle(&mut self, waiting: Waiting) {
        let Waiting { reason, cookie, mut packet } = waiting;
        match reason {
            reason::SLOW_PATH => match self.forwarding.flow_actions(FlowId(cookie)) {
                Some(actions) => self.sender.execute(&mut packet, &actions, 0),
                // Replaced meanwhile: decided anew.
                None => self.sender.forward(&mut packet, 0),
            },
            reason::MISS => self.sender.forward(&mut packet, 0),
            // Nobody listens to other copies yet, and a copy is not what the packet came for.
            _ => {}
        }
    }
}

/// The packet behind a header; `None` for a runt.
fn packet_of(header: &UpcallHeader, frame: &[u8], vlan_limit: u8) -> Option<PacketBuf> {
    let meta = PacketMeta {
        in_port: header.in_port,
        recirc_id: header.recirc_id,
        tag: OffloadedTag { tpid: header.vlan_tpid, tci: header.vlan_tci },
        skb_mark: header.skb_mark,
        skb_priority: header.skb_priority,
        dp_hash: header.dp_hash,
        vlan_limit,
    };
    PacketBuf::new(frame, &meta)
}

/// Forwards packets in userspace: decides where they are to go, and collects what is to be sent.
struct Sender {
    out: PacketOut,
    forwarding: Arc<Forwarding>,
    drops: Arc<UserDrops>,
}

impl Sender {
    fn forward(&mut self, packet: &mut PacketBuf, depth: u32) {
        let actions = self.forwarding.resolve(packet.key());
        self.execute(packet, &actions, depth);
    }

    fn execute(&mut self, packet: &mut PacketBuf, actions: &[DpAction], depth: u32) {
        execute::execute(packet, actions, &mut Outputs { sender: self, depth });
    }

    fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let Sender { out, forwarding, drops } = self;
        for sent in out.flush() {
            let reason = match sent {
                Sent::Yes => continue,
                Sent::TooLong => Drop::Mtu,
                Sent::LinkDown | Sent::NoLink => Drop::NoOutput,
                Sent::TooShort | Sent::QueueFull | Sent::Failed(_) => Drop::SendFailed,
            };
            forwarding.counters.send_failed.fetch_add(1, Ordering::Relaxed);
            drops.count(reason, 1);
        }
    }
}

struct Outputs<'a> {
    sender: &'a mut Sender,
    depth: u32,
}

impl execute::Output for Outputs<'_> {
    fn output(&mut self, port: DpPort, frame: &[u8], max_len: Option<u32>, _key: &FlowKey) {
        let Some(ifindex) = self.sender.forwarding.ifindex(port) else {
            self.sender.drops.count(Drop::NoOutput, 1);
            return;
        };
        let len = max_len.map_or(frame.len(), |max| frame.len().min(max as usize));
        self.sender.out.push(ifindex, &frame[..len]);
    }

    fn userspace(&mut self, _reason: u8, _cookie: u64, _frame: &[u8], _key: &FlowKey) {}

    fn drop(&mut self, reason: Drop) {
        self.sender.drops.count(reason, 1);
    }

    fn recirculate(&mut self, packet: &mut PacketBuf) {
        if self.depth >= MAX_RECIRCULATIONS {
            self.sender.drops.count(Drop::RecircLimit, 1);
        } else {
            self.sender.forward(packet, self.depth + 1);
        }
    }

    fn meter(&mut self, id: u32, len: u32) -> bool {
        self.sender.forwarding.datapath.meter_admits(id, len)
    }

    fn random(&mut self) -> u32 {
        static STATE: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
        // SplitMix64: sampling needs no more than an even spread.
        let z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 32) as u32
    }
}
