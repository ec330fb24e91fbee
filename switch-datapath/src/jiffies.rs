//! The kernel's jiffies, in which flow statistics say when a flow was last used, as milliseconds of
//! `CLOCK_MONOTONIC`.
//!
//! `jiffies64` counts ticks of that clock from `INITIAL_JIFFIES` on. The length of a tick is the resolution of
//! `CLOCK_MONOTONIC_COARSE`; the offset is found once, by reading both at the same time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::sys::{self, Instruction, TestRun};

/// `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads as well.
pub(crate) fn now_ns() -> i64 {
    clock(libc::CLOCK_MONOTONIC)
}

fn clock(id: libc::clockid_t) -> i64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a local; both clocks used here exist on every Linux.
    unsafe { libc::clock_gettime(id, &mut t) };
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

fn tick_ns() -> io::Result<i64> {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a local.
    if unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut t) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if t.tv_sec != 0 || t.tv_nsec < 100_000 {
        return Err(io::Error::other(format!("the kernel's tick is said to take {} ns", t.tv_nsec)));
    }
    Ok(t.tv_nsec)
}

/// Reads `jiffies64` through two programs, since a test run answers 32 bits.
struct Reader {
    low: OwnedFd,
    high: OwnedFd,
}

impl Reader {
    fn new() -> io::Result<Reader> {
        const CALL: u8 = 0x85;
        const SHIFT_RIGHT: u8 = 0x77;
        const EXIT: u8 = 0x95;
        const BPF_JIFFIES64: i32 = 118;
        let i = |code, immediate| Instruction { code, registers: 0, offset: 0, immediate };
        Ok(Reader {
            low: sys::load_classifier(&[i(CALL, BPF_JIFFIES64), i(EXIT, 0)])?,
            high: sys::load_classifier(&[i(CALL, BPF_JIFFIES64), i(SHIFT_RIGHT, 32), i(EXIT, 0)])?,
        })
    }

    fn read(&self) -> io::Result<u64> {
        let run = |program: &OwnedFd| {
            let frame = [0; 64];
            let run = TestRun { data_in: &frame, repeat: 1, ..TestRun::default() };
            sys::test_run(program.as_fd(), run).map(|r| u64::from(r.return_value))
        };
        loop {
            let high = run(&self.high)?;
            let low = run(&self.low)?;
            if run(&self.high)? == high {
                return Ok(high << 32 | low);
            }
        }
    }
}

/// Converts jiffies.
#[derive(Clone, Copy, Debug)]
pub struct Jiffies {
    tick_ns: i64,
    /// One moment, on both clocks.
    jiffies: u64,
    ns: i64,
}

impl Jiffies {
    /// Needs the right to load programs.
    pub fn calibrate() -> io::Result<Jiffies> {
        let tick_ns = tick_ns()?;
        let reader = Reader::new()?;
        // The reading that took least time is the most exact one.
        let mut best: Option<(i64, Jiffies)> = None;
        for _ in 0..8 {
            let before = now_ns();
            let jiffies = reader.read()?;
            let after = now_ns();
            let took = after - before;
            if best.is_none_or(|(t, _)| took < t) {
                best = Some((took, Jiffies { tick_ns, jiffies, ns: before + took / 2 }));
            }
        }
        best.map(|(_, j)| j).ok_or_else(|| io::Error::other("no reading"))
    }

    /// `CLOCK_MONOTONIC`, in ms.
    pub fn now_ms(&self) -> u64 {
        (now_ns() / 1_000_000).max(1) as u64
    }

    /// When that was, in ms of [`Jiffies::now_ms`]; 0 stays 0, for "never". Exact to a tick.
    pub fn to_ms(&self, jiffies: u64) -> u64 {
        if jiffies == 0 {
            return 0;
        }
        let ticks = i128::from(jiffies.wrapping_sub(self.jiffies) as i64);
        let ns = i128::from(self.ns) + ticks * i128::from(self.tick_ns);
        (ns / 1_000_000).clamp(1, i128::from(self.now_ms())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_clock() {
        let (Ok(reader), Ok(jiffies)) = (Reader::new(), Jiffies::calibrate()) else {
            eprintln!("skipped: no right to load BPF programs");
            return;
        };
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(30));
            let (j, now) = (jiffies.to_ms(reader.read().unwrap()), jiffies.now_ms());
            assert!(now.abs_diff(j) <= 25, "{j} {now} {jiffies:?}");
        }
    }

    #[test]
    fn conversion() {
        let j = Jiffies { tick_ns: 4_000_000, jiffies: 0xffff_0000, ns: 1_000_000_000 };
        assert_eq!(j.to_ms(0), 0);
        assert_eq!(j.to_ms(0xffff_0000), 1000.min(j.now_ms()));
        assert_eq!(j.to_ms(0xffff_0000 - 100), 600.min(j.now_ms()));
        assert_eq!(j.to_ms(1), 1);
    }
}
