//! AF_PACKET sockets (packet(7)): opening, binding, counting.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Opens a raw packet socket that receives frames of an Ethernet type from everywhere; of none if it is 0.
pub(crate) fn open(eth_type: u16) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes plain numbers.
    let raw = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(eth_type.to_be())) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The address of a link, for frames of an Ethernet type.
pub(crate) fn address(ifindex: u32, eth_type: u16) -> libc::sockaddr_ll {
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex as i32;
    address.sll_protocol = eth_type.to_be();
    address
}

/// Restricts a socket to one link, and sets the Ethernet type that it receives.
pub(crate) fn bind(fd: &OwnedFd, ifindex: u32, eth_type: u16) -> io::Result<()> {
    let address = address(ifindex, eth_type);
    // SAFETY: the address is that long and lives through the call.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Frames lost for want of room since the last call (`PACKET_STATISTICS`).
pub(crate) fn drops(fd: &OwnedFd) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the structure is writable for its length.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(u64::from(statistics.tp_drops)) }
}
