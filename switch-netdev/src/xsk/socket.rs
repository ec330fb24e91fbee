//! The socket: bound to one queue, read in batches.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, SocketConfig};
use xsk_rs::socket::{RxQueue, Socket, TxQueue};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::umem::{CompQueue, FillQueue, Umem};

use super::UpcallSocketError;
use super::pieces::{Piece, Pieces};
use super::umem::{XskOptions, allocate, ring};
use crate::receiver::{ReceiverStatistics, UpcallReceiver};

/// After a process was killed, its queue stays bound for up to 0.2 s, and after a busy one for longer.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Descriptors taken from the ring at once.
const BATCH: usize = 64;
/// Bytes of the largest frame: `ETH_MAX_MTU` and its header.
const FRAME_LIMIT: usize = 65535 + 18;

/// An AF_XDP socket that receives from one queue of `up1`.
pub struct UpcallSocket {
    rx: RxQueue,
    fill: FillQueue,
    // They hold rings that the kernel has mapped: kept for as long as the socket.
    _tx: TxQueue,
    _completion: CompQueue,
    umem: Umem,
    batch: Box<[FrameDesc; BATCH]>,
    pieces: Pieces,
    multi_buffer: bool,
    counted: ReceiverStatistics,
}

impl UpcallSocket {
    /// Opens a socket and binds it to a queue of a link of the calling thread's namespace. A queue that is busy is
    /// tried again for up to 2 s.
    pub fn open(link: &str, queue: u32, options: XskOptions) -> Result<UpcallSocket, UpcallSocketError> {
        let bind = |source| UpcallSocketError::Bind { link: link.to_owned(), queue, source };
        let interface: Interface = link
            .parse()
            .map_err(|_| bind(io::Error::new(io::ErrorKind::InvalidInput, "not an interface name")))?;
        let rx_ring = ring(link, queue, "the receive ring", options.rx_ring)?;
        let deadline = Instant::now() + BUSY_PATIENCE;
        let mut multi_buffer = true;
        loop {
            // A UMEM of which a socket failed is not used again: libxdp keeps its rings.
            let (umem, frames) = allocate(link, queue, &options)?;
            let mut flags = BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP;
            if multi_buffer {
                flags |= BindFlags::XDP_USE_SG;
            }
            let config = SocketConfig::builder()
                .rx_queue_size(rx_ring)
                .tx_queue_size(ring(link, queue, "the transmit ring", 2)?)
                .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
                .bind_flags(flags)
                .build();
            // SAFETY: the UMEM is this socket's alone, so it is not shared on the same queue.
            let error = match unsafe { Socket::new(config, &umem, &interface, queue) } {
                Ok((tx, rx, Some((fill, completion)))) => {
                    return Ok(UpcallSocket::start(tx, rx, fill, completion, umem, &frames, multi_buffer));
                }
                Ok((_, _, None)) => io::Error::other("libxdp gave no fill ring"),
                Err(error) => os_error(&error),
            };
            match error.raw_os_error() {
                Some(libc::EBUSY) if Instant::now() < deadline => std::thread::sleep(BUSY_PAUSE),
                // A kernel before 6.6 does not know the flag for frames in several pieces.
                Some(libc::EINVAL) if multi_buffer => multi_buffer = false,
                _ => return Err(bind(error)),
            }
        }
    }

    fn start(
        tx: TxQueue,
        rx: RxQueue,
        mut fill: FillQueue,
        completion: CompQueue,
        umem: Umem,
        frames: &[FrameDesc],
        multi_buffer: bool,
    ) -> UpcallSocket {
        // More frames than the ring holds would never come into use.
        let free = fill.nb_free_exact() as usize;
        let usable = &frames[..frames.len().min(free)];
        // SAFETY: the frames are of this UMEM, and nothing else refers to them.
        unsafe { fill.produce(usable) };
        UpcallSocket {
            rx,
            fill,
            _tx: tx,
            _completion: completion,
            umem,
            batch: Box::new([FrameDesc::default(); BATCH]),
            pieces: Pieces::new(FRAME_LIMIT),
            multi_buffer,
            counted: ReceiverStatistics::default(),
        }
    }

    /// Whether frames larger than one buffer can be received.
    pub fn multi_buffer(&self) -> bool {
        self.multi_buffer
    }
}

/// The kernel's error behind libxdp's.
fn os_error(error: &xsk_rs::socket::SocketCreateError) -> io::Error {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<io::Error>());
    match source.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}

impl UpcallReceiver for UpcallSocket {
    fn recv_batch(&mut self, take: &mut dyn FnMut(&mut [u8])) -> io::Result<usize> {
        // SAFETY: the descriptors that come out go back through the fill ring of the same UMEM, once.
        let taken = unsafe { self.rx.consume(&mut self.batch[..]) };
        let mut frames = 0;
        for descriptor in &mut self.batch[..taken] {
            let continued = descriptor.has_more_frames();
            // SAFETY: the descriptor came from the receive ring: the frame is of this UMEM, and is ours until it
            // goes back to the fill ring below.
            let mut data = unsafe { self.umem.data_mut(descriptor) };
            let frame = match self.pieces.push(data.contents(), continued) {
                Piece::Whole => data.contents_mut(),
                Piece::Open => continue,
                Piece::Last => self.pieces.frame(),
                Piece::TooLong => {
                    self.counted.oversized += 1;
                    continue;
                }
            };
            frames += 1;
            self.counted.bytes += frame.len() as u64;
            take(frame);
        }
        self.counted.frames += frames as u64;
        // The ring has an entry for every frame that was ever put on it, so there is room for all of them.
        // SAFETY: these frames came from the receive ring and are used no more.
        unsafe { self.fill.produce(&self.batch[..taken]) };
        Ok(frames)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        self.rx.poll(timeout.as_millis().min(i32::MAX as u128) as i32)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as the receive queue, which lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }

    fn statistics(&self) -> ReceiverStatistics {
        let mut all = self.counted;
        if let Ok(kernel) = self.rx.fd().xdp_statistics() {
            all.dropped = kernel.rx_dropped();
            all.ring_full = kernel.rx_ring_full();
            all.fill_ring_empty = kernel.rx_fill_ring_empty_descs();
        }
        all
    }

    fn is_xdp(&self) -> bool {
        true
    }
}
