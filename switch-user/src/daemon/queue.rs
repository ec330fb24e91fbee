//! Fairness between ports on the miss path: a bounded queue for each input port, served in turn.
//!
//! The socket's ring is one queue for all ports that share it, and a port that floods it would delay everybody.
//! So a handler empties the ring into these queues as fast as it can, and then translates one packet of each
//! port in turn. A port whose queue is full loses its own packets, counted, and nobody else's.
//! Within a port packets leave in the order in which they came.

use std::collections::VecDeque;

use hashbrown::HashMap;
use switch_dpif::action::DpPort;

/// Packets that wait for one port at most.
pub const PORT_QUEUE: usize = 2048;
/// Packets that wait for all ports of one handler, before each port has to make do with [`FAIR_SHARE`].
const ALL_QUEUES: usize = 16_384;
/// What every port may have waiting, however many others there are.
const FAIR_SHARE: usize = 16;

struct PortQueue<T> {
    waiting: VecDeque<T>,
    /// In `turn` already.
    scheduled: bool,
    overflows: u64,
}

/// The queues of one handler.
pub struct FairQueues<T> {
    ports: HashMap<DpPort, PortQueue<T>>,
    /// Ports that have packets, in the order of their turns.
    turn: VecDeque<DpPort>,
    len: usize,
}

impl<T> Default for FairQueues<T> {
    fn default() -> Self {
        FairQueues { ports: HashMap::new(), turn: VecDeque::new(), len: 0 }
    }
}

impl<T> FairQueues<T> {
    /// Adds a packet; gives it back if the port's queue is full.
    pub fn push(&mut self, port: DpPort, packet: T) -> Result<(), T> {
        let queue = self.ports.entry(port).or_insert_with(|| PortQueue {
            waiting: VecDeque::new(),
            scheduled: false,
            overflows: 0,
        });
        let room = if self.len >= ALL_QUEUES { FAIR_SHARE } else { PORT_QUEUE };
        if queue.waiting.len() >= room {
            queue.overflows += 1;
            return Err(packet);
        }
        queue.waiting.push_back(packet);
        self.len += 1;
        if !queue.scheduled {
            queue.scheduled = true;
            self.turn.push_back(port);
        }
        Ok(())
    }

    /// The next packet, of the port whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let port = self.turn.pop_front()?;
        let queue = self.ports.get_mut(&port)?;
        let packet = queue.waiting.pop_front();
        if queue.waiting.is_empty() {
            queue.scheduled = false;
        } else {
            self.turn.push_back(port);
        }
        if packet.is_some() {
            self.len -= 1;
        }
        packet
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Packets lost to full queues since the last call, by port.
    pub fn take_overflows(&mut self, mut f: impl FnMut(DpPort, u64)) {
        for (port, queue) in &mut self.ports {
            if queue.overflows > 0 {
                f(*port, std::mem::take(&mut queue.overflows));
            }
        }
        self.ports.retain(|_, queue| queue.scheduled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_floods_leave_everybody_a_share() {
        let mut q = FairQueues::default();
        for i in 0..PORT_QUEUE {
            for port in 1..=20 {
                let _ = q.push(DpPort(port), i);
            }
        }
        assert!(q.len <= ALL_QUEUES + 20 * FAIR_SHARE, "{}", q.len);
        for i in 0..FAIR_SHARE {
            assert!(q.push(DpPort(99), i).is_ok());
        }
        assert!(q.push(DpPort(99), 0).is_err());
    }

    #[test]
    fn a_flood_delays_nobody_else() {
        let mut q = FairQueues::default();
        let mut lost = 0;
        for i in 0..PORT_QUEUE + 100 {
            if q.push(DpPort(1), (1, i)).is_err() {
                lost += 1;
            }
        }
        for i in 0..3 {
            q.push(DpPort(2), (2, i)).expect("room");
        }
        let first: Vec<_> = (0..6).filter_map(|_| q.pop()).collect();
        assert_eq!(first, [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2)]);
        let mut counted = 0;
        q.take_overflows(|port, n| {
            assert_eq!(port, DpPort(1));
            counted += n;
        });
        assert_eq!((lost, counted), (100, 100));
        let mut rest = 0;
        while q.pop().is_some() {
            rest += 1;
        }
        assert_eq!(rest, PORT_QUEUE - 3);
        assert!(q.is_empty());
    }
}
