//! Answers the control socket's requests from the state of the moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use switch_common::counter::{Counter, Drop};
use switch_dpif::action::DpPort;
use switch_dpif::notation;
use switch_ofproto::BridgeId;
use switch_ofproto::rule::RuleRef;

use super::control::Control;
use super::drops::UserDrops;
use super::flows::{Installed, sum};
use super::forwarding::{Forwarding, View};
use super::reconcile::{ActualPort, OFPP_LOCAL};
use super::tracing_packets;
use crate::config::VlanMode;
use crate::control::report::*;
use crate::control::server::Answer;

/// The daemon as the control socket sees it.
pub struct Answers {
    pub control: Arc<Mutex<Control>>,
    pub forwarding: Arc<Forwarding>,
    pub drops: Arc<UserDrops>,
    pub handlers: usize,
}

impl Answer for Answers {
    fn answer(&self, request: Request) -> Reply {
        let result = match request {
            Request::Show => Ok(Reply::Show(self.show())),
            Request::Flows { bridge } => self.flows(bridge.as_deref()).map(Reply::Flows),
            Request::Fdb { bridge } => self.fdb(bridge.as_deref()).map(Reply::Fdb),
            Request::FdbFlush { bridge } => self.flush(bridge.as_deref()).map(|()| Reply::Done),
            Request::Drops => Ok(Reply::Drops(self.drop_report())),
            Request::Top => Ok(Reply::Top(TopReport {
                at_ms: self.forwarding.clock.now_ms(),
                show: self.show(),
                drops: self.drop_report(),
            })),
            Request::TracePacket { port, packet, flow } => {
                tracing_packets::trace(&self.forwarding, &port, packet.as_deref(), flow.as_deref())
                    .map(Reply::Trace)
            }
        };
        result.unwrap_or_else(Reply::Error)
    }
}

impl Answers {
    fn show(&self) -> ShowReport {
        let mut control = self.control.lock();
        control.read_links();
        let datapath = &self.forwarding.datapath;
        let bridges = control.actual.bridges.keys().map(|name| self.bridge(&control, name)).collect();
        ShowReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: control.started.elapsed().as_secs(),
            datapath: datapath.kind().to_owned(),
            instance: control.instance.id().to_owned(),
            kernel: nix::sys::utsname::uname()
                .map(|u| u.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            flows: datapath.flow_count(),
            flow_limit: control.config.flow_limit,
            masks: datapath.masks().len(),
            bridges,
            caches: self.caches(),
            upcalls: self.upcalls(),
            notes: control.notes.clone(),
        }
    }

    fn bridge(&self, control: &Control, name: &str) -> BridgeReport {
        let Some(actual) = control.actual.bridges.get(name) else { return BridgeReport::default() };
        let table = control.bridge_ids.get(name).map(|id| self.forwarding.macs.table(*id).stats());
        BridgeReport {
            name: name.to_owned(),
            datapath_id: format!("{:016x}", control.datapath_ids.get(name).copied().unwrap_or(0)),
            fail_mode: "standalone".to_owned(),
            mac_entries: table.map_or(0, |t| t.entries),
            mac_limit: table.map_or(0, |t| t.limit),
            ports: actual.ports.iter().map(|(port, p)| self.port(control, name, port, p)).collect(),
        }
    }

    fn port(&self, control: &Control, bridge: &str, name: &str, actual: &ActualPort) -> PortReport {
        let internal = bridge == name;
        let device = if internal {
            control.actual.bridges.get(bridge).and_then(|b| b.internal.as_deref()).unwrap_or_default()
        } else {
            name
        };
        let link = control.links.get(device);
        let status = control.statuses.get(&actual.dp_port).cloned().unwrap_or_default();
        let vlan = &actual.config.vlan;
        let totals = self.forwarding.datapath.port_totals(actual.dp_port);
        let s = link.map(|l| l.statistics).unwrap_or_default();
        PortReport {
            name: name.to_owned(),
            ofport: u32::from(actual.ofport),
            dp_port: actual.dp_port.0,
            kind: if actual.ofport == OFPP_LOCAL { "internal" } else { "system" }.to_owned(),
            vlan_mode: match vlan.mode {
                VlanMode::Access => "access",
                VlanMode::Trunk => "trunk",
                VlanMode::NativeTagged => "native-tagged",
                VlanMode::NativeUntagged => "native-untagged",
            }
            .to_owned(),
            tag: vlan.tag,
            trunks: vlan.trunks.clone(),
            hook: status.hook,
            mode: status.mode,
            hook_reason: status.hook_reason,
            ifindex: link.map_or(0, |l| l.ifindex),
            mtu: link.map_or(0, |l| l.mtu),
            mac: link.map(|l| l.mac.to_string()).unwrap_or_default(),
            link: match link {
                None => "missing",
                Some(l) if l.is_up() && l.is_running() => "up",
                Some(_) => "down",
            }
            .to_owned(),
            error: status.error,
            counters: PortCountersReport {
                rx_packets: s.rx_packets,
                rx_bytes: s.rx_bytes,
                tx_packets: s.tx_packets,
                tx_bytes: s.tx_bytes,
                rx_errors: s.rx_errors,
                rx_dropped: s.rx_dropped,
                tx_errors: s.tx_errors,
                tx_dropped: s.tx_dropped,
                upcalls: totals.upcalls,
                upcalls_limited: totals.limited,
                upcalls_queue_full: self.drops.port_total(actual.dp_port),
                datapath_dropped: totals.dropped,
                policy_dropped: totals.policy_dropped,
            },
        }
    }

    fn caches(&self) -> CacheReport {
        let count = |c| self.forwarding.datapath.counter(c);
        CacheReport {
            exact_match_hits: count(Counter::CacheHit),
            megaflow_hits: count(Counter::MegaflowHit),
            misses: count(Counter::Miss),
            masks_tried: count(Counter::MasksTried),
            handed_over: count(Counter::HandedOver),
            handover_stale: count(Counter::HandoverStale),
            recirculated: count(Counter::Recirculated),
            malformed: count(Counter::Malformed),
        }
    }

    fn upcalls(&self) -> UpcallReport {
        let c = &self.forwarding.counters;
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        UpcallReport {
            handlers: self.handlers,
            received: get(&c.received),
            translated: get(&c.translated),
            flows_installed: get(&c.installed),
            joined: get(&c.joined),
            install_failed: get(&c.install_failed),
            protocol: get(&c.protocol),
            ring_dropped: get(&c.ring_dropped),
            revalidations: get(&c.revalidations),
            flows_expired: get(&c.expired),
            flows_corrected: get(&c.corrected),
            flows_removed: get(&c.removed),
        }
    }

    fn drop_report(&self) -> DropsReport {
        let reasons = Drop::ALL.iter().map(|reason| DropReport {
            reason: reason.name().to_owned(),
            packets: self.forwarding.datapath.drops(*reason) + self.drops.total(*reason),
            meaning: meaning(*reason).to_owned(),
        });
        DropsReport { reasons: reasons.collect() }
    }

    /// The bridge with this name, or a sentence that lists those that exist.
    fn bridge_id(&self, view: &View, name: &str) -> Result<BridgeId, String> {
        view.network.bridge_named(name).map(|b| b.id).ok_or_else(|| {
            let names: Vec<&str> = view.network.bridges().map(|b| b.name.as_str()).collect();
            format!("no bridge is called {name}; there are: {}", names.join(", "))
        })
    }

    fn flows(&self, bridge: Option<&str>) -> Result<FlowsReport, String> {
        let view = self.forwarding.view.load();
        let wanted = bridge.map(|name| self.bridge_id(&view, name)).transpose()?;
        let names = |port| port_name(&view, port);
        let now = self.forwarding.datapath.now_ms();
        let mut flows = Vec::new();
        self.forwarding.datapath.for_each_flow(&mut |dump| {
            let at = view.network.port_of(DpPort(dump.key.in_port));
            if wanted.is_some() && at.map(|a| a.bridge) != wanted {
                return;
            }
            let known: Option<Installed> = self.forwarding.flows.lock().get(dump.id).cloned();
            let stats = sum(dump.stats, known.as_ref().map(|k| k.base).unwrap_or_default());
            let slow = |text: String| {
                if dump.slow_path { "userspace(pid=0,slow_path(action))".to_owned() } else { text }
            };
            flows.push(FlowReport {
                bridge: at
                    .and_then(|a| view.network.bridge(a.bridge))
                    .map(|b| b.name.clone())
                    .unwrap_or_default(),
                key: notation::format_match(&dump.key, &dump.mask, None),
                fields: notation::match_json(&dump.key, &dump.mask, Some(&names)),
                packets: stats.packets,
                bytes: stats.bytes,
                used_s: (stats.used != 0).then(|| now.saturating_sub(stats.used) as f64 / 1000.0),
                tcp_flags: if stats.tcp_flags == 0 {
                    String::new()
                } else {
                    notation::tcp_flags_letters(stats.tcp_flags)
                },
                actions: slow(notation::format_actions(&dump.actions, None)),
                actions_named: slow(notation::format_actions(&dump.actions, Some(&names))),
                slow_path: dump.slow_path,
                rules: known
                    .map(|k| k.rules.iter().map(|r| rule_report(&view, r)).collect())
                    .unwrap_or_default(),
            });
        });
        Ok(FlowsReport { flows })
    }

    fn fdb(&self, bridge: Option<&str>) -> Result<FdbReport, String> {
        let view = self.forwarding.view.load();
        let wanted = bridge.map(|name| self.bridge_id(&view, name)).transpose()?;
        let now = self.forwarding.clock.now_ms();
        let mut entries = Vec::new();
        for bridge in view.network.bridges().filter(|b| wanted.is_none_or(|w| w == b.id)) {
            for e in self.forwarding.macs.table(bridge.id).entries(now) {
                entries.push(FdbEntry {
                    bridge: bridge.name.clone(),
                    port: bridge.port(e.port).map(|p| p.name.clone()).unwrap_or_default(),
                    ofport: u32::from(e.port.0),
                    vlan: e.vlan,
                    mac: switch_netdev::MacAddress(e.mac).to_string(),
                    age_s: e.age_ms / 1000,
                    is_static: e.is_static,
                });
            }
        }
        Ok(FdbReport { entries })
    }

    fn flush(&self, bridge: Option<&str>) -> Result<(), String> {
        let view = self.forwarding.view.load();
        let wanted = bridge.map(|name| self.bridge_id(&view, name)).transpose()?;
        for bridge in view.network.bridges().filter(|b| wanted.is_none_or(|w| w == b.id)) {
            self.forwarding.mac_changed(self.forwarding.macs.table(bridge.id).flush());
        }
        Ok(())
    }
}

/// Name of the port behind a datapath port.
pub fn port_name(view: &View, port: DpPort) -> Option<String> {
    let at = view.network.port_of(port)?;
    view.network.bridge(at.bridge)?.port(at.port).map(|p| p.name.clone())
}

/// Which rule, and as `ovs-ofctl` writes it.
pub fn rule_report(view: &View, rule: &RuleRef) -> RuleReport {
    let bridge = view.network.bridge(rule.bridge);
    let found = bridge.and_then(|b| {
        b.table(rule.table)?
            .iter()
            .find(|r| r.payload.id == rule.id)
            .map(|r| switch_ofproto::rule::format_rule(r))
    });
    RuleReport {
        bridge: bridge.map(|b| b.name.clone()).unwrap_or_default(),
        table: rule.table.0,
        priority: rule.priority,
        cookie: rule.cookie,
        text: found.unwrap_or_default(),
    }
}

/// One sentence for each reason.
const fn meaning(reason: Drop) -> &'static str {
    match reason {
        Drop::Policy => "the flow has no output: the tables say drop",
        Drop::NoPort => "the interface is no port of a bridge (any more)",
        Drop::Runt => "shorter than an Ethernet header",
        Drop::UpcallLimit => "the port sent more new flows than --upcall-rate allows",
        Drop::UpcallFailed => "the packet could not be sent up to userspace",
        Drop::Mtu => "longer than the output port's MTU",
        Drop::NoOutput => "the output port is not there or down",
        Drop::Meter => "over a meter's rate",
        Drop::RecircLimit => "recirculated too often",
        Drop::ActionFailed => "an action did not fit the packet",
        Drop::Helper => "the kernel refused an action",
        Drop::XdpTransmit => "the output device did not take an XDP frame",
        Drop::QueueFull => "too many of the port's packets were waiting for userspace",
        Drop::Translation => "translation gave up: too deep, or too many resubmits",
        Drop::SendFailed => "userspace could not send the packet",
        Drop::Reserved => "sent to an address reserved for bridge protocols",
        Drop::VlanFilter => "a VLAN that the input port does not admit",
        Drop::Hairpin => "known to be where it came from",
    }
}
