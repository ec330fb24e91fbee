//! Action lists.
pub mod tc;
pub mod xdp;
