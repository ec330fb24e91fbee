//! Rates between two totals.

use serde::Serialize;

use crate::control::report::{PortReport, TopReport};

/// What happened between two looks, a second of it on average.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Seconds between the two looks.
    pub interval_s: f64,
    pub lookups: LookupRates,
    pub upcalls: UpcallRates,
    /// In the order of the report: by bridge.
    pub ports: Vec<PortRates>,
    /// Every reason, also those that did not happen.
    pub drops: Vec<DropRate>,
    /// The later of the two.
    pub totals: TopReport,
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LookupRates {
    pub exact_match_hits: f64,
    pub megaflow_hits: f64,
    pub misses: f64,
    /// Masks tried for each look-up that the exact-match cache did not answer: a mean, not a rate.
    pub masks_per_lookup: f64,
    pub handed_over: f64,
    pub recirculated: f64,
    pub malformed: f64,
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct UpcallRates {
    pub received: f64,
    pub translated: f64,
    pub flows_installed: f64,
    pub joined: f64,
    pub install_failed: f64,
    pub ring_dropped: f64,
    pub flows_expired: f64,
    pub flows_corrected: f64,
    pub flows_removed: f64,
}

/// Per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PortRates {
    pub bridge: String,
    pub name: String,
    pub link: String,
    pub hook: String,
    pub rx_packets: f64,
    pub rx_bits: f64,
    pub tx_packets: f64,
    pub tx_bits: f64,
    /// Misses sent up.
    pub upcalls: f64,
    /// Misses dropped by the port's limit, or because its queue in userspace was full.
    pub upcalls_refused: f64,
    /// Packets that came in here and were dropped, for whatever reason.
    pub dropped: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DropRate {
    pub reason: String,
    /// Since the start of the daemon.
    pub packets: u64,
    pub packets_per_s: f64,
}

/// Turns counts into rates.
#[derive(Clone, Copy)]
struct Clock {
    seconds: f64,
}

impl Clock {
    /// A counter that went back (the daemon or the device started anew) has no rate; nor has one over no time.
    fn rate(self, before: u64, now: u64) -> f64 {
        if self.seconds > 0.0 { now.saturating_sub(before) as f64 / self.seconds } else { 0.0 }
    }
}

impl Sample {
    /// From two totals, the earlier first.
    pub fn between(before: &TopReport, now: TopReport) -> Sample {
        let clock = Clock { seconds: now.at_ms.saturating_sub(before.at_ms) as f64 / 1000.0 };
        Sample {
            interval_s: clock.seconds,
            lookups: lookups(clock, before, &now),
            upcalls: upcalls(clock, before, &now),
            ports: ports(clock, before, &now),
            drops: drops(clock, before, &now),
            totals: now,
        }
    }

    /// Look-ups a second on all levels.
    pub fn all_lookups(&self) -> f64 {
        self.lookups.exact_match_hits + self.lookups.megaflow_hits + self.lookups.misses
    }
}

fn lookups(clock: Clock, before: &TopReport, now: &TopReport) -> LookupRates {
    let (b, n) = (&before.show.caches, &now.show.caches);
    let megaflow_hits = clock.rate(b.megaflow_hits, n.megaflow_hits);
    let misses = clock.rate(b.misses, n.misses);
    let masks = clock.rate(b.masks_tried, n.masks_tried);
    let beyond = megaflow_hits + misses;
    LookupRates {
        exact_match_hits: clock.rate(b.exact_match_hits, n.exact_match_hits),
        megaflow_hits,
        misses,
        masks_per_lookup: if beyond > 0.0 { masks / beyond } else { 0.0 },
        handed_over: clock.rate(b.handed_over, n.handed_over),
        recirculated: clock.rate(b.recirculated, n.recirculated),
        malformed: clock.rate(b.malformed, n.malformed),
    }
}

fn upcalls(clock: Clock, before: &TopReport, now: &TopReport) -> UpcallRates {
    let (b, n) = (&before.show.upcalls, &now.show.upcalls);
    UpcallRates {
        received: clock.rate(b.received, n.received),
        translated: clock.rate(b.translated, n.translated),
        flows_installed: clock.rate(b.flows_installed, n.flows_installed),
        joined: clock.rate(b.joined, n.joined),
        install_failed: clock.rate(b.install_failed, n.install_failed),
        ring_dropped: clock.rate(b.ring_dropped, n.ring_dropped),
        flows_expired: clock.rate(b.flows_expired, n.flows_expired),
        flows_corrected: clock.rate(b.flows_corrected, n.flows_corrected),
        flows_removed: clock.rate(b.flows_removed, n.flows_removed),
    }
}

fn ports(clock: Clock, before: &TopReport, now: &TopReport) -> Vec<PortRates> {
    let mut rates = Vec::new();
    for bridge in &now.show.bridges {
        let earlier = before.show.bridges.iter().find(|b| b.name == bridge.name);
        for port in &bridge.ports {
            // The same name on another device is another port: its counters started anew.
            let same = |p: &&PortReport| p.name == port.name && p.ifindex == port.ifindex;
            let was = earlier.and_then(|b| b.ports.iter().find(same));
            rates.push(port_rates(clock, &bridge.name, was, port));
        }
    }
    rates
}

fn port_rates(clock: Clock, bridge: &str, was: Option<&PortReport>, port: &PortReport) -> PortRates {
    let rates = PortRates {
        bridge: bridge.to_owned(),
        name: port.name.clone(),
        link: port.link.clone(),
        hook: super::super::show::hook(port),
        ..PortRates::default()
    };
    let Some(was) = was else { return rates };
    let (b, n) = (&was.counters, &port.counters);
    PortRates {
        rx_packets: clock.rate(b.rx_packets, n.rx_packets),
        rx_bits: clock.rate(b.rx_bytes, n.rx_bytes) * 8.0,
        tx_packets: clock.rate(b.tx_packets, n.tx_packets),
        tx_bits: clock.rate(b.tx_bytes, n.tx_bytes) * 8.0,
        upcalls: clock.rate(b.upcalls, n.upcalls),
        upcalls_refused: clock.rate(b.upcalls_limited, n.upcalls_limited)
            + clock.rate(b.upcalls_queue_full, n.upcalls_queue_full),
        dropped: clock.rate(super::super::show::dropped(was), super::super::show::dropped(port)),
        ..rates
    }
}

fn drops(clock: Clock, before: &TopReport, now: &TopReport) -> Vec<DropRate> {
    let rate = |reason: &str, packets| {
        let was = before.drops.reasons.iter().find(|r| r.reason == reason);
        was.map_or(0.0, |was| clock.rate(was.packets, packets))
    };
    now.drops
        .reasons
        .iter()
        .map(|drop| DropRate {
            reason: drop.reason.clone(),
            packets: drop.packets,
            packets_per_s: rate(&drop.reason, drop.packets),
        })
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::control::report::{BridgeReport, CacheReport, DropReport, PortCountersReport, UpcallReport};

    /// Totals of a small switch at a time, `n` thousand packets after its start.
    pub fn totals(at_ms: u64, n: u64) -> TopReport {
        let port = |name: &str, ifindex| PortReport {
            name: name.into(),
            ifindex,
            link: "up".into(),
            hook: "xdp".into(),
            mode: "native".into(),
            counters: PortCountersReport {
                rx_packets: 1000 * n,
                rx_bytes: 64_000 * n,
                tx_packets: 500 * n,
                tx_bytes: 750_000 * n,
                upcalls: 4 * n,
                upcalls_limited: 2 * n,
                datapath_dropped: 2 * n,
                policy_dropped: n,
                ..PortCountersReport::default()
            },
            ..PortReport::default()
        };
        let mut report = TopReport { at_ms, ..TopReport::default() };
        report.show.version = "0.1.0".into();
        report.show.pid = 42;
        report.show.uptime_s = at_ms / 1000;
        report.show.flows = 12;
        report.show.flow_limit = 114_688;
        report.show.masks = 3;
        report.show.caches = CacheReport {
            exact_match_hits: 900 * n,
            megaflow_hits: 96 * n,
            misses: 4 * n,
            masks_tried: 150 * n,
            ..CacheReport::default()
        };
        report.show.upcalls =
            UpcallReport { received: 4 * n, flows_installed: 3 * n, joined: n, ..UpcallReport::default() };
        report.show.bridges = vec![BridgeReport {
            name: "br0".into(),
            ports: vec![port("eth1", 7), port("tap0", 8)],
            ..BridgeReport::default()
        }];
        let drop =
            |reason: &str, packets| DropReport { reason: reason.into(), packets, meaning: String::new() };
        report.drops.reasons = vec![drop("policy", 2 * n), drop("no_port", 0)];
        report
    }

    #[test]
    fn rates() {
        let sample = Sample::between(&totals(10_000, 10), totals(12_000, 14));
        assert_eq!(sample.interval_s, 2.0);
        assert_eq!(
            sample.lookups,
            LookupRates {
                exact_match_hits: 1800.0,
                megaflow_hits: 192.0,
                misses: 8.0,
                masks_per_lookup: 1.5,
                ..LookupRates::default()
            }
        );
        assert_eq!(sample.all_lookups(), 2000.0);
        assert_eq!(
            (sample.upcalls.received, sample.upcalls.flows_installed, sample.upcalls.joined),
            (8.0, 6.0, 2.0)
        );
        assert_eq!(
            sample.ports[0],
            PortRates {
                bridge: "br0".into(),
                name: "eth1".into(),
                link: "up".into(),
                hook: "xdp native".into(),
                rx_packets: 2000.0,
                rx_bits: 1_024_000.0,
                tx_packets: 1000.0,
                tx_bits: 12_000_000.0,
                upcalls: 8.0,
                upcalls_refused: 4.0,
                dropped: 6.0,
            }
        );
        assert_eq!(
            sample.drops,
            [
                DropRate { reason: "policy".into(), packets: 28, packets_per_s: 4.0 },
                DropRate { reason: "no_port".into(), packets: 0, packets_per_s: 0.0 },
            ]
        );
    }

    #[test]
    fn counters_that_start_anew_have_no_rate() {
        let restarted = Sample::between(&totals(10_000, 10), totals(11_000, 1));
        assert_eq!(restarted.all_lookups(), 0.0);
        let mut now = totals(11_000, 12);
        now.show.bridges[0].ports[0].ifindex = 99;
        let replaced = Sample::between(&totals(10_000, 10), now);
        assert_eq!((replaced.ports[0].rx_packets, replaced.ports[1].rx_packets), (0.0, 2000.0));
        let no_time = Sample::between(&totals(10_000, 10), totals(10_000, 12));
        assert_eq!((no_time.interval_s, no_time.all_lookups()), (0.0, 0.0));
    }
}
