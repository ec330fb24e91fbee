//! A VLAN device of a machine: the kernel's, or one of our own where the kernel has none.
//!
//! Our own is a tap device and a thread that copies frames between it and the trunk, putting the tag on and
//! taking it off. Segments of TCP pass in one piece, as with the kernel's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, poll};

use crate::netns::Namespace;
use crate::packet::{PacketSocket, VNET_HEADER};

/// A device for one VLAN of a trunk.
#[derive(Debug)]
pub struct VlanDevice {
    name: String,
    relay: Option<Relay>,
}

impl VlanDevice {
    /// Makes `TRUNK.VLAN`, up.
    pub fn create(namespace: &Namespace, trunk: &str, vlan: u16, mac: &str) -> Result<VlanDevice> {
        let name = format!("{trunk}.{vlan}");
        let id = vlan.to_string();
        let by_kernel =
            namespace.ip(&["link", "add", "link", trunk, "name", &name, "type", "vlan", "id", &id]);
        let relay = match by_kernel {
            Ok(()) => None,
            Err(_) => Some(Relay::start(namespace, trunk, &name, vlan)?),
        };
        if relay.is_some() {
            namespace.ip(&["link", "set", &name, "address", mac])?;
        }
        namespace.ip(&["link", "set", &name, "up"])?;
        Ok(VlanDevice { name, relay })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who puts the tags on.
    pub fn means(&self) -> &'static str {
        if self.relay.is_some() { "our own relay: the kernel has no VLAN devices" } else { "the kernel" }
    }
}

/// The thread behind a VLAN device of our own.
#[derive(Debug)]
struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Room for the longest segment that the kernel hands over in one piece.
const ROOM: usize = VNET_HEADER + 4 + 65_536 + 256;

impl Relay {
    fn start(namespace: &Namespace, trunk: &str, name: &str, vlan: u16) -> Result<Relay> {
        let (tap, socket) = namespace.within(|| -> Result<_> {
            let tap = open_tap(name).with_context(|| format!("make the tap device {name}"))?;
            Ok((tap, PacketSocket::open(trunk, true)?))
        })??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // Both ends are bound to their devices: the thread need not be in the namespace.
        let thread = std::thread::spawn(move || {
            let mut relay = Copier { tap, socket, vlan, buffer: vec![0; ROOM] };
            while !stopped.load(Ordering::Relaxed) {
                if relay.turn().is_err() {
                    // A device that went down or a frame too long: the next turn shows whether it matters.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Ok(Relay { stop, thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Copier {
    tap: File,
    socket: PacketSocket,
    vlan: u16,
    buffer: Vec<u8>,
}

impl Copier {
    /// Waits a little for frames, and copies those that are there.
    fn turn(&mut self) -> io::Result<()> {
        let mut wanted = [
            PollFd::new(self.tap.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut wanted, 50_u8)?;
        // Bounded, so that neither way starves the other.
        for _ in 0..64 {
            let Some((length, tag)) = self.socket.receive(&mut self.buffer)? else { break };
            if tag.is_some_and(|tci| tci & 0xfff == self.vlan) {
                self.tap.write_all(&self.buffer[..length])?;
            }
        }
        for _ in 0..64 {
            // The tag goes in after the addresses: room is left for it.
            let length = match self.tap.read(&mut self.buffer[4..]) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            if length < VNET_HEADER + 14 {
                continue;
            }
            push_tag(&mut self.buffer[..length + 4], self.vlan);
            self.socket.send(&self.buffer[..length + 4])?;
        }
        Ok(())
    }
}

/// Puts a tag into a frame that lies, with its header of [`VNET_HEADER`] bytes, four bytes into `buffer`.
fn push_tag(buffer: &mut [u8], vlan: u16) {
    buffer.copy_within(4..4 + VNET_HEADER + 12, 0);
    let tag = VNET_HEADER + 12;
    buffer[tag..tag + 2].copy_from_slice(&[0x81, 0x00]);
    buffer[tag + 2..tag + 4].copy_from_slice(&vlan.to_be_bytes());
    // struct virtio_net_hdr: flags, gso_type, then hdr_len, gso_size, csum_start, csum_offset in host byte
    // order. What counts from the frame's begin moves by the tag's length.
    let longer = |at: usize, buffer: &mut [u8]| {
        let value = u16::from_ne_bytes([buffer[at], buffer[at + 1]]).saturating_add(4);
        buffer[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    };
    if buffer[0] & NEEDS_CHECKSUM != 0 {
        longer(6, buffer);
    }
    if buffer[1] != 0 {
        longer(2, buffer);
    }
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;

fn open_tap(name: &str) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .context("open /dev/net/tun")?;
    // SAFETY: ifreq is plain old data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        anyhow::bail!("the name {name} is too long for a device");
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags)?;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives as long as the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error()).context("TUNSETIFF");
    }
    Ok(tap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_in_after_the_addresses() {
        let mut buffer = vec![0xee; 4];
        let mut header = [0_u8; VNET_HEADER];
        header[0] = NEEDS_CHECKSUM;
        header[6..8].copy_from_slice(&34_u16.to_ne_bytes());
        buffer.extend(header);
        buffer.extend(1..=12);
        buffer.extend([0x08, 0x00, 0x45]);
        push_tag(&mut buffer, 10);
        let mut expected = header;
        expected[6..8].copy_from_slice(&38_u16.to_ne_bytes());
        assert_eq!(buffer[..VNET_HEADER], expected);
        assert_eq!(buffer[VNET_HEADER..VNET_HEADER + 12], (1..=12).collect::<Vec<u8>>());
        assert_eq!(buffer[VNET_HEADER + 12..], [0x81, 0x00, 0x00, 0x0a, 0x08, 0x00, 0x45]);
    }
}
