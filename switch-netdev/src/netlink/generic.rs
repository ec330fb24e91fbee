//! Generic netlink: families are found by name (`include/uapi/linux/genetlink.h`).

use super::message::{Attributes, Request};
use super::{Message, NetlinkError, NetlinkSocket};

const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Bytes of `struct genlmsghdr`.
const HEADER: usize = 4;

/// A socket for one generic netlink family.
#[derive(Debug)]
pub(crate) struct Generic {
    socket: NetlinkSocket,
    family: u16,
}

impl Generic {
    /// Opens a socket in the calling thread's network namespace and finds the family.
    ///
    /// # Errors
    /// [`NetlinkError::NoFamily`] if the kernel does not have it.
    pub(crate) fn open(name: &'static str) -> Result<Generic, NetlinkError> {
        let mut socket = NetlinkSocket::open(libc::NETLINK_GENERIC)?;
        let request = Request::new(libc::GENL_ID_CTRL as u16, 0)
            .raw(&[CTRL_CMD_GETFAMILY, 1, 0, 0])
            .attr_string(CTRL_ATTR_FAMILY_NAME, name);
        let found = socket.request(request, |m| {
            m.attributes(HEADER)
                .find(CTRL_ATTR_FAMILY_ID)
                .and_then(|id| id.first_chunk())
                .map(|b| u16::from_ne_bytes(*b))
        });
        match found {
            Ok(ids) => match ids.first() {
                Some(family) => Ok(Generic { socket, family: *family }),
                None => Err(NetlinkError::NoFamily(name)),
            },
            Err(e) if e.errno() == Some(libc::ENOENT) => Err(NetlinkError::NoFamily(name)),
            Err(e) => Err(e),
        }
    }

    /// Sends a command with the attributes that `fill` adds, and takes from each answer's attributes.
    pub(crate) fn request<T>(
        &mut self,
        command: u8,
        fill: impl FnOnce(Request) -> Request,
        mut take: impl FnMut(Attributes<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let request = fill(Request::new(self.family, 0).raw(&[command, 1, 0, 0]));
        self.socket.request(request, |m: &Message<'_>| take(m.attributes(HEADER)))
    }
}
