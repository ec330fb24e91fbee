//! New links: veth pairs.

use std::os::fd::{AsFd, AsRawFd};

use super::find::ifinfo;
use super::parse::IFINFO;
use super::{LinkError, Links, MacAddress, check_name};
use crate::namespace::Namespace;
use crate::netlink::Request;

/// Attribute of a veth's `IFLA_INFO_DATA` that describes the peer.
const VETH_INFO_PEER: u16 = 1;

/// One end of a veth pair to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct VethEnd<'a> {
    pub name: &'a str,
    /// `None`: the kernel draws one.
    pub mac: Option<MacAddress>,
    /// `None`: the namespace of the [`Links`].
    pub namespace: Option<&'a Namespace>,
}

/// A veth pair to be made; both ends alike save for what [`VethEnd`] says.
#[derive(Clone, Copy, Debug)]
pub struct VethSpec<'a> {
    pub ends: [VethEnd<'a>; 2],
    /// Receive and transmit queues of each end; at least 1.
    pub queues: u32,
    /// Bytes behind the Ethernet header.
    pub mtu: u32,
}

impl<'a> VethSpec<'a> {
    /// A plain pair: one queue, MTU 1500, addresses drawn, both ends here.
    pub fn new(first: &'a str, second: &'a str) -> VethSpec<'a> {
        let end = |name| VethEnd { name, ..VethEnd::default() };
        VethSpec { ends: [end(first), end(second)], queues: 1, mtu: 1500 }
    }
}

impl Links {
    /// Makes a veth pair, both ends down.
    ///
    /// # Errors
    /// `EEXIST` in [`LinkError::Request`] if a name is taken.
    pub fn create_veth(&self, spec: &VethSpec<'_>) -> Result<(), LinkError> {
        let [first, second] = &spec.ends;
        check_name(first.name)?;
        check_name(second.name)?;
        let head = Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL).raw(&[0; IFINFO]);
        let request = end(head, first, spec).nest(libc::IFLA_LINKINFO, |r| {
            r.attr_string(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |r| {
                r.nest(VETH_INFO_PEER, |r| end(r.raw(&ifinfo(0, 0, 0)), second, spec))
            })
        });
        self.send(request, || format!("{} with its peer {}", first.name, second.name), "create it")
    }
}

fn end(request: Request, end: &VethEnd<'_>, spec: &VethSpec<'_>) -> Request {
    let mut request = request
        .attr_string(libc::IFLA_IFNAME, end.name)
        .attr_u32(libc::IFLA_MTU, spec.mtu)
        .attr_u32(libc::IFLA_NUM_RX_QUEUES, spec.queues)
        .attr_u32(libc::IFLA_NUM_TX_QUEUES, spec.queues);
    if let Some(mac) = end.mac {
        request = request.attr(libc::IFLA_ADDRESS, &mac.0);
    }
    if let Some(namespace) = end.namespace {
        request = request.attr_u32(libc::IFLA_NET_NS_FD, namespace.as_fd().as_raw_fd() as u32);
    }
    request
}
