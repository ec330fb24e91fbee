//! The eBPF datapath: loading, maps, flow table, attachment.
//!
//! * [`ebpf`]: the datapath itself, [`ebpf::EbpfDatapath`], which implements `switch_dpif`'s trait;
//! * [`attach`]: its ports, and the upcall pair;
//! * [`table`]: the flow table's writer, pure over memory;
//! * [`ports`]: the maps that describe ports;
//! * [`memory`]: mmapped maps;
//! * [`grace`], [`jiffies`]: waiting for program runs to end; the clock of flow statistics;
//! * [`load`], [`object`], [`pins`], [`links`], [`system`]: getting all of it into the kernel, and keeping it there;
//! * [`prog_run`]: running the programs on given packets, for tests and benchmarks.
//!
//! It knows nothing of bridges, OpenFlow or MAC tables: it carries out what it is told, and tells what it counted.

pub mod attach;
pub mod ebpf;
pub mod grace;
pub mod jiffies;
pub mod links;
pub mod load;
pub mod memory;
mod netlink;
pub mod object;
pub mod pins;
pub mod ports;
pub mod prog_run;
mod sys;
pub mod system;
pub mod table;

pub use attach::{AttachError, Hook, PortRequest, PortStatus};
pub use ebpf::{CreateError, EbpfDatapath, Options};
pub use links::{TcMode, XdpMode};
pub use ports::PortSettings;
