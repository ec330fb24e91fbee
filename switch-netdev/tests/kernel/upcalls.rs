//! The upcall pair, and reception from it both ways.

use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use switch_netdev::packet_receiver::PacketReceiver;
use switch_netdev::{
    Ethtool, LinkError, Links, PacketOut, Receiver, Sent, UpcallPair, UpcallReceiver, UpcallSocket,
    XskOptions,
};

use crate::bpf::Attached;
use crate::support::{self, frame, number};

const TYPE: u16 = switch_common::upcall::UPCALL_ETH_TYPE;

fn small() -> XskOptions {
    XskOptions { frames: 2048, fill_ring: 2048, rx_ring: 1024, ..XskOptions::default() }
}

/// Takes frames until `count` came, or none for a second.
fn take(receiver: &mut dyn UpcallReceiver, count: usize, mut each: impl FnMut(&mut [u8])) -> usize {
    let mut taken = 0;
    while taken < count && receiver.wait(Duration::from_secs(1)).expect("wait") {
        taken += receiver.recv_batch(&mut each).expect("receive");
    }
    taken
}

#[test]
fn the_pair_is_ready_and_leaves_nothing() {
    let Some(ns) = support::namespace() else { return };
    ns.run(|| {
        let first = UpcallPair::create("abc234", 3, 1500).expect("create");
        assert_eq!((first.up0().name.as_str(), first.up1().name.as_str()), ("slu-abc2340", "slu-abc2341"));
        let old = first.up0().ifindex;
        std::mem::forget(first);
        let mut pair = UpcallPair::create("abc234", 3, 1500).expect("the stale one gives way");
        assert_ne!(pair.up0().ifindex, old);
        assert_eq!((pair.mtu(), pair.up0().mtu, pair.up1().mtu), (1564, 1564, 1564));
        assert_eq!((pair.up0().tx_queues, pair.up1().rx_queues), (3, 3));
        assert!(pair.up0().is_running() && pair.up1().is_running());
        let ethtool = Ethtool::open().expect("ethtool");
        assert!(!ethtool.is_active("slu-abc2340", "tx-checksumming").expect("read"));
        assert!(!ethtool.is_active("slu-abc2340", "tcp-segmentation-offload").expect("read"));
        assert!(ethtool.is_active("slu-abc2340", "tx-vlan-offload").expect("read"));
        assert!(!ethtool.is_active("slu-abc2341", "generic-receive-offload").expect("read"));
        pair.set_port_mtu(9000).expect("larger");
        pair.set_port_mtu(1500).expect("not smaller");
        let links = Links::open().expect("links");
        assert_eq!(links.by_name("slu-abc2341").expect("up1").mtu, 9064);
        pair.keep();
        drop(pair);
        assert!(UpcallPair::adopt("abc234", 2, 1500).expect("look").is_none(), "other queues");
        let pair = UpcallPair::adopt("abc234", 3, 1500).expect("look").expect("adopted");
        assert_eq!(pair.mtu(), 9064);
        drop(pair);
        assert!(matches!(links.by_name("slu-abc2340"), Err(LinkError::NotFound { .. })));
        assert!(UpcallPair::adopt("abc234", 3, 1500).expect("look").is_none());
        assert!(UpcallPair::create("../x", 1, 1500).is_err());
        assert!(UpcallPair::create("a", 0, 1500).is_err());
    })
    .expect("enter");
}

#[test]
fn frames_come_over_af_xdp() {
    let Some(ns) = support::namespace() else { return };
    ns.run(|| {
        let pair = UpcallPair::create("xsk", 1, 1500).expect("pair");
        let mut socket = UpcallSocket::open("slu-xsk1", 0, small()).expect("socket");
        let program = Attached::new(pair.up1().ifindex, true).expect("program");
        program.insert(0, socket.fd()).expect("into the map");
        let mut out = PacketOut::open().expect("output");
        let mut next = 0;
        // More than the rings hold, so that buffers go round.
        for round in 0..100 {
            for i in 0..100 {
                out.push(pair.up0().ifindex, &frame(TYPE, round * 100 + i, 64 + (i as usize) * 14));
            }
            assert!(out.flush().iter().all(|r| *r == Sent::Yes));
            let taken = take(&mut socket, 100, |f| {
                assert_eq!(f, frame(TYPE, next, 64 + (next as usize % 100) * 14));
                next += 1;
                // The bytes are the taker's to change.
                f[0] = 0xff;
            });
            assert_eq!(taken, 100, "{:?}", socket.statistics());
        }
        let statistics = socket.statistics();
        assert_eq!((statistics.frames, statistics.dropped, statistics.ring_full), (10_000, 0, 0));
        assert!(!socket.wait(Duration::from_millis(10)).expect("wait"), "nothing is left");
    })
    .expect("enter");
}

#[test]
fn jumbo_frames_come_whole() {
    let Some(ns) = support::namespace() else { return };
    ns.run(|| {
        let pair = UpcallPair::create("jumbo", 1, 9000).expect("pair");
        let mut receiver = Receiver::open("slu-jumbo1", 0, pair.mtu(), small()).expect("receiver");
        // Without multi-buffer the receiver is a packet socket, which needs no program.
        let program =
            receiver.as_dyn().is_xdp().then(|| Attached::new(pair.up1().ifindex, true).expect("program"));
        if let Some(program) = &program {
            program.insert(0, receiver.as_dyn().fd()).expect("into the map");
        }
        let mut out = PacketOut::open().expect("output");
        let sizes = [64usize, 9000, 1792, 1793, 3000, 64, 9078, 5000];
        for (i, size) in sizes.iter().enumerate() {
            out.push(pair.up0().ifindex, &frame(TYPE, i as u32, *size));
        }
        assert!(out.flush().iter().all(|r| *r == Sent::Yes));
        let mut next = 0;
        take(receiver.as_dyn(), sizes.len(), |f| {
            assert_eq!(f, frame(TYPE, next, sizes[next as usize]));
            next += 1;
        });
        assert_eq!(next as usize, sizes.len());
    })
    .expect("enter");
}

#[test]
fn a_full_ring_loses_frames_and_says_so() {
    let Some(ns) = support::namespace() else { return };
    ns.run(|| {
        let pair = UpcallPair::create("full", 1, 1500).expect("pair");
        let options = XskOptions { frames: 64, fill_ring: 64, rx_ring: 64, ..XskOptions::default() };
        let mut socket = UpcallSocket::open("slu-full1", 0, options).expect("socket");
        let program = Attached::new(pair.up1().ifindex, true).expect("program");
        program.insert(0, socket.fd()).expect("into the map");
        let mut out = PacketOut::open().expect("output");
        for round in 0..3 {
            for i in 0..500 {
                out.push(pair.up0().ifindex, &frame(TYPE, i, 64));
            }
            out.flush();
            let taken = take(&mut socket, 500, |_| {});
            assert!((64..500).contains(&taken), "round {round}: {taken}");
        }
        let s = socket.statistics();
        assert!(s.ring_full + s.fill_ring_empty + s.dropped > 0, "{s:?}");
    })
    .expect("enter");
}

#[test]
fn a_busy_queue_is_waited_for() {
    let Some(ns) = support::namespace() else { return };
    ns.run(|| {
        let _pair = UpcallPair::create("busy", 1, 1500).expect("pair");
        let first = UpcallSocket::open("slu-busy1", 0, small()).expect("socket");
        let start = Instant::now();
        let error = UpcallSocket::open("slu-busy1", 0, small()).err().expect("it is taken").to_string();
        assert!(start.elapsed() >= Duration::from_secs(2) && start.elapsed() < Duration::from_secs(10));
        assert!(error.contains("slu-busy1"), "{error}");
        drop(first);
        UpcallSocket::open("slu-busy1", 0, small()).expect("free again");
        assert!(UpcallSocket::open("nosuch", 0, small()).is_err());
        assert!(UpcallSocket::open("slu-busy1", 0, XskOptions { fill_ring: 1000, ..small() }).is_err());
        assert!(UpcallSocket::open("slu-busy1", 0, XskOptions { frame_size: 3000, ..small() }).is_err());
    })
    .expect("enter");
}

/// Sends frames from one CPU after the other, whose number is the veth's queue, and returns how many of each queue
/// came to each receiver.
fn spread(
    pair: &UpcallPair,
    receivers: &mut [&mut dyn UpcallReceiver; 2],
    sizes: [usize; 2],
) -> [[u32; 2]; 2] {
    let mut out = PacketOut::open().expect("output");
    let own = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
    for cpu in 0..2usize {
        let mut one = CpuSet::new();
        one.set(cpu).expect("a CPU");
        sched_setaffinity(Pid::from_raw(0), &one).expect("two CPUs");
        for i in 0..100 {
            out.push(pair.up0().ifindex, &frame(TYPE, cpu as u32, sizes[i % 2]));
        }
        assert!(out.flush().iter().all(|r| *r == Sent::Yes));
    }
    sched_setaffinity(Pid::from_raw(0), &own).expect("as before");
    let mut seen = [[0; 2]; 2];
    for (receiver, seen) in receivers.iter_mut().zip(&mut seen) {
        while receiver.wait(Duration::from_millis(200)).expect("wait") {
            receiver
                .recv_batch(&mut |f| {
                    assert!(sizes.contains(&f.len()));
                    seen[number(f) as usize] += 1;
                })
                .expect("receive");
        }
    }
    seen
}

fn one_cpu() -> bool {
    let one = std::thread::available_parallelism().is_ok_and(|n| n.get() < 2);
    if one {
        eprintln!("skipped: needs two CPUs");
    }
    one
}

#[test]
fn each_queue_has_its_own_socket() {
    let Some(ns) = support::namespace() else { return };
    if one_cpu() {
        return;
    }
    ns.run(|| {
        let pair = UpcallPair::create("two", 2, 1500).expect("pair");
        let mut first = UpcallSocket::open("slu-two1", 0, small()).expect("socket");
        let mut second = UpcallSocket::open("slu-two1", 1, small()).expect("socket");
        let program = Attached::new(pair.up1().ifindex, true).expect("program");
        program.insert(0, first.fd()).expect("into the map");
        program.insert(1, second.fd()).expect("into the map");
        assert_eq!(spread(&pair, &mut [&mut first, &mut second], [64, 1500]), [[100, 0], [0, 100]]);
    })
    .expect("enter");
}

#[test]
fn jumbo_frames_come_over_packet_sockets_queue_by_queue() {
    let Some(ns) = support::namespace() else { return };
    if one_cpu() {
        return;
    }
    ns.run(|| {
        let pair = UpcallPair::create("pkt", 2, 9000).expect("pair");
        let mut first = PacketReceiver::open("slu-pkt1", 0, pair.mtu()).expect("receiver");
        let mut second = PacketReceiver::open("slu-pkt1", 1, pair.mtu()).expect("receiver");
        assert!(!first.is_xdp());
        assert_eq!(spread(&pair, &mut [&mut first, &mut second], [64, 9078]), [[100, 0], [0, 100]]);
        drop((first, second));
        // Under a program that passes them, frames keep their queues.
        let _program = Attached::passing(pair.up1().ifindex).expect("program");
        let mut first = PacketReceiver::open("slu-pkt1", 0, pair.mtu()).expect("receiver");
        let mut second = PacketReceiver::open("slu-pkt1", 1, pair.mtu()).expect("receiver");
        assert_eq!(spread(&pair, &mut [&mut first, &mut second], [64, 9078]), [[100, 0], [0, 100]]);
    })
    .expect("enter");
}
