//! A port that sends nothing but new flows does not take the miss path from the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use switch_tests::lab::{FrameSocket, Host, Namespace, Switch, build};
use switch_tests::need_lab;

#[test]
fn a_flood_of_new_flows_is_limited_and_others_go_on() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, b, c] = [1, 2, 3].map(|n| Host::new(&ns, n));
    let args = [
        "--bridge",
        "br0",
        "--port",
        "p1",
        "--port",
        "p2",
        "--port",
        "p3",
        "--upcall-rate",
        "2000",
        "--upcall-burst",
        "100",
    ];
    let switch = Switch::start(&ns, &args);
    let stop = Arc::new(AtomicBool::new(false));
    let flood = {
        let (socket, stop, mac) = (FrameSocket::open(&a), Arc::clone(&stop), a.mac);
        std::thread::spawn(move || {
            let mut i = 0u32;
            // Bounded, should the test fail before it says stop.
            while !stop.load(Ordering::Relaxed) && i < 20_000_000 {
                let n = i.to_be_bytes();
                socket.send(&build::ethernet(mac, [2, 0x20, n[0], n[1], n[2], n[3]], 0x88b6, &[0; 46]));
                i += 1;
                if i.is_multiple_of(256) {
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        })
    };
    switch.wait("misses over the limit", |s| s.drops("upcall_limit") > 1000);
    // New flows of other ports are still served.
    assert!(b.ping_with("10.0.0.3", &["-c", "5", "-i", "0.2", "-W", "2"]), "{}", switch.ask(&["show"]));
    c.tcp_to(&b, "10.0.0.2", 1 << 20).expect("TCP");
    stop.store(true, Ordering::Relaxed);
    flood.join().expect("flood");
    let show = switch.json(&["show"]);
    let ports = show["bridges"][0]["ports"].as_array().cloned().unwrap_or_default();
    let limited = |name: &str| {
        ports.iter().find(|p| p["name"] == name).and_then(|p| p["counters"]["upcalls_limited"].as_u64())
    };
    assert!(limited("p1") > Some(1000), "{show}");
    assert_eq!(limited("p2"), Some(0), "{show}");
}
