//! `sluice`: a virtual switch that Open vSwitch's tools can talk to. The daemon and its command line.

mod cli;
mod config;
mod control;
mod daemon;

/// Flows are made by handler threads and freed by the revalidator, hundreds of thousands at a time: this allocator
/// takes that without a lock between them, and grows in large steps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
