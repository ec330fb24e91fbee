//! The upcall pair: the veth pair over which frames without a flow come up.
//!
//! The datapath redirects such a frame to `up0`, and takes it from `up1` into AF_XDP. What is set on the two, and
//! why:
//! - `up0` has no transmit checksum offload: partial checksums are filled in and GSO frames cut to segments before
//!   they cross, so that userspace never sees half a frame.
//! - `up0` keeps its VLAN offloads: the header in front of the frame is no place for a tag.
//! - `up1` does no GRO: nothing is put together again.
//! - IPv6 is off on both: the kernel's own neighbour discovery would come up as frames.
//! - The MTU has room for the largest port's, and the header of [`UPCALL_HEADER`] bytes.

use switch_common::upcall::UPCALL_HEADER;

use crate::ethtool::{Ethtool, EthtoolError};
use crate::link::{Link, LinkError, Links, VethSpec};

/// Bytes of MTU that the pair needs beyond the largest port's.
pub const UPCALL_MTU_EXTRA: u32 = UPCALL_HEADER as u32;
/// The largest MTU that a veth takes (`ETH_MAX_MTU`).
const VETH_MAX_MTU: u32 = 65535;

/// Why the pair could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("upcall pair: {0}")]
    Link(#[from] LinkError),
    #[error("upcall pair: {0}")]
    Ethtool(#[from] EthtoolError),
    #[error("upcall pair: {0:?} is no instance id: 1 to 10 letters and digits")]
    BadInstance(String),
    #[error("upcall pair: {0} queues are not possible: 1 to 4096")]
    BadQueues(u32),
}

/// The upcall pair of one instance of the switch. Deleted on drop, unless [`UpcallPair::keep`] is called: a daemon
/// that hands over to another leaves it, and the datapath with it, alone.
#[derive(Debug)]
pub struct UpcallPair {
    links: Links,
    up0: Link,
    up1: Link,
    queues: u32,
    mtu: u32,
    keep: bool,
}

impl UpcallPair {
    /// Names of the two ends for an instance: `slu-INSTANCE0` and `slu-INSTANCE1`.
    pub fn names(instance: &str) -> Result<[String; 2], PairError> {
        if !(1..=10).contains(&instance.len()) || !instance.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(PairError::BadInstance(instance.to_owned()));
        }
        Ok([format!("slu-{instance}0"), format!("slu-{instance}1")])
    }

    /// Makes the pair anew in the calling thread's namespace, up and ready; one that an earlier daemon of the
    /// same instance left behind is deleted first. `port_mtu` is the largest MTU of a port, in bytes.
    pub fn create(instance: &str, queues: u32, port_mtu: u32) -> Result<UpcallPair, PairError> {
        let names = UpcallPair::names(instance)?;
        // The kernel's limit is 4096 (`IF_MAX_NUM_QUEUES`).
        if !(1..=4096).contains(&queues) {
            return Err(PairError::BadQueues(queues));
        }
        let links = Links::open()?;
        for name in &names {
            match links.by_name(name) {
                Ok(stale) => links.delete(stale.ifindex)?,
                Err(LinkError::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let mtu = pair_mtu(port_mtu);
        links.create_veth(&VethSpec { queues, mtu, ..VethSpec::new(&names[0], &names[1]) })?;
        UpcallPair::ready(links, &names, queues, mtu)
    }

    /// Takes over the pair that an earlier daemon of the same instance left; `None` if it is not there, or not
    /// with that many queues.
    pub fn adopt(instance: &str, queues: u32, port_mtu: u32) -> Result<Option<UpcallPair>, PairError> {
        let names = UpcallPair::names(instance)?;
        let links = Links::open()?;
        let (up0, up1) = match (links.by_name(&names[0]), links.by_name(&names[1])) {
            (Ok(up0), Ok(up1)) => (up0, up1),
            (Err(LinkError::NotFound { .. }), _) | (_, Err(LinkError::NotFound { .. })) => return Ok(None),
            (Err(e), _) | (_, Err(e)) => return Err(e.into()),
        };
        let are_a_pair = up0.is_veth() && up0.peer == Some(up1.ifindex) && up0.peer_nsid.is_none();
        if !are_a_pair || [&up0, &up1].iter().any(|l| l.rx_queues != queues || l.tx_queues != queues) {
            return Ok(None);
        }
        let mtu = pair_mtu(port_mtu).max(up0.mtu.min(up1.mtu));
        Ok(Some(UpcallPair::ready(links, &names, queues, mtu)?))
    }

    /// Brings both ends into the state that the module's head describes.
    fn ready(links: Links, names: &[String; 2], queues: u32, mtu: u32) -> Result<UpcallPair, PairError> {
        let find = || -> Result<(Link, Link), LinkError> {
            Ok((links.by_name(&names[0])?, links.by_name(&names[1])?))
        };
        let (up0, up1) = find()?;
        let mut pair = UpcallPair { links, up0, up1, queues, mtu, keep: false };
        let ethtool = Ethtool::open()?;
        ethtool.set(&names[0], "tx-checksumming", false)?;
        ethtool.set(&names[1], "generic-receive-offload", false)?;
        for link in [&pair.up0, &pair.up1] {
            pair.links.set_mtu(link.ifindex, mtu)?;
            pair.links.disable_ipv6(link)?;
            pair.links.set_up(link.ifindex, true)?;
        }
        pair.up0 = pair.links.by_index(pair.up0.ifindex)?;
        pair.up1 = pair.links.by_index(pair.up1.ifindex)?;
        Ok(pair)
    }

    /// The end to which the datapath sends.
    pub fn up0(&self) -> &Link {
        &self.up0
    }

    /// The end from which userspace reads.
    pub fn up1(&self) -> &Link {
        &self.up1
    }

    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// Bytes behind the Ethernet header, the upcall header included.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Makes room for frames of a port of this MTU. The pair's MTU never shrinks: frames under way would be lost.
    pub fn set_port_mtu(&mut self, port_mtu: u32) -> Result<(), PairError> {
        let mtu = pair_mtu(port_mtu);
        if mtu > self.mtu {
            // The receiving end first, else it would drop what the other already lets through.
            self.links.set_mtu(self.up1.ifindex, mtu)?;
            self.links.set_mtu(self.up0.ifindex, mtu)?;
            self.mtu = mtu;
        }
        Ok(())
    }

    /// Leaves the pair in place when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Deletes the pair now.
    pub fn delete(mut self) -> Result<(), PairError> {
        self.keep = true;
        Ok(self.links.delete(self.up0.ifindex)?)
    }
}

fn pair_mtu(port_mtu: u32) -> u32 {
    port_mtu.saturating_add(UPCALL_MTU_EXTRA).clamp(1500 + UPCALL_MTU_EXTRA, VETH_MAX_MTU)
}

impl Drop for UpcallPair {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        match self.links.delete(self.up0.ifindex) {
            Ok(()) | Err(LinkError::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, "cannot delete the upcall pair"),
        }
    }
}
