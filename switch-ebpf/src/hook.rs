//! What differs between the two places where a program meets a packet.
//!
//! Parsing, lookup and statistics are written once over [`Hook`]. XDP sees a buffer before the kernel has made a
//! packet of it; TC sees an `sk_buff`, with a VLAN tag, a mark and a priority beside the frame, with segments
//! still to be cut and checksums still to be filled in.

use switch_common::flow::FlowEntry;
use switch_common::key::FlowKey;
use switch_common::parse::FrameView;

use crate::count::Amount;
use crate::scratch::{Headers, Origin};

pub trait Hook: Copy {
    /// What the program returns for a packet that goes no further.
    const DROPPED: i32;

    /// The bytes that can be read directly.
    fn view(self) -> FrameView;

    /// Interface that the packet came in on.
    fn ifindex(self) -> u32;

    /// Whether the key of this packet follows from its bytes and its port alone.
    fn is_plain(self) -> bool;

    /// Makes at least the headers of the commonest packets readable.
    fn prepare(self);

    /// Parses into the scratch's key.
    fn parse(self, origin: Origin) -> Headers;

    /// What this frame counts for.
    fn amount(self, headers: Headers) -> Amount;

    /// The flow that an earlier program has already found for this packet.
    fn handed_over(self, in_port: u16) -> Option<(u32, *const FlowEntry)>;

    /// No flow was found.
    fn missed(self, origin: Origin, headers: Headers) -> i32;

    /// Does what the flow says.
    ///
    /// # Safety
    /// `hit.flow` and `hit.key` must be valid map values.
    unsafe fn deliver(self, hit: Hit) -> i32;
}

/// A packet and its flow.
#[derive(Clone, Copy)]
pub struct Hit {
    pub slot: u32,
    pub flow: *const FlowEntry,
    pub key: *const FlowKey,
    pub headers: Headers,
    pub origin: Origin,
}
