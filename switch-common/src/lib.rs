//! What both sides of the kernel border share: the layout of every BPF map, and the one packet parser.
//!
//! Everything here is `no_std`, allocates nothing and does no IO. The same sources are compiled for
//! `bpfel-unknown-none` (inside the XDP and TC programs) and for the host (inside the daemon), so that a key
//! which the kernel made and a key which userspace made of the same frame are the same bytes.
//!
//! * [`key`]: the datapath flow key and mask, and the order of their words;
//! * [`parse`]: frame → key;
//! * [`hash`]: the keyed hash of key words;
//! * [`flow`]: flow entries, mask lists, hash buckets, statistics;
//! * [`action`]: the action records that the datapath interprets;
//! * [`port`]: ports as the datapath sees them;
//! * [`program`]: names of the programs and their places in the program arrays;
//! * [`upcall`]: the header in front of a frame that goes up to userspace;
//! * [`counter`]: drop reasons and cache counters;
//! * [`bucket`]: the token bucket of meters and of upcall limits;
//! * [`checksum`]: incremental Internet checksums.
//!
//! Byte order: a field called `be16`/`be32`/`be64` holds the bytes of the wire; all else is in host order.
#![cfg_attr(not(test), no_std)]
// One statement in the parser: Cargo.toml of switch-ebpf says how that crate is built.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod action;
pub mod bucket;
pub mod checksum;
pub mod counter;
pub mod flow;
pub mod hash;
pub mod key;
pub mod parse;
pub mod port;
pub mod program;
pub mod upcall;

/// Changes whenever the layout or the meaning of anything in this crate changes: a daemon adopts pinned maps
/// only if they carry its own number.
pub const ABI_VERSION: u32 = 1;
