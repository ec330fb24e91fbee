//! The control socket: `RUNDIR/control.sock`.

pub mod report;
