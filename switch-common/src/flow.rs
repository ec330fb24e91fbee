//! Megaflows in the BPF maps: entries, action references, masks, hash buckets, caches, statistics.
//!
//! One writer, the daemon, changes these through mmapped array maps while programs on every CPU read them, with
//! no lock. What makes that safe:
//!
//! * A flow entry is written once, before it can be found, and is not changed while it can be: another action
//!   list means another entry. Only `seq` changes, when the entry is withdrawn.
//! * To publish an entry the writer stores its slot into a bucket and then the tag; to withdraw it, it clears
//!   the tag and then changes `seq`. A slot is written again only after a grace period (every program run that
//!   could have seen it has ended).
//! * A reader trusts nothing but the full comparison of the masked key with the entry's key, and of the mask's
//!   id. A bucket that changes under it can make it miss a flow, never find a wrong one.
//! * Masks are written before their id is listed, and an id is used again only after a grace period. The list
//!   of ids is double buffered.

use crate::key::{KEY_WORDS, LONG_WORDS, SHORT_WORDS};

/// Masks of each kind that can be in use at once.
pub const MAX_MASKS: usize = 128;

/// What a hit does.
pub mod verdict {
    /// Nothing more: the packet is dropped, for the reason in `drop_reason`.
    pub const DROP: u8 = 0;
    /// The packet leaves unchanged through `out_port`, and nothing else happens.
    pub const OUTPUT: u8 = 1;
    /// The list of `act_len` actions from `act_base`.
    pub const ACTIONS: u8 = 2;
}

/// `FlowEntry::flags`: an XDP program can carry out the action list (it changes headers and ends in one output).
pub const FLOW_XDP_ACTIONS: u16 = 1;

/// One megaflow. Two cache lines; a hit of the exact-match cache touches the first.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct FlowEntry {
    /// Even while the flow can be found, odd once it was withdrawn, and never 0 for a live flow: who holds a slot
    /// number and the even `seq` that went with it, holds a live flow.
    pub seq: u32,
    pub mask_id: u8,
    /// [`crate::key::Kind`].
    pub kind: u8,
    /// [`verdict`].
    pub verdict: u8,
    pub pad: u8,
    pub out_port: u16,
    pub act_len: u16,
    /// Index of the first [`crate::action::Action`] in the map of actions.
    pub act_base: u32,
    pub flags: u16,
    /// [`crate::counter::Drop`].
    pub drop_reason: u16,
    pub pad2: u32,
    /// The masked key, as many words as a `Long` key has.
    pub key: [u64; LONG_WORDS],
    pub reserved: [u64; 4],
}

const _: () = assert!(size_of::<FlowEntry>() == 128);

/// The rest of a `Full` flow's masked key, in a map of its own at the same slot.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct FlowRest {
    pub key: [u64; KEY_WORDS - LONG_WORDS],
}

/// Per CPU and flow. Lives in an mmappable array at `cpu * slots + slot`.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    pub packets: u64,
    pub bytes: u64,
    /// `bpf_jiffies64` at the last packet.
    pub used: u64,
    /// TCP flags seen, or-ed together (host order).
    pub tcp_flags: u64,
}

const _: () = assert!(size_of::<FlowStats>() == 32);

/// Four entries: a 16-bit tag each in one word that is compared at once (0 = free), and their slots.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Tag `i` in bits `16 * i` to `16 * i + 15`.
    pub tags: u64,
    pub slots: [u32; 4],
    /// Entries whose first bucket this is and that had to go to their second one.
    pub spilled: u64,
}

const _: () = assert!(size_of::<Bucket>() == 32);

/// Entries of a bucket.
pub const BUCKET_ENTRIES: usize = 4;

/// A tag of a hash, never 0.
#[inline(always)]
pub const fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16 | 1
}

/// Index of a hash's first bucket; `mask` is the number of buckets less one.
#[inline(always)]
pub const fn first_bucket(hash: u64, mask: u32) -> u32 {
    hash as u32 & mask
}

/// Index of its second bucket.
#[inline(always)]
pub const fn second_bucket(hash: u64, mask: u32) -> u32 {
    (hash >> 20) as u32 & mask
}

const LANES: u64 = 0x0001_0001_0001_0001;

/// The tag in each of the four lanes.
#[inline(always)]
pub const fn tag_pattern(hash: u64) -> u64 {
    (tag(hash) as u64) * LANES
}

/// Which lanes of a bucket's tags may equal the pattern: bit `16 * i + 15` for lane `i`. Every equal lane is
/// reported; a lane above an equal one may be reported although it differs.
#[inline(always)]
pub const fn matching_lanes(tags: u64, pattern: u64) -> u64 {
    let x = tags ^ pattern;
    x.wrapping_sub(LANES) & !x & (LANES << 15)
}

/// Masks of one kind, by id.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct MaskTable<const W: usize> {
    pub masks: [[u64; W]; MAX_MASKS],
}

pub type ShortMasks = MaskTable<SHORT_WORDS>;
pub type LongMasks = MaskTable<LONG_WORDS>;
pub type FullMasks = MaskTable<KEY_WORDS>;

/// Ids of the masks in use, in the order in which they are tried.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct MaskList {
    pub count: u32,
    pub pad: u32,
    pub ids: [u8; MAX_MASKS],
}

/// Two lists, of which `active` (0 or 1) is read; the other is written, then `active` flips.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct MaskOrder {
    pub active: u32,
    pub pad: u32,
    pub lists: [MaskList; 2],
}

/// Entry of the exact-match cache for `Short` keys. One cache line.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct ShortCached {
    pub slot: u32,
    pub seq: u32,
    pub key: [u64; SHORT_WORDS],
    pub reserved: [u64; 2],
}

const _: () = assert!(size_of::<ShortCached>() == 64);

/// Entry of the exact-match cache for `Long` keys.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct LongCached {
    pub slot: u32,
    pub seq: u32,
    pub key: [u64; LONG_WORDS],
}

/// Entries of each exact-match cache, per CPU; a power of two.
pub const CACHE_ENTRIES: u32 = 8192;

/// Slot 0 is never used, so that it can mean "none".
pub const NO_SLOT: u32 = 0;

/// Handed from XDP to TC in the metadata in front of a packet, the same for every packet of one flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The instance's random number.
    pub magic: u64,
    pub slot: u32,
    pub seq: u32,
}

const _: () = assert!(size_of::<Handover>() == 16);
