//! The eBPF datapath: loading, maps, flow table, attachment.
pub mod memory;
pub mod table;
