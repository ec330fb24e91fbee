//! Several frames over a packet socket with one system call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends frames, all of them; `Ok` is how many the kernel took, from the first on.
pub fn send(socket: BorrowedFd<'_>, frames: &[impl AsRef<[u8]>]) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> = frames
        .iter()
        .map(AsRef::as_ref)
        .map(|f| libc::iovec { iov_base: f.as_ptr().cast_mut().cast(), iov_len: f.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: all zeros is a valid mmsghdr: no address, no data, no control message.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let count = libc::c_uint::try_from(messages.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: each message points to one part, and each part to a frame; all of them live through the call, which
    // only reads the frames.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
