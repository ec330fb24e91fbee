//! A hundred thousand flows: not one packet goes to a wrong port.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use switch_tests::lab::{FrameSocket, Host, Namespace, Switch, build};
use switch_tests::need_lab;

const FLOWS: u32 = 100_000;
const HOSTS: usize = 4;

/// The destination MAC of flow `i`: it belongs to host `i % (HOSTS - 1) + 1`.
fn station(i: u32) -> [u8; 6] {
    let b = i.to_be_bytes();
    [2, 0x10, b[0], b[1], b[2], b[3]]
}

#[test]
fn a_hundred_thousand_flows() {
    need_lab!();
    let ns = Namespace::new("sw");
    let hosts: Vec<Host> = (1..=HOSTS as u8).map(|n| Host::new(&ns, n)).collect();
    let args: Vec<String> = hosts.iter().flat_map(|h| ["--port".to_owned(), h.port.clone()]).collect();
    let mut all =
        vec!["--bridge", "br0", "--mac-limit", "200000", "--max-flows", "300000", "--max-idle", "60000", "--upcall-rate", "0"];
    all.extend(args.iter().map(String::as_str));
    let switch = Switch::start(&ns, &all);
    for h in &hosts {
        h.ns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    }
    let sockets: Vec<FrameSocket> = hosts.iter().map(FrameSocket::open).collect();
    let owner = |i: u32| 1 + i as usize % (HOSTS - 1);
    let key = |f: &[u8]| u32::from_be_bytes([f[2], f[3], f[4], f[5]]);

    // Every station says where it is, to one address that host 0 has: so nothing is flooded.
    for i in 0..FLOWS {
        let f = build::ethernet(hosts[0].mac, station(i), 0x88b6, &[0; 46]);
        sockets[owner(i)].send(&f);
        if i % 64 == 0 {
            std::thread::sleep(Duration::from_micros(800));
        }
    }
    switch.wait("all stations learnt", |s| {
        s.json(&["show"])["bridges"][0]["mac_entries"].as_u64() >= Some(u64::from(FLOWS))
    });
    while sockets[0].receive(Duration::from_millis(200)).is_some() {}

    // One frame to each, twice: through userspace, then through the flow. Receivers count.
    let counters: Vec<_> = sockets
        .into_iter()
        .skip(1)
        .enumerate()
        .map(|(n, socket)| {
            std::thread::spawn(move || {
                let mut got: HashMap<u32, u32> = HashMap::new();
                let mut wrong = 0;
                let end = Instant::now() + Duration::from_secs(90);
                while Instant::now() < end {
                    match socket.receive(Duration::from_secs(6)) {
                        Some(f) if f.len() >= 60 && f[..2] == [2, 0x10] && f[12..14] == [0x88, 0xb7] => {
                            let i = key(&f);
                            if 1 + i as usize % (HOSTS - 1) == n + 1 {
                                *got.entry(i).or_default() += 1;
                            } else {
                                wrong += 1;
                            }
                        }
                        Some(_) => {}
                        None => break,
                    }
                }
                (got, wrong)
            })
        })
        .collect();
    let sender = FrameSocket::open(&hosts[0]);
    for _ in 0..2 {
        for i in 0..FLOWS {
            sender.send(&build::ethernet(station(i), hosts[0].mac, 0x88b7, &[0; 46]));
            if i % 64 == 0 {
                std::thread::sleep(Duration::from_micros(800));
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let flows = switch.json(&["show"])["flows"].as_u64().unwrap_or(0);
    let results: Vec<_> = counters.into_iter().map(|c| c.join().expect("receiver")).collect();
    let wrong: u32 = results.iter().map(|(_, w)| w).sum();
    assert_eq!(wrong, 0, "packets at a port that they were not for");
    let reached: usize = results.iter().map(|(got, _)| got.len()).sum();
    let frames: u32 = results.iter().flat_map(|(got, _)| got.values()).sum();
    assert_eq!(reached, FLOWS as usize, "stations reached; flows {flows}\n{}", switch.ask(&["drops"]));
    assert!(results.iter().all(|(got, _)| got.values().all(|n| *n <= 2)), "a frame came twice");
    assert!(frames as f64 > 1.99 * f64::from(FLOWS), "{frames} frames\n{}", switch.ask(&["drops"]));
    assert!(flows >= u64::from(FLOWS), "{flows} flows");
}
