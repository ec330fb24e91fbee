//! The file system in which BPF programs and maps are pinned.

use std::path::Path;

use nix::mount::{MsFlags, mount as mount_file_system};
use nix::sys::statfs::{FsType, statfs};

use crate::step::Step;

const WHERE: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` of linux/magic.h.
const MAGIC: FsType = FsType(0xcafe_4a11);

/// Mounts it if it is not mounted. The daemon does the same for itself, so a refusal is only a warning here.
pub fn mount() {
    if statfs(Path::new(WHERE)).is_ok_and(|s| s.filesystem_type() == MAGIC) {
        return;
    }
    let step = Step::begin(format!("mounting bpffs on {WHERE}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount_file_system(Some("bpf"), WHERE, Some("bpf"), flags, Some("mode=0700")) {
        Ok(()) => step.done(""),
        Err(error) => step.warn(&error.to_string()),
    }
}
