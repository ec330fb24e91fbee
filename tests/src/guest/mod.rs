//! Virtual machines under plain emulation: other kernels, and guests with virtio's own offloads.
//!
//! A guest is a Debian kernel, an initramfs that is made on the spot from busybox and what a test wants in it,
//! and a shell script that runs as `/init`. It has no disk and no network but the taps that a test gives it.
//! From power-on to power-off takes five to thirty seconds.

mod initramfs;
mod kernel;
mod qemu;

pub use initramfs::Initramfs;
pub use kernel::{Kernel, Series};
pub use qemu::{Guest, GuestResult, RunningGuest, Tap, built};

use std::path::{Path, PathBuf};

/// Why a guest cannot run here, in words for a skipped test.
pub fn missing() -> Option<String> {
    for (program, package) in [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")] {
        if find_program(program).is_none() {
            return Some(format!("{program} is not installed (package {package})"));
        }
    }
    (!cfg!(target_arch = "x86_64")).then(|| "guests are x86-64 only".to_owned())
}

/// A program in the search path or the usual system folders.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The folder for downloaded and generated files.
pub fn work_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("vm")
}
