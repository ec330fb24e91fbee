//! Processes that xtask starts, and that it ends.
//!
//! Each is ended by its own process id, politely first. None outlives xtask, even when that is killed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::interrupt;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Well,
    Badly(String),
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Ended {
        if status.success() { Ended::Well } else { Ended::Badly(status.to_string()) }
    }
}

/// Time that a process gets between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// Waits for a process and calls `meanwhile` a few times a second. When xtask is asked to stop, or `limit` is
/// over, the process is ended and an error returned.
pub fn wait(child: &mut Child, limit: Option<Duration>, mut meanwhile: impl FnMut()) -> Result<Ended> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("wait for a process")? {
            return Ok(status.into());
        }
        if let Err(interrupted) = interrupt::check() {
            end(child);
            return Err(interrupted.into());
        }
        if limit.is_some_and(|l| begun.elapsed() > l) {
            end(child);
            bail!("it did not end within {} s", limit.unwrap_or_default().as_secs());
        }
        meanwhile();
        std::thread::sleep(POLL);
    }
}

/// Ends a process: SIGTERM, and SIGKILL if that does not help.
pub fn end(child: &mut Child) {
    let Ok(None) = child.try_wait() else { return };
    let Ok(pid) = i32::try_from(child.id()) else { return };
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(POLL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// A background process that ends when this is dropped.
#[derive(Debug)]
pub struct Background {
    name: String,
    child: Child,
}

impl Background {
    /// Starts a process that gets SIGTERM if the thread that starts it dies before it.
    pub fn start(name: &str, command: &mut Command) -> Result<Background> {
        let parent = std::process::id();
        // SAFETY: between fork and exec only prctl, getppid and _exit are called, all async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // The parent may have died before the request was made.
                if u32::try_from(libc::getppid()) != Ok(parent) {
                    libc::_exit(1);
                }
                Ok(())
            });
        }
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("start {name}"))?;
        Ok(Background { name: name.to_owned(), child })
    }

    /// The process, to take its pipes from.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended by itself.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("ask for {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself ({status})", self.name),
        }
    }

    /// Ends it, and tells how it ended.
    pub fn stop(mut self) -> Result<Ended> {
        self.alive()?;
        end(&mut self.child);
        Ok(self.child.wait().with_context(|| format!("wait for {}", self.name))?.into())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A command with all that it starts: a process group of its own, ended when this is dropped.
#[derive(Debug)]
pub struct Group {
    name: String,
    child: Child,
}

impl Group {
    /// Starts the command. Ctrl-C on the terminal does not reach it: xtask passes it on.
    pub fn start(name: &str, command: &mut Command) -> Result<Group> {
        let child = command.process_group(0).spawn().with_context(|| format!("start {name}"))?;
        Ok(Group { name: name.to_owned(), child })
    }

    /// Waits for the command itself.
    pub fn wait(&mut self, limit: Duration) -> Result<Ended> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().with_context(|| format!("wait for {}", self.name))? {
                return Ok(status.into());
            }
            interrupt::check()?;
            if begun.elapsed() > limit {
                bail!("{} did not end within {} min", self.name, limit.as_secs() / 60);
            }
            std::thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: Signal) -> bool {
        // The group keeps its number for as long as one process is left in it.
        i32::try_from(self.child.id()).is_ok_and(|id| killpg(Pid::from_raw(id), signal).is_ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + GRACE;
        let mut left = self.signal(Signal::SIGTERM);
        while left && Instant::now() < deadline {
            std::thread::sleep(POLL);
            let _ = self.child.try_wait();
            left = self.signal(Signal::SIGCONT);
        }
        if left {
            self.signal(Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Runs a short command and returns what it printed; an error carries what it complained of.
pub fn output(command: &mut Command) -> Result<String> {
    let name = shown(command);
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(if out.stderr.is_empty() { &out.stdout } else { &out.stderr })
            .into_owned();
        bail!("{name}: {}", said.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A command as it would be typed.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|a| a.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Finds a program on `PATH`, or in the folders for administrators that a user's `PATH` lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

/// Whether a file may be run.
pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// `PATH` with a folder in front.
pub fn path_with(folder: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("a folder with ':' in its name cannot stand in PATH")
}
