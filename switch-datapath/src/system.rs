//! What the machine must have before anything can be loaded, with errors that say what to do.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::sys;

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    #[error("no right to use BPF: run as root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN)")]
    NotPrivileged,
    #[error("this kernel does not offer bpf(2) ({0}): Sluice needs Linux 6.1 or newer")]
    NoBpf(io::Error),
    #[error(
        "this kernel has no type information (/sys/kernel/btf/vmlinux): use a kernel built with \
         CONFIG_DEBUG_INFO_BTF, as distributions' kernels are"
    )]
    NoBtf,
    #[error("cannot mount the BPF file system: `mount -t bpf bpf {path}` fails: {source}", path = path.display())]
    Bpffs { path: PathBuf, source: io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: &'static str, source: io::Error },
}

/// Checks rights and kernel, raises the limit of locked memory, and mounts the BPF file system if need be.
pub fn prepare(bpffs: &Path) -> Result<(), SystemError> {
    raise_memlock();
    match sys::map_create(sys::MAP_TYPE_ARRAY, 4, 1, None) {
        Ok(_) => {}
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => return Err(SystemError::NotPrivileged),
        Err(e) => return Err(SystemError::NoBpf(e)),
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(SystemError::NoBtf);
    }
    mount_bpffs(bpffs).map_err(|source| SystemError::Bpffs { path: bpffs.to_owned(), source })
}

/// Since Linux 5.11 maps are not charged to this limit, but packet buffers of AF_XDP are. Raising it may be
/// refused (CAP_SYS_RESOURCE); who then needs more than is allowed gets an error of his own.
fn raise_memlock() {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: both calls take a pointer to a local of the right type.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) != 0
            && libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) == 0
        {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
        }
    }
}

fn is_bpffs(path: &CString) -> io::Result<bool> {
    const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
    // SAFETY: every bit pattern of the struct is valid.
    let mut s: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string, the other pointer a local.
    if unsafe { libc::statfs(path.as_ptr(), &mut s) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(s.f_type as u32 == BPF_FS_MAGIC)
}

/// Where the kernel's tracing file system belongs.
pub const TRACEFS: &str = "/sys/kernel/tracing";

/// Mounts the tracing file system.
pub fn mount_tracefs() -> io::Result<()> {
    let c = CString::new(TRACEFS)?;
    // SAFETY: all strings are NUL-terminated and live through the call.
    let r = unsafe { libc::mount(c"tracefs".as_ptr(), c.as_ptr(), c"tracefs".as_ptr(), 0, std::ptr::null()) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    tracing::info!(path = TRACEFS, "mounted the tracing file system");
    Ok(())
}

fn mount_bpffs(path: &Path) -> io::Result<()> {
    let c = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    match is_bpffs(&c) {
        Ok(true) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(path)?,
        _ => {}
    }
    // SAFETY: all pointers are C strings, or null for "no options".
    let r = unsafe { libc::mount(c"bpf".as_ptr(), c.as_ptr(), c"bpf".as_ptr(), 0, std::ptr::null()) };
    if r != 0 {
        let error = io::Error::last_os_error();
        // Somebody else may have been faster.
        return if is_bpffs(&c).unwrap_or(false) { Ok(()) } else { Err(error) };
    }
    tracing::info!(path = %path.display(), "mounted the BPF file system");
    Ok(())
}

/// CPUs that this machine can have: one more than the highest number that a program can see.
pub fn possible_cpus() -> Result<u32, SystemError> {
    const PATH: &str = "/sys/devices/system/cpu/possible";
    let text = fs::read_to_string(PATH).map_err(|source| SystemError::Read { path: PATH, source })?;
    highest(&text)
        .and_then(|n| n.checked_add(1))
        .ok_or_else(|| SystemError::Read { path: PATH, source: io::ErrorKind::InvalidData.into() })
}

/// The last number of a list such as "0-3,8".
fn highest(list: &str) -> Option<u32> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(highest("0\n"), Some(0));
        assert_eq!(highest("0-3,8-11\n"), Some(11));
        assert_eq!(highest(""), None);
    }
}
