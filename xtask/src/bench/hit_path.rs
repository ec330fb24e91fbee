//! What a hit costs, in ns: the example `hit_path` of switch-datapath, run between two interfaces of a namespace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::figure::{Compared, Figure, Unit, Wanted};
use super::rig::{Bench, FAR, IN, NEAR, OUT, PREFIX, quiet};
use crate::build;
use crate::netns::{Namespace, cable};
use crate::setup::Toolchain;
use crate::step::{self, Step};
use crate::workspace::Workspace;

const CASE: &str = "hit-path";
const ROUNDS: usize = 25;
const QUICK_ROUNDS: usize = 7;

fn program(workspace: &Workspace) -> PathBuf {
    workspace.target().join("release/examples/hit_path")
}

/// Builds the example, with the eBPF programs that have just been built.
pub fn build(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let mut command = build::cargo(workspace, toolchain)?;
    command.args(["build", "--release", "--locked", "--package", "switch-datapath", "--example", "hit_path"]);
    step::command(workspace, "building what times the hit path", "build-hit-path", &mut command)
}

/// Runs the case.
pub fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let switch = quiet(Namespace::create(PREFIX, "hs")?)?;
    let ends = quiet(Namespace::create(PREFIX, "he")?)?;
    cable((&switch, IN, "02:00:00:00:00:11"), (&ends, NEAR, "02:00:00:00:00:01"))?;
    cable((&switch, OUT, "02:00:00:00:00:12"), (&ends, FAR, "02:00:00:00:00:02"))?;
    let mut step = Step::begin("timing hits");
    step.note("running the programs");
    let rounds = if bench.quick { QUICK_ROUNDS } else { ROUNDS };
    let mut command = Command::new(program(&bench.workspace));
    command.args([IN, OUT]).arg(bench.workspace.bench_object()).arg(rounds.to_string());
    let text = switch.output(&mut command)?;
    let figures =
        text.lines().map(|l| figure(l).with_context(|| format!("hit_path printed {l:?}"))).collect();
    step.done("");
    figures
}

/// Reads a line of name, ns and ns of the bare redirect.
fn figure(line: &str) -> Option<Figure> {
    let mut words = line.split('\t');
    let name = words.next()?;
    let ns: f64 = words.next()?.parse().ok()?;
    let bare: f64 = words.next()?.parse().ok()?;
    let figure =
        Figure::new(CASE, format!("{name}, above bare"), ns - bare, Unit::Nanoseconds).compared(Compared {
            to: format!("bare redirect, {bare} ns"),
            ratio: ns / bare.max(1.0),
            per_cpu: None,
            bound: None,
        });
    Some(match name {
        n if !n.starts_with("exact match") => figure,
        n if n.contains("IPv4") => figure.wanted(Wanted::AtMost(25.0)),
        _ => figure.wanted(Wanted::AtMost(45.0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_figures() {
        let figure = figure("exact match, XDP, IPv4/UDP\t49\t29").expect("a figure");
        assert_eq!((figure.value, figure.wanted), (20.0, Some(Wanted::AtMost(25.0))));
        let figure = super::figure("megaflow, XDP, mask 8 of 8\t187\t32").expect("a figure");
        assert_eq!(figure.wanted, None);
        assert!(super::figure("nonsense").is_none());
    }
}
