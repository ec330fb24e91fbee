//! Ports with the XDP hook, alone and beside ports with the TC hook.

use std::time::Duration;

use switch_tests::lab::{FrameSocket, Host, Namespace, Switch, build, run};
use switch_tests::need_lab;

const SHORT: Duration = Duration::from_millis(400);

fn hook_of(switch: &Switch, name: &str) -> String {
    let show = switch.json(&["show"]);
    let ports = show["bridges"][0]["ports"].as_array().cloned().unwrap_or_default();
    let port = ports.iter().find(|p| p["name"] == name).cloned().unwrap_or_default();
    format!("{} {}", port["hook"].as_str().unwrap_or_default(), port["mode"].as_str().unwrap_or_default())
}

/// Hosts whose interfaces run NAPI, as a veth must to take redirected frames.
fn hosts<const N: usize>(ns: &Namespace) -> [Host; N] {
    std::array::from_fn(|i| {
        let host = Host::new(ns, i as u8 + 1);
        run(host.ns.command("ethtool").args(["-K", "eth0", "gro", "on"]));
        host
    })
}

#[test]
fn ping_and_tcp_between_xdp_ports() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, b] = hosts(&ns);
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1,hook=xdp", "--port", "p2,hook=xdp"]);
    assert!(hook_of(&switch, "p1").starts_with("xdp native"), "{}", switch.ask(&["show"]));
    assert!(a.pings("10.0.0.2"), "{}", switch.ask(&["show"]));
    assert!(a.pings("fd00::2"));
    a.tcp_to(&b, "10.0.0.2", 16 << 20).expect("TCP");
    b.tcp_to(&a, "fd00::1", 16 << 20).expect("TCP over IPv6");
    let show = switch.json(&["show"]);
    let hits = show["caches"]["exact_match_hits"].as_u64().unwrap_or(0)
        + show["caches"]["megaflow_hits"].as_u64().unwrap_or(0);
    assert!(hits > 1000, "{show}");
    assert_eq!(switch.drops("xdp_transmit"), 0, "{}", switch.ask(&["drops"]));
}

#[test]
fn xdp_and_tc_ports_mix() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, b, c] = hosts(&ns);
    let switch = Switch::start(
        &ns,
        &["--bridge", "br0", "--port", "p1,hook=xdp", "--port", "p2", "--port", "p3,hook=xdp"],
    );
    for (from, address) in [(&a, "10.0.0.2"), (&b, "10.0.0.3"), (&c, "10.0.0.1")] {
        assert!(from.pings(address), "{address}\n{}", switch.ask(&["show"]));
    }
    a.tcp_to(&b, "10.0.0.2", 8 << 20).expect("XDP to TC");
    b.tcp_to(&a, "10.0.0.1", 8 << 20).expect("TC to XDP");
    assert!(a.ping_with("10.0.0.2", &["-c", "3", "-i", "0.2", "-W", "1", "-s", "8000"]), "fragments");
    let show = switch.json(&["show"]);
    assert!(show["caches"]["handed_over"].as_u64() > Some(0), "{show}");
}

#[test]
fn floods_and_vlans_over_xdp() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, b, c, d] = hosts(&ns);
    let args = [
        "--bridge",
        "br0",
        "--port",
        "p1,tag=10,hook=xdp",
        "--port",
        "p2,hook=xdp",
        "--port",
        "p3,tag=20,hook=xdp",
        "--port",
        "p4,tag=10,hook=xdp",
    ];
    let switch = Switch::start(&ns, &args);
    let [sa, sb, sc, sd] = [&a, &b, &c, &d].map(FrameSocket::open);
    let mark = |f: &[u8]| f.ends_with(b"xdp-vlan");
    let vid = |f: &[u8]| (f[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([f[14], f[15]]) & 0xfff);
    let frame = |dst, src| build::ethernet(dst, src, 0x88b6, &[&[0u8; 40][..], b"xdp-vlan"].concat());
    let catch = |s: &FrameSocket| -> Vec<Option<u16>> {
        s.collect(SHORT, mark).frames.iter().map(|f| vid(f)).collect()
    };
    // Broadcast in VLAN 10: through userspace, then through the flow.
    for _ in 0..3 {
        sa.send(&frame([0xff; 6], a.mac));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(catch(&sb), [Some(10); 3], "the trunk, tagged\n{}", switch.ask(&["flows"]));
    assert_eq!(catch(&sd), [None; 3], "the other access port");
    assert_eq!(catch(&sc), [], "VLAN 20");
    // Tagged into the trunk, to a station of VLAN 10: the tag is popped on the way.
    for _ in 0..3 {
        sb.send(&build::tagged(&frame(a.mac, b.mac), 0x8100, 10));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(catch(&sa), [None; 3], "{}", switch.ask(&["flows"]));
    assert_eq!(catch(&sd), []);
    // In VLAN 20 that station does not exist: flooded there, and nowhere else.
    for _ in 0..2 {
        sb.send(&build::tagged(&frame(a.mac, b.mac), 0x8100, 20));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(catch(&sc), [None; 2]);
    assert_eq!(catch(&sa), []);
    // Tagged into an access port: refused, also by XDP.
    sa.send(&build::tagged(&frame([0xff; 6], a.mac), 0x8100, 20));
    sa.send(&build::tagged(&frame([0xff; 6], a.mac), 0x8100, 20));
    for s in [&sb, &sc, &sd] {
        assert_eq!(catch(s), []);
    }
    assert!(switch.drops("vlan_filter") >= 2, "{}", switch.ask(&["drops"]));
}

#[test]
fn a_hidden_peer_makes_xdp_unsafe_and_the_port_says_so() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, _b] = hosts(&ns);
    // A tap with a vnet header brings partial checksums: XDP would spoil them.
    ns.ip(&["tuntap", "add", "tap9", "mode", "tap", "vnet_hdr"]);
    let switch =
        Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2", "--port", "tap9,hook=xdp"]);
    assert!(hook_of(&switch, "tap9").starts_with("tc"), "{}", switch.ask(&["show"]));
    let show = switch.json(&["show"]);
    let ports = show["bridges"][0]["ports"].as_array().cloned().unwrap_or_default();
    let reason =
        ports.iter().find(|p| p["name"] == "tap9").and_then(|p| p["hook_reason"].as_str()).unwrap_or("");
    assert!(reason.len() > 10, "{show}");
    assert!(a.pings("10.0.0.2"));
}
