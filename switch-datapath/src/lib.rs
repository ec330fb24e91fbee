//! The eBPF datapath: loading, maps, flow table, attachment.
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
