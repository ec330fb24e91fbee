//! Socket options, which several modules set and of which nix knows only some.

use std::io;
use std::os::fd::RawFd;

/// `setsockopt(2)` with a plain value.
pub(crate) fn set_option<T>(fd: RawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is readable for its size; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
