//! VLAN isolation, with tags in the frame and beside it.

use std::time::Duration;

use switch_tests::lab::{FrameSocket, Host, Namespace, Switch, build};
use switch_tests::need_lab;

const SHORT: Duration = Duration::from_millis(300);
/// No tags.
const UNTAGGED: Vec<u16> = Vec::new();

fn marked(f: &[u8]) -> bool {
    f.ends_with(b"vlan-test")
}

fn frame(dst: [u8; 6], src: [u8; 6]) -> Vec<u8> {
    build::ethernet(dst, src, 0x88b6, &[&[0u8; 40][..], b"vlan-test"].concat())
}

/// The VLAN ids of the tags in a frame, outermost first.
fn vids(f: &[u8]) -> Vec<u16> {
    let mut out = Vec::new();
    let mut at = 12;
    while f.len() >= at + 4 && matches!(u16::from_be_bytes([f[at], f[at + 1]]), 0x8100 | 0x88a8) {
        out.push(u16::from_be_bytes([f[at + 2], f[at + 3]]) & 0xfff);
        at += 4;
    }
    out
}

#[test]
fn access_ports_are_isolated() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, b, c] = [1, 2, 3].map(|n| Host::new(&ns, n));
    let args = ["--bridge", "br0", "--port", "p1,tag=10", "--port", "p2,tag=10", "--port", "p3,tag=20"];
    let switch = Switch::start(&ns, &args);
    assert!(a.pings("10.0.0.2"));
    a.tcp_to(&b, "10.0.0.2", 8 << 20).expect("TCP inside VLAN 10");
    assert!(!a.pings("10.0.0.3"), "VLAN 10 to VLAN 20");
    assert!(!c.pings("10.0.0.1"), "and back");
    let fdb = switch.json(&["fdb"]);
    let vlan_of = |mac: &str| {
        let entries = fdb["entries"].as_array().cloned().unwrap_or_default();
        entries.iter().find(|e| e["mac"] == mac).and_then(|e| e["vlan"].as_u64())
    };
    assert_eq!(vlan_of("02:00:00:00:00:01"), Some(10), "{fdb}");
    assert_eq!(vlan_of("02:00:00:00:00:03"), Some(20), "{fdb}");
}

#[test]
fn tagged_frames_into_an_access_port_are_refused() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, b, c] = [1, 2, 3].map(|n| Host::new(&ns, n));
    let args = ["--bridge", "br0", "--port", "p1,tag=10", "--port", "p2,tag=10", "--port", "p3,tag=20"];
    let switch = Switch::start(&ns, &args);
    let [sa, sb, sc] = [&a, &b, &c].map(FrameSocket::open);
    for vid in [10, 20, 4095] {
        for _ in 0..2 {
            sa.send(&build::tagged(&frame([0xff; 6], a.mac), 0x8100, vid));
        }
    }
    assert_eq!(sb.collect(SHORT, marked).frames.len(), 0);
    assert_eq!(sc.collect(SHORT, marked).frames.len(), 0);
    assert!(switch.drops("vlan_filter") >= 1, "{}", switch.ask(&["drops"]));
    // A priority tag (VID 0) is the access VLAN's.
    sa.send(&build::tagged(&frame([0xff; 6], a.mac), 0x8100, 0xa000));
    let got = sb.collect(SHORT, marked).frames;
    assert_eq!(got.len(), 1);
    assert_eq!(sc.collect(SHORT, marked).frames.len(), 0);
}

#[test]
fn trunks_and_native_vlans() {
    need_lab!();
    let ns = Namespace::new("sw");
    let hosts = [1, 2, 3, 4, 5].map(|n| Host::new(&ns, n));
    let args = [
        "--bridge",
        "br0",
        "--port",
        "p1,tag=10",
        "--port",
        "p2,trunks=10+20",
        "--port",
        "p3,trunks=20",
        "--port",
        "p4,native=10,mode=native-untagged",
        "--port",
        "p5,native=10,mode=native-tagged",
    ];
    let _switch = Switch::start(&ns, &args);
    let sockets = hosts.each_ref().map(FrameSocket::open);
    let hears = |i: usize| -> Vec<Vec<u16>> {
        sockets[i].collect(SHORT, marked).frames.iter().map(|f| vids(f)).collect()
    };
    // From the access port in VLAN 10; twice, through userspace and through the flow.
    for _ in 0..2 {
        sockets[0].send(&frame([0xff; 6], hosts[0].mac));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(hears(1), [vec![10], vec![10]], "trunk");
    assert_eq!(hears(2), Vec::<Vec<u16>>::new(), "trunk without VLAN 10");
    assert_eq!(hears(3), [UNTAGGED, UNTAGGED], "native-untagged");
    assert_eq!(hears(4), [vec![10], vec![10]], "native-tagged");
    // From the trunk, in VLAN 20.
    for _ in 0..2 {
        sockets[1].send(&build::tagged(&frame([0xff; 6], hosts[1].mac), 0x8100, 20));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(hears(0), Vec::<Vec<u16>>::new(), "access port of VLAN 10");
    assert_eq!(hears(2), [vec![20], vec![20]]);
    assert_eq!(hears(3), [vec![20], vec![20]], "native ports are trunks of all other VLANs");
    // Untagged into the native ports: VLAN 10.
    sockets[3].send(&frame([0xff; 6], hosts[3].mac));
    assert_eq!(hears(0), [UNTAGGED]);
    assert_eq!(hears(1), [vec![10]]);
    assert_eq!(hears(2), Vec::<Vec<u16>>::new());
    // QinQ through a trunk: the inner tag travels along.
    let inner = build::tagged(&frame([0xff; 6], hosts[1].mac), 0x8100, 77);
    sockets[1].send(&build::tagged(&inner, 0x8100, 10));
    assert_eq!(hears(0), Vec::<Vec<u16>>::new(), "an access port carries no second tag, as in Open vSwitch");
    assert_eq!(hears(3), [vec![77]]);
    assert_eq!(hears(4).last(), Some(&vec![10, 77]));
}
