//! The few rtnetlink requests that attachments need: the clsact qdisc and its BPF filters (kernels before 6.6 have
//! no tcx links), and the kernel's own words for why a device refuses an XDP program.
//!
//! Layouts: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/pkt_cls.h`, `linux/if_link.h`. Host order, except the
//! protocol in a filter's `tcm_info`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const RTM_SETLINK: u16 = 19;
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const ETH_P_ALL: u16 = 3;

const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1;

/// Where our filters stand: first of all, under a handle that nobody assigns automatically.
const FILTER_PRIORITY: u16 = 1;
const FILTER_HANDLE: u32 = 0x51ce;

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{source}{}", message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
pub struct Refused {
    #[source]
    pub source: io::Error,
    /// What the kernel said beside the number (extended acknowledgement).
    pub message: Option<String>,
}

impl From<io::Error> for Refused {
    fn from(source: io::Error) -> Refused {
        Refused { source, message: None }
    }
}

impl Refused {
    fn is(&self, errno: i32) -> bool {
        self.source.raw_os_error() == Some(errno)
    }
}

/// Which of clsact's two sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    const fn parent(self) -> u32 {
        match self {
            Direction::Ingress => CLSACT_HANDLE | 0xfff2,
            Direction::Egress => CLSACT_HANDLE | 0xfff3,
        }
    }
}

struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(message_type: u16, flags: u16) -> Request {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&message_type.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
        Request { bytes }
    }

    /// `struct tcmsg`.
    fn tc(message_type: u16, flags: u16, ifindex: u32, handle: u32, parent: u32, info: u32) -> Request {
        let mut r = Request::new(message_type, flags);
        for word in [0, ifindex, handle, parent, info] {
            r.bytes.extend(word.to_ne_bytes());
        }
        r
    }

    fn filter(message_type: u16, flags: u16, ifindex: u32, direction: Direction) -> Request {
        let info = u32::from(FILTER_PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
        Request::tc(message_type, flags, ifindex, FILTER_HANDLE, direction.parent(), info)
            .attribute(TCA_KIND, b"bpf\0")
    }

    fn attribute(mut self, attribute_type: u16, value: &[u8]) -> Request {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(attribute_type.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn nested(mut self, attribute_type: u16, inside: impl FnOnce(Request) -> Request) -> Request {
        let at = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((attribute_type | NESTED).to_ne_bytes());
        let mut r = inside(self);
        let len = (r.bytes.len() - at) as u16;
        r.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        r
    }

    /// Sends the request and answers the messages that came before the acknowledgement.
    fn send(mut self) -> Result<Vec<Vec<u8>>, Refused> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        let socket = open()?;
        // SAFETY: the pointer and length are of one vector. An unconnected netlink socket sends to the kernel.
        let sent = unsafe { libc::send(socket.as_raw_fd(), self.bytes.as_ptr().cast(), self.bytes.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error().into());
        }
        let mut answers = Vec::new();
        let mut buffer = vec![0u8; 32768];
        loop {
            // SAFETY: the pointer and length are of one vector.
            let n = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if n < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error.into());
            }
            for message in messages(&buffer[..n as usize]) {
                match message.message_type {
                    NLMSG_ERROR => return message.acknowledgement().map(|()| answers),
                    NLMSG_DONE => return Ok(answers),
                    _ => answers.push(message.payload.to_vec()),
                }
            }
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor, which nobody else owns.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        // SAFETY: the value is an int, whose size is given. Without the option the answers only say less.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
    }
    Ok(socket)
}

struct Message<'a> {
    message_type: u16,
    flags: u16,
    payload: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let message = Message {
            message_type: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            payload: bytes.get(16..len)?,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Attribute `wanted` of a run of attributes.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = u16_at(bytes, 0)? as usize;
        let value = bytes.get(4..len)?;
        if u16_at(bytes, 2)? & TYPE_MASK == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

impl Message<'_> {
    /// An `NLMSG_ERROR`: an error number of 0 is "done". With `NLM_F_CAPPED` only the request's header follows,
    /// else the whole request; then, with `NLM_F_ACK_TLVS`, attributes.
    fn acknowledgement(&self) -> Result<(), Refused> {
        let errno = u32_at(self.payload, 0).map_or(-libc::EBADMSG, |e| e as i32);
        if errno == 0 {
            return Ok(());
        }
        let request = if self.flags & NLM_F_CAPPED != 0 {
            16
        } else {
            u32_at(self.payload, 4).map_or(16, |len| len as usize).next_multiple_of(4)
        };
        let message = (self.flags & NLM_F_ACK_TLVS != 0)
            .then(|| attribute(self.payload.get(4 + request..)?, NLMSGERR_ATTR_MSG))
            .flatten()
            .map(text);
        Err(Refused { source: io::Error::from_raw_os_error(-errno), message })
    }
}

/// Makes sure that the device has a clsact qdisc.
pub fn add_clsact(ifindex: u32) -> Result<(), Refused> {
    let request =
        Request::tc(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, ifindex, CLSACT_HANDLE, TC_H_CLSACT, 0);
    match request.attribute(TCA_KIND, b"clsact\0").send() {
        Err(e) if !e.is(libc::EEXIST) => Err(e),
        _ => Ok(()),
    }
}

/// Adds our filter. The name is what [`filter_name`] answers.
pub fn add_filter(
    ifindex: u32,
    direction: Direction,
    program: BorrowedFd<'_>,
    name: &str,
) -> Result<(), Refused> {
    Request::filter(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, ifindex, direction)
        .nested(TCA_OPTIONS, |r| {
            r.attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())
                .attribute(TCA_BPF_NAME, &[name.as_bytes(), b"\0"].concat())
                .attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes())
        })
        .send()
        .map(drop)
}

/// The name of the filter that stands where ours do, if there is one.
pub fn filter_name(ifindex: u32, direction: Direction) -> Option<String> {
    const TCMSG: usize = 20;
    let answers = Request::filter(RTM_GETTFILTER, 0, ifindex, direction).send().ok()?;
    let options = attribute(answers.first()?.get(TCMSG..)?, TCA_OPTIONS)?;
    attribute(options, TCA_BPF_NAME).map(text)
}

/// Removes the filter that stands where ours do.
pub fn delete_filter(ifindex: u32, direction: Direction) -> Result<(), Refused> {
    Request::filter(RTM_DELTFILTER, 0, ifindex, direction).send().map(drop)
}

/// What the kernel says against this XDP program on a device in the mode of `flags` (`XDP_FLAGS_`), if it does:
/// the link that was refused gives a number only. Should the kernel accept, the program is taken off again.
pub fn xdp_objection(ifindex: u32, program: BorrowedFd<'_>, flags: u32) -> Option<String> {
    let set = |fd: i32, flags: u32| {
        let mut request = Request::new(RTM_SETLINK, 0);
        // `struct ifinfomsg`: family, type, index, flags, change.
        for word in [0, ifindex, 0, 0] {
            request.bytes.extend(word.to_ne_bytes());
        }
        request
            .nested(IFLA_XDP, |r| {
                r.attribute(IFLA_XDP_FD, &fd.to_ne_bytes()).attribute(IFLA_XDP_FLAGS, &flags.to_ne_bytes())
            })
            .send()
    };
    match set(program.as_raw_fd(), flags | XDP_FLAGS_UPDATE_IF_NOEXIST) {
        Err(refused) => refused.message,
        Ok(_) => {
            if let Err(error) = set(-1, flags) {
                tracing::warn!(ifindex, %error, "an XDP program that was tried could not be taken off");
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_messages() {
        let r = Request::new(7, 0).attribute(3, b"abc\0").nested(5, |r| r.attribute(1, &[1, 2, 3, 4, 5]));
        let body = &r.bytes[16..];
        assert_eq!(attribute(body, 3).map(text).as_deref(), Some("abc"));
        assert_eq!(attribute(attribute(body, 5).unwrap(), 1), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(attribute(body, 9), None);
        assert_eq!(attribute(&[200, 0, 1, 0], 1), None);
    }

    #[test]
    fn refusals_are_read() {
        let mut m = Vec::new();
        m.extend((-libc::EINVAL).to_ne_bytes());
        m.extend([0; 16]);
        let text = Request { bytes: Vec::new() }.attribute(NLMSGERR_ATTR_MSG, b"no XDP today\0").bytes;
        m.extend(text);
        let flags = NLM_F_CAPPED | NLM_F_ACK_TLVS;
        let refused =
            Message { message_type: NLMSG_ERROR, flags, payload: &m }.acknowledgement().unwrap_err();
        assert!(refused.is(libc::EINVAL));
        assert_eq!(refused.message.as_deref(), Some("no XDP today"));
        let cut = Message { message_type: NLMSG_ERROR, flags, payload: &m[..3] };
        assert!(cut.acknowledgement().is_err());
    }

    #[test]
    fn no_such_device() {
        // Asks only; nothing is changed on any device.
        assert_eq!(filter_name(0x7fff_fff0, Direction::Ingress), None);
    }
}
