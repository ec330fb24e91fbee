//! Packets of flows that the datapath does not know: each is a station that speaks to another for the first time.
//!
//! The stations have been learnt before, so each packet costs one miss, one translation and one megaflow, and
//! leaves through one port. The sender keeps so many packets under way and no more: the switch is always busy, and
//! loses nothing.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::burst;
use super::rig::{FAR, NEAR, Rig, Run, stay_on, udp_frame};
use super::work::Workers;
use crate::interrupt;
use crate::packet::PacketSocket;

/// Stations on each side; a flow for each pair.
const STATIONS: u32 = 512;
/// Frames that are learnt from at once.
const LESSON: u32 = 32;
/// Frames between two looks at what has arrived.
const BURST: u32 = 16;
/// How long a packet may take before it counts as lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the sender sleeps while enough packets are under way.
const NAP: Duration = Duration::from_micros(20);

/// The MAC address of a station: 0 is a near side's, 1 a far side's.
fn station(side: u8, number: u32) -> [u8; 6] {
    let [_, a, b, c] = number.to_be_bytes();
    [2, 0x10 + side, 0, a, b, c]
}

/// Sends packets of new flows through a rig.
pub struct Newcomers {
    next: u32,
}

impl Newcomers {
    /// Has all stations say where they are.
    pub fn introduce(rig: &Rig) -> Result<Newcomers> {
        for (namespace, device, side) in [(&rig.near, NEAR, 0), (&rig.far, FAR, 1)] {
            namespace.within(|| -> Result<()> {
                let socket = PacketSocket::open(device, false)?;
                for number in 0..STATIONS {
                    let frame = udp_frame(station(1 - side, 0), station(side, number), 64);
                    socket.send(&frame).context("introduce a station")?;
                    if number % LESSON == LESSON - 1 {
                        interrupt::sleep(Duration::from_millis(10))?;
                    }
                }
                Ok(())
            })??;
            interrupt::sleep(Duration::from_millis(300))?;
        }
        Ok(Newcomers { next: 0 })
    }

    /// Sends one packet of each of `count` new flows, with at most `window` under way. The time runs until the last
    /// has arrived; what counts is what did.
    pub fn run(&mut self, rig: &Rig, count: u32, window: u32) -> Result<Run> {
        let first = self.next;
        if first + count > STATIONS * STATIONS {
            bail!("{} flows are all that the stations can have", STATIONS * STATIONS);
        }
        self.next += count;
        let workers = Workers::new(&rig.forwarder.processes());
        rig.near.within(|| send(rig, &workers, first..first + count, window))?
    }
}

fn send(rig: &Rig, workers: &Workers, flows: std::ops::Range<u32>, window: u32) -> Result<Run> {
    stay_on(0)?;
    let socket = PacketSocket::open(NEAR, false)?;
    let mut frames = vec![udp_frame(station(1, 0), station(0, 0), 64); BURST.min(window) as usize];
    let base = rig.programs.counted()?;
    let (mark, begun) = (workers.mark()?, Instant::now());
    let (mut sent, mut lost, mut arrived) = (0_u64, 0_u64, 0_u64);
    let mut moved = Instant::now();
    let total = flows.len() as u64;
    while arrived + lost < total {
        let room = u64::from(window).saturating_sub(sent.saturating_sub(arrived + lost));
        // Whole bursts only: the switch, too, works in batches.
        let burst = if room < frames.len() as u64 { 0 } else { frames.len().min((total - sent) as usize) };
        let numbers = flows.start + sent as u32..;
        for (frame, flow) in frames[..burst].iter_mut().zip(numbers) {
            frame[..6].copy_from_slice(&station(1, flow / STATIONS));
            frame[6..12].copy_from_slice(&station(0, flow % STATIONS));
        }
        if burst > 0 {
            match burst::send(socket.as_fd(), &frames[..burst]) {
                Ok(count) => sent += count as u64,
                Err(error) if [Some(libc::ENOBUFS), Some(libc::EAGAIN)].contains(&error.raw_os_error()) => {}
                Err(error) => return Err(error).context("send"),
            }
        } else {
            std::thread::sleep(NAP);
        }
        let now = rig.programs.counted()? - base;
        if now > arrived {
            arrived = now;
            // What counted as lost may have been late.
            lost = lost.min(sent.saturating_sub(arrived));
            moved = Instant::now();
        } else if moved.elapsed() > PATIENCE {
            interrupt::check()?;
            lost = sent.saturating_sub(arrived);
            moved = Instant::now();
        }
    }
    Ok(Run { sent, received: arrived, wall: begun.elapsed(), cpu: workers.since(mark)? })
}
