//! The flags of `sluice daemon`.
//!
//! Plain data for the daemon, every number checked against the limits that are known without the kernel. What
//! depends on several flags together (a port of a bridge that no `--bridge` makes) is found when the
//! configuration is put together.

use std::path::PathBuf;

use clap::builder::{TypedValueParser, ValueHint};
use clap::value_parser;

pub use super::port_arg::{BridgeArg, PortArg};

/// What the daemon is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonArgs {
    /// Where the control socket, the pid file and the lock go.
    pub rundir: PathBuf,
    /// In the order of the command line; at least one. Ports that name no bridge belong to the first.
    pub bridges: Vec<BridgeArg>,
    pub ports: Vec<PortArg>,
    /// Slots of the datapath's flow table: memory is set aside for so many.
    pub max_flows: usize,
    /// Megaflows kept at most; not over `max_flows`.
    pub flow_limit: usize,
    /// A megaflow without packets goes after this, in milliseconds.
    pub max_idle_ms: u64,
    /// Threads that serve misses; 0 lets the daemon choose.
    pub handlers: usize,
    /// Misses a second that each port may send up; 0 for no limit.
    pub upcall_rate: u64,
    /// Misses that a port may send up at once before the rate holds it back.
    pub upcall_burst: u64,
    /// A learnt address is forgotten after so many seconds without a packet.
    pub mac_age_s: u64,
    /// Learnt addresses that a bridge keeps at most.
    pub mac_limit: usize,
    /// Forward frames to the reserved multicast addresses (IEEE 802.1Q, table 8-1) as any other.
    pub forward_bpdu: bool,
    /// A filter as `tracing_subscriber::EnvFilter` takes it; a level is one.
    pub log: String,
    /// The mounted (or to be mounted) BPF file system.
    pub bpffs: PathBuf,
}

/// How much of the flow table is left free by default, as one part of so many: replaced and removed flows keep
/// their slots until the grace period is over.
const FREE_SLOTS: usize = 8;

const EXAMPLES: &str = "\
Ports:
  NAME is an interface of this host. It need not exist yet: it is picked up when it appears. A port
  belongs to the first --bridge unless it names another: BRIDGE/NAME. Options follow, joined by ',':
    tag=N               access port of VLAN N: untagged outside, in N inside
    trunks=A+B+C        trunk of these VLANs, tagged; without any option: a trunk of all VLANs
    native=N            trunk whose untagged frames are of VLAN N
    mode=MODE           access, trunk, native-tagged, native-untagged (the default with native=N)
    priority-tags=WHEN  no, if-nonzero, always: send untagged frames with a tag for their priority
    hook=HOOK           auto (XDP for NICs, TC for veth, tap and vif), tc, xdp
    ofport=N            OpenFlow port number wished for
  A bridge's internal port is named as the bridge; --bridge takes the VLAN options for it.

Examples:
  One bridge over two NICs:
    sluice daemon --bridge br0 --port eth1 --port eth2
  A VM in VLAN 10, an uplink that carries VLANs 10 and 20 tagged and 1 untagged, over XDP:
    sluice daemon --bridge br0 --port tap0,tag=10 --port eth2,trunks=10+20,native=1,hook=xdp
  Two bridges, the host itself in VLAN 10 of the first:
    sluice daemon --bridge br0,tag=10 --bridge br1 --port eth1 --port br1/eth2
  A second daemon beside the first:
    sluice daemon --rundir /run/lab --bridge lab0 --port veth0";

/// The flags as clap reads them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DaemonFlags {
    /// Bridge to make, with its internal port; may be given several times
    #[arg(long, value_name = "NAME[,OPTION]...", required = true, value_hint = ValueHint::Other)]
    bridge: Vec<BridgeArg>,

    /// Interface to forward for, see Ports below; may be given several times
    #[arg(long, value_name = "[BRIDGE/]NAME[,OPTION]...", value_hint = ValueHint::Other)]
    port: Vec<PortArg>,

    /// Slots of the datapath's flow table; memory is set aside for them at the start
    #[arg(long, value_name = "N", default_value_t = 131_072)]
    #[arg(value_parser = bounded(64, 1 << 22), help_heading = "Limits")]
    max_flows: usize,

    /// Datapath flows kept at most [default: seven eighths of --max-flows]
    #[arg(long, value_name = "N", value_parser = bounded(1, 1 << 22), help_heading = "Limits")]
    flow_limit: Option<usize>,

    /// Remove a datapath flow that had no packet for so long
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    #[arg(value_parser = value_parser!(u64).range(100..=3_600_000), help_heading = "Limits")]
    max_idle: u64,

    /// Misses a second that each port may send to userspace; 0 for no limit
    #[arg(long, value_name = "PPS", default_value_t = 50_000)]
    #[arg(value_parser = value_parser!(u64).range(0..=1_000_000_000), help_heading = "Limits")]
    upcall_rate: u64,

    /// Misses that a port may send at once before --upcall-rate holds it back
    #[arg(long, value_name = "PACKETS", default_value_t = 10_000)]
    #[arg(value_parser = value_parser!(u64).range(1..=1_000_000_000), help_heading = "Limits")]
    upcall_burst: u64,

    /// Forget a learnt address after so many seconds without a packet from it
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    #[arg(value_parser = value_parser!(u64).range(1..=1_000_000), help_heading = "Limits")]
    mac_age: u64,

    /// Learnt addresses that each bridge keeps at most
    #[arg(long, value_name = "N", default_value_t = 8192)]
    #[arg(value_parser = bounded(10, 1_000_000), help_heading = "Limits")]
    mac_limit: usize,

    /// Forward frames to the reserved multicast addresses (BPDUs, LACP, LLDP) as any other
    #[arg(long)]
    forward_bpdu: bool,

    /// Threads that serve misses; 0 chooses by the number of CPUs
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = bounded(0, 64))]
    handlers: usize,

    /// What to log on standard error: error, warn, info, debug, trace, or a filter as 'info,sluice::daemon=debug'
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = log_filter)]
    log: String,

    /// The BPF file system; mounted there if it is not
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf", value_hint = ValueHint::DirPath)]
    bpffs: PathBuf,
}

/// Flags that are wrong only together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DaemonArgsError {
    #[error("--flow-limit {flow_limit} is over --max-flows {max_flows}: the table has no slots for them")]
    FlowLimit { flow_limit: usize, max_flows: usize },
}

impl DaemonFlags {
    /// Fills in what depends on other flags.
    pub fn into_args(self, rundir: PathBuf) -> Result<DaemonArgs, DaemonArgsError> {
        let max_flows = self.max_flows;
        let flow_limit = self.flow_limit.unwrap_or(max_flows - max_flows / FREE_SLOTS);
        if flow_limit > max_flows {
            return Err(DaemonArgsError::FlowLimit { flow_limit, max_flows });
        }
        Ok(DaemonArgs {
            rundir,
            bridges: self.bridge,
            ports: self.port,
            max_flows,
            flow_limit,
            max_idle_ms: self.max_idle,
            handlers: self.handlers,
            upcall_rate: self.upcall_rate,
            upcall_burst: self.upcall_burst,
            mac_age_s: self.mac_age,
            mac_limit: self.mac_limit,
            forward_bpdu: self.forward_bpdu,
            log: self.log,
            bpffs: self.bpffs,
        })
    }
}

/// A count within bounds, told in the error.
fn bounded(least: u64, most: u64) -> impl TypedValueParser<Value = usize> {
    // The bounds fit usize on every target that has BPF, so the conversion cannot fail.
    value_parser!(u64).range(least..=most).try_map(usize::try_from)
}

fn log_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
