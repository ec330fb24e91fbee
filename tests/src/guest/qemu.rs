//! Starting a guest and reading what it says.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Initramfs, Kernel};

/// A tap device of the host that becomes a virtio NIC of the guest.
#[derive(Clone, Debug)]
pub struct Tap {
    pub name: String,
    pub mac: String,
    /// More properties of the device, such as `csum=off`; empty for virtio's defaults.
    pub options: String,
}

/// A guest before it is started.
pub struct Guest {
    kernel: Kernel,
    modules: Vec<String>,
    initramfs: Initramfs,
    script: String,
    taps: Vec<Tap>,
    memory_mib: u32,
}

/// What a guest did.
#[derive(Debug)]
pub struct GuestResult {
    /// Everything on its console.
    pub console: String,
    /// Exit status of the script; `None` if the guest ended before it was told.
    pub status: Option<i32>,
}

/// Marks the script's exit status on the console.
const STATUS_MARK: &str = "guest-status=";

impl Guest {
    /// A guest that runs `script` (busybox sh) after mounting the usual file systems and loading `modules`
    /// (those that are not there are built in, or their lack is the script's concern).
    pub fn new(kernel: Kernel, modules: &[&str], initramfs: Initramfs, script: &str) -> Guest {
        Guest {
            kernel,
            modules: modules.iter().map(|m| (*m).to_owned()).collect(),
            initramfs,
            script: script.to_owned(),
            taps: Vec::new(),
            memory_mib: 1024,
        }
    }

    pub fn tap(mut self, tap: Tap) -> Guest {
        self.taps.push(tap);
        self
    }

    pub fn memory_mib(mut self, memory: u32) -> Guest {
        self.memory_mib = memory;
        self
    }

    /// Starts it. `launch` may change the command, to enter a network namespace for instance.
    pub fn start(mut self, launch: impl FnOnce(&mut Command)) -> Result<RunningGuest> {
        let mut init = String::from(
            "#!/bin/sh\nexport PATH=/usr/bin:/usr/sbin:/bin:/sbin\nmount -t proc proc /proc\nmount -t sysfs sysfs /sys\n\
             mount -t devtmpfs dev /dev\nmount -t tmpfs tmpfs /run\nmkdir -p /dev/shm /run/netns\n",
        );
        let mut loaded = std::collections::BTreeSet::new();
        for name in &self.modules {
            for file in self.kernel.modules(name) {
                if !loaded.insert(file.clone()) {
                    continue;
                }
                let inside = format!("modules/{}", file.file_name().unwrap_or_default().to_string_lossy());
                self.initramfs.file(&file, &inside)?;
                init.push_str(&format!("insmod /{inside} || echo 'insmod {name} failed'\n"));
            }
        }
        init.push_str(&format!("sh /script\necho \"{STATUS_MARK}$?\"\nsync\npoweroff -f\n"));
        self.initramfs.data("init", init.as_bytes(), 0o755);
        self.initramfs.data("script", self.script.as_bytes(), 0o755);
        let folder = super::work_folder();
        std::fs::create_dir_all(&folder)?;
        let file = tempfile::Builder::new().prefix("initramfs-").tempfile_in(&folder)?.into_temp_path();
        self.initramfs.write(&file)?;

        let qemu =
            super::find_program("qemu-system-x86_64").context("qemu-system-x86_64 is not installed")?;
        let mut command = Command::new(qemu);
        command.args(["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-monitor", "none"]);
        command.args(["-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "1"]);
        command.args(["-m", &self.memory_mib.to_string()]);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&file);
        command.args(["-append", "console=ttyS0 panic=-1 quiet loglevel=4"]);
        for (i, tap) in self.taps.iter().enumerate() {
            command.args([
                "-netdev",
                &format!("tap,id=n{i},ifname={},script=no,downscript=no", tap.name),
                "-device",
            ]);
            let comma = if tap.options.is_empty() { "" } else { "," };
            command.arg(format!("virtio-net-pci,netdev=n{i},mac={},romfile={comma}{}", tap.mac, tap.options));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        launch(&mut command);
        let mut child = command.spawn().context("start qemu")?;
        let stdout = child.stdout.take().context("qemu's console")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(|l| l.ok()) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Ok(RunningGuest { child, lines, console: String::new(), status: None, _initramfs: file })
    }

    /// Starts it and waits for its end.
    pub fn run(self, limit: Duration) -> Result<GuestResult> {
        self.start(|_| {})?.finish(limit)
    }
}

/// A guest that runs; killed when dropped.
pub struct RunningGuest {
    child: Child,
    lines: mpsc::Receiver<String>,
    console: String,
    status: Option<i32>,
    _initramfs: tempfile::TempPath,
}

impl RunningGuest {
    /// Waits until the guest says a line that contains `text`.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            match self.next_line(end)? {
                Some(line) if line.contains(text) => return Ok(line),
                Some(_) => {}
                None => bail!("the guest ended before it said {text:?}; its console:\n{}", self.console),
            }
        }
    }

    /// Waits for its end.
    pub fn finish(mut self, limit: Duration) -> Result<GuestResult> {
        let end = Instant::now() + limit;
        while self.next_line(end)?.is_some() {}
        Ok(GuestResult { console: std::mem::take(&mut self.console), status: self.status })
    }

    fn next_line(&mut self, end: Instant) -> Result<Option<String>> {
        let left = end.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                if let Some((_, status)) = line.split_once(STATUS_MARK) {
                    self.status = status.trim().parse().ok();
                }
                self.console.push_str(&line);
                self.console.push('\n');
                Ok(Some(line))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(None),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the guest took too long; its console:\n{}", self.console)
            }
        }
    }
}

impl Drop for RunningGuest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program of this workspace was built, or `None`.
pub fn built(name: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"));
    Some(target.join("release").join(name)).filter(|p| p.is_file())
}
