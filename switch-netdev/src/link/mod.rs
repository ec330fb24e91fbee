//! Links: what the kernel calls a network interface.
//!
//! [`Link`] is one as rtnetlink reports it, [`Links`] finds and changes them. A `Links` sees the network namespace
//! in which it was opened.

mod create;
mod find;
mod parse;
mod set;

pub use create::{VethEnd, VethSpec};
pub use find::Links;
pub(crate) use parse::{parse_link, removed_link};

use serde::{Deserialize, Serialize};

use crate::namespace::NamespaceError;
use crate::netlink::NetlinkError;

/// Bytes of an interface's name, without the closing zero (`IFNAMSIZ` - 1).
pub const NAME_MAX: usize = 15;

/// Why a link could not be found or changed. Each names the interface and what was attempted.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("no interface {link}")]
    NotFound { link: String },
    #[error(
        "{name:?} is not an interface name: 1 to {NAME_MAX} bytes, no '/', ':' or space, not \".\" or \"..\""
    )]
    BadName { name: String },
    #[error("interface {link}: cannot {what}: {source}")]
    Request { link: String, what: &'static str, source: NetlinkError },
    #[error("cannot list the interfaces: {0}")]
    List(#[source] NetlinkError),
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] NetlinkError),
    #[error("interface {link}: cannot {what}: {source}")]
    Sysctl { link: String, what: &'static str, source: std::io::Error },
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

impl LinkError {
    /// `errno` of the kernel's refusal, if it was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            LinkError::NotFound { .. } => Some(libc::ENODEV),
            LinkError::Request { source, .. } | LinkError::List(source) | LinkError::Open(source) => {
                source.errno()
            }
            LinkError::Sysctl { source, .. } => source.raw_os_error(),
            LinkError::BadName { .. } | LinkError::Namespace(_) => None,
        }
    }
}

/// A hardware address; all zeros for a link that has none of 6 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MacAddress(pub [u8; 6]);

impl std::fmt::Display for MacAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// RFC 2863's operational state, numbered as `IF_OPER_`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OperState {
    #[default]
    Unknown,
    NotPresent,
    Down,
    LowerLayerDown,
    Testing,
    Dormant,
    Up,
}

/// How an XDP program sits on a link (`XDP_ATTACHED_`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpAttached {
    #[default]
    None,
    Native,
    Generic,
    Hardware,
    Several,
}

/// Counters of `struct rtnl_link_stats64`, since the link was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub multicast: u64,
    pub collisions: u64,
    pub rx_length_errors: u64,
    pub rx_over_errors: u64,
    pub rx_crc_errors: u64,
    pub rx_frame_errors: u64,
    pub rx_fifo_errors: u64,
    pub rx_missed_errors: u64,
}

/// A link as the kernel reported it at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Never 0, and not used again by the kernel while it is up, save after 2^31 links.
    pub ifindex: u32,
    pub name: String,
    /// "veth", "tun", "bridge", ...; empty for a physical device, and for one that a driver made by itself.
    pub kind: String,
    /// Bytes behind the Ethernet header.
    pub mtu: u32,
    /// Bytes; 0 if the driver sets no limit.
    pub max_mtu: u32,
    pub mac: MacAddress,
    /// `IFF_` bits.
    pub flags: u32,
    pub oper_state: OperState,
    /// Link layer, `ARPHRD_`: 1 for Ethernet.
    pub hardware_type: u16,
    /// Ifindex of the bridge, bond, ... that it belongs to.
    pub master: Option<u32>,
    /// Ifindex of the peer of a veth, or of the link below a stacked one, in the namespace of `peer_nsid`.
    pub peer: Option<u32>,
    /// Number by which this namespace knows the peer's; `None` if it is in this one.
    pub peer_nsid: Option<i32>,
    pub rx_queues: u32,
    pub tx_queues: u32,
    /// A tun device whose frames bring a `virtio_net_hdr`, hence perhaps partial checksums and GSO.
    pub tun_vnet_header: bool,
    pub xdp: XdpAttached,
    pub statistics: LinkStatistics,
}

impl Link {
    /// Administratively up.
    pub fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    /// Up, with carrier.
    pub fn is_running(&self) -> bool {
        self.flags & libc::IFF_RUNNING as u32 != 0
    }

    /// Set promiscuous by a user's flag. What packet sockets or a bridge ask for does not show here.
    pub fn is_promiscuous(&self) -> bool {
        self.flags & libc::IFF_PROMISC as u32 != 0
    }

    pub fn is_veth(&self) -> bool {
        self.kind == "veth"
    }

    pub fn is_ethernet(&self) -> bool {
        self.hardware_type == libc::ARPHRD_ETHER
    }
}

/// Checks a name by the kernel's rule (`dev_valid_name`).
pub fn check_name(name: &str) -> Result<(), LinkError> {
    let bad = name.is_empty()
        || name.len() > NAME_MAX
        || name == "."
        || name == ".."
        || name.bytes().any(|b| matches!(b, b'/' | b':' | 0) || b.is_ascii_whitespace() || b == 0x0b);
    if bad { Err(LinkError::BadName { name: name.to_owned() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_the_kernels_rule() {
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "0123456789abcdef"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["eth0", "0123456789abcde", "br-lan.7"] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }
}
