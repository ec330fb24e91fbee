//! AF_XDP reception from a queue of the upcall pair.
//!
//! The socket is in copy mode, which is what a veth has, with a UMEM of its own: a shared one costs more memory
//! per socket. Attaching the XDP program that redirects into it, and putting [`UpcallSocket`]'s descriptor into
//! the socket map, is the datapath's.

mod pieces;
mod socket;
mod umem;

pub use socket::UpcallSocket;
pub use umem::{XskOptions, largest_single_frame};

use std::io;

/// Why an AF_XDP socket could not be opened. Each names the interface.
#[derive(Debug, thiserror::Error)]
pub enum UpcallSocketError {
    #[error("AF_XDP on {link}, queue {queue}: {what} is out of range: {value}")]
    BadOption { link: String, queue: u32, what: &'static str, value: u32 },
    #[error("AF_XDP on {link}, queue {queue}: cannot allocate the frame memory: {reason}")]
    Umem { link: String, queue: u32, reason: String },
    #[error("AF_XDP on {link}, queue {queue}: cannot bind: {source}")]
    Bind { link: String, queue: u32, source: io::Error },
}
