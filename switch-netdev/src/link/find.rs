//! Links by name, by index, and the namespace in which a link's peer is.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::parse::{IFINFO, parse_link};
use super::{Link, LinkError, check_name};
use crate::namespace::{NETNS_DIRECTORY, Namespace};
use crate::netlink::{NetlinkError, NetlinkSocket, Request, attr_u32};

/// Attributes of `RTM_GETNSID` (`include/uapi/linux/net_namespace.h`).
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// "This namespace has no number here" (`NETNSA_NSID_NOT_ASSIGNED`).
const NOT_ASSIGNED: i32 = -1;

/// The links of one network namespace. Requests are serialised; share it freely.
#[derive(Debug)]
pub struct Links {
    pub(super) socket: Mutex<NetlinkSocket>,
}

impl Links {
    /// Those of the calling thread's namespace.
    pub fn open() -> Result<Links, LinkError> {
        let socket = NetlinkSocket::open(libc::NETLINK_ROUTE).map_err(LinkError::Open)?;
        Ok(Links { socket: Mutex::new(socket) })
    }

    /// Those of another namespace.
    pub fn open_in(namespace: &Namespace) -> Result<Links, LinkError> {
        namespace.run(Links::open)?
    }

    /// Every link.
    pub fn list(&self) -> Result<Vec<Link>, LinkError> {
        let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP).raw(&[0; IFINFO]);
        self.request(request).map_err(LinkError::List)
    }

    /// The link with a name.
    ///
    /// # Errors
    /// [`LinkError::NotFound`] if there is none.
    pub fn by_name(&self, name: &str) -> Result<Link, LinkError> {
        check_name(name)?;
        let request =
            Request::new(libc::RTM_GETLINK, 0).raw(&[0; IFINFO]).attr_string(libc::IFLA_IFNAME, name);
        self.one(request, name.to_owned())
    }

    /// The link with an index.
    ///
    /// # Errors
    /// [`LinkError::NotFound`] if there is none.
    pub fn by_index(&self, ifindex: u32) -> Result<Link, LinkError> {
        let request = Request::new(libc::RTM_GETLINK, 0).raw(&ifinfo(ifindex, 0, 0));
        self.one(request, format!("#{ifindex}"))
    }

    /// The namespace in which the other end of a veth is, and that end. `None` if the link has no peer.
    ///
    /// A peer's namespace is known only by a number, so every namespace that can be seen from here is asked for
    /// its number: the named ones, and those of running processes.
    ///
    /// # Errors
    /// [`LinkError::NotFound`] if the namespace cannot be seen from here (another pid or mount namespace hides it).
    pub fn peer(&self, link: &Link) -> Result<Option<(Namespace, Link)>, LinkError> {
        let Some(ifindex) = link.peer else { return Ok(None) };
        let namespace = match link.peer_nsid {
            // No number: the peer is here, which is where the socket is, not the calling thread.
            None => self.own_namespace()?,
            Some(nsid) => self.namespace_of(nsid)?.ok_or_else(|| LinkError::NotFound {
                link: format!(
                    "#{ifindex}, the peer of {}: its network namespace is hidden from here",
                    link.name
                ),
            })?,
        };
        let peer = Links::open_in(&namespace)?.by_index(ifindex)?;
        Ok(Some((namespace, peer)))
    }

    /// The namespace that this one knows by a number.
    pub fn namespace_of(&self, nsid: i32) -> Result<Option<Namespace>, LinkError> {
        let mut asked = HashSet::new();
        for path in visible_namespaces() {
            // Processes and names come and go meanwhile.
            let Ok(namespace) = Namespace::open(&path) else { continue };
            if asked.insert(namespace.identity()?) && self.nsid_of(&namespace)? == Some(nsid) {
                return Ok(Some(namespace));
            }
        }
        Ok(None)
    }

    /// The namespace whose links these are, wherever the calling thread is.
    pub fn own_namespace(&self) -> Result<Namespace, LinkError> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Namespace::from_fd(socket.namespace().map_err(LinkError::Open)?))
    }

    /// The number by which this namespace knows another; `None` if it has none.
    fn nsid_of(&self, namespace: &Namespace) -> Result<Option<i32>, LinkError> {
        // struct rtgenmsg is one byte, the family.
        let request = Request::new(libc::RTM_GETNSID, 0)
            .raw(&[libc::AF_UNSPEC as u8])
            .attr_u32(NETNSA_FD, namespace.as_fd().as_raw_fd() as u32);
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = match socket.request(request, |m| m.attributes(1).find(NETNSA_NSID).and_then(attr_u32)) {
            Ok(ids) => ids,
            // A file among the names that is no namespace: one in the making, or in the taking down.
            Err(e) if e.errno() == Some(libc::EINVAL) => return Ok(None),
            Err(e) => return Err(LinkError::List(e)),
        };
        Ok(ids.first().map(|id| *id as i32).filter(|id| *id != NOT_ASSIGNED))
    }

    fn one(&self, request: Request, link: String) -> Result<Link, LinkError> {
        match self.request(request) {
            Ok(mut links) => links.pop().ok_or(LinkError::NotFound { link }),
            Err(e) if e.errno() == Some(libc::ENODEV) => Err(LinkError::NotFound { link }),
            Err(source) => Err(LinkError::Request { link, what: "read it", source }),
        }
    }

    fn request(&self, request: Request) -> Result<Vec<Link>, NetlinkError> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.request(request, parse_link)
    }
}

/// `struct ifinfomsg` for a link, with flags to set and which of them.
pub(super) fn ifinfo(ifindex: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut bytes = [0; IFINFO];
    bytes[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// Paths of the namespaces that this process can see: named ones first, they are few.
fn visible_namespaces() -> impl Iterator<Item = PathBuf> {
    let entries = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries(NETNS_DIRECTORY).map(|entry| entry.path());
    let processes = entries("/proc")
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| Path::new("/proc").join(entry.file_name()).join("ns/net"));
    named.chain(processes)
}
