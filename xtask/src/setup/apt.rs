//! Debian's package manager: which packages there are, and installing them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::step;
use crate::workspace::Workspace;

/// Lists older than this may name packages that the archive no longer has.
const LISTS_AGE: Duration = Duration::from_secs(24 * 3600);

/// Whether this machine has it.
pub fn present() -> bool {
    process::find_program("apt-get").is_some()
}

/// Whether the package lists are missing or old.
pub fn lists_are_old() -> bool {
    let newest = std::fs::read_dir("/var/lib/apt/lists")
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok())
        .filter(|e| e.file_name().to_string_lossy().ends_with("Release"))
        .filter_map(|e| e.metadata().ok()?.modified().ok())
        .max();
    // A list keeps the time stamp of the archive: what counts is when apt last succeeded.
    let checked = ["/var/lib/apt/periodic/update-success-stamp", "/var/lib/apt/lists/partial"]
        .iter()
        .filter_map(|p| std::fs::metadata(p).ok()?.modified().ok())
        .max();
    let Some(seen) = newest.and(checked) else { return true };
    SystemTime::now().duration_since(seen).is_ok_and(|age| age > LISTS_AGE)
}

/// Fetches the package lists.
pub fn update(workspace: &Workspace) -> Result<()> {
    step::command(workspace, "fetching package lists", "apt-update", &mut apt(&["update"]))
}

/// Those of `names` that the archive has.
pub fn available<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<BTreeSet<String>> {
    let text = process::output(Command::new("apt-cache").arg("policy").args(names).env("LC_ALL", "C"))?;
    Ok(parse_policy(&text))
}

/// Installs packages, without those that they merely recommend.
pub fn install(workspace: &Workspace, packages: &[String]) -> Result<()> {
    let title = match packages.len() {
        0..5 => format!("installing {}", packages.join(", ")),
        count => format!("installing {count} packages"),
    };
    let mut command = apt(&["install", "-y", "--no-install-recommends"]);
    command.args(packages);
    step::command(workspace, &title, "apt-install", &mut command)
}

/// Fetches packages into `folder` and unpacks them there, installing nothing. What is already unpacked is not
/// fetched again.
pub fn unpack(workspace: &Workspace, packages: &[&str], folder: &Path) -> Result<()> {
    let wanted: Vec<&str> =
        packages.iter().copied().filter(|p| !folder.join(unpacked_mark(p)).exists()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    if !present() {
        bail!("{} can only be fetched with apt-get", wanted.join(", "));
    }
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let mut command = apt(&["download"]);
    command.args(&wanted).current_dir(folder);
    step::command(workspace, &format!("fetching {}", wanted.join(", ")), "apt-download", &mut command)?;
    for package in wanted {
        let file = archive(folder, package)?;
        process::output(Command::new("dpkg").arg("-x").arg(&file).arg(folder))?;
        std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        std::fs::write(folder.join(unpacked_mark(package)), "").context("note an unpacked package")?;
    }
    Ok(())
}

fn unpacked_mark(package: &str) -> String {
    format!(".unpacked-{package}")
}

fn archive(folder: &Path, package: &str) -> Result<PathBuf> {
    std::fs::read_dir(folder)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        })
        .with_context(|| format!("apt-get downloaded no {package}"))
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-q").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

/// Reads `apt-cache policy`: a package without a candidate cannot be installed.
fn parse_policy(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut package = "";
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|n| !n.starts_with(' ')) {
            package = name;
        } else if line.trim().strip_prefix("Candidate:").is_some_and(|c| c.trim() != "(none)") {
            found.insert(package.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy() {
        let text = "a:\n  Installed: (none)\n  Candidate: 1.0\n  Version table:\n     1.0 500\n\
                    b:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        assert_eq!(parse_policy(text).into_iter().collect::<Vec<_>>(), ["a"]);
    }
}
