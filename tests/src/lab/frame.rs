//! Raw frames: building them, sending them from a host's interface, and catching what arrives.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::host::Host;

/// Builders of frames, all with sound checksums.
pub mod build {
    /// Ethernet.
    pub fn ethernet(dst: [u8; 6], src: [u8; 6], eth_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut f = Vec::with_capacity(14 + payload.len());
        f.extend_from_slice(&dst);
        f.extend_from_slice(&src);
        f.extend_from_slice(&eth_type.to_be_bytes());
        f.extend_from_slice(payload);
        f
    }

    /// Puts a tag of 0x8100 into a frame.
    pub fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
        let mut f = frame[..12].to_vec();
        f.extend_from_slice(&tpid.to_be_bytes());
        f.extend_from_slice(&tci.to_be_bytes());
        f.extend_from_slice(&frame[12..]);
        f
    }

    /// IPv4 with UDP.
    pub fn udp(
        dst: [u8; 6],
        src: [u8; 6],
        ips: ([u8; 4], [u8; 4]),
        ports: (u16, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let mut udp = Vec::new();
        udp.extend_from_slice(&ports.0.to_be_bytes());
        udp.extend_from_slice(&ports.1.to_be_bytes());
        udp.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(payload);
        let mut pseudo = [&ips.0[..], &ips.1[..], &[0, 17], &(udp.len() as u16).to_be_bytes()].concat();
        pseudo.extend_from_slice(&udp);
        let check = match checksum(&pseudo) {
            0 => 0xffff,
            c => c,
        };
        udp[6..8].copy_from_slice(&check.to_be_bytes());
        ethernet(dst, src, 0x0800, &ipv4(ips, 17, &udp))
    }

    fn ipv4(ips: ([u8; 4], [u8; 4]), proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut h = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, proto, 0, 0];
        h[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        h.extend_from_slice(&ips.0);
        h.extend_from_slice(&ips.1);
        let check = checksum(&h);
        h[10..12].copy_from_slice(&check.to_be_bytes());
        h.extend_from_slice(payload);
        h
    }

    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum: u32 = bytes
            .chunks(2)
            .map(|c| u32::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !sum as u16
    }
}

/// A packet socket on one interface.
#[derive(Debug)]
pub struct FrameSocket {
    fd: OwnedFd,
}

impl FrameSocket {
    /// On a host's `eth0`. Frames are sent as they are; tags of received ones are put back into the frame.
    pub fn open(host: &Host) -> FrameSocket {
        host.ns.inside(|| FrameSocket::on("eth0")).expect("packet socket")
    }

    /// On an interface of the calling thread's namespace.
    pub fn on(name: &str) -> io::Result<FrameSocket> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: plain system calls; the descriptor is owned at once.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(all));
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let index = nix::net::if_::if_nametoindex(name).map_err(io::Error::from)?;
        // SAFETY: a zeroed sockaddr_ll is valid, and its size is given.
        let bound = unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all;
            address.sll_ifindex = index as i32;
            let one = 1i32;
            let size = size_of::<i32>() as u32;
            // Auxiliary data carries the tag that the kernel takes out; bigger buffer for bursts.
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_AUXDATA,
                (&raw const one).cast(),
                size,
            );
            let buffer = 16 << 20;
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const buffer).cast(),
                size_of::<i32>() as u32,
            );
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(FrameSocket { fd }) }
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the buffer is readable for its length.
        let n = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(n, frame.len() as isize, "send: {}", io::Error::last_os_error());
    }

    /// The next frame that arrives (not one that this side sent) within `limit`.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now()).as_millis() as i32;
            let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd.
            if unsafe { libc::poll(&mut poll, 1, left) } <= 0 {
                return None;
            }
            if let Some(frame) = self.read() {
                return Some(frame);
            }
        }
    }

    fn read(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0u8; 65536 + 64];
        let mut control = [0u64; 16];
        // SAFETY: all pointers are to live buffers of the given lengths; the control message is only read
        // where the CMSG macros say that there is one.
        unsafe {
            let mut from: libc::sockaddr_ll = std::mem::zeroed();
            let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_name = (&raw mut from).cast();
            message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
            message.msg_iov = &mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            let n = libc::recvmsg(self.fd.as_raw_fd(), &mut message, libc::MSG_DONTWAIT);
            if n < 0 || from.sll_pkttype == libc::PACKET_OUTGOING {
                return None;
            }
            buffer.truncate(n as usize);
            let mut header = libc::CMSG_FIRSTHDR(&message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_PACKET && (*header).cmsg_type == libc::PACKET_AUXDATA {
                    let aux = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                    if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                        let tpid = if aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                            aux.tp_vlan_tpid
                        } else {
                            0x8100
                        };
                        buffer = build::tagged(&buffer, tpid, aux.tp_vlan_tci);
                    }
                }
                header = libc::CMSG_NXTHDR(&message, header);
            }
        }
        Some(buffer)
    }

    /// Everything that arrives within `limit` and that `wanted` accepts.
    pub fn collect(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Capture {
        let end = Instant::now() + limit;
        let mut frames = Vec::new();
        while let Some(frame) = self.receive(end.saturating_duration_since(Instant::now())) {
            if wanted(&frame) {
                frames.push(frame);
            }
        }
        Capture { frames }
    }
}

/// Frames that arrived.
#[derive(Debug, Default)]
pub struct Capture {
    pub frames: Vec<Vec<u8>>,
}
