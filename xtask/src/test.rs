//! `cargo xtask test`: format, lints, and the tests of all crates, with one summary at the end.
//!
//! The tests are built in release form. That is one build of everything instead of two, as the tests of the
//! whole switch run `target/release/sluice`, and what searches for counter-examples gets further in its time.

mod summary;

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::build;
use crate::process::{self, Ended};
use crate::setup::{self, Purpose, Toolchain};
use crate::step::{self, Step};
use crate::terminal::{Paint, Stream};
use crate::workspace::Workspace;
use summary::Summary;

/// `cargo xtask test`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Install nothing: tests that lack something are skipped
    #[arg(long)]
    pub no_install: bool,
    /// Only the tests of this crate; may be given several times
    #[arg(short, long, value_name = "CRATE")]
    pub package: Vec<String>,
    /// For the test programs: part of a test's name, `--test-threads 1` and so on
    #[arg(last = true, value_name = "ARGS")]
    pub rest: Vec<String>,
}

/// After this time, something hangs.
const LIMIT: Duration = Duration::from_secs(50 * 60);

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    let toolchain = make_ready(workspace, args)?;
    // A selection is a developer's quick look; the whole is what has to be clean.
    let whole = args.package.is_empty() && args.rest.is_empty();
    let mut summary = Summary::default();
    if whole {
        format(workspace, &mut summary);
    }
    build::all(workspace, &toolchain)?;
    build::xtask(workspace, &toolchain)?;
    if whole {
        lint(workspace, &toolchain, &mut summary)?;
    }
    tests(workspace, &toolchain, args, &mut summary)?;

    let stream = Stream::stdout();
    println!(
        "\n{}",
        stream.paint(Paint::Bold, &format!("Summary, after {}", step::seconds(begun.elapsed())))
    );
    print!("{}", summary.text(stream));
    Ok(if summary.well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What building needs is a must. What only some tests need is installed if that is allowed; without it,
/// those tests skip.
fn make_ready(workspace: &Workspace, args: &Args) -> Result<Toolchain> {
    let all = [Purpose::Run, Purpose::Test];
    if nix::unistd::geteuid().is_root() && !args.no_install && setup::can_install() {
        return setup::ensure(workspace, &all, false);
    }
    let toolchain = setup::ensure(workspace, &[Purpose::Build], args.no_install)?;
    for (what, why) in setup::missing(&all) {
        eprintln!("  ! {what} is missing ({why}): tests that need it are skipped");
    }
    Ok(toolchain)
}

/// Both the workspace and the eBPF crate, which is not part of it.
fn format(workspace: &Workspace, summary: &mut Summary) {
    if !has_component(workspace, "fmt") {
        summary.skip("format", "rustfmt is not installed (rustup component add rustfmt)");
        return;
    }
    let crates: [(&str, &[&str]); 2] = [
        ("format", &["--all"]),
        ("format of the eBPF crate", &["--manifest-path", "switch-ebpf/Cargo.toml"]),
    ];
    for (name, which) in crates {
        let mut command = setup::cargo();
        command
            .current_dir(workspace.root())
            .args(["fmt", "--check"])
            .args(which)
            .args(["--", "--color", "never"]);
        let log = name.replace(' ', "-");
        summary.add(name, step::command(workspace, &format!("checking the {name}"), &log, &mut command));
    }
}

fn lint(workspace: &Workspace, toolchain: &Toolchain, summary: &mut Summary) -> Result<()> {
    if !has_component(workspace, "clippy") {
        summary.skip("lints", "clippy is not installed (rustup component add clippy)");
        return Ok(());
    }
    let mut command = build::cargo(workspace, toolchain)?;
    // In release form it shares what build scripts made with the builds.
    command.args(["clippy", "--release", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    summary.add("lints", step::command(workspace, "checking lints", "clippy", &mut command));
    Ok(())
}

fn has_component(workspace: &Workspace, name: &str) -> bool {
    process::output(setup::cargo().current_dir(workspace.root()).args([name, "--version"])).is_ok()
}

/// Runs the tests, shows them as they go, and reads the results.
fn tests(workspace: &Workspace, toolchain: &Toolchain, args: &Args, summary: &mut Summary) -> Result<()> {
    compile(workspace, toolchain, args)?;
    let mut command = test_command(workspace, toolchain, args)?;
    command.args(["--no-fail-fast", "--", "--show-output"]).args(&args.rest);
    // Both streams in one pipe keep their order.
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("share a pipe")?).stderr(writer);
    let mut child = process::Group::start("cargo test", &mut command)?;
    // The command holds the pipe's writing end, which has to be closed here for the reader to see the end.
    drop(command);
    let follow = thread::spawn(move || {
        let mut parser = summary::Parser::default();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line);
            if parser.line(text.trim_end()) {
                print!("{text}");
            }
            line.clear();
        }
        parser.finish()
    });
    let ended = child.wait(LIMIT);
    // Ends what is left of it, so that the pipe closes.
    drop(child);
    if let Ok(found) = follow.join() {
        summary.merge(found);
    }
    if let Ended::Badly(how) = ended?
        && summary.well()
    {
        // A test program that crashed, for example.
        summary.add("cargo test", Err(anyhow::anyhow!("{how}")));
    }
    Ok(())
}

/// Compiles them first, as a step of its own: what follows is only about the tests.
fn compile(workspace: &Workspace, toolchain: &Toolchain, args: &Args) -> Result<()> {
    let mut command = test_command(workspace, toolchain, args)?;
    command.arg("--no-run");
    step::command(workspace, "building the tests", "build-tests", &mut command)?;
    Step::begin("running the tests").done("");
    Ok(())
}

fn test_command(workspace: &Workspace, toolchain: &Toolchain, args: &Args) -> Result<Command> {
    let mut command = build::cargo(workspace, toolchain)?;
    command.args(["test", "--release", "--locked"]);
    if args.package.is_empty() {
        command.arg("--workspace");
    }
    for package in &args.package {
        command.args(["--package", package]);
    }
    Ok(command)
}
