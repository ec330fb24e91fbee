//! The command line of `sluice`.
//!
//! One file a command: its flags, its question to the daemon, its text. Exit codes: 0 for success, 1 for a
//! failure, 2 for a command line that makes no sense.

mod completions;
pub mod daemon_args;
mod drops;
mod fdb;
mod flows;
mod man;
mod names;
mod output;
mod port_arg;
mod quantity;
mod show;
mod table;
mod top;
mod trace;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::ValueHint;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use self::daemon_args::DaemonFlags;
use self::output::{ColorWhen, Paint};
use crate::config::ConfigError;
use crate::control::client::{Client, ClientError};

/// Where Open vSwitch's tools look as well.
const DEFAULT_RUNDIR: &str = "/var/run/openvswitch";

const EXAMPLES: &str = "\
Examples:
  sluice daemon --bridge br0 --port eth1 --port tap0,tag=10
  sluice show                  bridges, ports, hooks, counters
  sluice flows --names -m      datapath flows, and the rules that made them
  sluice top                   live rates
  sluice drops                 why packets were dropped

'sluice COMMAND --help' explains each command, 'sluice man | man -l -' everything at once.";

/// A virtual switch: flows in eBPF, decisions in userspace
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    after_help = EXAMPLES,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 110
)]
pub struct Cli {
    /// Run directory of the daemon: its control socket and pid file [env: SLUICE_RUNDIR, OVS_RUNDIR]
    /// [default: /var/run/openvswitch]
    #[arg(long, global = true, display_order = 900, value_name = "DIR", value_hint = ValueHint::DirPath)]
    rundir: Option<PathBuf>,

    /// Colours in what is printed: auto, always, never
    #[arg(long, global = true, display_order = 901, value_name = "WHEN", default_value = "auto", value_enum)]
    #[arg(hide_possible_values = true)]
    color: ColorWhen,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the switch, in the foreground
    Daemon(DaemonFlags),
    /// Bridges and ports, with hook, mode and counters
    Show(show::ShowArgs),
    /// Datapath flows, in Open vSwitch's notation, with their rules
    Flows(flows::FlowsArgs),
    /// MAC tables: which address is behind which port
    Fdb(fdb::FdbArgs),
    /// Live rates: ports, cache levels, misses, drops
    Top(top::TopArgs),
    /// Every reason for which packets are dropped, with its count
    Drops(drops::DropsArgs),
    /// What the switch would do with a packet, step by step
    TracePacket(trace::TraceArgs),
    /// Completions for a shell, on standard output
    Completions(completions::CompletionsArgs),
    /// The manual page, on standard output
    Man,
}

/// What every command that asks the daemon needs.
#[derive(Debug)]
pub struct Session {
    rundir: PathBuf,
    paint: Paint,
}

impl Session {
    fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.rundir)
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let rundir = rundir(cli.rundir, |name| std::env::var_os(name));
    let session = Session { rundir, paint: Paint::new(cli.color) };
    let result = match cli.command {
        Command::Daemon(flags) => match flags.into_args(session.rundir) {
            Ok(args) => crate::daemon::run(args),
            Err(error) => return usage(&Cli::command().error(ErrorKind::ArgumentConflict, error)),
        },
        Command::Show(args) => show::run(&args, &session),
        Command::Flows(args) => flows::run(args, &session),
        Command::Fdb(args) => fdb::run(args, &session),
        Command::Top(args) => top::run(&args, &session),
        Command::Drops(args) => drops::run(&args, &session),
        Command::TracePacket(args) => trace::run(args, &session),
        Command::Completions(args) => completions::run(&args),
        Command::Man => man::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "sluice: {}", output::printable(&format!("{error:#}")));
            // Ports and bridges that contradict each other are a mistake on the command line.
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

/// Help and version, too, arrive here; they exit with 0.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The flag, else the environment, else the default. An empty variable counts as none.
fn rundir(flag: Option<PathBuf>, environment: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let named = |name| environment(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    flag.or_else(|| named("SLUICE_RUNDIR"))
        .or_else(|| named("OVS_RUNDIR"))
        .unwrap_or_else(|| DEFAULT_RUNDIR.into())
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
