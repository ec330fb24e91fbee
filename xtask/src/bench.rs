//! `cargo xtask bench`: the figures that the switch is held to, measured side by side with its peers.
//!
//! Every figure is a ratio within one run: the competitors of a case (bare programs, the Linux bridge, Open
//! vSwitch, Sluice) take turns on the same topology, and what counts is the median of their rounds. Rates are
//! given per second and per second of CPU time, since the former swing on a shared machine.
//!
//! All traffic stays inside network namespaces that the case makes, and that are gone when it has ended.

mod burst;
mod chart;
mod figure;
mod forwarder;
mod forwarding;
mod hit_path;
mod memory;
mod misses;
mod newcomers;
mod ovs;
mod programs;
mod report;
mod rig;
mod statistics;
mod tcp;
mod work;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::interrupt::Interrupted;
use crate::setup::{self, Purpose};
use crate::terminal::{Paint, Stream, Table};
use crate::workspace::Workspace;
use crate::{build, netns};
use figure::Figure;
use report::{Failure, Report};
use rig::Bench;

pub use ovs::fetch as fetch_peers;

/// `cargo xtask bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Cases to run, as --list names them [default: all but `references`]
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// List the cases and end
    #[arg(long)]
    list: bool,
    /// Fewer and shorter rounds: a first impression
    #[arg(long)]
    quick: bool,
    /// End with status 1 if a figure misses what is wanted of it
    #[arg(long)]
    strict: bool,
    /// Install nothing: say what is missing
    #[arg(long)]
    no_install: bool,
    /// Measure what has been built already
    #[arg(long)]
    no_build: bool,
}

/// One thing to measure.
struct Case {
    name: &'static str,
    what: &'static str,
    /// Whether Open vSwitch has to be fetched for it.
    needs_ovs: bool,
    /// Whether it runs when no case is named.
    by_default: bool,
    run: fn(&Bench) -> Result<Vec<Figure>>,
}

const CASES: &[Case] = &[
    Case {
        name: "xdp",
        what: "64-byte packets of one flow over XDP, against a bare redirect and the Linux bridge",
        needs_ovs: false,
        by_default: true,
        run: forwarding::xdp,
    },
    Case {
        name: "xdp-flows",
        what: "10 000 and 1 000 000 flows under one megaflow over XDP, against a bare redirect",
        needs_ovs: false,
        by_default: true,
        run: forwarding::many_flows,
    },
    Case {
        name: "tc",
        what: "64-byte packets of one flow at TC, against a bare redirect and the Linux bridge",
        needs_ovs: false,
        by_default: true,
        run: forwarding::tc,
    },
    Case {
        name: "tcp",
        what: "one TCP stream between two veth ports, against the Linux bridge",
        needs_ovs: false,
        by_default: true,
        run: tcp::run,
    },
    Case {
        name: "hit-path",
        what: "ns of a hit above a bare redirect, by cache level, hook and headers",
        needs_ovs: false,
        by_default: true,
        run: hit_path::run,
    },
    Case {
        name: "misses",
        what: "new flows per second through the whole miss path, against Open vSwitch over AF_XDP",
        needs_ovs: true,
        by_default: true,
        run: misses::run,
    },
    Case {
        name: "memory",
        what: "memory that a datapath flow takes, in the kernel and in the daemon",
        needs_ovs: false,
        by_default: true,
        run: memory::run,
    },
    Case {
        name: "ovs",
        what: "64-byte packets over XDP, against Open vSwitch's userspace datapath over AF_XDP",
        needs_ovs: true,
        by_default: true,
        run: forwarding::open_vswitch,
    },
    Case {
        name: "references",
        what: "what this machine is good for: bare redirects, the Linux bridge, Open vSwitch",
        needs_ovs: true,
        by_default: false,
        run: forwarding::references,
    },
];

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let stream = Stream::stdout();
    if args.list {
        let mut table = Table::new(["case", "what it measures"]);
        for case in CASES {
            table.row([(case.name.to_owned(), None), (case.what.to_owned(), None)]);
        }
        print!("{}", table.render(stream));
        return Ok(ExitCode::SUCCESS);
    }
    let cases = chosen(&args.cases)?;
    if !args.no_build {
        let toolchain = setup::ensure(workspace, &[Purpose::Run, Purpose::Bench], args.no_install)?;
        build::all(workspace, &toolchain)?;
        hit_path::build(workspace, &toolchain)?;
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the benchmark makes network namespaces and loads programs: run it as root");
    }
    if cases.iter().any(|c| c.needs_ovs) && !args.no_install {
        ovs::fetch(workspace)?;
    }
    netns::remove_stale(rig::PREFIX);

    let bench = Bench { workspace: workspace.clone(), quick: args.quick };
    let mut report = Report::new(args.quick);
    for case in cases {
        eprintln!("{}", Stream::stderr().paint(Paint::Bold, &format!("{}: {}", case.name, case.what)));
        match (case.run)(&bench) {
            Ok(figures) => report.figures.extend(figures),
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                let error = format!("{error:#}");
                eprintln!("  {} {error}", Stream::stderr().paint(Paint::Bad, "did not run:"));
                report.failures.push(Failure { case: case.name, error });
            }
        }
    }

    let folder = workspace.target().join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    report.write(&folder.join("bench.json"))?;
    let picture = folder.join("bench.svg");
    std::fs::write(&picture, chart::draw(&report)).with_context(|| format!("write {}", picture.display()))?;
    print!("\n{}", report.table(stream));
    println!("\n  {}\n  {}", folder.join("bench.json").display(), picture.display());
    let well = report.failures.is_empty() && (!args.strict || report.all_met());
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cases with these names, in the order of the list.
fn chosen(names: &[String]) -> Result<Vec<&'static Case>> {
    for name in names {
        if !CASES.iter().any(|c| c.name == name) {
            let all: Vec<&str> = CASES.iter().map(|c| c.name).collect();
            bail!("there is no case {name}; there are {}", all.join(", "));
        }
    }
    let wanted = |case: &&Case| {
        if names.is_empty() { case.by_default } else { names.iter().any(|n| n == case.name) }
    };
    Ok(CASES.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_name() {
        let names = |cases: Vec<&Case>| cases.iter().map(|c| c.name).collect::<Vec<_>>();
        assert_eq!(names(chosen(&["tc".into(), "xdp".into()]).expect("both exist")), ["xdp", "tc"]);
        assert!(!names(chosen(&[]).expect("the default")).contains(&"references"));
        assert!(chosen(&["nothing".into()]).is_err());
    }
}
