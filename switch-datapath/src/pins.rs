//! Where an instance's maps, programs and links are pinned, so that the kernel goes on forwarding without the
//! daemon: `BPFFS/sluice/INSTANCE/{maps,programs,links}/NAME`.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::netlink::{self, Direction};
use crate::sys;

/// What can be pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pinned {
    Map,
    Program,
    Link,
}

impl Pinned {
    const ALL: [Pinned; 3] = [Pinned::Link, Pinned::Program, Pinned::Map];

    const fn folder(self) -> &'static str {
        match self {
            Pinned::Map => "maps",
            Pinned::Program => "programs",
            Pinned::Link => "links",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("`{0}` cannot name an instance: letters, digits, `-` and `_`, at most 64 of them")]
    Instance(String),
    #[error("an earlier instance's objects are still pinned under {}: remove them first", .0.display())]
    Leftovers(PathBuf),
    #[error("cannot pin {path}: {source}", path = path.display())]
    Pin { path: PathBuf, source: io::Error },
    #[error("cannot remove {path}: {source}", path = path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// The folders of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    instance: String,
}

impl Pins {
    /// Only checks the name.
    pub fn new(bpffs: &Path, instance: &str) -> Result<Pins, PinError> {
        let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if instance.is_empty() || instance.len() > 64 || !instance.bytes().all(good) {
            return Err(PinError::Instance(instance.to_owned()));
        }
        Ok(Pins { root: bpffs.join("sluice").join(instance), instance: instance.to_owned() })
    }

    /// The name of this instance's clsact filters.
    pub fn filter_name(&self) -> String {
        format!("{}:{}", switch_common::program::TC, self.instance)
    }

    pub fn path(&self, what: Pinned, name: &str) -> PathBuf {
        self.root.join(what.folder()).join(name)
    }

    /// Makes the folders; refuses if there is something in them.
    pub fn create(&self) -> Result<(), PinError> {
        for what in Pinned::ALL {
            let folder = self.root.join(what.folder());
            fs::create_dir_all(&folder).map_err(|source| PinError::Pin { path: folder.clone(), source })?;
            if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(PinError::Leftovers(self.root.clone()));
            }
        }
        Ok(())
    }

    pub fn pin(&self, what: Pinned, name: &str, fd: BorrowedFd<'_>) -> Result<(), PinError> {
        let path = self.path(what, name);
        sys::pin(fd, &path).map_err(|source| PinError::Pin { path, source })
    }

    /// Detaches whatever this instance has attached, in this process's network namespace, and removes all pins.
    /// Nothing to remove is no error.
    pub fn remove(&self) -> Result<(), PinError> {
        let links = self.root.join(Pinned::Link.folder());
        // XDP goes first: a port that still has TC drops what XDP would have taken, and never passes it to the host.
        let mut names = entries(&links)?;
        names.sort_by_key(|path| !path.as_os_str().as_encoded_bytes().ends_with(b"-xdp"));
        for path in names {
            if let Ok(link) = sys::open_pinned(&path)
                && let Err(error) = sys::link_detach(link.as_fd())
            {
                tracing::debug!(path = %path.display(), %error, "link was detached already");
            }
            remove_file(&path)?;
        }
        self.remove_filters();
        for what in [Pinned::Program, Pinned::Map] {
            for path in entries(&self.root.join(what.folder()))? {
                remove_file(&path)?;
            }
        }
        for folder in Pinned::ALL.map(|what| self.root.join(what.folder())).iter().chain([&self.root]) {
            match fs::remove_dir(folder) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(PinError::Remove { path: folder.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn remove_filters(&self) {
        let name = self.filter_name();
        for ifindex in interfaces() {
            for direction in [Direction::Ingress, Direction::Egress] {
                if netlink::filter_name(ifindex, direction).is_some_and(|n| n == name)
                    && let Err(error) = netlink::delete_filter(ifindex, direction)
                {
                    tracing::warn!(ifindex, %error, "a left-over filter could not be removed");
                }
            }
        }
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, PinError> {
    let fail = |source| PinError::Remove { path: folder.to_owned(), source };
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path()).map_err(fail)).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(fail(e)),
    }
}

fn remove_file(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PinError::Remove { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Indices of all interfaces in this process's network namespace.
fn interfaces() -> Vec<u32> {
    let mut indices = Vec::new();
    // SAFETY: the array ends with an entry whose index is 0, and is freed as it came.
    unsafe {
        let list = libc::if_nameindex();
        if list.is_null() {
            return indices;
        }
        let mut at = list;
        while (*at).if_index != 0 {
            indices.push((*at).if_index);
            at = at.add(1);
        }
        libc::if_freenameindex(list);
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let pins = Pins::new(Path::new("/sys/fs/bpf"), "a_1-Z").unwrap();
        assert_eq!(pins.path(Pinned::Link, "3-tc"), Path::new("/sys/fs/bpf/sluice/a_1-Z/links/3-tc"));
        for bad in ["", "..", "a/b", "a b", &"x".repeat(65)] {
            assert!(Pins::new(Path::new("/"), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_to_remove() {
        let dir = tempfile::tempdir().unwrap();
        Pins::new(dir.path(), "nobody").unwrap().remove().unwrap();
    }
}
