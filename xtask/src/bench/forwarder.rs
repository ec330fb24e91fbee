//! What stands between sender and receiver.

use std::fmt;

use anyhow::Result;

use super::ovs::OpenVswitch;
use super::programs::Programs;
use super::rig::{Bench, IN, OUT, Spec};
use crate::daemon::Daemon;
use crate::netns::Namespace;

/// Which forwarder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An XDP program that redirects everything: the limit of that hook.
    BareXdp,
    /// The same at TC.
    BareTc,
    Bridge,
    OpenVswitch,
    /// Our switch, with flags of its own.
    Sluice {
        hook: Hook,
        flags: Vec<String>,
    },
}

/// The hook of Sluice's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What it chooses by itself.
    Auto,
    Xdp,
    Tc,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Auto => "auto",
            Hook::Xdp => "xdp",
            Hook::Tc => "tc",
        })
    }
}

/// A forwarder at work.
pub enum Forwarder {
    /// In the kernel; goes with its namespace.
    Kernel,
    OpenVswitch(OpenVswitch),
    Sluice(Daemon),
}

impl Forwarder {
    /// Starts what the spec says between the two devices of `switch`.
    pub fn start(
        bench: &Bench,
        spec: &Spec,
        switch: &Namespace,
        programs: &mut Programs,
    ) -> Result<Forwarder> {
        match &spec.kind {
            Kind::BareXdp => programs.attach_xdp(switch, IN, "bare_xdp")?,
            Kind::BareTc => programs.attach_tc(switch, IN, "bare_tc")?,
            Kind::Bridge => bridge(switch)?,
            Kind::OpenVswitch => {
                return Ok(Forwarder::OpenVswitch(OpenVswitch::start(bench, spec.role, switch, &[IN, OUT])?));
            }
            Kind::Sluice { hook, flags } => {
                let mut arguments = vec!["--bridge".to_owned(), "br0".to_owned()];
                for port in [IN, OUT] {
                    arguments.extend(["--port".to_owned(), format!("{port},hook={hook}")]);
                }
                arguments.extend(flags.iter().cloned());
                let daemon = Daemon::start(&bench.workspace.sluice(), Some(switch), &arguments)?;
                return Ok(Forwarder::Sluice(daemon));
            }
        }
        Ok(Forwarder::Kernel)
    }

    /// Processes that forward.
    pub fn processes(&self) -> Vec<u32> {
        match self {
            Forwarder::Kernel => Vec::new(),
            Forwarder::OpenVswitch(ovs) => vec![ovs.pid()],
            Forwarder::Sluice(daemon) => daemon.pid().into_iter().collect(),
        }
    }

    /// What it complained of.
    pub fn said(&self) -> String {
        match self {
            Forwarder::Kernel => String::new(),
            Forwarder::OpenVswitch(ovs) => ovs.log_tail(),
            Forwarder::Sluice(daemon) => {
                let ask = |verb| daemon.ask(verb, &[]).unwrap_or_else(|e| format!("{e:#}\n"));
                format!("{}{}{}", daemon.log_tail(), ask("show"), ask("drops"))
            }
        }
    }
}

/// Linux's bridge, without what it does for multicast and against loops.
fn bridge(switch: &Namespace) -> Result<()> {
    switch.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0"])?;
    for device in [IN, OUT] {
        switch.ip(&["link", "set", device, "master", "br0"])?;
    }
    switch.ip(&["link", "set", "br0", "up"])
}
