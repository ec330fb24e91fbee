//! Namespaces, veth pairs between them, and frames.

use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use switch_netdev::link::{VethEnd, VethSpec};
use switch_netdev::{Link, Links, NamedNamespace, namespace};

const PREFIX: &str = "slunetdev";

/// A namespace for one test; `None`, with the reason printed, without root.
pub fn namespace() -> Option<NamedNamespace> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    namespace::remove_stale(PREFIX).expect("remove what killed tests left");
    Some(NamedNamespace::create_unique(PREFIX).expect("make a namespace"))
}

/// A veth pair, both ends up and without IPv6: `port` in one namespace, `peer` in another.
pub fn veth(here: &NamedNamespace, port: &str, there: &NamedNamespace, peer: &str) -> (Link, Link) {
    let links = Links::open_in(here).expect("links");
    let far = VethEnd { name: peer, mac: None, namespace: Some(there) };
    let spec = VethSpec::new(port, peer);
    links.create_veth(&VethSpec { ends: [spec.ends[0], far], ..spec }).expect("create a veth pair");
    let up = |links: &Links, name: &str| {
        let link = links.by_name(name).expect("the end is there");
        links.disable_ipv6(&link).expect("disable IPv6");
        links.set_up(link.ifindex, true).expect("set it up");
        links.by_index(link.ifindex).expect("still there")
    };
    let there = Links::open_in(there).expect("links of the other namespace");
    let peer = up(&there, peer);
    (up(&links, port), peer)
}

/// A frame of an experimental type with a number in it.
pub fn frame(eth_type: u16, number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0u8; len];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&eth_type.to_be_bytes());
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    for (i, byte) in frame.iter_mut().enumerate().skip(18) {
        *byte = i as u8;
    }
    frame
}

/// The number in a frame of [`frame`].
pub fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().expect("four bytes"))
}

/// What a command prints.
pub fn stdout(mut command: Command) -> String {
    let output = command.output().expect("the command runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sends a frame with queueing and TC on its way, which [`switch_netdev::PacketOut`] goes past.
pub fn send_through_tc(ifindex: u32, frame: &[u8]) {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex as i32;
    // SAFETY: frame and address are readable for the lengths given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}
