//! The datapath interface: what the layers above know of a datapath, and everything about datapath flows that
//! needs no kernel.
//!
//! * [`action`] and [`set`]: the actions of a datapath flow;
//! * [`encode`]: their encoding as the records that the eBPF datapath interprets;
//! * [`execute`]: carries them out on a packet in userspace;
//! * [`notation`]: flows as text, in Open vSwitch's notation, and as JSON;
//! * [`datapath`]: the trait that the eBPF datapath and the userspace one implement;
//! * [`userspace`]: the datapath that needs no kernel.
//!
//! This crate does no IO. It knows nothing of bridges, OpenFlow or MAC tables.

pub mod action;
pub mod datapath;
pub mod encode;
pub mod execute;
pub mod notation;
pub mod set;
pub mod userspace;
