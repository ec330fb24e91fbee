//! Ctrl-C and SIGTERM as an ordinary error, so that everything that was made is removed on the way out.
//!
//! The handler only notes the signal. Whatever waits asks [`check`] between short sleeps and returns the
//! error that it gets; the guards of namespaces, processes and folders then clean up as after any failure.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// A signal asked xtask to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by {0}")]
pub struct Interrupted(pub Signal);

extern "C" fn note(signal: libc::c_int) {
    SIGNAL.store(signal, Ordering::Relaxed);
}

/// From here on SIGINT, SIGTERM and SIGHUP are noted instead of ending the process.
pub fn watch() -> nix::Result<()> {
    // SA_RESTART: a write to the terminal is not to fail with EINTR; waits here sleep in slices anyway.
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores into an atomic and does nothing else, which is async-signal-safe.
        unsafe { sigaction(signal, &action)? };
    }
    Ok(())
}

/// Whether xtask was asked to stop.
pub fn check() -> Result<(), Interrupted> {
    match Signal::try_from(SIGNAL.load(Ordering::Relaxed)) {
        Ok(signal) => Err(Interrupted(signal)),
        Err(_) => Ok(()),
    }
}

/// Forgets a signal that has been answered: Ctrl-C ends the live view, and the run goes on to its end.
pub fn forget() {
    SIGNAL.store(0, Ordering::Relaxed);
}

/// Sleeps, unless xtask is asked to stop.
pub fn sleep(time: Duration) -> Result<(), Interrupted> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}
