//! Changes to a link that exists. Each names the link by its index: names can change under way.

use std::fs;
use std::io;
use std::sync::PoisonError;

use super::find::ifinfo;
use super::{Link, LinkError, Links, MacAddress, check_name};
use crate::netlink::Request;

/// Attribute of `AF_INET6` in `IFLA_AF_SPEC`, and its value "no address by itself".
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

impl Links {
    /// Sets a link administratively up or down.
    pub fn set_up(&self, ifindex: u32, up: bool) -> Result<(), LinkError> {
        let what = if up { "set it up" } else { "set it down" };
        self.set_flag(ifindex, libc::IFF_UP as u32, up, what)
    }

    /// Sets or clears the user's promiscuity flag, which outlives the process that set it.
    pub fn set_promiscuous(&self, ifindex: u32, on: bool) -> Result<(), LinkError> {
        let what = if on { "make it promiscuous" } else { "end its promiscuity" };
        self.set_flag(ifindex, libc::IFF_PROMISC as u32, on, what)
    }

    /// Sets the MTU, in bytes behind the Ethernet header.
    pub fn set_mtu(&self, ifindex: u32, mtu: u32) -> Result<(), LinkError> {
        self.change(ifindex, "set its MTU", |r| r.attr_u32(libc::IFLA_MTU, mtu))
    }

    pub fn set_mac(&self, ifindex: u32, mac: MacAddress) -> Result<(), LinkError> {
        self.change(ifindex, "set its address", |r| r.attr(libc::IFLA_ADDRESS, &mac.0))
    }

    /// Renames a link. Before Linux 6.2 it has to be down.
    pub fn rename(&self, ifindex: u32, name: &str) -> Result<(), LinkError> {
        check_name(name)?;
        self.change(ifindex, "rename it", |r| r.attr_string(libc::IFLA_IFNAME, name))
    }

    /// Moves a link to another namespace, where its index may be another one.
    pub fn move_to(&self, ifindex: u32, namespace: &crate::Namespace) -> Result<(), LinkError> {
        use std::os::fd::{AsFd, AsRawFd};
        let fd = namespace.as_fd().as_raw_fd() as u32;
        self.change(ifindex, "move it to another namespace", |r| r.attr_u32(libc::IFLA_NET_NS_FD, fd))
    }

    /// Deletes a link; of a veth, both ends.
    pub fn delete(&self, ifindex: u32) -> Result<(), LinkError> {
        let request = Request::new(libc::RTM_DELLINK, 0).raw(&ifinfo(ifindex, 0, 0));
        self.send(request, || format!("#{ifindex}"), "delete it")
    }

    /// Keeps IPv6 off a link: no link-local address, no neighbour or router solicitations, none accepted.
    /// A kernel without IPv6 has nothing to keep off.
    pub fn disable_ipv6(&self, link: &Link) -> Result<(), LinkError> {
        let mode = self.change(link.ifindex, "switch its IPv6 addresses off", |r| {
            r.nest(libc::IFLA_AF_SPEC, |r| {
                r.nest(libc::AF_INET6 as u16, |r| r.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]))
            })
        });
        match mode {
            // No IPv6 in the kernel, or none on this link because its MTU is below 1280 (RFC 8200, section 5).
            Err(e) if matches!(e.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EINVAL)) => {}
            other => other?,
        }
        let namespace = self.own_namespace()?;
        let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", link.name);
        match namespace.run(|| fs::write(&path, "1"))? {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            // A container's /proc/sys: without addresses, the link still answers nothing of its own.
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                tracing::debug!(link = link.name, "cannot write {path}: read-only");
                Ok(())
            }
            Err(source) => Err(LinkError::Sysctl { link: link.name.clone(), what: "disable IPv6", source }),
        }
    }

    fn set_flag(&self, ifindex: u32, flag: u32, on: bool, what: &'static str) -> Result<(), LinkError> {
        let request =
            Request::new(libc::RTM_NEWLINK, 0).raw(&ifinfo(ifindex, if on { flag } else { 0 }, flag));
        self.send(request, || self.label(ifindex), what)
    }

    fn change(
        &self,
        ifindex: u32,
        what: &'static str,
        fill: impl FnOnce(Request) -> Request,
    ) -> Result<(), LinkError> {
        let request = fill(Request::new(libc::RTM_NEWLINK, 0).raw(&ifinfo(ifindex, 0, 0)));
        self.send(request, || self.label(ifindex), what)
    }

    pub(super) fn send(
        &self,
        request: Request,
        label: impl FnOnce() -> String,
        what: &'static str,
    ) -> Result<(), LinkError> {
        let sent = {
            let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
            socket.request(request, |_| None::<()>)
        };
        match sent {
            Ok(_) => Ok(()),
            Err(source) => {
                let link = label();
                Err(if source.errno() == Some(libc::ENODEV) {
                    LinkError::NotFound { link }
                } else {
                    LinkError::Request { link, what, source }
                })
            }
        }
    }

    /// A link's name for an error message, or its index if it has gone.
    fn label(&self, ifindex: u32) -> String {
        self.by_index(ifindex).map_or_else(|_| format!("#{ifindex}"), |link| link.name)
    }
}
