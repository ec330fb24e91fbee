//! The run directory and what is derived from it: the instance id under which kernel state is kept, the lock
//! that keeps a second daemon out, the pid file, the memory of what was changed on devices.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Why a run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("cannot make the run directory {path}: {source}")]
    Create { path: PathBuf, source: io::Error },
    #[error("another sluice daemon is running on {path}{}: stop it, or use another --rundir", pid_text(*.pid))]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map(|p| format!(" (pid {p})")).unwrap_or_default()
}

/// One daemon's run directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Instance {
    dir: PathBuf,
    id: String,
    _lock: Flock<File>,
}

impl Instance {
    /// Makes and locks the directory, and writes the pid file.
    pub fn open(dir: &Path) -> Result<Instance, InstanceError> {
        let create = |source| InstanceError::Create { path: dir.to_owned(), source };
        if !dir.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(create)?;
        }
        let dir = fs::canonicalize(dir).map_err(create)?;
        let lock_path = dir.join("sluice.pid");
        let write = |source| InstanceError::Write { path: lock_path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&lock_path)
            .map_err(write)?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err(_) => {
                let pid = fs::read_to_string(&lock_path).ok().and_then(|t| t.trim().parse().ok());
                return Err(InstanceError::Locked { path: dir, pid });
            }
        };
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(write)?;
        let id = instance_id(&dir);
        Ok(Instance { dir, id, _lock: lock })
    }

    /// Six characters that name this instance's pins and hidden devices.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Replaces a file of the directory at once: a reader sees the old one or the new one.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), InstanceError> {
        let path = self.path(name);
        let temporary = self.path(&format!(".{name}.new"));
        fs::write(&temporary, content)
            .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| InstanceError::Write { path, source })
    }

    /// Removes what this daemon put into the directory, the lock last.
    pub fn close(self) {
        for name in ["control.sock", super::devices::FILE, "sluice.pid"] {
            let _ = fs::remove_file(self.path(name));
        }
    }
}

/// FNV-1a of the directory's path, in 30 bits as six letters and digits: the same after every start.
fn instance_id(dir: &Path) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in dir.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash ^= hash >> 32;
    (0..6).map(|i| ALPHABET[(hash >> (5 * i)) as usize & 31] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_daemon_is_refused_with_the_pid() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Instance::open(dir.path()).expect("first");
        match Instance::open(dir.path()) {
            Err(InstanceError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        first.close();
        Instance::open(dir.path()).expect("free again");
    }

    #[test]
    fn ids_are_short_and_stable() {
        let a = instance_id(Path::new("/run/a"));
        assert_eq!(a, instance_id(Path::new("/run/a")));
        assert_ne!(a, instance_id(Path::new("/run/b")));
        assert_eq!(a.len(), 6);
    }
}
