//! Raw frames on one device, with the VLAN tag wherever the kernel put it.
//!
//! The kernel takes the outermost tag of a received frame out of the frame and hands it over beside it
//! (packet(7), `PACKET_AUXDATA`); here it is always beside.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Length of `struct virtio_net_hdr`, which goes before each frame where it is asked for.
pub const VNET_HEADER: usize = 10;

/// A packet socket bound to one device of the thread's network namespace.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

/// The tag of a received frame: its tag control information, in host byte order.
pub type Tag = Option<u16>;

impl PacketSocket {
    /// Opens a socket that receives every frame that comes in over `device`. With `vnet_header`, a
    /// `struct virtio_net_hdr` (virtio 1.2, 5.1.6) goes before each frame, both ways, so that segments of TCP
    /// pass in one piece and checksums may be left to whoever comes next.
    pub fn open(device: &str, vnet_header: bool) -> Result<PacketSocket> {
        let index = nix::net::if_::if_nametoindex(device).with_context(|| format!("find {device}"))?;
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket takes plain numbers. The new descriptor is owned by nobody else.
        let socket = unsafe {
            let raw = libc::socket(libc::AF_PACKET, kind, 0);
            if raw < 0 {
                return Err(io::Error::last_os_error()).context("open a packet socket");
            }
            OwnedFd::from_raw_fd(raw)
        };
        let socket = PacketSocket { socket };
        socket.set(libc::PACKET_AUXDATA, 1)?;
        socket.set(libc::PACKET_IGNORE_OUTGOING, 1)?;
        if vnet_header {
            socket.set(libc::PACKET_VNET_HDR, 1)?;
        }
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol,
            sll_ifindex: i32::try_from(index).context("interface index")?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is a whole sockaddr_ll that lives as long as the call, and its size is given.
        let result = unsafe {
            libc::bind(
                socket.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("bind to {device}"));
        }
        Ok(socket)
    }

    fn set(&self, option: libc::c_int, value: libc::c_int) -> Result<()> {
        // SAFETY: the value is an int that lives as long as the call, and its size is given.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error()).with_context(|| format!("set option {option} of a packet socket"))
        }
    }

    /// Takes the next frame, if one has come.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, Tag)>> {
        let mut space = nix::cmsg_space!([u8; 64]);
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()) {
                Ok(message) => message,
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        let mut tag = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::Unknown(control) = control {
                let header = control.cmsg_header;
                if header.cmsg_level == libc::SOL_PACKET && header.cmsg_type == libc::PACKET_AUXDATA {
                    tag = tag_of(&control.data_bytes);
                }
            }
        }
        Ok(Some((message.bytes, tag)))
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(frame)], &[], MsgFlags::empty(), None)?;
        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads the tag out of a `struct tpacket_auxdata`: status (4 bytes), len, snaplen (4 each), mac, net,
/// vlan_tci, vlan_tpid (2 each), all in host byte order.
fn tag_of(auxdata: &[u8]) -> Tag {
    let status = u32::from_ne_bytes(auxdata.get(..4)?.try_into().ok()?);
    let tci = u16::from_ne_bytes(auxdata.get(16..18)?.try_into().ok()?);
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tci)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_beside_the_frame() {
        let mut auxdata = [0_u8; 20];
        auxdata[16..18].copy_from_slice(&0x600a_u16.to_ne_bytes());
        assert_eq!(tag_of(&auxdata), None);
        auxdata[..4].copy_from_slice(&libc::TP_STATUS_VLAN_VALID.to_ne_bytes());
        assert_eq!(tag_of(&auxdata), Some(0x600a));
        assert_eq!(tag_of(&auxdata[..10]), None);
    }
}
