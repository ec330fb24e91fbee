//! Waiting until every eBPF program run that has begun has ended.
//!
//! Programs run inside RCU read-side sections, so that is an RCU grace period. Two system calls wait for one:
//! `membarrier(MEMBARRIER_CMD_GLOBAL)`, in about 8 ms, and the update of an element of an array of maps
//! (`maybe_wait_bpf_programs` in the kernel's `kernel/bpf/syscall.c`). The former is not offered with
//! `nohz_full`, and does nothing on a machine with a single CPU, where a program can still have been preempted;
//! then the latter is used.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::sys;

const CMD_QUERY: i32 = 0;
const CMD_GLOBAL: i32 = 1;

/// A way to wait for grace periods.
pub struct Grace {
    membarrier: bool,
    outer: OwnedFd,
    inner: OwnedFd,
}

fn membarrier(cmd: i32) -> io::Result<i32> {
    // SAFETY: the call takes integers and changes no memory.
    let r = unsafe { libc::syscall(libc::SYS_membarrier, cmd, 0, 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r as i32) }
}

fn online_cpus() -> i64 {
    // SAFETY: takes an integer and answers one.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }
}

impl Grace {
    /// Needs the right to create maps.
    pub fn new() -> io::Result<Grace> {
        let inner = sys::map_create(sys::MAP_TYPE_ARRAY, 4, 1, None)?;
        let outer = sys::map_create(sys::MAP_TYPE_ARRAY_OF_MAPS, 4, 1, Some(inner.as_fd()))?;
        let membarrier = membarrier(CMD_QUERY).is_ok_and(|commands| commands & CMD_GLOBAL != 0);
        Ok(Grace { membarrier, outer, inner })
    }

    /// Returns when every run that began before the call has ended.
    pub fn wait(&self) -> io::Result<()> {
        if self.membarrier && online_cpus() > 1 && membarrier(CMD_GLOBAL).is_ok() {
            return Ok(());
        }
        self.wait_by_map()
    }

    fn wait_by_map(&self) -> io::Result<()> {
        sys::map_update(self.outer.as_fd(), 0, &self.inner.as_raw_fd().to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_return() {
        let Ok(grace) = Grace::new() else {
            eprintln!("skipped: no right to create BPF maps");
            return;
        };
        grace.wait().unwrap();
        grace.wait_by_map().unwrap();
    }
}
