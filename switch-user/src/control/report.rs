//! What the daemon answers on its control socket: the same structures are printed as JSON and rendered as text.
//!
//! A request is one line of JSON, a [`Request`]; the answer is one line, a [`Reply`]. A client may send several
//! requests over one connection.

use serde::{Deserialize, Serialize};

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    Show,
    Flows {
        /// Only flows of this bridge.
        #[serde(default)]
        bridge: Option<String>,
    },
    Fdb {
        #[serde(default)]
        bridge: Option<String>,
    },
    FdbFlush {
        #[serde(default)]
        bridge: Option<String>,
    },
    Drops,
    /// Totals for rates: the client takes two and divides.
    Top,
    TracePacket {
        /// Name of the input port.
        port: String,
        /// The packet's bytes, in hexadecimal.
        packet: Option<String>,
        /// Or a flow in OVS's notation.
        flow: Option<String>,
    },
}

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Show(ShowReport),
    Flows(FlowsReport),
    Fdb(FdbReport),
    Done,
    Drops(DropsReport),
    Top(TopReport),
    Trace(TraceReport),
    Error(String),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShowReport {
    pub version: String,
    pub pid: u32,
    pub uptime_s: u64,
    /// "ebpf".
    pub datapath: String,
    pub instance: String,
    pub kernel: String,
    pub flows: usize,
    pub flow_limit: usize,
    pub masks: usize,
    pub bridges: Vec<BridgeReport>,
    pub caches: CacheReport,
    pub upcalls: UpcallReport,
    /// What is not as good as it could be, in sentences (tracefs missing, generic XDP, ...).
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BridgeReport {
    pub name: String,
    /// Sixteen hexadecimal digits.
    pub datapath_id: String,
    pub fail_mode: String,
    pub mac_entries: usize,
    pub mac_limit: usize,
    pub ports: Vec<PortReport>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PortReport {
    pub name: String,
    /// OpenFlow port number; 65534 is the internal port.
    pub ofport: u32,
    /// Datapath port number.
    pub dp_port: u16,
    /// "system" or "internal".
    pub kind: String,
    /// "access", "trunk", "native-tagged", "native-untagged".
    pub vlan_mode: String,
    pub tag: Option<u16>,
    pub trunks: Vec<u16>,
    /// "tc", "xdp" or "" while the port is not attached.
    pub hook: String,
    /// "tcx", "clsact", "native", "generic", joined with "+" where both hooks are in use.
    pub mode: String,
    /// Why this hook.
    pub hook_reason: String,
    pub ifindex: u32,
    pub mtu: u32,
    pub mac: String,
    /// "up", "down", "missing".
    pub link: String,
    /// Why the port does not work, if it does not.
    pub error: Option<String>,
    pub counters: PortCountersReport,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PortCountersReport {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
    pub upcalls: u64,
    /// Misses dropped by the port's limit.
    pub upcalls_limited: u64,
    /// Misses dropped because the port's queue in userspace was full.
    pub upcalls_queue_full: u64,
    pub datapath_dropped: u64,
    pub policy_dropped: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CacheReport {
    pub exact_match_hits: u64,
    pub megaflow_hits: u64,
    pub misses: u64,
    pub masks_tried: u64,
    pub handed_over: u64,
    pub handover_stale: u64,
    pub recirculated: u64,
    pub malformed: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UpcallReport {
    pub handlers: usize,
    pub received: u64,
    pub translated: u64,
    pub flows_installed: u64,
    /// Packets whose flow was there when they were looked at: their first one had it installed.
    pub joined: u64,
    pub install_failed: u64,
    pub protocol: u64,
    /// Frames that the kernel dropped because the socket's rings were full.
    pub ring_dropped: u64,
    pub revalidations: u64,
    pub flows_expired: u64,
    pub flows_corrected: u64,
    pub flows_removed: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FlowsReport {
    pub flows: Vec<FlowReport>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FlowReport {
    /// Name of the bridge that the input port belongs to.
    pub bridge: String,
    /// Match in OVS's notation.
    pub key: String,
    /// The same, structured.
    pub fields: serde_json::Value,
    pub packets: u64,
    pub bytes: u64,
    /// Seconds since the last packet; absent for never.
    pub used_s: Option<f64>,
    /// TCP flags seen, as OVS prints them.
    pub tcp_flags: String,
    /// Actions in OVS's notation, ports by number.
    pub actions: String,
    /// The same with port names.
    pub actions_named: String,
    pub slow_path: bool,
    /// OpenFlow rules that made it.
    pub rules: Vec<RuleReport>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RuleReport {
    pub bridge: String,
    pub table: u8,
    pub priority: i32,
    pub cookie: u64,
    /// As `ovs-ofctl dump-flows` writes match and actions.
    pub text: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FdbReport {
    pub entries: Vec<FdbEntry>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FdbEntry {
    pub bridge: String,
    pub port: String,
    pub ofport: u32,
    pub vlan: u16,
    pub mac: String,
    pub age_s: u64,
    pub is_static: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DropsReport {
    /// Every reason, also those with zero.
    pub reasons: Vec<DropReport>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DropReport {
    pub reason: String,
    pub packets: u64,
    pub meaning: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TopReport {
    /// Monotonic milliseconds at which this was taken.
    pub at_ms: u64,
    pub show: ShowReport,
    pub drops: DropsReport,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TraceReport {
    /// The packet's key in OVS's notation.
    pub flow: String,
    /// What translation did, a line a step, indented by depth.
    pub steps: Vec<String>,
    /// The megaflow that would be installed.
    pub megaflow: String,
    pub actions: String,
    pub actions_named: String,
    pub rules: Vec<RuleReport>,
    /// Reason of a drop, if nothing is output.
    pub drop: Option<String>,
    /// The packet would hit this flow that is installed now, by its match.
    pub installed: Option<String>,
}
