//! Debian kernels, fetched as packages and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A kernel series, by the meta-package that names its newest image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// Debian 12's own: the oldest kernel that Sluice supports.
    V6_1,
    V6_12,
}

impl Series {
    fn package(self) -> &'static str {
        match self {
            Series::V6_1 => "linux-image-cloud-amd64",
            Series::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }

    /// Beginning of its version.
    pub fn prefix(self) -> &'static str {
        match self {
            Series::V6_1 => "6.1.",
            Series::V6_12 => "6.12.",
        }
    }
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub image: PathBuf,
    modules: PathBuf,
    pub version: String,
}

impl Kernel {
    /// Fetches the newest kernel of a series, unless it has been fetched before.
    pub fn fetch(series: Series) -> Result<Kernel> {
        let folder = super::work_folder().join(series.package());
        if let Ok(kernel) = Kernel::unpacked(&folder) {
            return Ok(kernel);
        }
        let image = newest_image(series)?;
        let fresh = folder.with_extension(format!("new-{}", std::process::id()));
        fs::create_dir_all(&fresh).with_context(|| format!("make {}", fresh.display()))?;
        run(Command::new("apt-get").args(["-qq", "download", &image]).current_dir(&fresh))?;
        let package = fs::read_dir(&fresh)?
            .filter_map(|e| Some(e.ok()?.path()))
            .find(|p| p.extension().is_some_and(|e| e == "deb"))
            .with_context(|| format!("apt-get downloaded no package for {image}"))?;
        run(Command::new("dpkg").arg("-x").arg(&package).arg(&fresh))?;
        fs::remove_file(&package)?;
        // Another test may have been quicker: either copy is good.
        if fs::rename(&fresh, &folder).is_err() {
            let _ = fs::remove_dir_all(&fresh);
        }
        Kernel::unpacked(&folder)
    }

    fn unpacked(folder: &Path) -> Result<Kernel> {
        for entry in fs::read_dir(folder.join("boot"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(version) = name.strip_prefix("vmlinuz-") {
                let modules = folder.join("lib/modules").join(version).join("kernel");
                return Ok(Kernel { image: path, modules, version: version.to_owned() });
            }
        }
        bail!("no kernel image in {}", folder.display())
    }

    /// A module's file behind those that it depends on, in the order in which they are to be loaded. Modules that
    /// are built in or do not exist are left out.
    pub fn modules(&self, name: &str) -> Vec<PathBuf> {
        let mut order = Vec::new();
        self.add_module(name, &mut order);
        order
    }

    fn add_module(&self, name: &str, order: &mut Vec<PathBuf>) {
        let Some(file) = self.module(name) else { return };
        if order.contains(&file) {
            return;
        }
        for dependency in dependencies(&file) {
            self.add_module(&dependency, order);
        }
        order.push(file);
    }

    fn module(&self, name: &str) -> Option<PathBuf> {
        // Module names write underscores, file names either.
        let wanted = format!("{}.ko", name.replace('-', "_"));
        let mut folders = vec![self.modules.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).ok()?.filter_map(|e| e.ok()) {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if entry.file_name().to_string_lossy().replace('-', "_").trim_end_matches(".xz")
                    == wanted
                {
                    return Some(path);
                }
            }
        }
        None
    }
}

/// What the `depends=` entry of a module's information says. Of a compressed module nothing can be read.
fn dependencies(file: &Path) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let data = fs::read(file).unwrap_or_default();
    let Some(at) = data.windows(KEY.len()).position(|w| w == KEY) else { return Vec::new() };
    let value = data[at + KEY.len()..].split(|b| *b == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).into_owned();
    names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

/// The package that the meta-package depends on.
fn newest_image(series: Series) -> Result<String> {
    let ask = || -> Result<Option<String>> {
        let out =
            Command::new("apt-cache").args(["depends", series.package()]).output().context("apt-cache")?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        Ok(text
            .lines()
            .filter_map(|l| l.trim().strip_prefix("Depends: "))
            .find(|p| p.starts_with("linux-image-"))
            .map(str::to_owned))
    };
    if let Some(image) = ask()? {
        return Ok(image);
    }
    run(Command::new("apt-get").args(["-qq", "update"]))?;
    ask()?.with_context(|| format!("no package {} in reach", series.package()))
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.output().with_context(|| format!("start {command:?}"))?;
    if !out.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
