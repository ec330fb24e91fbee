//! Marked frames: one is sent, and every machine looks whether it sees it, and with which tag.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{DEVICE, PORTS, Topology};
use crate::packet::PacketSocket;

/// The address of all stations.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// Local Experimental EtherType 1 (IEEE 802): no machine answers it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Precedes the number of a marked frame.
const MARK: &[u8; 8] = b"sluice: ";

/// Time that a frame gets to arrive everywhere, the switch's decision included.
const PATIENCE: Duration = Duration::from_millis(1000);

/// Time for which unwanted copies are looked for after all wanted ones have come.
const AFTERWARDS: Duration = Duration::from_millis(150);

/// A machine that sees a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    machine: usize,
    vlan: Option<u16>,
}

impl Seen {
    pub fn plain(machine: usize) -> Seen {
        Seen { machine, vlan: None }
    }

    pub fn tagged(machine: usize, vlan: u16) -> Seen {
        Seen { machine, vlan: Some(vlan) }
    }

    fn text(self) -> String {
        let name = PORTS[self.machine].0;
        self.vlan.map_or_else(|| name.to_owned(), |vlan| format!("{name} (tag {vlan})"))
    }
}

/// A frame to send, and who has to see it: each of these once, nobody else.
#[derive(Clone, Debug)]
pub struct Probe {
    pub from: usize,
    pub tag: Option<u16>,
    pub to: [u8; 6],
    pub seen: Vec<Seen>,
}

/// Sends a probe. The error says who saw it instead.
pub fn send(topology: &Topology, probe: &Probe) -> Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let frame = frame(topology, probe, number);

    let open = |machine: usize| {
        let namespace = &topology.machines[machine].namespace;
        namespace.within(|| PacketSocket::open(DEVICE, false))?
    };
    let sockets = (0..topology.machines.len()).map(open).collect::<Result<Vec<_>>>()?;
    sockets[probe.from].send(&frame).context("send the marked frame")?;

    let mut seen = Vec::new();
    let mut end = Instant::now() + PATIENCE;
    let mut buffer = vec![0; 2048];
    while Instant::now() < end {
        for (machine, socket) in sockets.iter().enumerate() {
            while let Some((length, tag)) = socket.receive(&mut buffer)? {
                if is_marked(&buffer[..length.min(buffer.len())], number) {
                    seen.push(Seen { machine, vlan: tag.map(|tci| tci & 0xfff) });
                    if seen.len() == probe.seen.len() {
                        end = end.min(Instant::now() + AFTERWARDS);
                    }
                }
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    seen.sort_unstable();
    let mut wanted = probe.seen.clone();
    wanted.sort_unstable();
    if seen == wanted { Ok(list(&seen)) } else { bail!("seen by {}, not by {}", list(&seen), list(&wanted)) }
}

fn list(seen: &[Seen]) -> String {
    if seen.is_empty() {
        return "nobody".to_owned();
    }
    seen.iter().map(|s| s.text()).collect::<Vec<_>>().join(", ")
}

fn frame(topology: &Topology, probe: &Probe, number: u32) -> Vec<u8> {
    let mut frame = Vec::with_capacity(64);
    frame.extend(probe.to);
    frame.extend(topology.machines[probe.from].mac);
    if let Some(vlan) = probe.tag {
        frame.extend([0x81, 0x00]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ETHERTYPE);
    frame.extend(MARK);
    frame.extend(number.to_be_bytes());
    frame.resize(64, 0);
    frame
}

fn is_marked(frame: &[u8], number: u32) -> bool {
    // A tag that the kernel left inside moves the rest by four bytes: then it is counted as untagged, and
    // the comparison of what was seen fails.
    let payload = frame.get(12..).unwrap_or_default();
    payload
        .windows(MARK.len() + 4)
        .take(16)
        .any(|w| w[..MARK.len()] == *MARK && w[MARK.len()..] == number.to_be_bytes())
}
