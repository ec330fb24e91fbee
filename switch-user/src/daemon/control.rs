//! The control thread's state: the configuration, what is there, and the way from one to the other.
//!
//! [`Control::reconcile`] is called whenever one of the two may have changed: at the start, on link events, on a
//! new configuration. It computes the steps ([`super::reconcile`]), takes them, publishes what translation
//! reads, and goes on until nothing is left to do. A step that fails leaves its reason in the port, where `show`
//! prints it; the rest goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use switch_datapath::{EbpfDatapath, Hook, PortRequest, PortSettings, XdpMode};
use switch_dpif::action::DpPort;
use switch_dpif::datapath::Datapath;
use switch_netdev::internal::{hidden_name, stable_mac};
use switch_netdev::{
    HookChoice, InternalPort, InternalPortSpec, Link, PrepareError, Prepared, Preparer, UpcallPair,
    XdpOutput, choose_hook, xdp_output,
};
use switch_ofproto::{BridgeId, OfPort};

use super::devices::Devices;
use super::drops::UserDrops;
use super::forwarding::Forwarding;
use super::instance::Instance;
use super::publish;
use super::reconcile::{Actual, ActualPort, Attachment, LinkView, Op, allocate_ofport, reconcile};
use super::revalidate::Passes;
use crate::config::{Config, HookWish, PortConfig};

/// How long a removal waits for the flows that name the port to be corrected.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(10);
/// MTU of an internal port while its bridge has no other port.
const INTERNAL_MTU: u32 = 1500;
/// Largest MTU whose frames lie in one piece on every driver: one page, less headroom and tailroom.
const LINEAR_MTU: u32 = 3000;
/// Rounds of steps after one event; each round's steps can make others possible.
const MAX_ROUNDS: usize = 16;

/// What `show` says of an attached port.
#[derive(Clone, Debug, Default)]
pub struct PortStatus {
    pub hook: String,
    pub mode: String,
    pub hook_reason: String,
    pub error: Option<String>,
}

/// See the head of this module.
pub struct Control {
    pub instance: Instance,
    pub config: Arc<Config>,
    pub actual: Actual,
    pub statuses: BTreeMap<DpPort, PortStatus>,
    pub bridge_ids: BTreeMap<String, BridgeId>,
    pub datapath_ids: BTreeMap<String, u64>,
    pub links: BTreeMap<String, Link>,
    pub started: Instant,
    pub notes: Vec<String>,
    preparer: Preparer,
    datapath: Arc<EbpfDatapath>,
    forwarding: Arc<Forwarding>,
    drops: Arc<UserDrops>,
    passes: Arc<Passes>,
    pair: UpcallPair,
    /// Queues of the pair that serve misses.
    miss_queues: u32,
    prepared: HashMap<DpPort, Prepared>,
    internal: BTreeMap<String, InternalPort>,
    version: u64,
    next_bridge: u32,
    vlan_limit: u8,
}

/// What [`Control::new`] takes over.
pub struct Parts {
    pub instance: Instance,
    pub config: Arc<Config>,
    pub datapath: Arc<EbpfDatapath>,
    pub forwarding: Arc<Forwarding>,
    pub drops: Arc<UserDrops>,
    pub passes: Arc<Passes>,
    pub pair: UpcallPair,
    pub miss_queues: u32,
    pub preparer: Preparer,
    pub notes: Vec<String>,
    pub vlan_limit: u8,
}

impl Control {
    pub fn new(parts: Parts) -> Control {
        Control {
            instance: parts.instance,
            config: parts.config,
            actual: Actual::default(),
            statuses: BTreeMap::new(),
            bridge_ids: BTreeMap::new(),
            datapath_ids: BTreeMap::new(),
            links: BTreeMap::new(),
            started: Instant::now(),
            notes: parts.notes,
            preparer: parts.preparer,
            datapath: parts.datapath,
            forwarding: parts.forwarding,
            drops: parts.drops,
            passes: parts.passes,
            pair: parts.pair,
            miss_queues: parts.miss_queues,
            prepared: HashMap::new(),
            internal: BTreeMap::new(),
            version: 0,
            next_bridge: 1,
            vlan_limit: parts.vlan_limit,
        }
    }

    /// Brings the actual state to the configured one, as far as the links that exist allow it.
    pub fn reconcile(&mut self) {
        for _ in 0..MAX_ROUNDS {
            self.read_links();
            let views = self.link_views();
            let ops = reconcile(&self.config, &self.actual, &views);
            if ops.is_empty() {
                self.follow_mtu();
                return;
            }
            self.apply(ops);
        }
        tracing::warn!("the state does not settle: links change faster than they are followed");
    }

    /// Takes all bridges down: packets stop first. The threads must still be at work.
    pub fn remove_everything(&mut self) {
        self.config = Arc::new(Config { bridges: BTreeMap::new(), ..(*self.config).clone() });
        self.reconcile();
    }

    /// Removes the datapath and what else the kernel holds of this instance. The threads must have ended.
    pub fn close(self) {
        if let Err(error) = self.datapath.shut_down() {
            tracing::warn!(%error, "removing the datapath");
        }
        if let Err(error) = self.pair.delete() {
            tracing::warn!(%error, "removing the upcall pair");
        }
        self.instance.close();
    }

    pub fn read_links(&mut self) {
        match self.preparer.links().list() {
            Ok(links) => self.links = links.into_iter().map(|l| (l.name.clone(), l)).collect(),
            Err(error) => tracing::warn!(%error, "listing links"),
        }
    }

    fn link_views(&self) -> BTreeMap<String, LinkView> {
        self.links
            .iter()
            .map(|(name, link)| {
                let view = LinkView {
                    ifindex: link.ifindex,
                    mtu: link.mtu,
                    up: link.is_up(),
                    running: link.is_running(),
                    mac: link.mac.0,
                };
                (name.clone(), view)
            })
            .collect()
    }

    fn apply(&mut self, ops: Vec<Op>) {
        let (removals, rest): (Vec<Op>, Vec<Op>) =
            ops.into_iter().partition(|op| matches!(op, Op::RemovePort { .. } | Op::RemoveBridge { .. }));
        if !removals.is_empty() {
            self.remove(removals);
        }
        for op in rest {
            match op {
                Op::AddBridge { bridge } => self.add_bridge(&bridge),
                Op::AddPort { bridge, port, config } => self.add_port(&bridge, &port, config),
                Op::ChangePort { bridge, port, config } => {
                    if let Some(p) = self.port_mut(&bridge, &port) {
                        p.config = config;
                    }
                }
                Op::Attach { bridge, port, link } => self.attach(&bridge, &port, &link),
                Op::Detach { bridge, port } => self.detach(&bridge, &port),
                Op::UpdateLink { bridge, port, link } => self.update_link(&bridge, &port, &link),
                Op::RemovePort { .. } | Op::RemoveBridge { .. } => {}
            }
        }
        self.publish();
    }

    /// Ports leave translation first, then the flows that name them are corrected, then they are detached: no
    /// packet is sent to a number that means something else by then.
    fn remove(&mut self, removals: Vec<Op>) {
        let mut gone = Vec::new();
        let mut bridges = Vec::new();
        for op in removals {
            match op {
                Op::RemovePort { bridge, port } => {
                    if let Some(p) = self.actual.bridges.get_mut(&bridge).and_then(|b| b.ports.remove(&port))
                    {
                        gone.push((port, p));
                    }
                }
                Op::RemoveBridge { bridge } => bridges.push(bridge),
                _ => {}
            }
        }
        self.publish();
        self.wait_for_revalidation();
        for (name, port) in gone {
            if port.attached.is_some() {
                self.detach_device(&name, port.dp_port);
            }
            self.statuses.remove(&port.dp_port);
            self.drops.forget_port(port.dp_port);
        }
        for name in bridges {
            self.actual.bridges.remove(&name);
            if let Some(internal) = self.internal.remove(&name)
                && let Err(error) = internal.delete()
            {
                tracing::warn!(bridge = name, %error, "removing the internal port");
            }
            if let Some(id) = self.bridge_ids.remove(&name) {
                self.forwarding.macs.remove(id);
            }
            self.datapath_ids.remove(&name);
            tracing::info!(bridge = name, "bridge removed");
        }
    }

    /// What was learnt at a port that is gone is flooded to again, until it is heard of elsewhere.
    fn forget_stations(&self, bridge: &str, ofport: u16) {
        if let Some(id) = self.bridge_ids.get(bridge) {
            self.forwarding.mac_changed(self.forwarding.macs.table(*id).flush_port(OfPort(ofport)));
        }
    }

    fn wait_for_revalidation(&self) {
        let end = Instant::now() + REMOVAL_PATIENCE;
        while self.passes.conforming.load(Ordering::Acquire) < self.version {
            if Instant::now() > end {
                tracing::warn!("flows are still being corrected: going on");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn add_bridge(&mut self, name: &str) {
        let id = *self.bridge_ids.entry(name.to_owned()).or_insert_with(|| {
            let id = BridgeId(self.next_bridge);
            self.next_bridge += 1;
            id
        });
        let settings = self.config.bridges.get(name);
        if let Some(bridge) = settings {
            self.forwarding.macs.table(id).configure(bridge.mac_age.as_millis() as u64, bridge.mac_limit);
        }
        let spec = InternalPortSpec {
            name,
            hidden: &hidden_name(self.instance.id(), name),
            mac: stable_mac(self.instance.id(), name),
            mtu: INTERNAL_MTU,
        };
        self.datapath_ids.insert(name.to_owned(), datapath_id(spec.mac.0));
        let hidden = match InternalPort::create(&spec) {
            Ok(internal) => {
                let hidden = internal.hidden().name.clone();
                self.internal.insert(name.to_owned(), internal);
                self.note_devices();
                tracing::info!(bridge = name, "bridge made");
                hidden
            }
            Err(error) => {
                // Without its internal port the bridge still switches.
                self.notes.push(format!("bridge {name} has no internal port: {error}"));
                tracing::warn!(bridge = name, %error, "no internal port");
                String::new()
            }
        };
        self.actual.bridges.entry(name.to_owned()).or_default().internal = Some(hidden);
    }

    /// As Open vSwitch does it: a bridge's internal port has the smallest MTU of its ports, so that what the host
    /// sends fits all of them.
    fn follow_mtu(&self) {
        for (name, internal) in &self.internal {
            let Some(bridge) = self.actual.bridges.get(name) else { continue };
            let others = bridge.ports.iter().filter(|(port, _)| *port != name);
            let smallest = others.filter_map(|(_, p)| p.attached.as_ref()).map(|a| a.mtu).min();
            let current = self.links.get(&internal.hidden().name).map(|l| l.mtu);
            if let (Some(wanted), Some(current)) = (smallest, current)
                && wanted != current
                && let Err(error) = internal.set_mtu(wanted)
            {
                tracing::warn!(bridge = name, %error, "setting the internal port's MTU");
            }
        }
    }

    fn add_port(&mut self, bridge: &str, port: &str, config: PortConfig) {
        let Some(dp_port) = self.free_dp_port() else {
            tracing::error!(port, "all datapath ports are in use");
            return;
        };
        let missing = !self.links.contains_key(port) && bridge != port;
        let Some(b) = self.actual.bridges.get_mut(bridge) else { return };
        let Some(ofport) = allocate_ofport(b, config.ofport_request) else {
            tracing::error!(bridge, port, "all OpenFlow ports of the bridge are in use");
            return;
        };
        b.ports
            .insert(port.to_owned(), ActualPort { dp_port, ofport, config, attached: None, failed_on: None });
        let error = missing.then(|| no_such_interface(port));
        if let Some(error) = &error {
            tracing::warn!(bridge, port, "{error}");
        }
        self.statuses.insert(dp_port, PortStatus { error, ..PortStatus::default() });
    }

    /// The lowest number that no port has. A number that was given back is free only after the flows that named
    /// it were corrected, which [`Control::remove`] waits for.
    fn free_dp_port(&self) -> Option<DpPort> {
        let taken: std::collections::BTreeSet<u16> =
            self.actual.bridges.values().flat_map(|b| b.ports.values()).map(|p| p.dp_port.0).collect();
        (1..u16::MAX).find(|n| !taken.contains(n)).map(DpPort)
    }

    fn port_mut(&mut self, bridge: &str, port: &str) -> Option<&mut ActualPort> {
        self.actual.bridges.get_mut(bridge)?.ports.get_mut(port)
    }

    fn attach(&mut self, bridge: &str, port: &str, view: &LinkView) {
        let internal = bridge == port;
        let Some(actual) = self.port_mut(bridge, port) else { return };
        let (dp_port, wish) = (actual.dp_port, actual.config.hook);
        let result = self.attach_device(dp_port, view, if internal { HookWish::Tc } else { wish });
        let live = view.up && view.running;
        let status = match result {
            Ok(status) => {
                tracing::info!(bridge, port, hook = status.hook, mode = status.mode, "port attached");
                if let Some(p) = self.port_mut(bridge, port) {
                    p.attached = Some(Attachment { ifindex: view.ifindex, mtu: view.mtu, live });
                    p.failed_on = None;
                }
                status
            }
            Err(error) => {
                tracing::warn!(bridge, port, "{error}");
                if let Some(p) = self.port_mut(bridge, port) {
                    p.failed_on = Some(view.clone());
                }
                PortStatus { error: Some(format!("{port}: {error}")), ..PortStatus::default() }
            }
        };
        self.statuses.insert(dp_port, status);
    }

    fn attach_device(
        &mut self,
        dp_port: DpPort,
        view: &LinkView,
        wish: HookWish,
    ) -> Result<PortStatus, String> {
        let (links, ethtool) = (self.preparer.links(), self.preparer.ethtool());
        let link = links.by_index(view.ifindex).map_err(|e| e.to_string())?;
        if !link.is_ethernet() {
            return Err("it is no Ethernet device, and cannot be a port".to_owned());
        }
        if let Some(master) = link.master {
            let name = links.by_index(master).map_or_else(|_| format!("interface {master}"), |l| l.name);
            return Err(format!("it belongs to {name} already"));
        }
        self.pair
            .set_port_mtu(view.mtu)
            .map_err(|e| format!("the upcall pair cannot take frames of {} bytes: {e}", view.mtu))?;
        let wish = match wish {
            HookWish::Auto => switch_netdev::HookWish::Auto,
            HookWish::Tc => switch_netdev::HookWish::Tc,
            HookWish::Xdp => switch_netdev::HookWish::Xdp,
        };
        let mut choice = choose_hook(links, ethtool, &link, wish).map_err(|e| e.to_string())?;
        let prepared = match self.preparer.prepare(link.ifindex, &choice, None) {
            Err(error @ PrepareError::XdpUnsafe { .. }) => {
                // The port works over TC, and says why.
                choice = HookChoice { hook: switch_netdev::Hook::Tc, generic: false, why: error.to_string() };
                self.preparer.prepare(link.ifindex, &choice, None)
            }
            other => other,
        }
        .map_err(|e| e.to_string())?;
        let xdp = choice.hook == switch_netdev::Hook::Xdp;
        let request = PortRequest {
            port: dp_port,
            ifindex: link.ifindex,
            name: &link.name,
            hook: if xdp { Hook::Xdp { generic: choice.generic } } else { Hook::Tc },
            settings: PortSettings {
                mtu: link.mtu,
                up: view.up && view.running,
                upcalls: true,
                xdp_output: false,
                upcall_queue: switch_common::upcall::FIRST_MISS_QUEUE
                    + u32::from(dp_port.0) % self.miss_queues,
            },
        };
        match self.datapath.attach_port(&request) {
            Ok(done) => {
                self.prepared.insert(dp_port, prepared);
                self.note_devices();
                let (rate, burst) = (self.config.upcall_rate, self.config.upcall_burst);
                if let Err(error) = self.datapath.set_upcall_limit(dp_port, rate, burst) {
                    tracing::warn!(port = link.name, %error, "limiting misses");
                }
                // Many devices take redirected frames only now that they have a program of their own.
                self.follow_settings(dp_port, &link, view.up && view.running);
                let tc = if done.tcx { "tcx" } else { "clsact" };
                let (hook, mode) = match done.xdp {
                    Some(XdpMode::Native) => ("xdp", format!("native+{tc}")),
                    Some(XdpMode::Generic) => ("xdp", format!("generic+{tc}")),
                    None => ("tc", tc.to_owned()),
                };
                let hook_reason = match done.native_refused {
                    Some(refusal) => format!("{}; native XDP refused: {refusal}", choice.why),
                    None => choice.why,
                };
                Ok(PortStatus { hook: hook.to_owned(), mode, hook_reason, error: None })
            }
            Err(error) => {
                if let Err(error) = self.preparer.restore(&prepared) {
                    tracing::warn!(%error, "restoring the device");
                }
                Err(error.to_string())
            }
        }
    }

    /// Tells the datapath what an attached port's device is like now.
    fn follow_settings(&self, dp_port: DpPort, link: &Link, live: bool) {
        let Some((status, settings)) = self.datapath.port_status(dp_port) else { return };
        let xdp_output = status.xdp == Some(XdpMode::Native) && live && self.takes_xdp_output(link);
        let settings = PortSettings { mtu: link.mtu, up: live, xdp_output, ..settings };
        if let Err(error) = self.datapath.update_port(dp_port, settings) {
            tracing::warn!(port = link.name, %error, "updating the port");
        }
    }

    /// Whether XDP may redirect frames to the device: else they go out by TC.
    fn takes_xdp_output(&self, link: &Link) -> bool {
        match xdp_output(self.preparer.links(), self.preparer.ethtool(), link) {
            Ok(XdpOutput::No) => false,
            Ok(XdpOutput::Linear) => link.mtu <= LINEAR_MTU,
            Ok(XdpOutput::MultiBuffer) => true,
            Err(error) => {
                tracing::debug!(port = link.name, %error, "XDP output");
                false
            }
        }
    }

    fn detach(&mut self, bridge: &str, port: &str) {
        let Some(actual) = self.port_mut(bridge, port) else { return };
        actual.attached = None;
        let (dp_port, ofport) = (actual.dp_port, actual.ofport);
        self.forget_stations(bridge, ofport);
        self.detach_device(port, dp_port);
        tracing::info!(bridge, port, "port detached");
        let status = PortStatus { error: Some(no_such_interface(port)), ..PortStatus::default() };
        self.statuses.insert(dp_port, status);
    }

    fn detach_device(&mut self, name: &str, dp_port: DpPort) {
        if let Err(error) = self.datapath.detach_port(dp_port) {
            tracing::warn!(port = name, %error, "detaching");
        }
        if let Some(prepared) = self.prepared.remove(&dp_port) {
            if let Err(error) = self.preparer.restore(&prepared) {
                tracing::debug!(port = name, %error, "restoring the device");
            }
            self.note_devices();
        }
    }

    /// For a daemon that comes after this one was killed.
    fn note_devices(&self) {
        let internal =
            self.internal.iter().map(|(bridge, port)| (bridge.clone(), port.hidden().name.clone()));
        let devices =
            Devices { prepared: self.prepared.values().cloned().collect(), internal: internal.collect() };
        devices.save(&self.instance);
    }

    fn update_link(&mut self, bridge: &str, port: &str, view: &LinkView) {
        let Some(actual) = self.port_mut(bridge, port) else { return };
        let dp_port = actual.dp_port;
        let live = view.up && view.running;
        if let Some(attached) = &mut actual.attached {
            attached.mtu = view.mtu;
            attached.live = live;
        }
        if let Err(error) = self.pair.set_port_mtu(view.mtu) {
            tracing::warn!(port, %error, "raising the upcall pair's MTU");
        }
        if let Some(link) = self.links.values().find(|l| l.ifindex == view.ifindex) {
            self.follow_settings(dp_port, link, live);
        }
    }

    /// Publishes a new version of what translation reads.
    fn publish(&mut self) {
        self.version += 1;
        match publish::view(self, self.version, self.vlan_limit) {
            Ok(view) => self.forwarding.publish(view),
            Err(error) => tracing::error!(%error, "the configuration cannot be published"),
        }
    }
}

fn no_such_interface(port: &str) -> String {
    format!("no interface is called {port}; the port is picked up when one appears")
}

/// As Open vSwitch makes it: the internal port's address in the low 48 bits.
fn datapath_id(mac: [u8; 6]) -> u64 {
    mac.iter().fold(0, |id, byte| id << 8 | u64::from(*byte))
}
