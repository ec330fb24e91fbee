//! `sluice show` over a fixed report.

use super::*;
use crate::control::report::{CacheReport, PortCountersReport, UpcallReport};

fn report() -> ShowReport {
    let internal = PortReport {
        name: "br0".into(),
        ofport: OFPP_LOCAL,
        dp_port: 1,
        kind: "internal".into(),
        vlan_mode: "access".into(),
        tag: Some(10),
        hook: "tc".into(),
        mode: "tcx".into(),
        hook_reason: "an internal port is a veth".into(),
        ifindex: 9,
        mtu: 1500,
        mac: "02:00:00:00:00:09".into(),
        link: "up".into(),
        ..PortReport::default()
    };
    let nic = PortReport {
        name: "eth1".into(),
        ofport: 1,
        dp_port: 2,
        kind: "system".into(),
        vlan_mode: "native-untagged".into(),
        tag: Some(1),
        trunks: vec![10, 11, 12, 20],
        hook: "xdp".into(),
        mode: "native".into(),
        link: "up".into(),
        mtu: 9000,
        counters: PortCountersReport {
            rx_packets: 1_234_567,
            rx_bytes: 79_012_288,
            tx_packets: 42,
            tx_bytes: 2688,
            upcalls_queue_full: 1,
            datapath_dropped: 3,
            policy_dropped: 5,
            ..PortCountersReport::default()
        },
        ..PortReport::default()
    };
    let missing = PortReport {
        name: "tap0".into(),
        ofport: 2,
        dp_port: 3,
        kind: "system".into(),
        vlan_mode: "trunk".into(),
        link: "missing".into(),
        error: Some("no such device; it is picked up when it appears".into()),
        ..PortReport::default()
    };
    ShowReport {
        version: "0.1.0".into(),
        pid: 4242,
        uptime_s: 3723,
        datapath: "ebpf".into(),
        instance: "abc234".into(),
        kernel: "6.1.0-37-amd64".into(),
        flows: 12,
        flow_limit: 114_688,
        masks: 3,
        bridges: vec![
            BridgeReport {
                name: "br0".into(),
                datapath_id: "0000020000000009".into(),
                fail_mode: "standalone".into(),
                mac_entries: 4,
                mac_limit: 8192,
                ports: vec![internal, nic, missing],
            },
            BridgeReport { name: "br1".into(), ..BridgeReport::default() },
        ],
        caches: CacheReport { exact_match_hits: 900, megaflow_hits: 96, misses: 4, ..CacheReport::default() },
        upcalls: UpcallReport {
            handlers: 2,
            received: 4,
            translated: 4,
            flows_installed: 3,
            joined: 1,
            revalidations: 7,
            flows_expired: 2,
            flows_corrected: 1,
            ..UpcallReport::default()
        },
        notes: vec!["tracefs is not mounted: drops in XDP transmit are not counted".into()],
    }
}

#[test]
fn the_whole_report() {
    assert_eq!(
        render(&report(), false, Paint::OFF),
        "\
sluice 0.1.0  pid 4242, up 1h 02m, datapath ebpf (abc234), kernel 6.1.0-37-amd64
flows    12 of 114688, 3 masks
lookups  900 exact match (90.0%), 96 megaflow (9.6%), 4 missed (0.4%)
upcalls  4 received, 4 translated, 3 flows installed, 1 joined, 0 failed, 2 handlers
upkeep   7 revalidations: 2 flows expired, 1 corrected, 0 removed

bridge br0  id 0000020000000009, fail mode standalone, 4 of 8192 addresses
  port     of  dp  link     hook        vlan                            mtu  rx packets  rx bytes  tx packets  tx bytes  dropped
  br0   LOCAL   1  up       tc tcx      access 10                      1500           0       0 B           0       0 B        0
  eth1      1   2  up       xdp native  native-untagged 1 of 10-12,20  9000     1234567  75.4 MiB          42   2.6 KiB        9
  tap0      2   3  missing  -           trunk                             0           0       0 B           0       0 B        0
      error: no such device; it is picked up when it appears

bridge br1  id , fail mode , 0 of 0 addresses
  port  of  dp  link  hook  vlan  mtu  rx packets  rx bytes  tx packets  tx bytes  dropped

note: tracefs is not mounted: drops in XDP transmit are not counted
"
    );
}

#[test]
fn more() {
    let text = render(&report(), true, Paint::OFF);
    for line in [
        "      internal, address 02:00:00:00:00:09, ifindex 9\n",
        "      hook: an internal port is a veth\n",
        "      misses: 0 sent up, 0 over the limit, 1 queue full; dropped in the datapath: 3, by policy: 5\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn json_is_the_report_itself() {
    let text = pretty(&report()).expect("written");
    let again: ShowReport = serde_json::from_str(&text).expect("read");
    assert_eq!(render(&again, true, Paint::OFF), render(&report(), true, Paint::OFF));
    assert!(text.ends_with("}\n"));
}
