//! `cargo xtask bench`: the figures that the switch is held to, measured side by side with its peers.
//!
//! Every figure is a ratio within one run: the competitors of a case (bare programs, the Linux bridge, Open
//! vSwitch, Sluice) take turns on the same topology, and what counts is the median of their rounds. Rates are
//! given per second and per second of CPU time, since the former swing on a shared machine.

use crate::workspace::Workspace;
pub fn fetch_peers(_w: &Workspace) -> anyhow::Result<()> {
    Ok(())
}
