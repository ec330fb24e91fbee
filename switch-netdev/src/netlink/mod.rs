//! Netlink requests: one socket, one request at a time, answers collected until the kernel says that it is done.
//!
//! The codec is this crate's own, for three reasons: rtnetlink and generic netlink share it; an attribute that a
//! newer kernel has added or lengthened never makes a whole message unreadable; and the kernel's extended error
//! text reaches the user.
//!
//! A socket belongs to the network namespace of the thread that opened it, wherever it is used later.

mod generic;
mod message;
mod socket;

pub(crate) use generic::Generic;
pub(crate) use message::{Attributes, Message, Request, attr_string, attr_u8, attr_u32, attr_u64, messages};
pub(crate) use socket::{NetlinkSocket, receive, subscribe};

use std::io;

/// What went wrong between this process and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel refused the request; `message` is its own explanation, if it gave one.
    #[error("{}{}", source, message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Refused { source: io::Error, message: Option<String> },
    #[error("the kernel's answer was cut short")]
    Truncated,
    #[error("the kernel did not answer in time")]
    Timeout,
    #[error("the list changed again and again while it was read")]
    Interrupted,
    #[error("the kernel has no generic netlink family named {0}")]
    NoFamily(&'static str),
}

impl NetlinkError {
    /// `errno` of a refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
