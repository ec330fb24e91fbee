//! The topology that every forwarder is measured on: a sender, a switch and a receiver, each in a network
//! namespace of its own.
//!
//! ```text
//!  near0 ══ in0  forwarder  out0 ══ far0
//! ```
//!
//! Frames are sent by a program that the kernel runs on frames of its own, and are counted and dropped where they
//! arrive. All of that happens on one CPU, the first; a forwarder in userspace runs on the others.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::forwarder::{Forwarder, Kind};
use super::programs::Programs;
use super::work::Workers;
use crate::interrupt;
use crate::netns::{Namespace, cable};
use crate::packet::PacketSocket;
use crate::process;
use crate::workspace::Workspace;

/// First part of the namespaces' names.
pub const PREFIX: &str = "slb";

pub const NEAR: &str = "near0";
pub const IN: &str = "in0";
pub const OUT: &str = "out0";
pub const FAR: &str = "far0";
pub const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Bytes of a small frame, without the frame check sequence.
const SMALL: usize = 64;

/// What the benchmark works with.
#[derive(Debug)]
pub struct Bench {
    pub workspace: Workspace,
    pub quick: bool,
}

impl Bench {
    /// Rounds of a case that compares packet rates.
    pub fn rounds(&self) -> usize {
        if self.quick { 3 } else { 7 }
    }

    /// How long each competitor sends in a round.
    pub fn round(&self) -> Duration {
        Duration::from_millis(if self.quick { 400 } else { 1000 })
    }
}

/// Where frames end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// An XDP program: flatters forwarders that pass XDP frames on.
    Xdp,
    /// The receiver's stack, at its TC hook: flatters those that pass on what the stack has made of them.
    Stack,
    /// Real programs receive.
    Open,
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Names the namespaces: a few letters, unique among the rigs of a case.
    pub role: &'static str,
    pub kind: Kind,
    pub sink: Sink,
    /// Flows that the frames are of; 0 and 1 are one.
    pub flows: u32,
}

/// One run of the generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    pub sent: u64,
    pub received: u64,
    pub wall: Duration,
    pub cpu: Duration,
}

impl Run {
    /// Packets that arrived, per second.
    pub fn rate(&self) -> f64 {
        self.received as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// The same per second of CPU time.
    pub fn per_cpu(&self) -> f64 {
        self.received as f64 / self.cpu.as_secs_f64().max(1e-9)
    }
}

/// A forwarder between a sender and a receiver.
pub struct Rig {
    // Dropped in this order: the switch goes before its interfaces.
    pub forwarder: Forwarder,
    pub programs: Programs,
    pub near: Namespace,
    pub switch: Namespace,
    pub far: Namespace,
    frame: Vec<u8>,
    workers: Workers,
    /// What a call takes that sends next to nothing.
    idle: Duration,
    /// Frames per second that the generator gets rid of.
    pace: f64,
}

impl Rig {
    /// Builds it, and makes sure that it forwards.
    pub fn build(bench: &Bench, spec: &Spec) -> Result<Rig> {
        let role = |part: &str| format!("{}{part}", spec.role);
        let near = quiet(Namespace::create(PREFIX, &role("n"))?)?;
        let switch = quiet(Namespace::create(PREFIX, &role("s"))?)?;
        let far = quiet(Namespace::create(PREFIX, &role("f"))?)?;
        cable((&switch, IN, "02:00:00:00:00:11"), (&near, NEAR, &mac_text(NEAR_MAC)))?;
        cable((&switch, OUT, "02:00:00:00:00:12"), (&far, FAR, &mac_text(FAR_MAC)))?;

        let mut programs = Programs::load(&bench.workspace.bench_object(), &switch, OUT)?;
        match spec.sink {
            Sink::Xdp => programs.attach_xdp(&far, FAR, "xdp_sink")?,
            Sink::Stack => {
                poll(&far, FAR)?;
                programs.attach_tc(&far, FAR, "tc_sink")?;
            }
            Sink::Open => {}
        }
        if spec.sink != Sink::Open {
            programs.prepare_generator(&near, NEAR, spec.flows)?;
            // Only a device whose peer polls takes frames of XDP; an XDP program there has it poll, too.
            poll(&switch, IN)?;
        }
        let forwarder = Forwarder::start(bench, spec, &switch, &mut programs)?;
        let workers = Workers::new(&forwarder.processes());
        let frame = udp_frame(FAR_MAC, NEAR_MAC, SMALL);
        let mut rig =
            Rig { forwarder, programs, near, switch, far, frame, workers, idle: Duration::ZERO, pace: 0.0 };
        rig.introduce()?;
        if spec.sink != Sink::Open {
            rig.calibrate().with_context(|| format!("{} in {}", spec.role, rig.switch.name()))?;
        }
        Ok(rig)
    }

    /// Has both stations send something, so that a learning switch knows where they are.
    fn introduce(&self) -> Result<()> {
        let stations = [(&self.far, FAR, FAR_MAC, NEAR_MAC), (&self.near, NEAR, NEAR_MAC, FAR_MAC)];
        for (namespace, device, from, to) in stations.into_iter().chain(stations) {
            namespace.within(|| -> Result<()> {
                Ok(PacketSocket::open(device, false)?.send(&udp_frame(to, from, SMALL))?)
            })??;
            interrupt::sleep(Duration::from_millis(60))?;
        }
        Ok(())
    }

    fn calibrate(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        // The first frames of a flow may be lost, while the switch is busy with what it does only once.
        while self.send(1 << 16)?.received == 0 {
            interrupt::check()?;
            if Instant::now() > deadline {
                bail!("not one of the frames that were sent arrived\n{}", self.forwarder.said());
            }
        }
        self.idle = (0..3)
            .map(|_| Ok(self.send(1)?.wall))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .min()
            .unwrap_or_default();
        self.pace = self.send(1 << 18).map(|run| run.sent as f64 / run.wall.as_secs_f64().max(1e-6))?;
        Ok(())
    }

    /// Sends for about so long. A warm-up comes first, so that flows that have expired are there again.
    pub fn run(&mut self, time: Duration) -> Result<Run> {
        interrupt::check()?;
        self.send(1 << 14)?;
        let count = (self.pace * time.as_secs_f64()).clamp(1e4, f64::from(1 << 26)) as u32;
        let run = self.send(count)?;
        self.pace = run.sent as f64 / run.wall.as_secs_f64().max(1e-6);
        Ok(run)
    }

    fn send(&mut self, count: u32) -> Result<Run> {
        let Rig { programs, frame, workers, idle, .. } = self;
        let idle = *idle;
        self.near.within(|| -> Result<Run> {
            stay_on(0)?;
            let before = programs.counted()?;
            let mark = workers.mark()?;
            let begun = Instant::now();
            programs.generate(frame, count)?;
            let wall = begun.elapsed().saturating_sub(idle);
            // What is still on its way arrives, and takes its time.
            std::thread::sleep(Duration::from_millis(5));
            let cpu = workers.since(mark)?;
            Ok(Run {
                sent: u64::from(count),
                received: programs.counted()?.saturating_sub(before),
                wall,
                cpu,
            })
        })?
    }
}

/// Keeps the calling thread on one CPU.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("stay on CPU {cpu}"))
}

/// Nothing but the benchmark's own frames is to be sent.
pub fn quiet(namespace: Namespace) -> Result<Namespace> {
    for which in ["all", "default"] {
        // A kernel without IPv6 sends none of it.
        let _ = namespace.sysctl(&format!("ipv6/conf/{which}/disable_ipv6"), "1");
    }
    Ok(namespace)
}

/// Has a veth device receive by polling (NAPI).
fn poll(namespace: &Namespace, device: &str) -> Result<()> {
    let mut command = Command::new(process::find_program("ethtool").context("there is no ethtool")?);
    command.args(["-K", device, "gro", "on"]);
    namespace.output(&mut command).map(|_| ())
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// An IPv4/UDP frame of `length` bytes, without a UDP checksum.
pub fn udp_frame(to: [u8; 6], from: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(length);
    frame.extend(to);
    frame.extend(from);
    frame.extend([0x08, 0x00]);
    let ip_length = (length - 14) as u16;
    // The identification complements the low half of the source address, as the generator keeps it.
    let mut ip = [0_u8; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&ip_length.to_be_bytes());
    ip[4..6].copy_from_slice(&0xffff_u16.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&[10, 1, 0, 0]);
    ip[16..20].copy_from_slice(&[10, 2, 0, 1]);
    let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    frame.extend(ip);
    frame.extend(1024_u16.to_be_bytes());
    frame.extend(9_u16.to_be_bytes());
    frame.extend((ip_length - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(length, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_sound() {
        let frame = udp_frame(FAR_MAC, NEAR_MAC, 64);
        assert_eq!(frame.len(), 64);
        let sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header's checksum");
        assert_eq!(frame[16..18], 50_u16.to_be_bytes(), "total length");
        assert_eq!(frame[38..40], 30_u16.to_be_bytes(), "UDP length");
    }
}
