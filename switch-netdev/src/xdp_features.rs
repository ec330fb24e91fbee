//! What a device can do with XDP: as the kernel reports it (netdev family of generic netlink, Linux 6.3), else by
//! knowledge of its driver.

use crate::ethtool::{Ethtool, EthtoolError};
use crate::link::{Link, LinkError, Links, XdpAttached};
use crate::netlink::{Generic, NetlinkError, attr_u32, attr_u64};

/// `NETDEV_CMD_DEV_GET` and attributes of `include/uapi/linux/netdev.h`.
const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;

/// Bits of `enum netdev_xdp_act`.
pub mod act {
    /// Aborts, drops, passes and sends back.
    pub const BASIC: u64 = 1;
    /// Redirects to other devices.
    pub const REDIRECT: u64 = 2;
    /// Frames can be redirected to it.
    pub const NDO_XMIT: u64 = 4;
    /// AF_XDP without copies.
    pub const XSK_ZEROCOPY: u64 = 8;
    pub const HW_OFFLOAD: u64 = 16;
    /// Receives frames in several pieces.
    pub const RX_SG: u64 = 32;
    /// Such frames can be redirected to it.
    pub const NDO_XMIT_SG: u64 = 64;
}

/// Why a device's abilities could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum XdpFeaturesError {
    #[error("interface {link}: cannot read its XDP features: {source}")]
    Netlink { link: String, source: NetlinkError },
    #[error(transparent)]
    Ethtool(#[from] EthtoolError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// What a device can do, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Bits of [`act`].
    pub bits: u64,
    /// From the kernel; else from the driver's name.
    pub reported: bool,
}

impl XdpFeatures {
    /// A program can be attached in native mode, and can redirect.
    pub fn native(&self) -> bool {
        self.bits & (act::BASIC | act::REDIRECT) == act::BASIC | act::REDIRECT
    }
}

/// Whether, and which, frames an XDP redirect may send to a device. It can change: a veth takes them only while
/// its peer runs NAPI, many NICs only while they have an XDP program of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpOutput {
    /// None: they would vanish without a word. They go by TC.
    No,
    /// Those that lie in one piece.
    Linear,
    /// All.
    MultiBuffer,
}

/// Drivers with native XDP and redirects in Linux 6.1, as `ETHTOOL_GDRVINFO` names them. None of them but tun
/// takes redirected frames without an XDP program of its own.
const NATIVE_DRIVERS: &[&str] = &[
    "atlantic",
    "bnxt_en",
    "cpsw",
    "dpaa2-eth",
    "dpaa_eth",
    "ena",
    "fsl_dpaa",
    "fsl_enetc",
    "fsl_enetc_vf",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mt7621-eth",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "netsec",
    "nfp",
    "nicvf",
    "qede",
    "rvu_nicpf",
    "rvu_nicvf",
    "sfc",
    "st_gmac",
    "stmmac",
    "thunder-nicvf",
    "tsnep",
    "tun",
    "veth",
    "virtio_net",
    "xen_netfront",
];

/// What the device can do.
///
/// `links` and `ethtool` are those of the device's namespace.
pub fn xdp_features(links: &Links, ethtool: &Ethtool, link: &Link) -> Result<XdpFeatures, XdpFeaturesError> {
    match reported(links, link) {
        Ok(Some(bits)) => Ok(XdpFeatures { bits, reported: true }),
        Ok(None) | Err(XdpFeaturesError::Netlink { source: NetlinkError::NoFamily(_), .. }) => {
            Ok(XdpFeatures { bits: by_driver(links, ethtool, link)?, reported: false })
        }
        Err(e) => Err(e),
    }
}

/// Whether frames may be sent to the device by an XDP redirect, now.
pub fn xdp_output(links: &Links, ethtool: &Ethtool, link: &Link) -> Result<XdpOutput, XdpFeaturesError> {
    let bits = xdp_features(links, ethtool, link)?.bits;
    Ok(match (bits & act::NDO_XMIT != 0, bits & act::NDO_XMIT_SG != 0) {
        (false, _) => XdpOutput::No,
        (true, false) => XdpOutput::Linear,
        (true, true) => XdpOutput::MultiBuffer,
    })
}

/// The kernel's report; `None` if it makes none.
fn reported(links: &Links, link: &Link) -> Result<Option<u64>, XdpFeaturesError> {
    let failed = |source| XdpFeaturesError::Netlink { link: link.name.clone(), source };
    let mut family =
        links.own_namespace()?.run(|| Generic::open("netdev")).map_err(LinkError::from)?.map_err(failed)?;
    let answer = family
        .request(
            DEV_GET,
            |r| r.attr_u32(DEV_IFINDEX, link.ifindex),
            |attributes| {
                let index = attributes.find(DEV_IFINDEX).and_then(attr_u32)?;
                let bits = attributes.find(DEV_XDP_FEATURES).and_then(attr_u64)?;
                (index == link.ifindex).then_some(bits)
            },
        )
        .map_err(failed)?;
    Ok(answer.first().copied())
}

fn by_driver(links: &Links, ethtool: &Ethtool, link: &Link) -> Result<u64, XdpFeaturesError> {
    let driver = match ethtool.driver(&link.name) {
        Ok(driver) => driver,
        Err(e) if e.is_gone() => return Err(e.into()),
        // A device whose driver has no name has no XDP.
        Err(_) => return Ok(0),
    };
    if !NATIVE_DRIVERS.contains(&driver.as_str()) {
        return Ok(0);
    }
    let takes_frames = match driver.as_str() {
        "tun" => true,
        "veth" => peer_runs_napi(links, link)?,
        _ => link.xdp == XdpAttached::Native,
    };
    Ok(act::BASIC | act::REDIRECT | if takes_frames { act::NDO_XMIT } else { 0 })
}

/// A veth end polls its rings, and so takes frames from its peer by XDP, if it has a native program or GRO on.
fn peer_runs_napi(links: &Links, link: &Link) -> Result<bool, XdpFeaturesError> {
    match links.peer(link) {
        Ok(Some((_, peer))) if peer.xdp == XdpAttached::Native => Ok(true),
        Ok(Some((namespace, peer))) => {
            Ok(Ethtool::open_in(&namespace)?.is_active(&peer.name, "generic-receive-offload")?)
        }
        // A peer that nobody can see is not trusted with frames.
        Ok(None) | Err(LinkError::NotFound { .. }) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
