//! Action lists.
//!
//! The two interpreters ([`tc`], [`xdp`]) are bounded loops over the records of a list. What sets a header field
//! is written once ([`fields`]) over an [`edit::Editor`], which knows how a hook reads and writes a packet and
//! keeps its checksums; each becomes a function that the verifier looks at once.

pub mod edit;
pub mod fields;
pub mod tc;
pub mod tc_vlan;
pub mod xdp;
pub mod xdp_vlan;
