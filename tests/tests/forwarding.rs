//! Hosts on one bridge, with real traffic: what must arrive arrives unchanged, and nowhere else.

use std::time::Duration;

use switch_tests::lab::{FrameSocket, Host, Namespace, Switch, build};
use switch_tests::need_lab;

const BROADCAST: [u8; 6] = [0xff; 6];
const SHORT: Duration = Duration::from_millis(400);

/// Three hosts on a bridge, TC hook.
fn three() -> (Namespace, [Host; 3], Switch) {
    let ns = Namespace::new("sw");
    let hosts = [1, 2, 3].map(|n| Host::new(&ns, n));
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2", "--port", "p3"]);
    (ns, hosts, switch)
}

#[test]
fn ping_and_tcp_with_offloads() {
    need_lab!();
    let (_ns, [a, b, c], switch) = three();
    assert!(a.pings("10.0.0.2"), "IPv4\n{}", switch.ask(&["show"]));
    assert!(b.pings("10.0.0.3"));
    assert!(a.pings("fd00::2"), "IPv6");
    a.tcp_to(&b, "10.0.0.2", 64 << 20).expect("TCP over IPv4");
    b.tcp_to(&a, "10.0.0.1", 16 << 20).expect("and back");
    c.tcp_to(&b, "fd00::2", 16 << 20).expect("TCP over IPv6");
    let flows = switch.json(&["flows"]);
    let flows = flows["flows"].as_array().cloned().unwrap_or_default();
    let tcp = flows.iter().find(|f| f["packets"].as_u64() > Some(100)).unwrap_or_else(|| panic!("{flows:?}"));
    // The pipeline has one rule, and NORMAL looks at no layer-3 field: the megaflow is as wide as that.
    assert!(!tcp["key"].as_str().unwrap_or_default().contains("src=10."), "{tcp}");
    assert!(tcp["rules"][0]["text"].as_str().unwrap_or_default().contains("NORMAL"), "{tcp}");
}

#[test]
fn large_datagrams_in_fragments() {
    need_lab!();
    let (_ns, [a, _b, _c], _switch) = three();
    assert!(a.ping_with("10.0.0.2", &["-c", "3", "-i", "0.2", "-W", "1", "-s", "8000"]), "IPv4");
    assert!(a.ping_with("fd00::2", &["-c", "3", "-i", "0.2", "-W", "1", "-s", "8000"]), "IPv6");
}

#[test]
fn jumbo_frames() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, b] = [1, 2].map(|n| Host::with_mtu(&ns, n, 9000));
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2"]);
    // The first one goes through userspace, unfragmented.
    assert!(a.ping_with("10.0.0.2", &["-c", "3", "-i", "0.2", "-W", "1", "-M", "do", "-s", "8900"]));
    a.tcp_to(&b, "10.0.0.2", 64 << 20).expect("TCP");
    drop(switch);
}

#[test]
fn frames_longer_than_the_output_mtu_are_dropped_and_counted() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, b] = [Host::with_mtu(&ns, 1, 9000), Host::with_mtu(&ns, 2, 1500)];
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2"]);
    assert!(a.pings("10.0.0.2"));
    assert!(!a.ping_with("10.0.0.2", &["-c", "2", "-i", "0.2", "-W", "1", "-M", "do", "-s", "4000"]));
    assert!(switch.drops("mtu") >= 1, "{}", switch.ask(&["drops"]));
    drop(b);
}

#[test]
fn flood_reaches_everybody_once_and_unicast_one() {
    need_lab!();
    let (_ns, [a, b, c], switch) = three();
    let [sa, sb, sc] = [&a, &b, &c].map(FrameSocket::open);
    let mark = |f: &[u8]| f.len() > 50 && f.ends_with(b"flood-test");
    let payload = [&[0u8; 40][..], b"flood-test"].concat();
    let unknown = [2, 0, 0, 0, 9, 9];
    for (round, dst) in [BROADCAST, unknown, [0x33, 0x33, 0, 0, 0, 9]].into_iter().enumerate() {
        // The first goes up, the second hits the flow.
        for _ in 0..2 {
            sa.send(&build::ethernet(dst, a.mac, 0x88b6, &payload));
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(sb.collect(SHORT, mark).frames.len(), 2, "round {round}");
        assert_eq!(sc.collect(SHORT, mark).frames.len(), 2, "round {round}");
        assert_eq!(sa.collect(SHORT, mark).frames.len(), 0, "round {round}: back to the sender");
    }
    // b answers, and from now on is known: c hears nothing of what is for b.
    sb.send(&build::ethernet(a.mac, b.mac, 0x88b6, &payload));
    assert_eq!(sa.collect(SHORT, mark).frames.len(), 1);
    for _ in 0..3 {
        sa.send(&build::ethernet(b.mac, a.mac, 0x88b6, &payload));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(sb.collect(SHORT, mark).frames.len(), 3);
    assert_eq!(sc.collect(SHORT, mark).frames.len(), 0, "{}", switch.ask(&["flows"]));
}

#[test]
fn a_mac_that_moves_is_followed() {
    need_lab!();
    let (_ns, [a, b, c], switch) = three();
    let [sa, sb, sc] = [&a, &b, &c].map(FrameSocket::open);
    let roaming = [2, 0, 0, 0, 7, 7];
    let mark = |f: &[u8]| f.len() > 50 && f.ends_with(b"roaming");
    let payload = [&[0u8; 40][..], b"roaming"].concat();
    let announce = |s: &FrameSocket| s.send(&build::ethernet(BROADCAST, roaming, 0x88b7, &[0; 46]));
    for (here, there, port) in [(&sb, &sc, "p2"), (&sc, &sb, "p3"), (&sb, &sc, "p2")] {
        announce(here);
        switch.wait("the move in the MAC table", |s| {
            let fdb = s.json(&["fdb"]);
            let entries = fdb["entries"].as_array().cloned().unwrap_or_default();
            entries.iter().any(|e| e["mac"] == "02:00:00:00:07:07" && e["port"] == port)
        });
        std::thread::sleep(Duration::from_millis(200));
        for _ in 0..5 {
            sa.send(&build::ethernet(roaming, a.mac, 0x88b7, &payload));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(here.collect(SHORT, mark).frames.len(), 5, "now at {port}\n{}", switch.ask(&["flows"]));
        assert_eq!(there.collect(SHORT, mark).frames.len(), 0, "no longer at {port}");
    }
}

#[test]
fn reserved_multicast_stays_here() {
    need_lab!();
    let (_ns, [a, b, _c], switch) = three();
    let [sa, sb] = [&a, &b].map(FrameSocket::open);
    let mark = |f: &[u8]| f[..5] == [1, 0x80, 0xc2, 0, 0];
    for last in [0, 2, 3, 0x0e] {
        sa.send(&build::ethernet([1, 0x80, 0xc2, 0, 0, last], a.mac, 0x88cc, &[0; 46]));
    }
    assert_eq!(sb.collect(SHORT, mark).frames.len(), 0);
    sa.send(&build::ethernet([1, 0x80, 0xc2, 0, 0, 0x10], a.mac, 0x88cc, &[0; 46]));
    assert_eq!(sb.collect(SHORT, mark).frames.len(), 1, "01:80:c2:00:00:10 is not reserved");
    assert!(switch.drops("reserved_multicast") >= 1, "{}", switch.ask(&["drops"]));
}

#[test]
fn damaged_frames_are_counted_and_harm_nobody() {
    need_lab!();
    let (_ns, [a, b, _c], switch) = three();
    let sa = FrameSocket::open(&a);
    let good = build::udp(b.mac, a.mac, ([10, 0, 0, 1], [10, 0, 0, 2]), (1, 2), &[7; 30]);
    for cut in 14..good.len() {
        sa.send(&good[..cut]);
    }
    let mut odd = good.clone();
    for (offset, value) in [(14, 0x4f), (14, 0x41), (14, 0x65), (17, 0xff), (20, 0x3f), (23, 0x84)] {
        odd[offset] = value;
        sa.send(&odd);
    }
    // A deterministic storm of nonsense.
    let mut state = 1u64;
    for _ in 0..2000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut f = good.clone();
        let at = 12 + (state >> 33) as usize % (f.len() - 12);
        f[at] = (state >> 17) as u8;
        sa.send(&f);
    }
    assert!(a.pings("10.0.0.2"));
    let show = switch.json(&["show"]);
    assert!(show["caches"]["malformed"].as_u64() > Some(0), "{show}");
}

#[test]
fn trace_says_what_a_packet_would_do() {
    need_lab!();
    let (_ns, [a, b, _c], switch) = three();
    assert!(a.pings("10.0.0.2"));
    let frame = build::udp(b.mac, a.mac, ([10, 0, 0, 1], [10, 0, 0, 2]), (1, 2), &[7; 30]);
    let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
    let trace = switch.json(&["trace-packet", "p1", "--packet", &hex]);
    assert_eq!(trace["actions_named"], "p2", "{trace}");
    let before = switch.json(&["fdb"])["entries"].as_array().map(Vec::len);
    let flow = "in_port(p1),eth(src=02:00:00:00:00:aa,dst=02:00:00:00:00:02),eth_type(0x0800)";
    let trace = switch.ask(&["trace-packet", "p1", "--flow", flow]);
    assert!(trace.contains("NORMAL"), "{trace}");
    assert_eq!(switch.json(&["fdb"])["entries"].as_array().map(Vec::len), before, "tracing teaches nothing");
}
