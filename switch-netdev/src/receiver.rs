//! How upcalls reach userspace: one trait, two ways.
//!
//! AF_XDP ([`crate::xsk::UpcallSocket`]) is the rule. A kernel whose AF_XDP knows no multi-buffer frames (before
//! 6.6) cannot take a jumbo frame that way; there a packet socket ([`crate::packet_receiver::PacketReceiver`])
//! stands in.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::packet_receiver::{PacketReceiver, PacketReceiverError};
use crate::xsk::{UpcallSocket, UpcallSocketError, XskOptions, largest_single_frame};

/// Counters of a receiver, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStatistics {
    /// Frames handed out.
    pub frames: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Frames that the kernel dropped for any other reason than the next two.
    pub dropped: u64,
    /// Frames lost because userspace did not take them fast enough.
    pub ring_full: u64,
    /// Times that the kernel found no buffer to fill.
    pub fill_ring_empty: u64,
    /// Frames lost because they came in more pieces, or with more bytes, than one may have.
    pub oversized: u64,
}

/// What takes frames from one queue of the upcall pair.
pub trait UpcallReceiver: Send {
    /// Hands out the frames that are there, at most one batch, each from its Ethernet header on. Their buffers go
    /// back to the kernel when this returns. Returns how many there were.
    fn recv_batch(&mut self, take: &mut dyn FnMut(&mut [u8])) -> io::Result<usize>;

    /// Waits until there is a frame; false if there was none for `timeout`.
    fn wait(&mut self, timeout: Duration) -> io::Result<bool>;

    /// Readable when there is a frame, to be waited upon with others.
    fn fd(&self) -> BorrowedFd<'_>;

    fn statistics(&self) -> ReceiverStatistics;

    /// Whether frames have to reach it through an XDP redirect into the socket map. The other kind needs them to
    /// pass: the XDP program of `up1` must return `XDP_PASS`, or not be there.
    fn is_xdp(&self) -> bool;
}

/// Why no receiver could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    #[error(transparent)]
    Xsk(#[from] UpcallSocketError),
    #[error(transparent)]
    Packet(#[from] PacketReceiverError),
}

/// An opened receiver of either kind.
pub enum Receiver {
    Xsk(Box<UpcallSocket>),
    Packet(PacketReceiver),
}

impl Receiver {
    /// Opens the receiver of one queue of `up1` for frames of up to `pair_mtu` bytes behind the Ethernet header:
    /// AF_XDP if it can take frames of that size, else a packet socket. `options.frame_size` is chosen here.
    pub fn open(
        link: &str,
        queue: u32,
        pair_mtu: u32,
        options: XskOptions,
    ) -> Result<Receiver, ReceiverError> {
        let frame_size = if largest_single_frame(2048) >= frame_bytes(pair_mtu) { 2048 } else { 4096 };
        let socket = UpcallSocket::open(link, queue, XskOptions { frame_size, ..options })?;
        if socket.multi_buffer() || largest_single_frame(frame_size) >= frame_bytes(pair_mtu) {
            return Ok(Receiver::Xsk(Box::new(socket)));
        }
        drop(socket);
        Ok(Receiver::Packet(PacketReceiver::open(link, queue, pair_mtu)?))
    }

    pub fn as_dyn(&mut self) -> &mut dyn UpcallReceiver {
        match self {
            Receiver::Xsk(socket) => socket.as_mut(),
            Receiver::Packet(socket) => socket,
        }
    }
}

/// Bytes of the largest frame that a link of this MTU lets through: the Ethernet header, and a VLAN tag that the
/// MTU does not count.
pub(crate) const fn frame_bytes(mtu: u32) -> usize {
    mtu as usize + 14 + 4
}
