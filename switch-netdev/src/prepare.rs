//! What a link must be like to be a port, and how it was before.
//!
//! Every port is promiscuous, without LRO, and without a VLAN filter in the device. XDP asks for more:
//! - no tag may be taken out of the frame on reception, since XDP does not see one beside it;
//! - for a veth, whose frames come as its peer left them: the peer puts tags into the frame, and fills in
//!   checksums itself;
//! - in generic mode no GRO, which would hand over several frames as one.
//!
//! Each is verified after it was set. What was changed is remembered in [`Prepared`], which can be stored: a later
//! process restores the link with it. The kernel does not use an interface index twice between two boots, so a
//! stored one is good until then.

use serde::{Deserialize, Serialize};

use crate::ethtool::{Ethtool, EthtoolError};
use crate::hook::{Hook, HookChoice};
use crate::link::{Link, LinkError, Links};

const ALL_PORTS_OFF: &[&str] = &["large-receive-offload", "rx-vlan-filter", "rx-vlan-stag-filter"];
const XDP_OFF: &[&str] = &["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse", "rx-gro-hw"];
const GENERIC_XDP_OFF: &[&str] = &["rx-gro", "rx-gro-list", "rx-udp-gro-forwarding"];
const PEER_OFF: &[&str] = &["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert", "tx-checksumming"];

/// Why a link could not be made fit for a port, or put back.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Ethtool(#[from] EthtoolError),
    /// The link is as it was before.
    #[error("XDP is not safe on {link}: {reason}")]
    XdpUnsafe { link: String, reason: String },
}

/// What was changed on one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    ifindex: u32,
    /// Kernel names of features that were on, and are off now.
    switched_off: Vec<String>,
}

impl Changed {
    /// Switches features off; those that this kernel or device does not have are off.
    fn off(&mut self, ethtool: &Ethtool, link: &str, features: &[&str]) -> Result<(), EthtoolError> {
        for feature in features {
            match ethtool.set(link, feature, false) {
                Ok(names) => self.remember(names),
                Err(EthtoolError::NoFeature { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn remember(&mut self, names: Vec<String>) {
        for name in names {
            if !self.switched_off.contains(&name) {
                self.switched_off.push(name);
            }
        }
    }

    /// Switches back on what was switched off. A device that is gone needs nothing; one that refuses is no reason
    /// to leave the rest as it is.
    fn restore(&self, ethtool: &Ethtool, link: &str) -> Result<(), EthtoolError> {
        let mut first = Ok(());
        // In reverse, so that what hangs on another feature finds it.
        for feature in self.switched_off.iter().rev() {
            match ethtool.set(link, feature, true) {
                Ok(_) | Err(EthtoolError::NoFeature { .. }) => {}
                Err(e) if e.is_gone() => return first,
                Err(e) if first.is_ok() => first = Err(e),
                Err(_) => {}
            }
        }
        first
    }
}

/// A link that was prepared, and what is needed to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    name: String,
    hook: Hook,
    generic: bool,
    was_promiscuous: bool,
    own: Changed,
    peer: Option<Changed>,
}

impl Prepared {
    pub fn ifindex(&self) -> u32 {
        self.own.ifindex
    }

    /// The link's name when it was prepared.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn hook(&self) -> Hook {
        self.hook
    }
}

/// Prepares the links of one network namespace.
#[derive(Debug)]
pub struct Preparer {
    links: Links,
    ethtool: Ethtool,
}

impl Preparer {
    /// For the calling thread's namespace.
    pub fn open() -> Result<Preparer, PrepareError> {
        Ok(Preparer { links: Links::open()?, ethtool: Ethtool::open()? })
    }

    pub fn links(&self) -> &Links {
        &self.links
    }

    pub fn ethtool(&self) -> &Ethtool {
        &self.ethtool
    }

    /// Makes a link fit for a port with a hook. `earlier` is what an earlier call for the same link returned, in
    /// this process or another: what it remembers of the link's first state is kept. If it was for the same hook,
    /// nothing is undone on the way, so that a running program never sees the link otherwise; if it was for another
    /// one, what that asked for is undone first. So prepare for XDP before attaching there, and for TC after
    /// detaching from XDP.
    ///
    /// # Errors
    /// [`PrepareError::XdpUnsafe`] if XDP would misread frames there. After an error the link is as it was before
    /// the first call.
    pub fn prepare(
        &self,
        ifindex: u32,
        choice: &HookChoice,
        earlier: Option<Prepared>,
    ) -> Result<Prepared, PrepareError> {
        let earlier = earlier.filter(|e| e.ifindex() == ifindex);
        let link = self.links.by_index(ifindex)?;
        let mut prepared = Prepared {
            name: link.name.clone(),
            hook: choice.hook,
            generic: choice.generic,
            was_promiscuous: earlier.as_ref().map_or(link.is_promiscuous(), |e| e.was_promiscuous),
            own: Changed { ifindex, ..Changed::default() },
            peer: None,
        };
        if let Some(earlier) = earlier {
            if (earlier.hook, earlier.generic) == (choice.hook, choice.generic) {
                prepared.own = earlier.own;
                prepared.peer = earlier.peer;
            } else {
                self.restore_features(&earlier)?;
            }
        }
        match self.apply(&link, choice, &mut prepared) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                if let Err(undo) = self.restore(&prepared) {
                    tracing::warn!(link = link.name, error = %undo, "cannot put the interface back as it was");
                }
                Err(error)
            }
        }
    }

    fn apply(&self, link: &Link, choice: &HookChoice, prepared: &mut Prepared) -> Result<(), PrepareError> {
        if !link.is_promiscuous() {
            self.links.set_promiscuous(link.ifindex, true)?;
        }
        for feature in ALL_PORTS_OFF {
            match prepared.own.off(&self.ethtool, &link.name, &[feature]) {
                // A promiscuous device does not filter, whatever it says.
                Err(EthtoolError::Fixed { .. }) => {}
                other => other?,
            }
        }
        if choice.hook == Hook::Tc {
            return Ok(());
        }
        let not_safe = |reason: String| PrepareError::XdpUnsafe { link: link.name.clone(), reason };
        let refused = |e: EthtoolError| match e {
            EthtoolError::Fixed { .. } => not_safe(e.to_string()),
            other => other.into(),
        };
        prepared.own.off(&self.ethtool, &link.name, XDP_OFF).map_err(refused)?;
        if choice.generic {
            prepared.own.off(&self.ethtool, &link.name, GENERIC_XDP_OFF).map_err(refused)?;
        }
        if !link.is_veth() {
            return Ok(());
        }
        let (namespace, peer) = match self.links.peer(link) {
            Ok(Some(found)) => found,
            Ok(None) => return Err(not_safe("it is a veth whose peer is unknown".to_owned())),
            Err(e @ LinkError::NotFound { .. }) => return Err(not_safe(e.to_string())),
            Err(e) => return Err(e.into()),
        };
        let changed = prepared.peer.get_or_insert_default();
        if changed.ifindex != peer.ifindex {
            *changed = Changed { ifindex: peer.ifindex, ..Changed::default() };
        }
        Ethtool::open_in(&namespace)
            .and_then(|ethtool| changed.off(&ethtool, &peer.name, PEER_OFF))
            .map_err(|e| not_safe(format!("its peer, in {}: {e}", namespace.name())))
    }

    /// Puts a link, and a veth's peer, back as they were. What is gone, or has been switched on by somebody else
    /// meanwhile, stays as it is.
    pub fn restore(&self, prepared: &Prepared) -> Result<(), PrepareError> {
        let features = self.restore_features(prepared);
        if !prepared.was_promiscuous {
            match self.links.set_promiscuous(prepared.ifindex(), false) {
                Ok(()) | Err(LinkError::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        features
    }

    fn restore_features(&self, prepared: &Prepared) -> Result<(), PrepareError> {
        let link = match self.links.by_index(prepared.ifindex()) {
            Ok(link) => link,
            // With a veth its peer went, too; or it was moved, and is another's now.
            Err(LinkError::NotFound { .. }) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let own = prepared.own.restore(&self.ethtool, &link.name);
        if let Some(changed) = &prepared.peer {
            match self.links.peer(&link) {
                Ok(Some((namespace, peer))) if peer.ifindex == changed.ifindex => {
                    changed.restore(&Ethtool::open_in(&namespace)?, &peer.name)?;
                }
                Ok(_) | Err(LinkError::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(own?)
    }
}
