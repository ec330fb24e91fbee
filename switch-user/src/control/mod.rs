//! The control socket: `RUNDIR/control.sock`.

pub mod client;
pub mod report;
pub mod server;
