//! bpf-linker: links the bitcode of Rust crates into one BPF object file.
//!
//! One on the `PATH` is used if it has the right version and an LLVM that is new enough for the compiler's
//! bitcode; else it is built, once, under the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::setup::needs;
use crate::step;
use crate::workspace::Workspace;

/// The version that the project is built with.
pub const VERSION: &str = "0.13.0";

/// LLVM versions that bpf-linker of this version can be built against and that know the flags used here.
const LLVM: [u32; 2] = [22, 23];

/// The LLVM to build bpf-linker against: one that is there and reads what the compiler writes, else the
/// compiler's own. An LLVM reads the bitcode of older ones, never of newer ones.
pub fn choose_llvm(compiler: u32) -> u32 {
    let usable = || LLVM.into_iter().filter(|l| *l >= compiler);
    usable().find(|l| needs::find_llvm(*l).is_some()).or_else(|| usable().next()).unwrap_or(compiler)
}

/// A usable bpf-linker, if there is one.
pub fn find(workspace: &Workspace, compiler_llvm: u32) -> Option<PathBuf> {
    let built = folder(workspace).join("bin/bpf-linker");
    [Some(built), process::find_program("bpf-linker")].into_iter().flatten().find(|p| fits(p, compiler_llvm))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bpf-linker")
}

fn fits(program: &Path, compiler_llvm: u32) -> bool {
    if !process::is_executable(program) {
        return false;
    }
    let said = process::output(Command::new(program).arg("--version")).unwrap_or_default();
    if said.trim() != format!("bpf-linker {VERSION}") {
        return false;
    }
    // A linker with LLVM linked in does not tell its version; whoever put it on the PATH vouches for it.
    let libraries = process::output(Command::new("ldd").arg(program)).unwrap_or_default();
    shared_llvm(&libraries).is_none_or(|llvm| llvm >= compiler_llvm)
}

/// The major version of the LLVM library in what `ldd` prints.
fn shared_llvm(libraries: &str) -> Option<u32> {
    let name = libraries.split_whitespace().find(|w| w.starts_with("libLLVM"))?;
    name.trim_start_matches(|c: char| !c.is_ascii_digit()).split(['.', '-']).next()?.parse().ok()
}

/// The command that builds bpf-linker.
pub fn build_command(workspace: &Workspace, llvm: u32) -> Result<Command> {
    if !LLVM.contains(&llvm) {
        bail!(
            "the compiler writes bitcode of LLVM {llvm}, and bpf-linker {VERSION} can be built with LLVM {} only: \
             use an older compiler for the eBPF programs (rustup toolchain install {})",
            LLVM.map(|l| l.to_string()).join(" or "),
            super::compiler::NIGHTLY,
        );
    }
    let mut command = super::cargo();
    command
        .current_dir(workspace.root())
        .args([
            "install",
            "--locked",
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
            "--root",
        ])
        .arg(folder(workspace))
        .arg(format!("bpf-linker@{VERSION}"))
        .env("CARGO_TARGET_DIR", workspace.tools().join("bpf-linker-build"));
    if let Some(prefix) = needs::find_llvm(llvm) {
        command.env("PATH", process::path_with(&prefix.join("bin"))?).env("LLVM_PREFIX", prefix);
    }
    Ok(command)
}

/// The same as a person would type it.
pub fn build_text(workspace: &Workspace, llvm: u32) -> Result<String> {
    let command = build_command(workspace, llvm)?;
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    let prefix = needs::find_llvm(llvm).unwrap_or_else(|| PathBuf::from(format!("/usr/lib/llvm-{llvm}")));
    let prefix = prefix.display();
    Ok(format!("LLVM_PREFIX={prefix} PATH={prefix}/bin:$PATH cargo {}", arguments.join(" ")))
}

/// Builds bpf-linker: about two minutes on two cores.
pub fn build(workspace: &Workspace, llvm: u32) -> Result<PathBuf> {
    let mut command = build_command(workspace, llvm)?;
    let title = format!("building bpf-linker {VERSION} with LLVM {llvm} (once, about two minutes)");
    step::command(workspace, &title, "bpf-linker", &mut command)?;
    // Its intermediate files are several times as large as the program and never used again.
    let _ = std::fs::remove_dir_all(workspace.tools().join("bpf-linker-build"));
    find(workspace, llvm).context("the bpf-linker just built does not run, or is not of the right version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_in_shared_library_names() {
        assert_eq!(shared_llvm("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)"), Some(22));
        assert_eq!(shared_llvm("\tlibLLVM-21.so => /x (0x0)"), Some(21));
        assert_eq!(shared_llvm("\tlibc.so.6 => /x (0x0)"), None);
    }

    #[test]
    fn newer_compilers_are_refused_by_name() {
        let workspace = Workspace::find().expect("tests run in the checkout");
        let error = build_command(&workspace, 31).expect_err("no such LLVM").to_string();
        assert!(error.contains("LLVM 31") && error.contains("nightly-"), "{error}");
    }
}
