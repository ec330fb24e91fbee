//! `RTM_NEWLINK` and `RTM_DELLINK` to [`Link`] (`include/uapi/linux/if_link.h`).

use super::{Link, LinkStatistics, MacAddress, OperState, XdpAttached};
use crate::netlink::{Attributes, Message, attr_string, attr_u8, attr_u32, attr_u64};

/// Bytes of `struct ifinfomsg`.
pub(super) const IFINFO: usize = 16;
/// Attribute of `IFLA_INFO_DATA` of a tun device (`enum` of `IFLA_TUN_`).
const IFLA_TUN_VNET_HDR: u16 = 5;
/// Attribute of `IFLA_XDP`.
const IFLA_XDP_ATTACHED: u16 = 2;

/// The link of an `RTM_NEWLINK`. `None` for other messages, and for a bridge's report on one of its ports, which
/// has the same type but the family `AF_BRIDGE`.
pub(crate) fn parse_link(message: &Message<'_>) -> Option<Link> {
    (message.kind == libc::RTM_NEWLINK).then(|| link(message))?
}

/// The link that an `RTM_DELLINK` says is gone; `None` as for [`parse_link`].
pub(crate) fn removed_link(message: &Message<'_>) -> Option<Link> {
    (message.kind == libc::RTM_DELLINK).then(|| link(message))?
}

fn link(message: &Message<'_>) -> Option<Link> {
    let head: &[u8; IFINFO] = message.payload.first_chunk()?;
    if i32::from(head[0]) != libc::AF_UNSPEC {
        return None;
    }
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let mut link = Link {
        hardware_type: u16::from_ne_bytes([head[2], head[3]]),
        ifindex: word(4),
        flags: word(8),
        ..Link::default()
    };
    for (kind, payload) in message.attributes(IFINFO) {
        match kind {
            libc::IFLA_IFNAME => link.name = attr_string(payload),
            libc::IFLA_ADDRESS => link.mac = MacAddress(payload.try_into().unwrap_or_default()),
            libc::IFLA_MTU => link.mtu = attr_u32(payload)?,
            libc::IFLA_MAX_MTU => link.max_mtu = attr_u32(payload)?,
            libc::IFLA_MASTER => link.master = attr_u32(payload),
            libc::IFLA_LINK => link.peer = attr_u32(payload).filter(|i| *i != 0),
            libc::IFLA_LINK_NETNSID => link.peer_nsid = attr_u32(payload).map(|id| id as i32),
            libc::IFLA_NUM_RX_QUEUES => link.rx_queues = attr_u32(payload)?,
            libc::IFLA_NUM_TX_QUEUES => link.tx_queues = attr_u32(payload)?,
            libc::IFLA_OPERSTATE => link.oper_state = oper_state(attr_u8(payload)?),
            libc::IFLA_LINKINFO => link_info(&mut link, Attributes(payload)),
            libc::IFLA_STATS64 => link.statistics = statistics(payload),
            libc::IFLA_XDP => {
                link.xdp = Attributes(payload)
                    .find(IFLA_XDP_ATTACHED)
                    .and_then(attr_u8)
                    .map_or(XdpAttached::None, xdp);
            }
            _ => {}
        }
    }
    (link.ifindex != 0).then_some(link)
}

fn link_info(link: &mut Link, info: Attributes<'_>) {
    link.kind = info.find(libc::IFLA_INFO_KIND).map(attr_string).unwrap_or_default();
    if link.kind == "tun"
        && let Some(data) = info.find(libc::IFLA_INFO_DATA)
    {
        link.tun_vnet_header = Attributes(data).find(IFLA_TUN_VNET_HDR).and_then(attr_u8).unwrap_or(0) != 0;
    }
}

fn oper_state(number: u8) -> OperState {
    match number {
        1 => OperState::NotPresent,
        2 => OperState::Down,
        3 => OperState::LowerLayerDown,
        4 => OperState::Testing,
        5 => OperState::Dormant,
        6 => OperState::Up,
        _ => OperState::Unknown,
    }
}

fn xdp(number: u8) -> XdpAttached {
    match number {
        1 => XdpAttached::Native,
        2 => XdpAttached::Generic,
        3 => XdpAttached::Hardware,
        4 => XdpAttached::Several,
        _ => XdpAttached::None,
    }
}

/// Fields in the order of `struct rtnl_link_stats64`; what an old kernel does not have is 0.
fn statistics(payload: &[u8]) -> LinkStatistics {
    let at = |n: usize| payload.get(n * 8..).and_then(attr_u64).unwrap_or(0);
    LinkStatistics {
        rx_packets: at(0),
        tx_packets: at(1),
        rx_bytes: at(2),
        tx_bytes: at(3),
        rx_errors: at(4),
        tx_errors: at(5),
        rx_dropped: at(6),
        tx_dropped: at(7),
        multicast: at(8),
        collisions: at(9),
        rx_length_errors: at(10),
        rx_over_errors: at(11),
        rx_crc_errors: at(12),
        rx_frame_errors: at(13),
        rx_fifo_errors: at(14),
        rx_missed_errors: at(15),
    }
}
