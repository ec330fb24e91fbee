//! Network namespaces: handles to those that exist, and named ones made for tests, the demo and the benchmark.
//!
//! A [`Namespace`] is an open descriptor: it stays valid when the name or the process that it was found by is
//! gone. Code runs inside one on a thread of its own, so that the caller's threads never change namespace.
//!
//! [`NamedNamespace`] is what `ip netns add` makes: a file under `/run/netns` onto which the namespace is
//! bind-mounted, so that `ip netns` sees it. It is deleted on drop, and a later process can remove what a killed
//! one left behind ([`remove_stale`]): the name holds its maker's process id.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` keeps its names.
pub const NETNS_DIRECTORY: &str = "/run/netns";
/// Bytes of a namespace's name that this module makes at most.
const NAME_MAX: usize = 64;

/// Why a namespace could not be made, found, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    #[error("network namespace {name:?}: a name is 1 to {NAME_MAX} letters, digits, '-', '_' or '.'")]
    BadName { name: String },
    #[error("cannot {what} network namespace {name}: {source}")]
    Failed { what: &'static str, name: String, source: io::Error },
    #[error("in network namespace {name}: {command} failed: {output}")]
    Command { name: String, command: String, output: String },
}

fn failed(what: &'static str, name: &str) -> impl FnOnce(io::Error) -> NamespaceError {
    let name = name.to_owned();
    move |source| NamespaceError::Failed { what, name, source }
}

/// A network namespace that this process holds open.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    name: String,
}

impl Namespace {
    /// The calling thread's.
    pub fn current() -> Result<Namespace, NamespaceError> {
        Namespace::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// One that `ip netns` knows.
    pub fn by_name(name: &str) -> Result<Namespace, NamespaceError> {
        check_name(name)?;
        let mut namespace = Namespace::open(&Path::new(NETNS_DIRECTORY).join(name))?;
        namespace.name = name.to_owned();
        Ok(namespace)
    }

    /// A process's.
    pub fn of_process(pid: u32) -> Result<Namespace, NamespaceError> {
        Namespace::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The one at a path: a bind mount, or a `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Namespace, NamespaceError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(failed("open", &name))?;
        Ok(Namespace { file, name })
    }

    /// From a descriptor that the kernel gave for a namespace.
    pub(crate) fn from_fd(fd: OwnedFd) -> Namespace {
        Namespace { file: File::from(fd), name: "of a socket".to_owned() }
    }

    /// For error messages: the name or path that it was found by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Device and inode: equal for two handles to one namespace.
    pub fn identity(&self) -> Result<(u64, u64), NamespaceError> {
        let meta = self.file.metadata().map_err(failed("examine", &self.name))?;
        Ok((meta.dev(), meta.ino()))
    }

    /// Runs `work` on a new thread inside the namespace and waits for it. Sockets that it opens belong to the
    /// namespace for good. A panic goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .spawn_scoped(scope, || {
                    setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
                    Ok(work())
                })
                .map_err(failed("start a thread for", &self.name))?;
            match thread.join() {
                Ok(result) => result.map_err(failed("enter", &self.name)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A command that will run inside the namespace. Its `/sys` and mounts stay the caller's.
    pub fn command(&self, program: &str) -> Result<Command, NamespaceError> {
        let file = self.file.try_clone().map_err(failed("duplicate", &self.name))?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure only makes the system call setns, which is
        // async-signal-safe; it allocates nothing (the error is a bare errno).
        unsafe {
            command.pre_exec(move || setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        }
        Ok(command)
    }

    /// Runs a command to its end; its output if it succeeded.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<Output, NamespaceError> {
        let line = || format!("{program} {}", arguments.join(" "));
        let output = self.command(program)?.args(arguments).output();
        let output = output.map_err(|e| NamespaceError::Command {
            name: self.name.clone(),
            command: line(),
            output: e.to_string(),
        })?;
        if output.status.success() {
            return Ok(output);
        }
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        Err(NamespaceError::Command {
            name: self.name.clone(),
            command: line(),
            output: format!("{}: {}", output.status, String::from_utf8_lossy(&text).trim()),
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A named namespace that this process made; deleted on drop.
#[derive(Debug)]
pub struct NamedNamespace {
    namespace: Namespace,
    path: PathBuf,
}

impl NamedNamespace {
    /// Makes one with exactly this name, with its loopback interface up.
    ///
    /// # Errors
    /// Also if the name is taken.
    pub fn create(name: &str) -> Result<NamedNamespace, NamespaceError> {
        check_name(name)?;
        share_directory().map_err(failed("prepare the directory for", name))?;
        let path = Path::new(NETNS_DIRECTORY).join(name);
        File::options().write(true).create_new(true).open(&path).map_err(failed("create", name))?;
        let mounted = mount_new(&path).map_err(failed("mount", name)).and_then(|()| Namespace::by_name(name));
        match mounted {
            Ok(namespace) => Ok(NamedNamespace { namespace, path }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Makes one named `PREFIX-PID-N`, which no other process and no other call makes.
    pub fn create_unique(prefix: &str) -> Result<NamedNamespace, NamespaceError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        NamedNamespace::create(&format!("{prefix}-{}-{n}", std::process::id()))
    }
}

impl std::ops::Deref for NamedNamespace {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Drop for NamedNamespace {
    fn drop(&mut self) {
        if let Err(error) = detach(&self.path) {
            tracing::warn!(namespace = %self.namespace.name, %error, "cannot delete the network namespace");
        }
    }
}

/// Deletes a named namespace, as `ip netns delete` does. It lives on while processes or sockets hold it.
pub fn delete(name: &str) -> Result<(), NamespaceError> {
    check_name(name)?;
    detach(&Path::new(NETNS_DIRECTORY).join(name)).map_err(failed("delete", name))
}

/// Names of the named namespaces that start with `prefix`.
pub fn list(prefix: &str) -> Result<Vec<String>, NamespaceError> {
    let entries = match fs::read_dir(NETNS_DIRECTORY) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("list", prefix)(e)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    Ok(names)
}

/// Deletes what [`NamedNamespace::create_unique`] made under `prefix` in processes that have ended, and returns
/// the names. Those of running processes, the caller's too, stay.
pub fn remove_stale(prefix: &str) -> Result<Vec<String>, NamespaceError> {
    let mut removed = Vec::new();
    for name in list(&format!("{prefix}-"))? {
        let maker = name[prefix.len() + 1..].split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        let Some(pid) = maker else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            delete(&name)?;
            removed.push(name);
        }
    }
    Ok(removed)
}

/// The name becomes a file's: no separators, no "." and "..".
fn check_name(name: &str) -> Result<(), NamespaceError> {
    let fits = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !name.starts_with('.');
    if fits { Ok(()) } else { Err(NamespaceError::BadName { name: name.to_owned() }) }
}

/// Makes the directory a shared mount, as iproute2 does, so that a namespace deleted in one mount namespace does
/// not stay busy in another.
fn share_directory() -> io::Result<()> {
    let directory = Path::new(NETNS_DIRECTORY);
    fs::create_dir_all(directory)?;
    let share =
        || mount(None::<&str>, directory, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        Err(nix::errno::Errno::EINVAL) => {
            mount(
                Some(directory),
                directory,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )?;
            share()?;
        }
        other => other?,
    }
    Ok(())
}

/// Makes a namespace on a thread that ends, and keeps it alive by a bind mount.
fn mount_new(path: &Path) -> io::Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            loopback_up()?;
            let own = Some("/proc/thread-self/ns/net");
            mount(own, path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(io::Error::from)
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes it ended early")))
    })
}

/// Sets `lo` up in the calling thread's namespace.
fn loopback_up() -> io::Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn detach(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not a mount point: a maker that died between the file and the mount.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => fs::remove_file(path),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_directory() {
        for bad in ["", ".", "..", "a/b", "a b", "../x", "ä"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["sluice-1-0", "a.b_c"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }
}
