//! `cargo xtask run`: everything from nothing to a forwarding switch in one command.
//!
//! Without a port, it is the [demo](crate::demo); with ports, the daemon switches between these interfaces
//! of the namespace that xtask is in. Everything that was made is removed at the end, however it ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::daemon::Daemon;
use crate::demo;
use crate::interrupt::{self, Interrupted};
use crate::process::{self, Ended};
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// `cargo xtask run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print a summary and end, with a status that tells whether all is as it must be
    #[arg(long)]
    pub once: bool,
    /// Install nothing: say what is missing
    #[arg(long)]
    pub no_install: bool,
    /// Use the `sluice` that was built before; nothing is installed or built
    #[arg(long)]
    pub prebuilt: bool,
    /// Flags for `sluice daemon`, such as `--port eth1`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    pub daemon: Vec<String>,
}

impl Args {
    /// Behind a `--`, the verb's own flags and the daemon's come mixed.
    fn sorted(mut self) -> Args {
        let mut rest = Vec::new();
        for flag in self.daemon {
            match flag.as_str() {
                "--" => {}
                "--once" => self.once = true,
                "--no-install" => self.no_install = true,
                "--prebuilt" => self.prebuilt = true,
                _ => rest.push(flag),
            }
        }
        self.daemon = rest;
        self
    }
}

/// Runs the verb.
pub fn run(args: Args) -> Result<ExitCode> {
    let args = args.sorted();
    let sluice = if args.prebuilt {
        prebuilt()?
    } else {
        let workspace = Workspace::find()?;
        let toolchain = setup::ensure(&workspace, &[Purpose::Run], args.no_install)?;
        build::all(&workspace, &toolchain)?;
        workspace.sluice()
    };
    if !nix::unistd::geteuid().is_root() {
        // What was built is used as it is: root's cargo would build again, and leave files that only root may write.
        let program = std::env::current_exe().context("find this program")?;
        let flags: Vec<String> =
            std::env::args().skip(2).filter(|f| f != "--" && f != "--prebuilt").collect();
        bail!("the switch needs root: type `sudo {} run --prebuilt {}`", program.display(), flags.join(" "));
    }
    let ports = args.daemon.iter().any(|f| f == "--port" || f.starts_with("--port="));
    let well = if ports { interfaces(&sluice, &args)? } else { demo::run(&sluice, &args.daemon, args.once)? };
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The `sluice` that was built in release form: beside this xtask where that was too, or was copied with it to
/// another machine, else in the folder next to this xtask's.
fn prebuilt() -> Result<PathBuf> {
    let here = std::env::current_exe().context("find this program")?;
    let target = here.ancestors().nth(2).context("this program is not in a target folder")?;
    let places = [here.with_file_name("sluice"), target.join("release/sluice")];
    match places.iter().find(|p| process::is_executable(p)) {
        Some(program) => Ok(program.clone()),
        None => bail!("{} is not there: build it with `cargo xtask build`", places[1].display()),
    }
}

/// Switches between the named interfaces.
fn interfaces(sluice: &Path, args: &Args) -> Result<bool> {
    let mut flags = args.daemon.clone();
    if !flags.iter().any(|f| f == "--bridge" || f.starts_with("--bridge=")) {
        flags.splice(0..0, ["--bridge".to_owned(), "br0".to_owned()]);
    }
    let mut daemon = Daemon::start(sluice, None, &flags)?;
    let mut well = true;
    if args.once {
        print!("{}", daemon.ask("show", &[])?);
        for (port, error) in broken_ports(&daemon)? {
            eprintln!("  ! {port}: {error}");
            well = false;
        }
    } else {
        live_view(&daemon)?;
    }
    daemon.stop()?;
    Ok(well)
}

/// Ports that do not work, with the reason.
fn broken_ports(daemon: &Daemon) -> Result<Vec<(String, String)>> {
    let show = daemon.ask_json("show", &[])?;
    let each = |value: &serde_json::Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    Ok(each(&show, "bridges")
        .iter()
        .flat_map(|bridge| each(bridge, "ports"))
        .filter_map(|port| Some((port["name"].as_str()?.to_owned(), port["error"].as_str()?.to_owned())))
        .collect())
}

/// Shows the live view until the user leaves it.
pub fn live_view(daemon: &Daemon) -> Result<()> {
    let mut command = daemon.command("top", &[]);
    let mut child = command.spawn()?;
    match process::wait(&mut child, None, || ()) {
        // Ctrl-C is how the view is left: the rest of the run goes on to its end.
        Err(error) if error.is::<Interrupted>() => {
            interrupt::forget();
            Ok(())
        }
        Ok(Ended::Badly(how)) if interrupt::check().is_ok() => bail!("the live view ended badly: {how}"),
        Ok(_) => {
            interrupt::forget();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(daemon: &[&str]) -> Args {
        let daemon = daemon.iter().map(|f| (*f).to_owned()).collect();
        Args { once: false, no_install: false, prebuilt: false, daemon }
    }

    #[test]
    fn own_flags_are_found_behind_the_dashes() {
        let sorted = args(&["--", "--port", "eth1", "--once", "--port", "eth2,tag=3"]).sorted();
        assert!(sorted.once && !sorted.no_install);
        assert_eq!(sorted.daemon, ["--port", "eth1", "--port", "eth2,tag=3"]);
    }
}
