//! Memory that a datapath flow takes: in the kernel's maps, and in the daemon.
//!
//! The maps are made for as many flows as there may be: what one takes is the difference between two sizes, divided.
//! The daemon's share is what its own memory grows by when flows come.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::MapData;

use super::figure::{Figure, Unit, Wanted};
use super::forwarder::{Forwarder, Hook, Kind};
use super::newcomers::Newcomers;
use super::rig::{Bench, Rig, Sink, Spec};
use crate::daemon::Daemon;
use crate::step::Step;

const CASE: &str = "memory";
/// Sizes of the flow table that are compared.
const SMALL: u64 = 65_536;
const LARGE: u64 = 262_144;
/// Flows that are installed to see what the daemon takes.
const FLOWS: u32 = 100_000;
const QUICK_FLOWS: u32 = 30_000;
const WINDOW: u32 = 512;

/// Where instances pin their maps.
const PINS: &str = "/sys/fs/bpf/sluice";

fn build(bench: &Bench, role: &'static str, max_flows: u64) -> Result<Rig> {
    let flags = ["--max-flows", &max_flows.to_string(), "--upcall-rate", "0", "--max-idle", "600000"]
        .map(str::to_owned)
        .to_vec();
    let kind = Kind::Sluice { hook: Hook::Auto, flags };
    Rig::build(bench, &Spec { role, kind, sink: Sink::Xdp, flows: 1 })
}

/// Runs the case.
pub fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let small = maps(daemon(&build(bench, "ms", SMALL)?)?)?;
    let rig = build(bench, "ml", LARGE)?;
    let daemon = daemon(&rig)?;
    let large = maps(daemon)?;
    let in_maps = large.saturating_sub(small) as f64 / (LARGE - SMALL) as f64;

    let mut step = Step::begin("memory per flow");
    let mut newcomers = Newcomers::introduce(&rig)?;
    let before = (own_memory(daemon)?, flows(daemon)?);
    step.note("installing flows");
    newcomers.run(&rig, if bench.quick { QUICK_FLOWS } else { FLOWS }, WINDOW)?;
    let after = (own_memory(daemon)?, flows(daemon)?);
    let installed = after.1.saturating_sub(before.1);
    if installed == 0 {
        bail!("no flows were installed");
    }
    let in_daemon = after.0.saturating_sub(before.0) as f64 / installed as f64;
    let cpus = possible_cpus()?;
    step.done(&format!("{installed} flows, {} MiB of maps for {LARGE}", large >> 20));

    let figure = |name: &str, value| Figure::new(CASE, name, value, Unit::Bytes);
    Ok(vec![
        figure("memory of a flow in the maps", in_maps),
        figure("memory of a flow in the daemon", in_daemon),
        figure(&format!("memory of a flow, both, {cpus} possible CPUs"), in_maps + in_daemon)
            .wanted(Wanted::AtMost(f64::from(2048 + 32 * cpus))),
    ])
}

fn daemon(rig: &Rig) -> Result<&Daemon> {
    match &rig.forwarder {
        Forwarder::Sluice(daemon) => Ok(daemon),
        _ => bail!("not our switch"),
    }
}

/// Bytes of all maps of a daemon, as the kernel accounts them.
fn maps(daemon: &Daemon) -> Result<u64> {
    let show = daemon.ask_json("show", &[])?;
    let instance = show["instance"].as_str().context("the daemon does not name its instance")?;
    let folder = Path::new(PINS).join(instance).join("maps");
    let mut total = 0;
    for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        let map = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
        let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(&info).with_context(|| format!("read {info}"))?;
        total += number_after(&text, "memlock:").with_context(|| format!("no size of {}", path.display()))?;
    }
    Ok(total)
}

/// Bytes of memory that the daemon shares with nobody.
fn own_memory(daemon: &Daemon) -> Result<u64> {
    let pid = daemon.pid().context("the daemon has ended")?;
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read the daemon's status")?;
    Ok(number_after(&text, "RssAnon:").context("the kernel does not tell RssAnon")? * 1024)
}

fn flows(daemon: &Daemon) -> Result<u64> {
    daemon.ask_json("show", &[])?["flows"].as_u64().context("the daemon does not tell its flows")
}

/// The number in the line that begins with `name`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// CPUs that this machine can have, by the last number of a list such as `0-3`.
fn possible_cpus() -> Result<u32> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible").context("read the possible CPUs")?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|n| n.parse::<u32>().ok());
    Ok(last.context("the possible CPUs make no sense")? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_lines() {
        assert_eq!(number_after("a: 1\nRssAnon:\t  12 kB\n", "RssAnon:"), Some(12));
        assert_eq!(number_after("a: 1\n", "b:"), None);
    }
}
