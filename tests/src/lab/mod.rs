//! A laboratory of network namespaces: hosts, cables, and a switch daemon between them.
//!
//! Everything in it has names of its own, lives in namespaces that it made, and is gone when it is dropped,
//! also when a test fails.

mod frame;
mod host;
mod namespace;
mod switch;

pub use frame::{Capture, FrameSocket, build};
pub use host::Host;
pub use namespace::{Namespace, run, try_run};
pub use switch::Switch;

use std::sync::atomic::{AtomicU32, Ordering};

/// Why the laboratory cannot be set up here, in words for a skipped test.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    for (program, package) in [("ip", "iproute2"), ("ping", "iputils-ping"), ("nsenter", "util-linux")] {
        if crate::guest::find_program(program).is_none() {
            return Some(format!("{program} is not installed (package {package})"));
        }
    }
    crate::guest::built("sluice").is_none().then(|| "sluice is not built: cargo xtask build".to_owned())
}

/// Ends a test here, saying why, if the laboratory cannot be set up.
#[macro_export]
macro_rules! need_lab {
    () => {
        if let Some(why) = $crate::lab::missing() {
            eprintln!("skipped: {why}");
            return;
        }
    };
}

/// A name that no other namespace of this or another test process has.
fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("slt{}-{}-{what}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
