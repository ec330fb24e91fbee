//! A hundred thousand flows: not one packet goes to a wrong port.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    let mut all = vec![
        "--bridge",
        "br0",
        "--mac-limit",
        "200000",
        "--max-flows",
        "300000",
        "--max-idle",
        "60000",
        "--upcall-rate",
        "0",
    ];
    all.extend(args.iter().map(String::as_str));
    let switch = Switch::start(&ns, &all);
    for h in &hosts {
        h.ns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    }
    let sockets: Vec<FrameSocket> = hosts.iter().map(FrameSocket::open).collect();
    let owner = |i: u32| 1 + i as usize % (HOSTS - 1);
    let key = |f: &[u8]| u32::from_be_bytes([f[2], f[3], f[4], f[5]]);

    // Every station says where it is, to one address that host 0 has: so nothing is flooded.
    // A busy machine may lose some of so many: those are said again.
    let learnt =
        |s: &Switch| s.json(&["show"])["bridges"][0]["mac_entries"].as_u64() >= Some(u64::from(FLOWS));
    for _ in 0..8 {
        for i in 0..FLOWS {
            let f = build::ethernet(hosts[0].mac, station(i), 0x88b6, &[0; 46]);
            sockets[owner(i)].send(&f);
            if i % 64 == 0 {
                std::thread::sleep(Duration::from_micros(800));
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        if learnt(&switch) {
            break;
        }
    }
    switch.wait("all stations learnt", learnt);
    while sockets[0].receive(Duration::from_millis(200)).is_some() {}

    // One frame to each, twice: through userspace, then through the flow; and again to those that a full backlog
    // of this machine has kept it from. Receivers count.
    let got = Arc::new(Mutex::new(HashMap::<u32, u32>::new()));
    let wrong = Arc::new(AtomicU32::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let receivers: Vec<_> = sockets
        .into_iter()
        .enumerate()
        .skip(1)
        .map(|(n, socket)| {
            let (got, wrong, done) = (Arc::clone(&got), Arc::clone(&wrong), Arc::clone(&done));
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let Some(f) = socket.receive(Duration::from_millis(200)) else { continue };
                    if f.len() < 60 || f[..2] != [2, 0x10] || f[12..14] != [0x88, 0xb7] {
                        continue;
                    }
                    if owner(key(&f)) == n {
                        *got.lock().expect("counts").entry(key(&f)).or_default() += 1;
                    } else {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let sender = FrameSocket::open(&hosts[0]);
    let mut rounds = 0;
    while rounds < 8 {
        let all = rounds < 2;
        let missing: Vec<u32> = {
            let got = got.lock().expect("counts");
            (0..FLOWS).filter(|i| all || !got.contains_key(i)).collect()
        };
        if missing.is_empty() {
            break;
        }
        rounds += 1;
        for (sent, i) in missing.iter().enumerate() {
            sender.send(&build::ethernet(station(*i), hosts[0].mac, 0x88b7, &[0; 46]));
            if sent % 64 == 0 {
                std::thread::sleep(Duration::from_micros(800));
            }
        }
        std::thread::sleep(Duration::from_millis(700));
    }
    let flows = switch.json(&["show"])["flows"].as_u64().unwrap_or(0);
    done.store(true, Ordering::Relaxed);
    for receiver in receivers {
        receiver.join().expect("receiver");
    }
    let got = got.lock().expect("counts");
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "packets at a port that they were not for");
    assert_eq!(got.len(), FLOWS as usize, "stations reached; flows {flows}\n{}", switch.ask(&["drops"]));
    assert!(got.values().all(|n| *n <= rounds), "a frame came twice");
    assert!(flows >= u64::from(FLOWS), "{flows} flows");
}
