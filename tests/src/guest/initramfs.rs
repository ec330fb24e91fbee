//! An initramfs, written as a cpio archive of the "newc" form (Documentation/driver-api/early-userspace/
//! buffer-format.rst of the kernel).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// An archive in the making.
#[derive(Default)]
pub struct Initramfs {
    archive: Vec<u8>,
    present: BTreeSet<PathBuf>,
    inode: u32,
}

impl Initramfs {
    /// With busybox and the usual folders.
    pub fn with_busybox() -> Result<Initramfs> {
        let mut fs = Initramfs::default();
        for folder in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp", "etc", "root", "var/run"] {
            fs.folder(Path::new(folder));
        }
        let busybox = super::find_program("busybox").context("busybox is not installed")?;
        fs.file(&busybox, "bin/busybox")?;
        let applets = Command::new(&busybox).arg("--list").output().context("busybox --list")?;
        for applet in String::from_utf8_lossy(&applets.stdout).lines() {
            if !matches!(applet, "busybox" | "ping") {
                fs.link(&format!("bin/{applet}"), "busybox");
            }
        }
        Ok(fs)
    }

    /// A file as it is on this machine, with its permission bits.
    pub fn file(&mut self, from: &Path, to: &str) -> Result<()> {
        let data = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.data(to, &data, mode);
        Ok(())
    }

    /// A program together with the shared libraries that it loads, and under its own name.
    pub fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        self.file(from, to)?;
        let listing = Command::new("ldd").arg(from).output().context("ldd")?;
        for line in String::from_utf8_lossy(&listing.stdout).lines() {
            let path =
                line.split("=>").last().unwrap_or_default().split_whitespace().next().unwrap_or_default();
            if path.starts_with('/') && !self.present.contains(Path::new(&path[1..])) {
                self.file(Path::new(path), &path[1..])?;
            }
        }
        Ok(())
    }

    /// A file with these bytes.
    pub fn data(&mut self, to: &str, data: &[u8], mode: u32) {
        let path = Path::new(to);
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        if self.present.insert(path.to_owned()) {
            self.entry(to, FILE | mode, data);
        }
    }

    fn link(&mut self, name: &str, target: &str) {
        if self.present.insert(PathBuf::from(name)) {
            self.entry(name, LINK, target.as_bytes());
        }
    }

    fn folder(&mut self, path: &Path) {
        if path.as_os_str().is_empty() || self.present.contains(path) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        self.present.insert(path.to_owned());
        self.entry(&path.to_string_lossy(), DIRECTORY, &[]);
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.inode += 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.archive.extend_from_slice(b"070701");
        for field in fields {
            self.archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.archive.len().is_multiple_of(4) {
            self.archive.push(0);
        }
    }

    /// Ends the archive and writes it.
    pub fn write(mut self, path: &Path) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[]);
        fs::write(path, &self.archive).with_context(|| format!("write {}", path.display()))
    }
}
