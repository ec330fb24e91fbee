//! `sluice`: a virtual switch that Open vSwitch's tools can talk to. The daemon and its command line.

mod cli;
mod config;
mod control;
mod daemon;

fn main() -> std::process::ExitCode {
    cli::main()
}
