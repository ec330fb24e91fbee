//! The eBPF datapath: loading, maps, flow table, attachment.
