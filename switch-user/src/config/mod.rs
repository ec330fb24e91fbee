//! The configuration that the daemon is to bring about: immutable, complete, made by whatever source there is
//! (the command line's flags now; a database's rows), and compared with what is there by
//! [`crate::daemon::reconcile`].

mod args;

use std::collections::BTreeMap;
use std::time::Duration;

/// How a port treats VLAN tags: `Port:vlan_mode` and its neighbours of the Open vSwitch database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanConfig {
    pub mode: VlanMode,
    /// Access VLAN, or the native one.
    pub tag: Option<u16>,
    /// VLANs carried; empty for all.
    pub trunks: Vec<u16>,
    pub priority_tags: PriorityTags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanMode {
    Access,
    Trunk,
    NativeTagged,
    NativeUntagged,
}

/// `Port:other_config:priority-tags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorityTags {
    Never,
    IfNonzero,
    Always,
}

impl Default for VlanConfig {
    /// A trunk of all VLANs, as a port without any setting is.
    fn default() -> Self {
        VlanConfig {
            mode: VlanMode::Trunk,
            tag: None,
            trunks: Vec::new(),
            priority_tags: PriorityTags::Never,
        }
    }
}

/// `Interface:other_config:hook`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HookWish {
    #[default]
    Auto,
    Tc,
    Xdp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    pub vlan: VlanConfig,
    pub hook: HookWish,
    /// OpenFlow port number wished for.
    pub ofport_request: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeConfig {
    /// By interface name. The internal port, named as the bridge, is not among them.
    pub ports: BTreeMap<String, PortConfig>,
    /// VLAN settings of the internal port.
    pub local: VlanConfig,
    pub mac_age: Duration,
    pub mac_limit: usize,
    pub forward_bpdu: bool,
}

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub bridges: BTreeMap<String, BridgeConfig>,
    /// Misses a second and burst that each port may send up; 0 for no limit.
    pub upcall_rate: u64,
    pub upcall_burst: u64,
    /// Megaflows kept at most (`other_config:flow-limit`).
    pub flow_limit: usize,
    /// A megaflow without packets goes after this (`other_config:max-idle`).
    pub max_idle: Duration,
}

/// A setting that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("port {port} is named in two bridges, {first} and {second}: an interface has one bridge")]
    TwoBridges { port: String, first: String, second: String },
    #[error("port {port} is given twice in bridge {bridge}")]
    Twice { port: String, bridge: String },
    #[error("port {port} names bridge {bridge}, which no --bridge makes")]
    NoSuchBridge { port: String, bridge: String },
    #[error("bridge {0} is given twice")]
    BridgeTwice(String),
    #[error("{0} is the name of a bridge: its internal port is there already")]
    IsBridge(String),
    #[error("no bridge: give at least one --bridge")]
    NoBridge,
}
