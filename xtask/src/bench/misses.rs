//! New flows per second through the whole miss path, and how long the first packet of a flow takes.

use anyhow::Result;

use super::figure::{Compared, Figure, Unit, Wanted, ratio};
use super::forwarder::{Forwarder, Hook, Kind};
use super::newcomers::Newcomers;
use super::rig::{Bench, Rig, Run, Sink, Spec};
use super::statistics::median;
use crate::step::Step;

const CASE: &str = "misses";

/// Packets under way: less than any of the queues on the way holds.
const WINDOW: u32 = 512;

/// Rounds, and flows of each: the stations have to suffice, and Open vSwitch's table, which takes 65 536.
const ROUNDS: usize = 5;
const FLOWS: u32 = 40_000;
const QUICK_FLOWS: u32 = 15_000;
/// Flows whose first packet is waited for, one after the other.
const ALONE: u32 = 500;

/// Sluice's flags: Open vSwitch has no limit for the misses of a port, and room for all flows of the rounds.
const FLAGS: [&str; 6] = ["--upcall-rate", "0", "--max-flows", "300000", "--max-idle", "60000"];

struct Entry {
    name: &'static str,
    rig: Rig,
    newcomers: Newcomers,
    runs: Vec<Run>,
    /// µs.
    latency: Vec<f64>,
}

impl Entry {
    fn build(bench: &Bench, name: &'static str, role: &'static str, kind: Kind) -> Result<Entry> {
        let rig = Rig::build(bench, &Spec { role, kind, sink: Sink::Xdp, flows: 1 })?;
        let newcomers = Newcomers::introduce(&rig)?;
        Ok(Entry { name, rig, newcomers, runs: Vec::new(), latency: Vec::new() })
    }

    fn round(&mut self, flows: u32) -> Result<()> {
        if let Forwarder::OpenVswitch(ovs) = &self.rig.forwarder {
            ovs.resume()?;
            ovs.forget_flows()?;
        }
        self.runs.push(self.newcomers.run(&self.rig, flows, WINDOW)?);
        let alone = self.newcomers.run(&self.rig, ALONE, 1)?;
        self.latency.push(alone.wall.as_secs_f64() * 1e6 / alone.received.max(1) as f64);
        if let Forwarder::OpenVswitch(ovs) = &self.rig.forwarder {
            ovs.pause()?;
        }
        Ok(())
    }

    fn rates(&self) -> Vec<f64> {
        self.runs.iter().map(Run::rate).collect()
    }

    fn per_cpu(&self) -> Vec<f64> {
        self.runs.iter().map(Run::per_cpu).collect()
    }

    fn lost(&self) -> u64 {
        self.runs.iter().map(|r| r.sent.saturating_sub(r.received)).sum()
    }

    fn figures(&self) -> [Figure; 2] {
        let rate = Figure::new(
            CASE,
            format!("new flows, {}", self.name),
            median(&self.rates()),
            Unit::FlowsPerSecond,
        );
        let latency = Figure::new(
            CASE,
            format!("first packet of a flow, {}", self.name),
            median(&self.latency),
            Unit::Microseconds,
        );
        [rate.per_cpu(median(&self.per_cpu())), latency]
    }
}

/// Runs the case. A bare redirect that knows no flows takes part.
pub fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let flags = FLAGS.iter().map(|f| (*f).to_owned()).collect();
    let mut ovs = Entry::build(bench, "OVS userspace, AF_XDP", "ov", Kind::OpenVswitch)?;
    if let Forwarder::OpenVswitch(process) = &ovs.rig.forwarder {
        process.pause()?;
    }
    let mut ours = Entry::build(bench, "Sluice", "sm", Kind::Sluice { hook: Hook::Auto, flags })?;
    let mut alone = Entry::build(bench, "no switch", "bt", Kind::BareTc)?;
    let mut step = Step::begin("new flows per second");
    let flows = if bench.quick { QUICK_FLOWS } else { FLOWS };
    for round in 0..ROUNDS {
        for entry in [&mut ovs, &mut ours, &mut alone] {
            step.note(&format!("round {} of {ROUNDS}: {}", round + 1, entry.name));
            entry.round(flows)?;
        }
    }
    let shown: Vec<String> = [&ovs, &ours, &alone]
        .iter()
        .map(|e| {
            let lost = if e.lost() > 0 { format!(" ({} lost)", e.lost()) } else { String::new() };
            format!("{} {}{lost}", e.name, Unit::FlowsPerSecond.show(median(&e.rates())))
        })
        .collect();
    step.done(&shown.join(", "));

    let [rate, latency] = ours.figures();
    let compared = Compared {
        to: ovs.name.to_owned(),
        ratio: ratio(&ours.rates(), &ovs.rates()),
        per_cpu: Some(ratio(&ours.per_cpu(), &ovs.per_cpu())),
        bound: None,
    };
    let mut figures = ovs.figures().to_vec();
    figures.push(rate.compared(compared).wanted(Wanted::ClockRatioAtLeast(2.0)));
    figures.push(latency);
    // What the sender is good for, so that one sees that it is not what was measured.
    figures.extend(alone.figures());
    Ok(figures)
}
