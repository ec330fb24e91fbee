//! CPU time that forwarding takes.
//!
//! The kernel forwards in the context of whoever sends, and, when there is much to do, in `ksoftirqd`; a switch in
//! userspace has threads of its own. What these took together is the CPU time of a run; what else the machine does
//! meanwhile is not in it. On a kernel that accounts interrupts apart (`CONFIG_IRQ_TIME_ACCOUNTING`), the whole
//! machine's are added.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Whose time counts, besides the calling thread's.
#[derive(Clone, Debug, Default)]
pub struct Workers {
    processes: Vec<u32>,
    interrupts_apart: bool,
}

/// A point in the workers' time.
#[derive(Clone, Copy, Debug)]
pub struct Mark(Duration);

impl Workers {
    /// `ksoftirqd` of every CPU, and these processes.
    pub fn new(processes: &[u32]) -> Workers {
        let mut all = processes.to_vec();
        all.extend(soft_interrupt_threads());
        Workers { processes: all, interrupts_apart: interrupts_apart() }
    }

    /// The time that the calling thread and the others have taken so far.
    pub fn mark(&self) -> Result<Mark> {
        let mut total = thread_time()?;
        for process in &self.processes {
            total += process_time(*process)?;
        }
        if self.interrupts_apart {
            total += interrupt_time()?;
        }
        Ok(Mark(total))
    }

    /// The time since a mark of the same thread.
    pub fn since(&self, mark: Mark) -> Result<Duration> {
        Ok(self.mark()?.0.saturating_sub(mark.0))
    }
}

/// What the calling thread has taken, ns exactly.
fn thread_time() -> Result<Duration> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .context("read the thread's CPU time")?;
    Ok(Duration::from(time))
}

/// What all threads of a process have taken: the first number of each thread's `schedstat`, in ns
/// (the kernel's `Documentation/scheduler/sched-stats.rst`). Threads that have ended are not in it.
fn process_time(process: u32) -> Result<Duration> {
    let folder = Path::new("/proc").join(process.to_string()).join("task");
    let threads = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let mut total = 0_u64;
    for thread in threads.filter_map(|t| t.ok()) {
        // A thread may end between the two.
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        total += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// Whether the kernel leaves interrupts out of the time of the thread that they interrupt: so says its
/// configuration, where a distribution keeps it.
fn interrupts_apart() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    fs::read_to_string(format!("/boot/config-{}", release.trim()))
        .is_ok_and(|text| text.lines().any(|l| l == "CONFIG_IRQ_TIME_ACCOUNTING=y"))
}

/// Hard and soft interrupts of all CPUs since the start: sixth and seventh number of `/proc/stat`'s first line
/// (proc(5)).
fn interrupt_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let ticks: u64 = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(6)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    let a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}

fn soft_interrupt_threads() -> Vec<u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let process = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            name.starts_with("ksoftirqd/").then_some(process)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_this_thread_counts() {
        let workers = Workers::default();
        let mark = workers.mark().expect("a mark");
        let mut sum = 0_u64;
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let took = workers.since(mark).expect("a time");
        assert!(took > Duration::from_millis(1) && took < Duration::from_millis(200), "{took:?}");
    }

    #[test]
    fn a_process_has_a_time() {
        assert!(process_time(std::process::id()).is_ok());
        assert!(process_time(u32::MAX).is_err());
    }
}
