//! `cargo xtask build`: the eBPF programs first, then `sluice`, which carries them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{self, CoreSource, Purpose, Toolchain};
use crate::step;
use crate::workspace::Workspace;

/// `cargo xtask build`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Install nothing: say what is missing
    #[arg(long)]
    pub no_install: bool,
    /// Build the eBPF programs only
    #[arg(long)]
    pub ebpf_only: bool,
}

/// The target of the eBPF crate.
const TARGET: &str = "bpfel-unknown-none";

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let toolchain = setup::ensure(workspace, &[Purpose::Build], args.no_install)?;
    ebpf(workspace, &toolchain)?;
    if !args.ebpf_only {
        userspace(workspace, &toolchain)?;
        println!("{}", workspace.sluice().display());
    }
    Ok(())
}

/// Builds everything.
pub fn all(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    ebpf(workspace, toolchain)?;
    userspace(workspace, toolchain)
}

/// Builds the eBPF programs.
pub fn ebpf(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let products = workspace.target().join("bpf-build");
    let mut command = setup::cargo();
    for name in [
        "RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        command.env_remove(name);
    }
    command
        .current_dir(workspace.root().join("switch-ebpf"))
        .args(["build", "--release", "--locked", "--bins", "--target", TARGET])
        .env("CARGO_TARGET_DIR", &products)
        .env("RUSTC", &toolchain.compiler.rustc)
        // A stable compiler takes the unstable features that a target without `std` needs.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&toolchain.bpf_linker)?);
    if toolchain.compiler.core == CoreSource::RustSrc {
        command.args(["-Z", "build-std=core"]);
    }
    step::command(workspace, "building the eBPF programs", "build-ebpf", &mut command)?;
    let made = products.join(TARGET).join("release");
    install(&made.join("sluice-ebpf"), &workspace.bpf_object())?;
    install(&made.join("bench-ebpf"), &workspace.bench_object())
}

/// Builds `sluice`.
pub fn userspace(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let mut command = cargo(workspace, toolchain)?;
    command.args(["build", "--release", "--locked", "--package", "switch-user"]);
    step::command(workspace, "building sluice", "build-sluice", &mut command)
}

/// Builds xtask in release form, for tests that take the demo to another kernel.
pub fn xtask(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let mut command = cargo(workspace, toolchain)?;
    command.args(["build", "--release", "--locked", "--package", "xtask"]);
    step::command(workspace, "building xtask for other machines", "build-xtask", &mut command)
}

/// Cargo for the workspace's own crates, with what their build scripts look for.
pub fn cargo(workspace: &Workspace, toolchain: &Toolchain) -> Result<Command> {
    let mut command = setup::cargo();
    command
        .current_dir(workspace.root())
        .env("CARGO_TARGET_DIR", workspace.target())
        .env("SLUICE_BPF_OBJECT", workspace.bpf_object());
    if let Some(folder) = &toolchain.clang_folder {
        command.env("PATH", crate::process::path_with(folder)?);
    }
    Ok(command)
}

/// The compiler's flags, in the form that keeps a path with spaces whole.
fn flags(linker: &Path) -> Result<String> {
    let linker = linker.to_str().context("the path of bpf-linker is not UTF-8")?;
    Ok([
        "--cfg".to_owned(),
        format!("bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        // Packet headers are not aligned, and the kernel's own machines load them all the same.
        "-Ctarget-feature=+allows-misaligned-mem-access".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={linker}"),
    ]
    .join("\x1f"))
}

/// Puts a product in its place, unless the same lies there: what is built from it need not be built again.
fn install(from: &Path, to: &Path) -> Result<()> {
    let fresh = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == fresh) {
        return Ok(());
    }
    let folder = to.parent().context("a product has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    // Nobody sees half a file.
    let half = to.with_extension("new");
    std::fs::write(&half, fresh).with_context(|| format!("write {}", half.display()))?;
    std::fs::rename(&half, to).with_context(|| format!("write {}", to.display()))
}
