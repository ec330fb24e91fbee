//! Where the datapath's program sits on a port: XDP or TC.
//!
//! XDP is several times faster on small frames, but sees no VLAN tag that the kernel keeps beside the frame,
//! forwards checksums that the sender left to hardware as they are, and takes segmentation offload from a veth's
//! peer. So a NIC with native XDP gets XDP, and what local machines and containers hang on gets TC.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ethtool::{Ethtool, EthtoolError};
use crate::link::{Link, LinkError, Links};
use crate::xdp_features::{XdpFeaturesError, xdp_features};

/// A hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    Xdp,
    Tc,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Xdp => "xdp",
            Hook::Tc => "tc",
        })
    }
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookWish {
    #[default]
    Auto,
    Xdp,
    Tc,
}

/// The decision, and its reason for the port's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookChoice {
    pub hook: Hook,
    /// The driver has no XDP: the program is attached in generic mode.
    pub generic: bool,
    /// A clause without a full stop.
    pub why: String,
}

impl HookChoice {
    fn new(hook: Hook, why: impl Into<String>) -> HookChoice {
        HookChoice { hook, generic: false, why: why.into() }
    }
}

/// Why no decision could be made.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error(transparent)]
    Features(#[from] XdpFeaturesError),
    #[error(transparent)]
    Ethtool(#[from] EthtoolError),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Decides for a link. The user's wish wins where it is safe; where it is not, the choice is TC and says why.
///
/// `links` and `ethtool` are those of the link's namespace.
pub fn choose_hook(
    links: &Links,
    ethtool: &Ethtool,
    link: &Link,
    wish: HookWish,
) -> Result<HookChoice, HookError> {
    if wish == HookWish::Tc {
        return Ok(HookChoice::new(Hook::Tc, "as configured"));
    }
    // A kind means a device made of software.
    if wish == HookWish::Auto && !link.kind.is_empty() {
        let why = format!("a {} keeps segmentation and checksum offloads with TC", link.kind);
        return Ok(HookChoice::new(Hook::Tc, why));
    }
    if let Some(why) = xdp_is_unsafe(links, ethtool, link)? {
        return Ok(HookChoice::new(Hook::Tc, why));
    }
    let native = xdp_features(links, ethtool, link)?.native();
    Ok(match (wish, native) {
        (HookWish::Xdp, true) => HookChoice::new(Hook::Xdp, "as configured"),
        (HookWish::Xdp, false) => HookChoice {
            hook: Hook::Xdp,
            generic: true,
            why: "as configured; the driver has no XDP, so the mode is generic".to_owned(),
        },
        (_, true) => HookChoice::new(Hook::Xdp, "the driver has native XDP"),
        (_, false) => HookChoice::new(Hook::Tc, "the driver has no native XDP"),
    })
}

/// What makes XDP wrong on a link, whoever asks for it.
fn xdp_is_unsafe(links: &Links, ethtool: &Ethtool, link: &Link) -> Result<Option<String>, HookError> {
    if !link.is_ethernet() {
        return Ok(Some("XDP needs an Ethernet device".to_owned()));
    }
    Ok(match link.kind.as_str() {
        "veth" => match links.peer(link) {
            Ok(_) => None,
            Err(LinkError::NotFound { .. }) => Some(
                "XDP would miss the VLAN tags and checksums that its peer leaves to offloads, and the peer's \
                 network namespace is hidden from here"
                    .to_owned(),
            ),
            Err(e) => return Err(e.into()),
        },
        "tun" if link.tun_vnet_header => {
            Some("XDP would forward the partial checksums that a guest may send (vnet_hdr is on)".to_owned())
        }
        "tun" => None,
        "" => {
            if driver(ethtool, link)? == "vif" {
                return Ok(Some("XDP would forward the partial checksums that a guest may send".to_owned()));
            }
            let stuck = ethtool
                .features(&link.name)?
                .iter()
                .any(|f| f.name == "rx-vlan-hw-parse" && f.active && !f.changeable);
            stuck.then(|| "XDP would miss the VLAN tags that the device strips, which cannot be switched off".to_owned())
        }
        kind => Some(format!("a {kind} hands over frames that the kernel has already worked on, which XDP misreads")),
    })
}

/// The driver's name; empty if it has none.
fn driver(ethtool: &Ethtool, link: &Link) -> Result<String, EthtoolError> {
    match ethtool.driver(&link.name) {
        Err(e) if !e.is_gone() => Ok(String::new()),
        other => other,
    }
}
