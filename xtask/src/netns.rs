//! Network namespaces in which everything happens that the demo and the benchmark do.
//!
//! A namespace is named after what it is for, its role, and the process that made it, and it is removed when
//! its [`Namespace`] is dropped. Those of a run that was killed are removed by the next one. Nothing here
//! touches a device of the machine itself.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, Scope, ScopedJoinHandle};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::process;

/// Where iproute2 keeps the names.
const FOLDER: &str = "/run/netns";

/// A network namespace with a name that `ip netns` knows.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `prefix-role-PID`, with its loopback up.
    pub fn create(prefix: &str, role: &str) -> Result<Namespace> {
        let namespace = Namespace { name: format!("{prefix}-{role}-{}", std::process::id()) };
        process::output(Command::new("ip").args(["netns", "add", &namespace.name]))
            .with_context(|| format!("make the network namespace {}", namespace.name))?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Result<File> {
        let path = Path::new(FOLDER).join(&self.name);
        File::open(&path).with_context(|| format!("open {}", path.display()))
    }

    /// Runs iproute2's `ip` on the namespace's devices.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        process::output(Command::new("ip").args(["-n", &self.name]).args(arguments)).map(|_| ())
    }

    /// Has a command start inside. Only the network is another one: `ip netns exec` would also put a fresh
    /// `/sys` in place, in which nothing can be pinned.
    pub fn enter(&self, command: &mut Command) -> Result<()> {
        let file = self.open()?;
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe; the closure owns the file.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) == 0 {
                    Ok(())
                } else {
                    Err(std::io::Error::last_os_error())
                }
            });
        }
        Ok(())
    }

    /// Runs a short command inside and returns what it printed.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.enter(command)?;
        process::output(command)
    }

    /// Writes a setting under `/proc/sys/net`, such as `ipv4/conf/all/arp_ignore`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys/net").join(name);
        self.within(|| std::fs::write(&path, value).with_context(|| format!("write {}", path.display())))?
    }

    /// Does something inside, in a thread of its own, and waits for it.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| join(self.spawn(scope, what)?))
    }

    /// Starts a thread inside.
    pub fn spawn<'scope, T: Send + 'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        what: impl FnOnce() -> T + Send + 'scope,
    ) -> Result<ScopedJoinHandle<'scope, Result<T>>> {
        let file = self.open()?;
        let name = self.name.clone();
        Ok(scope.spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {name}"))?;
            Ok(what())
        }))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = process::output(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("  ! {error:#}");
        }
    }
}

/// Waits for a thread of [`Namespace::spawn`]; its panic becomes an error.
pub fn join<T>(handle: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match handle.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread inside a network namespace panicked"),
    }
}

/// Removes the namespaces of runs that did not end in order: those of processes that are no more.
pub fn remove_stale(prefix: &str) {
    for entry in std::fs::read_dir(FOLDER).into_iter().flatten().filter_map(|e| e.ok()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if maker(&name, prefix).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = process::output(Command::new("ip").args(["netns", "del", &name]));
        }
    }
}

/// The process that made a namespace of this name, if it is one of ours.
fn maker(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.strip_prefix('-')?.rsplit_once('-')?.1.parse().ok()
}

/// A virtual cable between two namespaces. It goes with either of them.
pub fn cable(a: (&Namespace, &str, &str), b: (&Namespace, &str, &str)) -> Result<()> {
    let ((at, name, mac), (peer_at, peer, peer_mac)) = (a, b);
    at.ip(&[
        "link",
        "add",
        name,
        "address",
        mac,
        "type",
        "veth",
        "peer",
        "name",
        peer,
        "address",
        peer_mac,
        "netns",
        peer_at.name(),
    ])?;
    at.ip(&["link", "set", name, "up"])?;
    peer_at.ip(&["link", "set", peer, "up"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers() {
        assert_eq!(maker("slvm-a-417", "slvm"), Some(417));
        assert_eq!(maker("slvm-a", "slvm"), None);
        assert_eq!(maker("slbench-a-417", "slvm"), None);
        assert_eq!(maker("other", "slvm"), None);
    }
}
