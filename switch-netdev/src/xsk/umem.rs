//! The memory that frames are received into, and the rings' sizes.

use std::num::NonZeroU32;

use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};
use xsk_rs::umem::Umem;
use xsk_rs::umem::frame::FrameDesc;

use super::UpcallSocketError;

/// Bytes in front of a frame that the kernel keeps free for XDP programs (`XDP_PACKET_HEADROOM`).
const XDP_HEADROOM: u32 = 256;

/// Sizes of an AF_XDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XskOptions {
    /// Frames of memory; at least `fill_ring`, or the ring is never full.
    pub frames: u32,
    /// Bytes a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Entries, a power of two. With 2048 a burst lost frames that it did not lose with 8192.
    pub fill_ring: u32,
    /// Entries, a power of two.
    pub rx_ring: u32,
}

impl Default for XskOptions {
    fn default() -> XskOptions {
        XskOptions { frames: 8192, frame_size: 2048, fill_ring: 8192, rx_ring: 4096 }
    }
}

/// Bytes of the largest Ethernet frame that fits into one buffer.
pub const fn largest_single_frame(frame_size: u32) -> usize {
    frame_size.saturating_sub(XDP_HEADROOM) as usize
}

/// Allocates the memory, and a descriptor for each of its frames.
pub(super) fn allocate(
    link: &str,
    queue: u32,
    options: &XskOptions,
) -> Result<(Umem, Vec<FrameDesc>), UpcallSocketError> {
    let bad = |what, value| UpcallSocketError::BadOption { link: link.to_owned(), queue, what, value };
    let frame_size =
        FrameSize::new(options.frame_size).map_err(|_| bad("the frame size", options.frame_size))?;
    let config = UmemConfig::builder()
        .frame_size(frame_size)
        .fill_queue_size(ring(link, queue, "the fill ring", options.fill_ring)?)
        // Nothing is sent: the smallest that the kernel takes.
        .comp_queue_size(ring(link, queue, "the completion ring", 2)?)
        .build()
        .map_err(|_| bad("the frame size", options.frame_size))?;
    let frames = NonZeroU32::new(options.frames).ok_or_else(|| bad("the number of frames", 0))?;
    Umem::new(config, frames, false).map_err(|error| UpcallSocketError::Umem {
        link: link.to_owned(),
        queue,
        reason: match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    })
}

pub(super) fn ring(
    link: &str,
    queue: u32,
    what: &'static str,
    entries: u32,
) -> Result<QueueSize, UpcallSocketError> {
    QueueSize::new(entries).map_err(|_| UpcallSocketError::BadOption {
        link: link.to_owned(),
        queue,
        what,
        value: entries,
    })
}
