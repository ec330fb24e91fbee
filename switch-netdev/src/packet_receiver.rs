//! Upcalls over a packet socket: for jumbo frames where AF_XDP takes none.
//!
//! Each socket sees every upcall frame of `up1` and keeps those of its own queue by a classic BPF filter, so that
//! the sockets need no order and no group. Slower than AF_XDP, and never the first choice.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use switch_common::upcall::UPCALL_ETH_TYPE;

use crate::link::{LinkError, Links};
use crate::packet_socket;
use crate::receiver::{ReceiverStatistics, UpcallReceiver, frame_bytes};
use crate::sys::set_option;

/// Frames taken by one system call.
const BATCH: usize = 64;
/// Bytes of queued frames, as the kernel accounts them.
const RECEIVE_BUFFER: i32 = 16 << 20;
/// Where classic BPF finds a frame's queue.
const QUEUE_FIELD: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_QUEUE) as u32;

/// Why a packet socket for upcalls could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PacketReceiverError {
    #[error("packet socket on {link}, queue {queue}: cannot {what}: {source}")]
    Socket { link: String, queue: u32, what: &'static str, source: io::Error },
    #[error("packet socket: {0}")]
    Link(#[from] LinkError),
}

/// A packet socket that receives the upcalls of one queue of `up1`.
#[derive(Debug)]
pub struct PacketReceiver {
    fd: OwnedFd,
    /// `BATCH` buffers one behind the other.
    buffers: Vec<u8>,
    frame_size: usize,
    counted: ReceiverStatistics,
    /// The kernel resets its count at each reading.
    lost: AtomicU64,
}

impl PacketReceiver {
    /// Opens a socket for frames of up to `pair_mtu` bytes behind the Ethernet header.
    pub fn open(link: &str, queue: u32, pair_mtu: u32) -> Result<PacketReceiver, PacketReceiverError> {
        let found = Links::open()?.by_name(link)?;
        let failed =
            |what| move |source| PacketReceiverError::Socket { link: link.to_owned(), queue, what, source };
        // Protocol 0 receives nothing until the filter is in place.
        let fd = packet_socket::open(0).map_err(failed("open it"))?;
        let raw = fd.as_raw_fd();
        attach_filter(raw, queue, found.rx_queues).map_err(failed("attach its filter"))?;
        set_option(raw, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER)
            .or_else(|_| set_option(raw, libc::SOL_SOCKET, libc::SO_RCVBUF, &RECEIVE_BUFFER))
            .map_err(failed("size its buffer"))?;
        packet_socket::bind(&fd, found.ifindex, UPCALL_ETH_TYPE).map_err(failed("bind it"))?;
        let frame_size = frame_bytes(pair_mtu);
        Ok(PacketReceiver {
            fd,
            buffers: vec![0; BATCH * frame_size],
            frame_size,
            counted: ReceiverStatistics::default(),
            lost: AtomicU64::new(0),
        })
    }
}

/// Keeps the frames of one queue; the first queue's socket also takes what names no queue of the link.
///
/// The queue is the sender's: a veth leaves it as it is, with and without XDP (since Linux 5.17). A frame that came
/// into the pair by an XDP redirect names none, that is the first.
fn attach_filter(fd: i32, queue: u32, queues: u32) -> io::Result<()> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, QUEUE_FIELD);
    let jump = |test: u32, k, yes, no| instruction(libc::BPF_JMP | test | libc::BPF_K, yes, no, k);
    let keep = instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX);
    let leave = instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0);
    let mut program = if queue == 0 {
        // Keep the first queue's, and what is beyond the last.
        let last = queues.saturating_sub(1);
        vec![load, jump(libc::BPF_JEQ, 0, 1, 0), jump(libc::BPF_JGT, last, 0, 1), keep, leave]
    } else {
        vec![load, jump(libc::BPF_JEQ, queue, 0, 1), keep, leave]
    };
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

impl UpcallReceiver for PacketReceiver {
    fn recv_batch(&mut self, take: &mut dyn FnMut(&mut [u8])) -> io::Result<usize> {
        let mut vectors: [libc::iovec; BATCH] =
            std::array::from_fn(|_| libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });
        for (vector, buffer) in vectors.iter_mut().zip(self.buffers.chunks_exact_mut(self.frame_size)) {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        }
        // SAFETY: all zeros is a valid mmsghdr.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (header, vector) in headers.iter_mut().zip(&mut vectors) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points at one vector, and every vector at a buffer of its own, all alive and
        // writable through the call.
        let received = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                // The link went down: it will tell, and come back.
                Some(libc::EAGAIN | libc::EINTR | libc::ENETDOWN) => Ok(0),
                _ => Err(error),
            };
        }
        let mut frames = 0;
        for (header, buffer) in
            headers[..received as usize].iter().zip(self.buffers.chunks_exact_mut(self.frame_size))
        {
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                self.counted.oversized += 1;
                continue;
            }
            let frame = &mut buffer[..(header.msg_len as usize).min(self.frame_size)];
            frames += 1;
            self.counted.bytes += frame.len() as u64;
            take(frame);
        }
        self.counted.frames += frames as u64;
        Ok(frames)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn statistics(&self) -> ReceiverStatistics {
        let lost = packet_socket::drops(&self.fd).unwrap_or(0);
        let ring_full = self.lost.fetch_add(lost, Ordering::Relaxed) + lost;
        ReceiverStatistics { ring_full, ..self.counted }
    }

    fn is_xdp(&self) -> bool {
        false
    }
}
