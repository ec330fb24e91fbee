//! Links as they come, change and go: rtnetlink's link events (`RTNLGRP_LINK`) as an asynchronous stream.
//!
//! The subscription stands before the first list is read, so that nothing falls between the two. When the kernel
//! had to drop events because they were not read in time, the stream says so and brings the whole list instead.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::link::{Link, LinkError, Links, parse_link, removed_link};
use crate::namespace::{Namespace, NamespaceError};
use crate::netlink::{Message, messages, receive, subscribe};

/// Bit of `RTNLGRP_LINK`, group 1.
const LINK_GROUP: u32 = 1;
/// Bytes of events that wait in the kernel, as it accounts them: about a thousand.
const RECEIVE_BUFFER: i32 = 4 << 20;
/// Bytes of one datagram. A link with many virtual functions is reported in one of more than a page.
const DATAGRAM: usize = 256 * 1024;

/// Datagrams discarded at most before the list is read again; more only make for needless events.
const STALE_MAX: usize = 16384;

/// Why links cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error("cannot subscribe to link events: {0}")]
    Subscribe(#[source] io::Error),
    #[error("cannot read link events: {0}")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

/// What happened to the links of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It was not there before: made, or moved in from another namespace.
    New(Link),
    /// It is as it says now, which may be what it was.
    Changed(Link),
    /// It is deleted, or moved to another namespace. The index will not be used again.
    Removed { ifindex: u32, name: String },
    /// Events were lost. These are all the links that there are now.
    Resync(Vec<Link>),
}

/// A subscription to one namespace's link events.
#[derive(Debug)]
pub struct LinkWatch {
    socket: AsyncFd<OwnedFd>,
    links: Links,
    known: HashSet<u32>,
    ready: VecDeque<LinkEvent>,
    buffer: Vec<u8>,
}

impl LinkWatch {
    /// Subscribes in the calling thread's namespace, and lists the links that are there. To be called inside a
    /// tokio runtime.
    pub fn open() -> Result<(LinkWatch, Vec<Link>), WatchError> {
        let socket =
            subscribe(libc::NETLINK_ROUTE, LINK_GROUP, RECEIVE_BUFFER).map_err(WatchError::Subscribe)?;
        LinkWatch::start(socket, Links::open()?)
    }

    /// Subscribes in another namespace. To be called inside a tokio runtime.
    pub fn open_in(namespace: &Namespace) -> Result<(LinkWatch, Vec<Link>), WatchError> {
        let socket = namespace
            .run(|| subscribe(libc::NETLINK_ROUTE, LINK_GROUP, RECEIVE_BUFFER))?
            .map_err(WatchError::Subscribe)?;
        LinkWatch::start(socket, Links::open_in(namespace)?)
    }

    fn start(socket: OwnedFd, links: Links) -> Result<(LinkWatch, Vec<Link>), WatchError> {
        // SAFETY: the socket owns its descriptor, and is neither replaced nor closed while it is registered.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(|e| WatchError::Subscribe(e.into()))?;
        let all = links.list()?;
        let known = all.iter().map(|l| l.ifindex).collect();
        let watch = LinkWatch { socket, links, known, ready: VecDeque::new(), buffer: vec![0; DATAGRAM] };
        Ok((watch, all))
    }

    /// Waits for the next event. May be dropped while it waits: no event is lost.
    pub async fn next(&mut self) -> Result<LinkEvent, WatchError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let buffer = &mut self.buffer;
            let mut guard = self.socket.readable().await.map_err(WatchError::Read)?;
            let read = match guard.try_io(|socket| receive(socket.get_ref().as_raw_fd(), buffer)) {
                Ok(read) => read,
                Err(_not_ready) => continue,
            };
            match read {
                // A longer datagram than the buffer is a lost one.
                Ok(len) if len <= self.buffer.len() => self.digest(len),
                Ok(_) => self.resync()?,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => self.resync()?,
                Err(e) => return Err(WatchError::Read(e)),
            }
        }
    }

    fn digest(&mut self, len: usize) {
        for message in messages(&self.buffer[..len]) {
            self.ready.extend(event(&message, &mut self.known));
        }
    }

    fn resync(&mut self) -> Result<(), WatchError> {
        // What still waits is older than the list that is read now.
        for _ in 0..STALE_MAX {
            if receive(self.socket.get_ref().as_raw_fd(), &mut self.buffer).is_err() {
                break;
            }
        }
        let all = self.links.list()?;
        self.known = all.iter().map(|l| l.ifindex).collect();
        self.ready.clear();
        self.ready.push_back(LinkEvent::Resync(all));
        Ok(())
    }
}

fn event(message: &Message<'_>, known: &mut HashSet<u32>) -> Option<LinkEvent> {
    if let Some(link) = removed_link(message) {
        // Also said of a link that was moved away, which is then not known again.
        return known
            .remove(&link.ifindex)
            .then_some(LinkEvent::Removed { ifindex: link.ifindex, name: link.name });
    }
    let link = parse_link(message)?;
    Some(if known.insert(link.ifindex) { LinkEvent::New(link) } else { LinkEvent::Changed(link) })
}
