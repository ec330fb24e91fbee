//! Where the sources and the build products are.
//!
//! Everything that xtask makes lies under the target folder: that of `CARGO_TARGET_DIR` where it is set,
//! else `target/` of the workspace. Nothing else of the machine is written to, except the packages that
//! `setup` installs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The checkout and its target folder.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the workspace that xtask belongs to.
    pub fn find() -> Result<Workspace> {
        let here = std::env::current_dir().context("find the current folder")?;
        // Cargo names the folder of the package that it runs; a copy of the binary started by hand has to search.
        let start = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| here.clone(), PathBuf::from);
        let Some(root) =
            start.ancestors().find(|f| f.join("switch-ebpf").is_dir() && f.join("xtask").is_dir())
        else {
            bail!("{} is not inside a checkout of Sluice", start.display());
        };
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) if !folder.is_empty() => here.join(folder),
            _ => root.join("target"),
        };
        Ok(Workspace { root: root.to_owned(), target })
    }

    /// The folder of the root `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The target folder, which may not exist yet.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Programs that were built because the machine lacks them.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// What the commands that a step runs have printed.
    pub fn logs(&self) -> PathBuf {
        self.target.join("xtask-logs")
    }

    /// The eBPF programs of the switch, ready to load.
    pub fn bpf_object(&self) -> PathBuf {
        self.target.join("bpf/sluice.bpf.o")
    }

    /// The reference programs of the benchmark, ready to load.
    pub fn bench_object(&self) -> PathBuf {
        self.target.join("bpf/bench.bpf.o")
    }

    /// The daemon and its command line.
    pub fn sluice(&self) -> PathBuf {
        self.target.join("release/sluice")
    }
}
