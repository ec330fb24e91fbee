//! All bridges at one moment: what a translation reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use switch_dpif::action::DpPort;
use thiserror::Error;

use crate::bridge::{Bridge, BridgeId};
use crate::port::{OfPort, PortKind};

/// A port of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortRef {
    pub bridge: BridgeId,
    pub port: OfPort,
}

/// Bridges that do not make one network.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NetworkError {
    #[error("two bridges are called {0}")]
    Name(String),
    #[error("two bridges have number {0}")]
    Number(u32),
    #[error("datapath port {port} is given to both {first} and {second}")]
    PortTaken { port: u16, first: String, second: String },
}

/// One version of the bridges, immutable. Shared as an `Arc` and replaced whole.
#[derive(Debug, Default)]
pub struct Network {
    version: u64,
    bridges: BTreeMap<BridgeId, Arc<Bridge>>,
    names: HashMap<String, BridgeId>,
    by_datapath: HashMap<DpPort, PortRef>,
    /// Both ends of each patch cable that is plugged in at both.
    cables: HashMap<PortRef, PortRef>,
}

impl Network {
    /// `version` must grow from one network to the next.
    pub fn new(version: u64, bridges: Vec<Arc<Bridge>>) -> Result<Network, NetworkError> {
        let mut network = Network { version, ..Network::default() };
        let mut ends: HashMap<&str, (PortRef, &str)> = HashMap::new();
        let mut names: HashMap<DpPort, &str> = HashMap::new();
        for bridge in &bridges {
            if network.names.insert(bridge.name.clone(), bridge.id).is_some() {
                return Err(NetworkError::Name(bridge.name.clone()));
            }
            if network.bridges.insert(bridge.id, bridge.clone()).is_some() {
                return Err(NetworkError::Number(bridge.id.0));
            }
            for port in bridge.ports() {
                let at = PortRef { bridge: bridge.id, port: port.number };
                match &port.kind {
                    PortKind::Datapath(dp) => {
                        network.by_datapath.insert(*dp, at);
                        if let Some(first) = names.insert(*dp, &port.name) {
                            return Err(NetworkError::PortTaken {
                                port: dp.0,
                                first: first.to_owned(),
                                second: port.name.clone(),
                            });
                        }
                    }
                    PortKind::Patch { peer } => {
                        ends.insert(&port.name, (at, peer));
                    }
                }
            }
        }
        for (name, (at, peer)) in &ends {
            if let Some((other, back)) = ends.get(peer)
                && back == name
                && other != at
            {
                network.cables.insert(*at, *other);
            }
        }
        Ok(network)
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// By number.
    pub fn bridges(&self) -> impl Iterator<Item = &Arc<Bridge>> {
        self.bridges.values()
    }

    pub fn bridge(&self, id: BridgeId) -> Option<&Arc<Bridge>> {
        self.bridges.get(&id)
    }

    pub fn bridge_named(&self, name: &str) -> Option<&Arc<Bridge>> {
        self.bridge(*self.names.get(name)?)
    }

    /// Where the datapath's port is.
    pub fn port_of(&self, port: DpPort) -> Option<PortRef> {
        self.by_datapath.get(&port).copied()
    }

    /// The datapath's port behind a bridge's; `None` for a patch port, and for a port that is not there.
    pub fn datapath_port(&self, at: PortRef) -> Option<DpPort> {
        match &self.bridge(at.bridge)?.port(at.port)?.kind {
            PortKind::Datapath(port) => Some(*port),
            PortKind::Patch { .. } => None,
        }
    }

    /// The other end of a patch port.
    pub fn peer(&self, at: PortRef) -> Option<PortRef> {
        self.cables.get(&at).copied()
    }
}
