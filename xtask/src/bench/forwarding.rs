//! Small packets of known flows: how many a second.

use anyhow::Result;

use super::figure::{Compared, Figure, Unit, Wanted, ratio};
use super::forwarder::{Forwarder, Hook, Kind};
use super::rig::{Bench, Rig, Run, Sink, Spec};
use super::statistics::median;
use crate::step::Step;

/// A competitor, and the runs that it had.
struct Entry {
    name: &'static str,
    rig: Rig,
    runs: Vec<Run>,
}

impl Entry {
    fn rates(&self) -> Vec<f64> {
        self.runs.iter().map(Run::rate).collect()
    }

    fn per_cpu(&self) -> Vec<f64> {
        self.runs.iter().map(Run::per_cpu).collect()
    }

    fn figure(&self, case: &'static str, name: String) -> Figure {
        Figure::new(case, name, median(&self.rates()), Unit::PacketsPerSecond)
            .per_cpu(median(&self.per_cpu()))
    }

    fn against(&self, other: &Entry) -> Compared {
        Compared {
            to: other.name.to_owned(),
            ratio: ratio(&self.rates(), &other.rates()),
            per_cpu: Some(ratio(&self.per_cpu(), &other.per_cpu())),
            bound: None,
        }
    }
}

/// What a competitor is called, and how it is built.
struct Competitor {
    name: &'static str,
    role: &'static str,
    kind: Kind,
}

fn sluice(hook: Hook, flags: &[&str]) -> Kind {
    Kind::Sluice { hook, flags: flags.iter().map(|f| (*f).to_owned()).collect() }
}

/// Has the competitors take turns.
fn compete(
    bench: &Bench,
    title: &str,
    competitors: Vec<Competitor>,
    sink: Sink,
    flows: u32,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for Competitor { name, role, kind } in competitors {
        let rig = Rig::build(bench, &Spec { role, kind, sink, flows })?;
        pause(&rig)?;
        entries.push(Entry { name, rig, runs: Vec::new() });
    }
    let mut step = Step::begin(title);
    for round in 0..bench.rounds() {
        for entry in &mut entries {
            step.note(&format!("round {} of {}: {}", round + 1, bench.rounds(), entry.name));
            if let Forwarder::OpenVswitch(ovs) = &entry.rig.forwarder {
                ovs.resume()?;
            }
            entry.runs.push(entry.rig.run(bench.round())?);
            pause(&entry.rig)?;
        }
    }
    let shown: Vec<String> = entries
        .iter()
        .map(|e| format!("{} {}", e.name, Unit::PacketsPerSecond.show(median(&e.rates()))))
        .collect();
    step.done(&shown.join(", "));
    Ok(entries)
}

/// A poll thread that waits for its turn would take CPU time from the others.
fn pause(rig: &Rig) -> Result<()> {
    match &rig.forwarder {
        Forwarder::OpenVswitch(ovs) => ovs.pause(),
        _ => Ok(()),
    }
}

const BARE_XDP: Competitor = Competitor { name: "bare XDP redirect", role: "bx", kind: Kind::BareXdp };
const BARE_TC: Competitor = Competitor { name: "bare TC redirect", role: "bt", kind: Kind::BareTc };
const BRIDGE: Competitor = Competitor { name: "Linux bridge", role: "br", kind: Kind::Bridge };
const OVS: Competitor = Competitor { name: "OVS userspace, AF_XDP", role: "ov", kind: Kind::OpenVswitch };

/// One flow over XDP.
pub fn xdp(bench: &Bench) -> Result<Vec<Figure>> {
    const CASE: &str = "xdp";
    let ours = || Competitor { name: "Sluice", role: "sx", kind: sluice(Hook::Xdp, &[]) };
    let mut figures = Vec::new();
    for (sink, end) in [(Sink::Xdp, "XDP drop"), (Sink::Stack, "in the stack")] {
        let title = format!("XDP, 1 flow, counted by {end}");
        let all = compete(bench, &title, vec![BARE_XDP, BRIDGE, ours()], sink, 1)?;
        let [bare, bridge, ours] = &all[..] else { continue };
        let named = |what: &str| format!("{what}, 1 flow, {end}");
        figures.push(bare.figure(CASE, named("bare XDP redirect")));
        figures.push(bridge.figure(CASE, named("Linux bridge")));
        let hit = ours.figure(CASE, named("XDP hit"));
        let (to_bare, to_bridge) =
            (hit.clone().compared(ours.against(bare)), hit.compared(ours.against(bridge)));
        if sink == Sink::Xdp {
            figures.push(to_bare.wanted(Wanted::RatioAtLeast(0.88)));
            figures.push(to_bridge.wanted(Wanted::RatioAtLeast(5.0)));
        } else {
            figures.extend([to_bare, to_bridge]);
        }
    }
    Ok(figures)
}

/// Many flows under one megaflow, over XDP.
pub fn many_flows(bench: &Bench) -> Result<Vec<Figure>> {
    const CASE: &str = "xdp-flows";
    let mut figures = Vec::new();
    for (flows, shown, flags, least) in
        [(10_000, "10 000", &[][..], 0.75), (1_000_000, "1 000 000", &["--max-flows", "1100000"][..], 0.60)]
    {
        let ours = Competitor { name: "Sluice", role: "sx", kind: sluice(Hook::Xdp, flags) };
        let title = format!("XDP, {shown} flows under one megaflow");
        let all = compete(bench, &title, vec![BARE_XDP, ours], Sink::Xdp, flows)?;
        let [bare, ours] = &all[..] else { continue };
        figures.push(
            ours.figure(CASE, format!("XDP hit, {shown} flows"))
                .compared(ours.against(bare))
                .wanted(Wanted::RatioAtLeast(least)),
        );
    }
    Ok(figures)
}

/// One flow at TC.
pub fn tc(bench: &Bench) -> Result<Vec<Figure>> {
    const CASE: &str = "tc";
    let ours = || Competitor { name: "Sluice", role: "st", kind: sluice(Hook::Tc, &[]) };
    let mut figures = Vec::new();
    for (sink, end) in [(Sink::Stack, "in the stack"), (Sink::Xdp, "XDP drop")] {
        let title = format!("TC, 1 flow, counted by {end}");
        let all = compete(bench, &title, vec![BARE_TC, BRIDGE, ours()], sink, 1)?;
        let [bare, bridge, ours] = &all[..] else { continue };
        let named = |what: &str| format!("{what}, 1 flow, {end}");
        figures.push(bare.figure(CASE, named("bare TC redirect")));
        figures.push(bridge.figure(CASE, named("Linux bridge")));
        let hit = ours.figure(CASE, named("TC hit"));
        let (to_bare, to_bridge) =
            (hit.clone().compared(ours.against(bare)), hit.compared(ours.against(bridge)));
        if sink == Sink::Stack {
            figures.push(to_bare.wanted(Wanted::RatioAtLeast(0.90)));
            figures.push(to_bridge.wanted(Wanted::RatioAtLeast(1.5)));
        } else {
            figures.extend([to_bare, to_bridge]);
        }
    }
    Ok(figures)
}

/// Against Open vSwitch's userspace datapath, whose poll thread has a CPU of its own.
pub fn open_vswitch(bench: &Bench) -> Result<Vec<Figure>> {
    const CASE: &str = "ovs";
    let mut figures = Vec::new();
    for (flows, shown) in [(1, "1 flow"), (100_000, "100 000 flows")] {
        let ours = Competitor { name: "Sluice", role: "sx", kind: sluice(Hook::Xdp, &[]) };
        let title = format!("XDP against Open vSwitch, {shown}");
        let all = compete(bench, &title, vec![OVS, ours], Sink::Xdp, flows)?;
        let [ovs, ours] = &all[..] else { continue };
        figures.push(ovs.figure(CASE, format!("OVS userspace over AF_XDP, {shown}")));
        figures.push(ours.figure(CASE, format!("XDP hit, {shown}")).compared(ours.against(ovs)));
    }
    Ok(figures)
}

/// The references alone, without our switch: what this machine and its kernel are good for.
pub fn references(bench: &Bench) -> Result<Vec<Figure>> {
    const CASE: &str = "references";
    let mut figures = Vec::new();
    for (sink, end) in [(Sink::Xdp, "XDP drop"), (Sink::Stack, "in the stack")] {
        let all = compete(
            bench,
            &format!("references, 1 flow, counted by {end}"),
            vec![BARE_XDP, BARE_TC, BRIDGE, OVS],
            sink,
            1,
        )?;
        figures.extend(all.iter().map(|e| e.figure(CASE, format!("{}, {end}", e.name))));
    }
    Ok(figures)
}
