//! What must pass and what must not, each tried with real packets.

use std::time::Duration;

use anyhow::{Result, bail};

use super::Topology;
use super::probe::{self, BROADCAST, Probe, Seen};
use crate::interrupt::{self, Interrupted};
use crate::step::Step;
use crate::traffic::{self, Amount};

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    Pass,
    BeBlocked,
}

impl Must {
    pub fn text(self) -> &'static str {
        match self {
            Must::Pass => "pass",
            Must::BeBlocked => "not pass",
        }
    }
}

/// How a check ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub what: String,
    pub must: Must,
    pub well: bool,
    pub detail: String,
}

impl Outcome {
    /// From what a check found, or why it is not as it must be.
    pub fn of(what: &str, must: Must, found: Result<String>) -> Outcome {
        let well = found.is_ok();
        let detail = found.unwrap_or_else(|error| format!("{error:#}"));
        Outcome { what: what.to_owned(), must, well, detail }
    }
}

/// Bytes of a TCP check.
const TCP_BYTES: u64 = 32 << 20;

/// Names of the five addresses, in the order of [`Topology::places`].
const NAMES: [&str; 5] = ["a (VLAN 10)", "b (VLAN 10)", "c (VLAN 20)", "d (trunk, 10)", "d (trunk, 20)"];

/// Does all checks.
pub fn all(topology: &Topology) -> Result<Vec<Outcome>> {
    let mut step = Step::begin("checking what must pass, and what must not");
    let mut outcomes = Vec::new();
    let mut check = |what: String, must: Must, found: Result<String>| -> Result<(), Interrupted> {
        step.note(&what);
        // A check that failed because of Ctrl-C says nothing about the switch.
        interrupt::check()?;
        outcomes.push(Outcome::of(&what, must, found));
        Ok(())
    };

    // Pairs that share a VLAN.
    for (from, to) in [(0, 1), (3, 0), (1, 3), (4, 2), (2, 4)] {
        let pair = format!("{} → {}", NAMES[from], NAMES[to]);
        check(format!("ping {pair}"), Must::Pass, answered(topology, from, to))?;
        check(format!("IPv6 ping {pair}"), Must::Pass, answered_v6(topology, from, to))?;
        check(format!("TCP {pair}, 32 MiB compared"), Must::Pass, carried(topology, from, to))?;
    }
    // Pairs that do not.
    for (from, to) in [(0, 2), (2, 1), (4, 0), (3, 2)] {
        let pair = format!("{} → {}", NAMES[from], NAMES[to]);
        check(format!("ping {pair}"), Must::BeBlocked, unanswered(topology, from, to))?;
    }
    check("TCP a (VLAN 10) → c (VLAN 20)".to_owned(), Must::BeBlocked, refused(topology, 0, 2))?;

    for (what, must, probe) in probes(topology) {
        check(what.to_owned(), must, probe::send(topology, &probe))?;
    }
    let bad = outcomes.iter().filter(|o| !o.well).count();
    let text = format!("{} checks, {bad} not as they must be", outcomes.len());
    if bad == 0 {
        step.done(&text)
    } else {
        step.warn(&text)
    }
    Ok(outcomes)
}

/// Single frames, and who has to see them with which tag.
fn probes(topology: &Topology) -> Vec<(&'static str, Must, Probe)> {
    let probe = |from, tag, to, seen: &[Seen]| Probe { from, tag, to, seen: seen.to_vec() };
    let (b, c, d) = (topology.machines[1].mac, topology.machines[2].mac, topology.machines[3].mac);
    vec![
        (
            "broadcast from a: b, and d tagged 10; not c",
            Must::Pass,
            probe(0, None, BROADCAST, &[Seen::plain(1), Seen::tagged(3, 10)]),
        ),
        (
            "broadcast from c: only d, tagged 20",
            Must::Pass,
            probe(2, None, BROADCAST, &[Seen::tagged(3, 20)]),
        ),
        (
            "broadcast from d tagged 10: a and b, untagged",
            Must::Pass,
            probe(3, Some(10), BROADCAST, &[Seen::plain(0), Seen::plain(1)]),
        ),
        (
            "broadcast from d tagged 20: only c, untagged",
            Must::Pass,
            probe(3, Some(20), BROADCAST, &[Seen::plain(2)]),
        ),
        ("frame from a to b's address: only b", Must::Pass, probe(0, None, b, &[Seen::plain(1)])),
        (
            "frame from a to d's address: only d, tagged 10",
            Must::Pass,
            probe(0, None, d, &[Seen::tagged(3, 10)]),
        ),
        (
            "frame from a to an unknown address: b and d",
            Must::Pass,
            probe(0, None, [2, 0x53, 0x4c, 0, 9, 9], &[Seen::plain(1), Seen::tagged(3, 10)]),
        ),
        (
            "frame from a to c's address (unknown in VLAN 10): b and d, not c",
            Must::BeBlocked,
            probe(0, None, c, &[Seen::plain(1), Seen::tagged(3, 10)]),
        ),
        ("frame tagged 20 into the access port of a", Must::BeBlocked, probe(0, Some(20), BROADCAST, &[])),
        ("frame tagged 10 into the access port of a", Must::BeBlocked, probe(0, Some(10), BROADCAST, &[])),
        ("frame tagged 30 into the trunk of 10 and 20", Must::BeBlocked, probe(3, Some(30), BROADCAST, &[])),
        ("untagged frame into the trunk of 10 and 20", Must::BeBlocked, probe(3, None, BROADCAST, &[])),
        (
            "frame from a to the bridge group address (IEEE 802.1Q, 8.6.3)",
            Must::BeBlocked,
            probe(0, None, [0x01, 0x80, 0xc2, 0, 0, 0], &[]),
        ),
    ]
}

fn answered(topology: &Topology, from: usize, to: usize) -> Result<String> {
    ping(topology, from, topology.places[to].v4())
}

fn answered_v6(topology: &Topology, from: usize, to: usize) -> Result<String> {
    ping(topology, from, topology.places[to].v6())
}

fn ping(topology: &Topology, from: usize, to: std::net::IpAddr) -> Result<String> {
    let pings = traffic::ping(topology.end(from), to, 5)?;
    if pings.received != pings.sent || pings.duplicates > 0 {
        bail!("{} of {} answered, {} twice", pings.received, pings.sent, pings.duplicates);
    }
    Ok(format!("{} of {}", pings.received, pings.sent))
}

fn carried(topology: &Topology, from: usize, to: usize) -> Result<String> {
    let transfer = traffic::tcp(topology.end(from), topology.end(to), Amount::Bytes(TCP_BYTES))?;
    Ok(format!("{:.2} Gb/s", transfer.rate() / 1e9))
}

fn unanswered(topology: &Topology, from: usize, to: usize) -> Result<String> {
    let pings = traffic::ping(topology.end(from), topology.places[to].v4(), 2)?;
    if pings.received > 0 {
        bail!("{} of {} answered", pings.received, pings.sent);
    }
    Ok(format!("0 of {}", pings.sent))
}

fn refused(topology: &Topology, from: usize, to: usize) -> Result<String> {
    // The server is not to wait longer than the client tries.
    match traffic::reachable(topology.end(from), topology.end(to), Duration::from_secs(1))? {
        true => bail!("it connected"),
        false => Ok("no connection".to_owned()),
    }
}
