//! The datapath interface: what the layers above know of a datapath, and everything about datapath flows that
//! needs no kernel.
//!
//! * [`action`] and [`set`]: the actions of a datapath flow;
//! * [`encode`]: their encoding as the records that the eBPF datapath interprets;
//! * [`datapath`]: the trait that the eBPF datapath and the userspace one implement.
//!
//! This crate does no IO. It knows nothing of bridges, OpenFlow or MAC tables.

pub mod action;
pub mod datapath;
pub mod encode;
pub mod set;
