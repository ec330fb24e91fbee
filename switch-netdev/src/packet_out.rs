//! Frames out of links: one packet socket for all of them, many frames by one system call.
//!
//! Frames bypass the link's queueing discipline and its TC egress programs. A frame that cannot leave is counted
//! by its reason; nothing here is fatal, and nothing waits for longer than [`PATIENCE`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};

use crate::packet_socket;
use crate::sys::set_option;

/// Milliseconds that a flush waits for room in the socket, in all.
pub const PATIENCE: u16 = 20;
/// Bytes of frames that may be on their way to drivers.
const SEND_BUFFER: i32 = 8 << 20;

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("packet socket for output: cannot {what}: {source}")]
pub struct PacketOutError {
    what: &'static str,
    source: io::Error,
}

/// What became of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Yes,
    /// The link is down (`ENETDOWN`).
    LinkDown,
    /// There is no such link (`ENXIO`, `ENODEV`).
    NoLink,
    /// Larger than the link's MTU lets through (`EMSGSIZE`).
    TooLong,
    /// Shorter than an Ethernet header (`EINVAL`).
    TooShort,
    /// The device's queue or the socket is full (`ENOBUFS`, `EAGAIN`).
    QueueFull,
    /// Another error, by its `errno`.
    Failed(i32),
}

/// Frames by what became of them, since the socket was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketOutStatistics {
    pub sent: u64,
    pub link_down: u64,
    pub no_link: u64,
    pub too_long: u64,
    pub too_short: u64,
    pub queue_full: u64,
    pub failed: u64,
}

impl PacketOutStatistics {
    fn count(&mut self, result: Sent) {
        let counter = match result {
            Sent::Yes => &mut self.sent,
            Sent::LinkDown => &mut self.link_down,
            Sent::NoLink => &mut self.no_link,
            Sent::TooLong => &mut self.too_long,
            Sent::TooShort => &mut self.too_short,
            Sent::QueueFull => &mut self.queue_full,
            Sent::Failed(_) => &mut self.failed,
        };
        *counter += 1;
    }
}

/// A frame in the batch.
#[derive(Clone, Copy, Debug)]
struct Queued {
    ifindex: u32,
    start: usize,
    len: usize,
}

/// A batch of frames and the socket that sends it. One a thread: it is not shared.
#[derive(Debug)]
pub struct PacketOut {
    fd: OwnedFd,
    bytes: Vec<u8>,
    queued: Vec<Queued>,
    results: Vec<Sent>,
    statistics: PacketOutStatistics,
}

impl PacketOut {
    /// Opens the socket, for the links of the calling thread's namespace.
    pub fn open() -> Result<PacketOut, PacketOutError> {
        let failed = |what| move |source| PacketOutError { what, source };
        // Type 0: it receives nothing.
        let fd = packet_socket::open(0).map_err(failed("open it"))?;
        let raw = fd.as_raw_fd();
        set_option(raw, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1i32)
            .map_err(failed("bypass queueing"))?;
        set_option(raw, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER)
            .or_else(|_| set_option(raw, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER))
            .map_err(failed("size its buffer"))?;
        Ok(PacketOut {
            fd,
            bytes: Vec::new(),
            queued: Vec::new(),
            results: Vec::new(),
            statistics: PacketOutStatistics::default(),
        })
    }

    /// Adds a frame, from its Ethernet header on, to the batch. The one copy in userspace.
    pub fn push(&mut self, ifindex: u32, frame: &[u8]) {
        self.push_parts(ifindex, &[frame]);
    }

    /// Adds a frame that lies in several parts, as when a VLAN tag is put in.
    pub fn push_parts(&mut self, ifindex: u32, parts: &[&[u8]]) {
        let start = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.queued.push(Queued { ifindex, start, len: self.bytes.len() - start });
    }

    /// Frames in the batch.
    pub fn len(&self) -> usize {
        self.queued.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Sends the batch, in order, and empties it. What became of each frame, in the order of the pushes.
    pub fn flush(&mut self) -> &[Sent] {
        self.results.clear();
        let mut vectors: Vec<libc::iovec> = Vec::with_capacity(self.queued.len());
        let mut addresses: Vec<libc::sockaddr_ll> = Vec::with_capacity(self.queued.len());
        for frame in &self.queued {
            let bytes = &self.bytes[frame.start..frame.start + frame.len];
            vectors.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            let eth_type = bytes.get(12..14).map_or(0, |t| u16::from_be_bytes([t[0], t[1]]));
            addresses.push(packet_socket::address(frame.ifindex, eth_type));
        }
        let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(self.queued.len());
        for (vector, address) in vectors.iter_mut().zip(&mut addresses) {
            // SAFETY: all zeros is a valid mmsghdr.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            headers.push(header);
        }
        let mut patience = PATIENCE;
        while self.results.len() < headers.len() {
            let rest = &mut headers[self.results.len()..];
            // SAFETY: every header points at one address and one vector, and the vector at bytes of the batch,
            // none of which moves before the call returns; the kernel only reads the bytes.
            let sent = unsafe {
                libc::sendmmsg(self.fd.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, libc::MSG_DONTWAIT)
            };
            if sent > 0 {
                self.results.extend(std::iter::repeat_n(Sent::Yes, sent as usize));
                continue;
            }
            // Nothing went: the error is the first frame's.
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            let result = match errno {
                libc::EINTR => continue,
                libc::EAGAIN if patience > 0 => {
                    let _ = poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)], 1u16);
                    patience -= 1;
                    continue;
                }
                libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Sent::QueueFull,
                libc::ENETDOWN => Sent::LinkDown,
                libc::ENXIO | libc::ENODEV => Sent::NoLink,
                libc::EMSGSIZE => Sent::TooLong,
                libc::EINVAL => Sent::TooShort,
                other => Sent::Failed(other),
            };
            self.results.push(result);
        }
        for result in &self.results {
            self.statistics.count(*result);
        }
        self.queued.clear();
        self.bytes.clear();
        &self.results
    }

    pub fn statistics(&self) -> PacketOutStatistics {
        self.statistics
    }
}
