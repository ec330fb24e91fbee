//! What is to be done so that the actual state becomes the configured one.
//!
//! [`reconcile`] is a pure function: it looks at three pictures, the configuration, the state, and the links
//! that the kernel has, and answers a list of steps. Applying them is [`super::apply`]'s work; whenever one of
//! the pictures changes, the list is made anew, so a step that failed is simply tried again.

use std::collections::BTreeMap;

use switch_dpif::action::DpPort;

use crate::config::{Config, PortConfig};

/// OpenFlow number of a bridge's internal port (`OFPP_LOCAL`).
pub const OFPP_LOCAL: u16 = 0xfffe;
/// Highest number of an ordinary port (OpenFlow 1.0's `OFPP_MAX`, as Open vSwitch keeps it).
pub const OFPP_MAX: u16 = 0xff00;

/// A kernel interface as far as ports depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    pub ifindex: u32,
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Has carrier.
    pub running: bool,
    pub mac: [u8; 6],
}

/// A port that is attached to its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub ifindex: u32,
    pub mtu: u32,
    /// Up and running.
    pub live: bool,
}

/// A port as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActualPort {
    pub dp_port: DpPort,
    pub ofport: u16,
    pub config: PortConfig,
    pub attached: Option<Attachment>,
    /// The link on which attaching failed last, so that it is not tried again and again on the same one.
    pub failed_on: Option<LinkView>,
}

/// A bridge as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActualBridge {
    /// Name of the hidden end of the internal port, once it exists.
    pub internal: Option<String>,
    /// By interface name; the internal port under the bridge's own name.
    pub ports: BTreeMap<String, ActualPort>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    pub bridges: BTreeMap<String, ActualBridge>,
}

impl Actual {
    /// The interface behind a port: its own name, or for an internal port the hidden end.
    fn device<'a>(&'a self, bridge: &str, port: &'a str) -> Option<&'a str> {
        if bridge == port { self.bridges.get(bridge)?.internal.as_deref() } else { Some(port) }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Packets stop first, then the port goes.
    RemovePort {
        bridge: String,
        port: String,
    },
    RemoveBridge {
        bridge: String,
    },
    /// Makes the bridge and its internal port's devices.
    AddBridge {
        bridge: String,
    },
    /// Gives the port its numbers; it is attached by another step.
    AddPort {
        bridge: String,
        port: String,
        config: PortConfig,
    },
    /// VLAN settings or number changed: translation must know.
    ChangePort {
        bridge: String,
        port: String,
        config: PortConfig,
    },
    /// The interface went away (or is another one now).
    Detach {
        bridge: String,
        port: String,
    },
    /// The interface is there.
    Attach {
        bridge: String,
        port: String,
        link: LinkView,
    },
    /// MTU or link state changed.
    UpdateLink {
        bridge: String,
        port: String,
        link: LinkView,
    },
}

/// The steps, in the order in which they are to be taken.
pub fn reconcile(config: &Config, actual: &Actual, links: &BTreeMap<String, LinkView>) -> Vec<Op> {
    let mut ops = Vec::new();
    removals(config, actual, &mut ops);
    for (name, bridge) in &config.bridges {
        let present = actual.bridges.get(name);
        if present.is_none_or(|b| b.internal.is_none()) {
            ops.push(Op::AddBridge { bridge: name.clone() });
        }
        let local = PortConfig {
            vlan: bridge.local.clone(),
            hook: crate::config::HookWish::Tc,
            ofport_request: Some(OFPP_LOCAL),
        };
        let wanted = bridge.ports.iter().chain([(name, &local)]);
        for (port, want) in wanted {
            match present.and_then(|b| b.ports.get(port)) {
                None => {
                    ops.push(Op::AddPort { bridge: name.clone(), port: port.clone(), config: want.clone() })
                }
                Some(have) => present_port(actual, links, name, port, want, have, &mut ops),
            }
        }
    }
    ops
}

fn removals(config: &Config, actual: &Actual, ops: &mut Vec<Op>) {
    for (name, bridge) in &actual.bridges {
        let wanted = config.bridges.get(name);
        for (port, have) in &bridge.ports {
            let keep = wanted.is_some_and(|w| {
                if port == name {
                    return true;
                }
                // A changed hook means another attachment, so another life of the port.
                w.ports.get(port).is_some_and(|c| c.hook == have.config.hook)
            });
            if !keep {
                ops.push(Op::RemovePort { bridge: name.clone(), port: port.clone() });
            }
        }
        if wanted.is_none() {
            ops.push(Op::RemoveBridge { bridge: name.clone() });
        }
    }
}

/// What a port that stays needs.
fn present_port(
    actual: &Actual,
    links: &BTreeMap<String, LinkView>,
    bridge: &str,
    port: &str,
    want: &PortConfig,
    have: &ActualPort,
    ops: &mut Vec<Op>,
) {
    let (bridge_name, port_name) = (bridge.to_owned(), port.to_owned());
    if have.config.hook != want.hook && bridge != port {
        // Removed above; added in the next round.
        return;
    }
    if have.config != *want {
        ops.push(Op::ChangePort {
            bridge: bridge_name.clone(),
            port: port_name.clone(),
            config: want.clone(),
        });
    }
    let link = actual.device(bridge, port).and_then(|device| links.get(device));
    match (&have.attached, link) {
        (None, None) => {}
        (None, Some(link)) => {
            if have.failed_on.as_ref() != Some(link) {
                ops.push(Op::Attach { bridge: bridge_name, port: port_name, link: link.clone() });
            }
        }
        (Some(_), None) => ops.push(Op::Detach { bridge: bridge_name, port: port_name }),
        (Some(attached), Some(link)) if attached.ifindex != link.ifindex => {
            ops.push(Op::Detach { bridge: bridge_name.clone(), port: port_name.clone() });
            ops.push(Op::Attach { bridge: bridge_name, port: port_name, link: link.clone() });
        }
        (Some(attached), Some(link)) => {
            if attached.mtu != link.mtu || attached.live != (link.up && link.running) {
                ops.push(Op::UpdateLink { bridge: bridge_name, port: port_name, link: link.clone() });
            }
        }
    }
}

/// The number for a new port: the wish if it is free, else the lowest free one.
pub fn allocate_ofport(bridge: &ActualBridge, wish: Option<u16>) -> Option<u16> {
    let taken = |n: u16| bridge.ports.values().any(|p| p.ofport == n);
    if let Some(n) = wish
        && (n == OFPP_LOCAL || (1..OFPP_MAX).contains(&n))
        && !taken(n)
    {
        return Some(n);
    }
    (1..OFPP_MAX).find(|n| !taken(*n))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{BridgeConfig, HookWish, VlanConfig};

    fn port(hook: HookWish) -> PortConfig {
        PortConfig { vlan: VlanConfig::default(), hook, ofport_request: None }
    }

    fn config(ports: &[(&str, PortConfig)]) -> Config {
        let bridge = BridgeConfig {
            ports: ports.iter().map(|(n, c)| ((*n).to_owned(), c.clone())).collect(),
            local: VlanConfig::default(),
            mac_age: Duration::from_secs(300),
            mac_limit: 8192,
            forward_bpdu: false,
        };
        Config {
            bridges: [("br0".to_owned(), bridge)].into(),
            upcall_rate: 0,
            upcall_burst: 0,
            flow_limit: 1000,
            max_idle: Duration::from_secs(10),
        }
    }

    fn link(ifindex: u32) -> LinkView {
        LinkView { ifindex, mtu: 1500, up: true, running: true, mac: [2, 0, 0, 0, 0, 1] }
    }

    /// Applies the steps as the daemon would, every one succeeding.
    fn apply(actual: &mut Actual, ops: &[Op]) {
        for op in ops {
            match op.clone() {
                Op::AddBridge { bridge } => {
                    actual.bridges.entry(bridge).or_default().internal = Some("hidden".into());
                }
                Op::RemoveBridge { bridge } => {
                    actual.bridges.remove(&bridge);
                }
                Op::AddPort { bridge, port, config } => {
                    let b = actual.bridges.entry(bridge).or_default();
                    let ofport = allocate_ofport(b, config.ofport_request).expect("a free number");
                    let dp_port = DpPort(ofport);
                    b.ports.insert(
                        port,
                        ActualPort { dp_port, ofport, config, attached: None, failed_on: None },
                    );
                }
                Op::RemovePort { bridge, port } => {
                    actual.bridges.get_mut(&bridge).expect("bridge").ports.remove(&port);
                }
                op => {
                    let (bridge, port, attached, config) = match op {
                        Op::ChangePort { bridge, port, config } => (bridge, port, None, Some(config)),
                        Op::Detach { bridge, port } => (bridge, port, Some(None), None),
                        Op::Attach { bridge, port, link } | Op::UpdateLink { bridge, port, link } => {
                            let live = link.up && link.running;
                            let a = Attachment { ifindex: link.ifindex, mtu: link.mtu, live };
                            (bridge, port, Some(Some(a)), None)
                        }
                        _ => unreachable!(),
                    };
                    let p =
                        actual.bridges.get_mut(&bridge).and_then(|b| b.ports.get_mut(&port)).expect("port");
                    if let Some(a) = attached {
                        p.attached = a;
                    }
                    if let Some(c) = config {
                        p.config = c;
                    }
                }
            }
        }
    }

    fn settle(config: &Config, actual: &mut Actual, links: &BTreeMap<String, LinkView>) {
        for _ in 0..4 {
            let ops = reconcile(config, actual, links);
            if ops.is_empty() {
                return;
            }
            apply(actual, &ops);
        }
        panic!("does not settle: {:?}", reconcile(config, actual, links));
    }

    #[test]
    fn settles_and_follows_links() {
        let mut actual = Actual::default();
        let c = config(&[("eth1", port(HookWish::Auto)), ("tap0", port(HookWish::Auto))]);
        let mut links: BTreeMap<_, _> = [("eth1".to_owned(), link(7)), ("hidden".to_owned(), link(9))].into();
        settle(&c, &mut actual, &links);
        assert!(actual.bridges["br0"].ports["eth1"].attached.is_some());
        assert!(actual.bridges["br0"].ports["br0"].attached.is_some());
        assert_eq!(actual.bridges["br0"].ports["br0"].ofport, OFPP_LOCAL);
        assert!(actual.bridges["br0"].ports["tap0"].attached.is_none());

        links.insert("tap0".into(), link(11));
        settle(&c, &mut actual, &links);
        assert_eq!(actual.bridges["br0"].ports["tap0"].attached.as_ref().map(|a| a.ifindex), Some(11));

        // Deleted and made again under the same name before anybody looked.
        links.insert("tap0".into(), link(12));
        settle(&c, &mut actual, &links);
        assert_eq!(actual.bridges["br0"].ports["tap0"].attached.as_ref().map(|a| a.ifindex), Some(12));

        settle(&config(&[("eth1", port(HookWish::Xdp))]), &mut actual, &links);
        assert_eq!(actual.bridges["br0"].ports.len(), 2);
        assert_eq!(actual.bridges["br0"].ports["eth1"].config.hook, HookWish::Xdp);

        let none = Config { bridges: BTreeMap::new(), ..c };
        settle(&none, &mut actual, &links);
        assert_eq!(actual, Actual::default());
    }

    #[test]
    fn a_refused_link_is_not_tried_again_until_it_changes() {
        let mut actual = Actual::default();
        let c = config(&[("eth1", port(HookWish::Auto))]);
        let links: BTreeMap<_, _> = [("eth1".to_owned(), link(7)), ("hidden".to_owned(), link(9))].into();
        let ops = reconcile(&c, &actual, &links);
        apply(&mut actual, &ops);
        let p = actual.bridges.get_mut("br0").and_then(|b| b.ports.get_mut("eth1")).expect("port");
        p.failed_on = Some(link(7));
        let again = |links: &BTreeMap<_, _>, actual: &Actual| {
            reconcile(&c, actual, links)
                .iter()
                .any(|o| matches!(o, Op::Attach { port, .. } if port == "eth1"))
        };
        assert!(!again(&links, &actual));
        let mut changed = links.clone();
        changed.insert("eth1".into(), LinkView { mtu: 9000, ..link(7) });
        assert!(again(&changed, &actual));
    }

    #[test]
    fn ofports() {
        let mut b = ActualBridge::default();
        for (i, wish) in [(1, None), (5, Some(5)), (2, Some(5)), (3, Some(0xffff))] {
            let n = allocate_ofport(&b, wish).expect("free");
            assert_eq!(n, i);
            b.ports.insert(
                format!("p{n}"),
                ActualPort {
                    dp_port: DpPort(n),
                    ofport: n,
                    config: port(HookWish::Auto),
                    attached: None,
                    failed_on: None,
                },
            );
        }
    }
}
