//! The Rust compiler that compiles for `bpfel-unknown-none`.
//!
//! That target needs unstable features and a `core`. There are two ways to have both:
//!
//! * a compiler whose `core` for the target is already compiled, as Debian packages it (`rustc-web` with
//!   `libstd-rust-web-dev-bpf`);
//! * a rustup toolchain with the component `rust-src`, from which cargo builds `core` itself.
//!
//! The first is preferred where both are there: compiler and LLVM then come from one archive and fit.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process;

/// The rustup toolchain that is installed when there is no other way. It is dated because the LLVM that it
/// carries (22.1) has to be one that bpf-linker can read.
pub const NIGHTLY: &str = "nightly-2026-05-20";

/// The oldest compiler that the eBPF crates accept.
const OLDEST: (u32, u32) = (1, 95);

/// The LLVM of [`NIGHTLY`], and of Debian 12's `rustc-web`.
pub const EXPECTED_LLVM: u32 = 22;

/// Debian's packages of the first way.
pub const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Where `core` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreSource {
    /// It lies compiled in the compiler's own folder.
    Compiled,
    /// Cargo builds it from `rust-src`.
    RustSrc,
}

/// A compiler that can build eBPF programs.
#[derive(Clone, Debug)]
pub struct Compiler {
    pub rustc: PathBuf,
    pub core: CoreSource,
    /// Major version of the LLVM whose bitcode it writes.
    pub llvm: u32,
    pub release: String,
}

impl Compiler {
    /// The best compiler that the machine has.
    pub fn find() -> Option<Compiler> {
        let plain = ["/usr/bin/rustc".into(), process::find_program("rustc").unwrap_or_default()];
        plain
            .iter()
            .find_map(|rustc: &PathBuf| Compiler::examine(rustc))
            .or_else(|| rustup_compilers().iter().find_map(|rustc| Compiler::examine(rustc)))
    }

    fn examine(rustc: &Path) -> Option<Compiler> {
        if !process::is_executable(rustc) {
            return None;
        }
        let sysroot = run(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
        let rustlib = Path::new(sysroot.trim()).join("lib/rustlib");
        let core = if has_core(&rustlib.join("bpfel-unknown-none/lib")) {
            CoreSource::Compiled
        } else if rustlib.join("src/rust/library/core/src/lib.rs").exists() {
            CoreSource::RustSrc
        } else {
            return None;
        };
        let (release, llvm) = parse_version(&run(Command::new(rustc).arg("-vV")).ok()?)?;
        Some(Compiler { rustc: rustc.to_owned(), core, llvm, release })
    }
}

/// Rustup's toolchains that could have `rust-src`, the dated one first.
fn rustup_compilers() -> Vec<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|h| h.join(".rustup")))
        .unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::fs::read_dir(home.join("toolchains"))
        .into_iter()
        .flatten()
        .filter_map(|e| Some(e.ok()?.path()))
        .collect();
    folders.sort();
    let dated =
        |folder: &PathBuf| folder.file_name().is_some_and(|n| n.to_string_lossy().starts_with(NIGHTLY));
    folders.sort_by_key(|f| !dated(f));
    folders.into_iter().map(|f| f.join("bin/rustc")).collect()
}

fn has_core(folder: &Path) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| e.ok()).any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

/// Cargo sets a library path for its own compiler, which must not reach another one.
fn run(command: &mut Command) -> Result<String> {
    process::output(command.env_remove("LD_LIBRARY_PATH"))
}

/// Reads the release and the LLVM major version from `rustc -vV`; `None` for a compiler that is too old.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let release = field("release:")?;
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    if (numbers.next()?, numbers.next()?) < OLDEST {
        return None;
    }
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some((release.to_owned(), llvm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let say = |release: &str| format!("rustc x\nrelease: {release}\nLLVM version: 22.1.8\n");
        assert_eq!(parse_version(&say("1.96.0")), Some(("1.96.0".to_owned(), 22)));
        assert_eq!(parse_version(&say("1.97.0-nightly")), Some(("1.97.0-nightly".to_owned(), 22)));
        assert_eq!(parse_version(&say("1.85.0")), None);
        assert_eq!(parse_version("nonsense"), None);
    }
}
