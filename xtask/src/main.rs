//! The project's own commands. `cargo xtask --help` lists them, and each begins by making the machine ready
//! for itself.

mod bench;
mod build;
mod daemon;
mod demo;
mod interrupt;
mod netns;
mod packet;
mod process;
mod run;
mod setup;
mod step;
mod terminal;
mod test;
mod traffic;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use terminal::{Paint, Stream};
use workspace::Workspace;

/// Sets the machine up, and builds, shows, tests and measures Sluice
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask run                               see it work: four VMs, VLANs, a live view
  cargo xtask run -- --once                     the same as a check, with an exit status
  cargo xtask run -- --port eth1 --port eth2    switch between two interfaces
  cargo xtask test -- vlan                      the tests with `vlan` in their name
  cargo xtask bench xdp tc --quick              a first impression of the packet rates";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Find what the machine lacks and install it
    Setup(setup::Args),
    /// Build the eBPF programs and target/release/sluice
    Build(build::Args),
    /// Run the switch: as a demo with four VMs, or between named interfaces
    Run(run::Args),
    /// Check format and lints, and run the tests of all crates
    Test(test::Args),
    /// Measure the switch side by side with its peers
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            let stream = Stream::stderr();
            eprintln!("{} {error:#}", stream.paint(Paint::Bad, "error:"));
            // As a shell reports a process that a signal ended.
            match error.downcast_ref::<interrupt::Interrupted>() {
                Some(interrupted) => ExitCode::from(u8::try_from(128 + interrupted.0 as i32).unwrap_or(1)),
                None => ExitCode::FAILURE,
            }
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    interrupt::watch()?;
    match cli.verb {
        Verb::Setup(args) => setup::run(&Workspace::find()?, &args).map(|()| ExitCode::SUCCESS),
        Verb::Build(args) => build::run(&Workspace::find()?, &args).map(|()| ExitCode::SUCCESS),
        Verb::Run(args) => run::run(args),
        Verb::Test(args) => test::run(&Workspace::find()?, &args),
        Verb::Bench(args) => bench::run(&Workspace::find()?, &args),
    }
}
