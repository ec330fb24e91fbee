//! The socket: send one request, collect its answer.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::message::{Attributes, HEADER, Request, attr_string, messages};
use super::{Message, NetlinkError};
use crate::sys::set_option;

/// A dump that was interrupted by a change is read again this many times at most.
const DUMP_RETRIES: usize = 8;
/// The kernel fills at most 32 KiB of a dump into one datagram (`NLMSG_GOODSIZE` and `min_dump_alloc`); one with
/// many virtual functions can be larger.
const BUFFER: usize = 256 * 1024;
/// Seconds until a request without an answer fails.
const TIMEOUT_SECONDS: i64 = 5;
/// Attributes of `NLMSG_ERROR` and `NLMSG_DONE` that carry the kernel's explanation (`enum nlmsgerr_attrs`).
const NLMSGERR_ATTR_MSG: u16 = 1;
/// `include/uapi/linux/sockios.h`.
const SIOCGSKNS: libc::Ioctl = 0x894c;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

/// A request socket of one netlink protocol.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl NetlinkSocket {
    /// Opens a socket in the calling thread's network namespace. `protocol` is a `NETLINK_` number.
    pub(crate) fn open(protocol: i32) -> Result<NetlinkSocket, NetlinkError> {
        let fd = open(protocol, 0).map_err(NetlinkError::Socket)?;
        let timeout = libc::timeval { tv_sec: TIMEOUT_SECONDS, tv_usec: 0 };
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)
            .map_err(NetlinkError::Socket)?;
        // The explanations and the strict checking of dump filters are comforts: a kernel may lack them.
        let _ = set_option(fd.as_raw_fd(), libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, &1i32);
        Ok(NetlinkSocket { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends a request and gives every message of the answer to `take`. An acknowledgement is asked for, so that
    /// the call returns when the kernel has carried the request out, or refused it.
    pub(crate) fn request<T>(
        &mut self,
        mut request: Request,
        mut take: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_RETRIES {
            self.sequence = self.sequence.wrapping_add(1);
            let flags = if request.is_dump() { 0 } else { libc::NLM_F_ACK };
            send(self.fd.as_raw_fd(), request.finish(flags, self.sequence)).map_err(NetlinkError::Socket)?;
            let mut taken = Vec::new();
            if self.collect(&mut taken, &mut take)? {
                return Ok(taken);
            }
        }
        Err(NetlinkError::Interrupted)
    }

    /// The network namespace that the socket belongs to (`SIOCGSKNS`).
    pub(crate) fn namespace(&self) -> Result<OwnedFd, NetlinkError> {
        // SAFETY: the request takes no argument and returns a new descriptor.
        let raw = unsafe { libc::ioctl(self.fd.as_raw_fd(), SIOCGSKNS) };
        if raw < 0 {
            return Err(NetlinkError::Socket(io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    /// Reads until the answer's end; false if the kernel says that it is inconsistent.
    fn collect<T>(
        &mut self,
        taken: &mut Vec<T>,
        take: &mut impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<bool, NetlinkError> {
        let mut consistent = true;
        loop {
            let len = receive(self.fd.as_raw_fd(), &mut self.buffer).map_err(|e| match e.raw_os_error() {
                Some(libc::EAGAIN) => NetlinkError::Timeout,
                _ => NetlinkError::Socket(e),
            })?;
            let datagram = self.buffer.get(..len).ok_or(NetlinkError::Truncated)?;
            for message in messages(datagram) {
                // What an earlier request left behind after a timeout is not this answer.
                if message.sequence != self.sequence {
                    continue;
                }
                consistent &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        refusal(&message)?;
                        return Ok(consistent);
                    }
                    libc::NLMSG_NOOP => {}
                    _ => taken.extend(take(&message)),
                }
            }
        }
    }
}

/// The error of an `NLMSG_ERROR` or `NLMSG_DONE`, which may be none.
fn refusal(message: &Message<'_>) -> Result<(), NetlinkError> {
    // A DONE without payload is an old kernel's way to say that all is well.
    let code = message.payload.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
    if code == 0 {
        return Ok(());
    }
    let text = (message.flags & NLM_F_ACK_TLVS != 0).then(|| {
        let done = i32::from(message.kind) == libc::NLMSG_DONE;
        // Behind the code of an error stands the request's header, and its payload too unless capped.
        let echoed = match message.payload.get(4..8) {
            _ if done => 0,
            _ if message.flags & NLM_F_CAPPED != 0 => HEADER,
            Some(len) => u32::from_ne_bytes([len[0], len[1], len[2], len[3]]) as usize,
            None => HEADER,
        };
        let rest = message.payload.get(4 + ((echoed + 3) & !3)..).unwrap_or(&[]);
        Attributes(rest).find(NLMSGERR_ATTR_MSG).map(attr_string)
    });
    Err(NetlinkError::Refused {
        source: io::Error::from_raw_os_error(code.wrapping_neg()),
        message: text.flatten(),
    })
}

/// Opens a non-blocking socket that receives the events of multicast groups (bit n-1 for group n), with room for
/// `buffer` bytes of them.
pub(crate) fn subscribe(protocol: i32, groups: u32, buffer: i32) -> io::Result<OwnedFd> {
    let fd = open(protocol, groups)?;
    // Beyond the system's limit if privileged, up to it otherwise.
    if set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &buffer).is_err() {
        set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, &buffer)?;
    }
    set_nonblocking(&fd)?;
    Ok(fd)
}

fn open(protocol: i32, groups: u32) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes plain numbers.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: all zeros is a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = groups;
    // SAFETY: the address is that long and lives through the call.
    let result = unsafe {
        libc::bind(raw, (&raw const address).cast(), size_of::<libc::sockaddr_nl>() as libc::socklen_t)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: fcntl with plain numbers on a descriptor that is open.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn send(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer is readable for its length.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One datagram from the kernel; its full length, which is more than the buffer if it was cut. Datagrams from other
/// processes are skipped.
pub(crate) fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: all zeros is a valid sockaddr_nl.
        let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut from_len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: buffer and address are writable for the lengths given.
        let len = unsafe {
            libc::recvfrom(
                fd,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_TRUNC,
                (&raw mut from).cast(),
                &raw mut from_len,
            )
        };
        if len < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        if from.nl_pid == 0 {
            return Ok(len as usize);
        }
    }
}
