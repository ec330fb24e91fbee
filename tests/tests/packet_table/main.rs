//! One table of packets, actions and what must come out, through the eBPF programs and through the userspace
//! datapath: on a wire of veth pairs, in test runs of the programs at both hooks, and, with random lists over
//! frames of every shape, whole or cut, the two datapaths against each other. The same on older kernels in guests.
//!
//! `SLUICE_TABLE_RUNS` sets the number of random lists.

mod bench;
mod cases;
mod frames;
mod guests;

use switch_common::counter::{Counter, Drop as DropReason};
use switch_common::key::{FlowKey, FlowMask};
use switch_common::parse::parse_frame;
use switch_dpif::action::{DpAction, Layer, Set};
use switch_dpif::datapath::Datapath;

use bench::{Bench, DOWN, OUT, Outcome, TC_PORT, XDP_PORT, meta};
use frames::{Ip4, tagged, tcp, udp};

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|b| format!("{b:02x}")).collect()
}

fn show(outcome: &Outcome) -> String {
    let out: Vec<String> =
        outcome.out.iter().map(|(port, frame)| format!("{port}: {}", hex(frame))).collect();
    format!("{:?} dropped {:?}", out, outcome.dropped)
}

/// Every case on the wire, from a TC port and from an XDP port, and in userspace. Without XDP output, what comes
/// in at an XDP port is handed over to TC.
fn table_on_the_wire(name: &str, xdp_output: bool) {
    let Some(mut bench) = Bench::new(name, xdp_output) else { return };
    let mut wrong = Vec::new();
    for case in cases::all() {
        let mut want = Outcome { out: case.out.clone(), dropped: case.dropped.clone() };
        want.out.sort();
        for port in [TC_PORT, XDP_PORT] {
            assert!(bench.put_exact(port, &case.frame, &case.actions), "{}: beyond the datapath", case.name);
            let mut userspace = bench.in_userspace(port, &case.frame);
            userspace.out.sort();
            let wire = bench.on_the_wire(port, &case.frame, want.out.len());
            for (which, got) in [("userspace", userspace), ("wire", wire)] {
                if got != want {
                    wrong.push(format!(
                        "{} from port {port}, {which}:\n  got  {}\n  want {}",
                        case.name,
                        show(&got),
                        show(&want)
                    ));
                }
            }
            bench.clear();
        }
    }
    let handed_over = bench.kernel.counter(Counter::HandedOver);
    assert!(handed_over > 0, "no packet was handed over");
    assert_eq!(bench.kernel.counter(Counter::HandoverStale), 0);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_table_with_xdp_output() {
    table_on_the_wire("xdp", true);
}

#[test]
fn the_table_with_hand_over() {
    table_on_the_wire("tc", false);
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn set(&mut self) -> DpAction {
        let layers: Vec<Layer> = Layer::ALL.into_iter().filter(|l| *l != Layer::Sctp).collect();
        let layer = layers[self.below(layers.len())];
        let mut value = FlowKey::ZERO;
        let mut mask = FlowMask::EXACT;
        value.words_mut().fill_with(|| self.next());
        if self.below(3) == 0 {
            mask.words_mut().fill_with(|| self.next());
            // What can only be set whole.
            mask.0.ip_proto = if self.below(2) == 0 { 0 } else { 0xff };
            mask.0.skb_priority = !0;
        }
        DpAction::Set(Set::new(layer, &value, &mask))
    }

    /// Changes and one output. `tags` is how many the frame has: a third one would hide the headers from the
    /// userspace datapath, which parses anew, but not from the programs, which know where they are.
    fn list(&mut self, mut tags: usize) -> Vec<DpAction> {
        let mut list = Vec::new();
        for _ in 0..1 + self.below(4) {
            match self.below(8) {
                0 if tags < 2 => {
                    let tpid = if self.below(2) == 0 { 0x8100 } else { 0x88a8 };
                    list.push(DpAction::PushVlan { tpid, tci: self.next() as u16 });
                    tags += 1;
                }
                1 => {
                    list.push(DpAction::PopVlan);
                    tags = tags.saturating_sub(1);
                }
                2 => list.push(DpAction::Set(Set::vlan(self.next() as u16))),
                // A tag beside the frame cannot be cut in two.
                3 => list.push(DpAction::Truncate(22 + self.below(60) as u32)),
                _ => list.push(self.set()),
            }
        }
        list.push(DpAction::output(OUT[0]));
        list
    }
}

/// At TC the outermost tag is beside the frame after a change of tags, where a test run does not show it.
fn same_frame(got: &[u8], want: &[u8], tag_beside: bool) -> bool {
    got == want
        || tag_beside
            && want.len() >= 18
            && got.len() + 4 == want.len()
            && got[..12] == want[..12]
            && got[12..] == want[16..]
}

fn changes_tags(list: &[DpAction]) -> bool {
    list.iter().any(|a| match a {
        DpAction::PushVlan { .. } | DpAction::PopVlan => true,
        DpAction::Set(set) => set.layer == Layer::Vlan,
        _ => false,
    })
}

/// Random lists over every frame: the programs' test runs must agree with the userspace datapath, and checksums
/// that were right must be right afterwards.
#[test]
fn random_lists_agree() {
    let runs_wanted =
        std::env::var("SLUICE_TABLE_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(12_000usize);
    let Some(mut bench) = Bench::new("random", true) else { return };
    let whole = frames::all().len();
    let all: Vec<(String, Vec<u8>)> = frames::all().into_iter().chain(frames::cut()).collect();
    let mut rng = Rng(0x0dd_ba11);
    let (mut runs, mut delivered, mut refused) = (0, 0, 0);
    for _ in 0..runs_wanted {
        let n = rng.below(all.len());
        let (name, frame) = &all[n];
        let tags = if name.contains("two tags") { 2 } else { usize::from(name.contains("one tag")) };
        let list = rng.list(tags);
        for port in [TC_PORT, XDP_PORT] {
            if !bench.put_exact(port, frame, &list) {
                bench.clear();
                continue;
            }
            let want = bench.in_userspace(port, frame);
            let Some(got) = bench.test_run(port, frame) else {
                refused += 1;
                bench.clear();
                continue;
            };
            bench.clear();
            runs += 1;
            if got.passed {
                // TC does these; the wire shows how.
                continue;
            }
            let context = || {
                format!(
                    "{name} from port {port}, {list:?}\n in   {}\n got  {} {:?}\n want {}",
                    hex(frame),
                    hex(&got.frame),
                    got.dropped,
                    show(&want)
                )
            };
            assert_eq!(got.dropped, want.dropped, "{}", context());
            match want.out.first() {
                None => assert!(!got.redirected, "{}", context()),
                Some((_, expected)) => {
                    delivered += 1;
                    let beside = port == TC_PORT && changes_tags(&list);
                    assert!(got.redirected && same_frame(&got.frame, expected, beside), "{}", context());
                    let cut_short = list.iter().any(|a| matches!(a, DpAction::Truncate(_)));
                    let icmp_made = list.iter().any(
                        |a| matches!(a, DpAction::Set(s) if matches!(s.layer, Layer::Icmp | Layer::Icmpv6)),
                    );
                    if n < whole && !cut_short && !(icmp_made && name.contains("fragment")) {
                        assert_eq!(frames::check(expected), Ok(()), "{}", context());
                    }
                }
            }
        }
    }
    eprintln!("{runs} runs, {delivered} delivered, {refused} frames that the kernel takes no test run of");
    assert!(runs > runs_wanted && delivered > runs_wanted / 6, "{runs} runs, {delivered} delivered");
}

#[test]
fn mtu_holds_with_and_without_a_tag() {
    let Some(mut bench) = Bench::new("mtu", true) else { return };
    let mut frame = Ip4::new(17, &udp(7, 9)).frame();
    frame.resize(14 + 200, 0);
    let with_tag = tagged(&frame, 0x8100, 5);
    let twice = tagged(&with_tag, 0x88a8, 6);
    for (mtu, frame, push, fits) in [
        (200, &frame, false, true),
        (199, &frame, false, false),
        (200, &with_tag, false, true),
        (199, &with_tag, false, false),
        (204, &twice, false, true),
        (203, &twice, false, false),
        (200, &frame, true, true),
        (199, &frame, true, false),
    ] {
        bench.set_mtu(OUT[0], mtu, true);
        let mut list = vec![DpAction::output(OUT[0])];
        if push {
            list.insert(0, DpAction::push_vlan(9));
        }
        for port in [TC_PORT, XDP_PORT] {
            assert!(bench.put_exact(port, frame, &list));
            let userspace = bench.in_userspace(port, frame);
            let wire = bench.on_the_wire(port, frame, usize::from(fits));
            let context = format!("mtu {mtu}, {} bytes, push {push}, from port {port}", frame.len());
            assert_eq!(show(&userspace), show(&wire), "{context}");
            assert_eq!(wire.out.len(), usize::from(fits), "{context}");
            let reasons: &[DropReason] = if fits { &[] } else { &[DropReason::Mtu] };
            assert_eq!(wire.dropped, reasons, "{context}");
            bench.clear();
        }
    }
}

#[test]
fn recirculation_looks_up_again_and_ends() {
    let Some(mut bench) = Bench::new("recirc", true) else { return };
    let packet = Ip4::new(6, &tcp(7, 9));
    let frame = packet.frame();
    let (key, _) = parse_frame(&frame, &meta(TC_PORT)).expect("parses");
    let mut floor = FlowMask::floor();
    floor.0.dp_hash = 0;

    // A change, and then a second flow that sees it.
    let ttl = Set::new(
        Layer::Ipv4,
        &FlowKey { ip_ttl: 9, ..FlowKey::ZERO },
        &FlowMask(FlowKey { ip_ttl: 0xff, ..FlowKey::ZERO }),
    );
    bench.put_exact(TC_PORT, &frame, &[DpAction::Set(ttl), DpAction::Recirculate(5)]);
    let mut second = key;
    second.set_recirc_id(5);
    second.ip_ttl = 9;
    let mut mask = floor;
    mask.0.ip_ttl = 0xff;
    bench.put(&second, &mask, &[DpAction::output(OUT[1])]);
    let want = Ip4 { ttl: 9, ..packet.clone() }.frame();
    let userspace = bench.in_userspace(TC_PORT, &frame);
    let wire = bench.on_the_wire(TC_PORT, &frame, 1);
    assert_eq!(userspace.out, [(OUT[1], want)]);
    assert_eq!(show(&wire), show(&userspace));
    bench.clear();

    // The hash decides between two ports, the same in both datapaths, and for both directions if it says so.
    for symmetric in [false, true] {
        let mut seen = [0, 0];
        for source in 1000..1040 {
            let mut frames = vec![Ip4::new(6, &tcp(source, 9))];
            if symmetric {
                let there = &frames[0];
                frames.push(Ip4 { src: there.dst, dst: there.src, ..Ip4::new(6, &tcp(9, source)) });
            }
            let mut ports = Vec::new();
            for packet in &frames {
                let frame = packet.frame();
                bench.put_exact(
                    TC_PORT,
                    &frame,
                    &[DpAction::Hash { basis: 77, symmetric }, DpAction::Recirculate(6)],
                );
                for (bit, port) in [(0, OUT[0]), (1, OUT[1])] {
                    let mut k = key;
                    k.set_recirc_id(6);
                    // Any hash makes the key a full one; this flow's is zero but for the bit.
                    k.dp_hash = bit;
                    k.set_kind(switch_common::key::Kind::Full);
                    let mut mask = floor;
                    mask.0.dp_hash = 1;
                    bench.put(&k, &mask, &[DpAction::output(port)]);
                }
                let userspace = bench.in_userspace(TC_PORT, &frame);
                let wire = bench.on_the_wire(TC_PORT, &frame, 1);
                assert_eq!(show(&wire), show(&userspace));
                assert_eq!(wire.out.len(), 1);
                ports.push(wire.out[0].0);
                bench.clear();
            }
            assert!(ports.windows(2).all(|p| p[0] == p[1]), "{ports:?}");
            seen[usize::from(ports[0] - OUT[0])] += 1;
        }
        assert!(seen[0] > 5 && seen[1] > 5, "{seen:?}");
    }

    // A flow that sends its packets back to itself.
    bench.put_exact(TC_PORT, &frame, &[DpAction::Recirculate(7)]);
    let mut again = key;
    again.set_recirc_id(7);
    bench.put(&again, &floor, &[DpAction::Recirculate(7)]);
    let userspace = bench.in_userspace(TC_PORT, &frame);
    let wire = bench.on_the_wire(TC_PORT, &frame, 0);
    assert_eq!(userspace.dropped, [DropReason::RecircLimit]);
    assert_eq!(show(&wire), show(&userspace));
}

/// A list as long as lists can be runs through many tail calls.
#[test]
fn a_long_list_is_carried_out_to_its_end() {
    let Some(mut bench) = Bench::new("long", true) else { return };
    let frame = Ip4::new(17, &udp(7, 9)).frame();
    for len in [127, 128, 129, 130, 256, 257, 1000, 4000] {
        let mut list = vec![DpAction::Meter(999); len - 1];
        list.push(DpAction::output(OUT[0]));
        for port in [TC_PORT, XDP_PORT] {
            bench.put_exact(port, &frame, &list);
            let wire = bench.on_the_wire(port, &frame, 1);
            assert_eq!(
                wire.out,
                [(OUT[0], frame.clone())],
                "{len} actions from port {port}: {:?}",
                wire.dropped
            );
            bench.clear();
        }
    }
    // Copies: each is counted where it cannot go.
    let mut list = vec![DpAction::output(DOWN); 300];
    list.push(DpAction::output(OUT[0]));
    bench.put_exact(TC_PORT, &frame, &list);
    let wire = bench.on_the_wire(TC_PORT, &frame, 1);
    assert_eq!(wire.out, [(OUT[0], frame)]);
    assert_eq!(wire.dropped.len(), 300);
}

#[test]
fn meters_limit() {
    let Some(mut bench) = Bench::new("meter", true) else { return };
    let frame = Ip4::new(17, &udp(7, 9)).frame();
    // Ten packets at once, and one more in a thousand seconds.
    bench.kernel.set_meter(3, false, 1, 10).expect("meter");
    bench.put_exact(TC_PORT, &frame, &[DpAction::Meter(3), DpAction::output(OUT[0])]);
    let mut passed = 0;
    for _ in 0..30 {
        let ran = bench.test_run(TC_PORT, &frame).expect("runs");
        if ran.redirected {
            passed += 1;
        } else {
            assert_eq!(ran.dropped, [DropReason::Meter]);
        }
    }
    assert!((10..=12).contains(&passed), "{passed}");
    // Bytes: five frames' worth.
    bench.kernel.set_meter(4, true, 1, 5 * frame.len() as u64).expect("meter");
    bench.clear();
    bench.put_exact(TC_PORT, &frame, &[DpAction::Meter(4), DpAction::output(OUT[0])]);
    let passed = (0..30).filter(|_| bench.test_run(TC_PORT, &frame).expect("runs").redirected).count();
    assert!((5..=6).contains(&passed), "{passed}");
}

/// Statistics count packets and bytes alike at both hooks and in userspace.
#[test]
fn statistics_agree() {
    let Some(bench) = Bench::new("stats", true) else { return };
    for (name, frame) in frames::all() {
        let mut totals = Vec::new();
        for port in [TC_PORT, XDP_PORT] {
            let (key, _) = parse_frame(&frame, &meta(port)).expect("parses");
            let mut mask = FlowMask::floor();
            mask.restrict(key.kind());
            let list = [DpAction::output(OUT[0])];
            let kernel = bench.kernel.put_flow(&key, &mask, &list).expect("put a flow");
            let userspace = bench.userspace.put_flow(&key, &mask, &list).expect("put a flow");
            for _ in 0..3 {
                bench.in_userspace(port, &frame);
                assert_eq!(bench.on_the_wire(port, &frame, 1).out.len(), 1, "{name}");
            }
            let (k, u) = (bench.kernel.flow_stats(kernel), bench.userspace.flow_stats(userspace));
            let (k, u) = (k.expect("stats"), u.expect("stats"));
            assert_eq!(
                (k.packets, k.bytes, k.tcp_flags),
                (u.packets, u.bytes, u.tcp_flags),
                "{name}, {port}"
            );
            assert!(k.used > 0, "{name}, {port}");
            totals.push((k.packets, k.bytes));
            bench.kernel.remove_flow(kernel).expect("remove");
            bench.userspace.remove_flow(userspace).expect("remove");
        }
        assert_eq!(totals[0], (3, 3 * frame.len() as u64), "{name}");
        assert_eq!(totals[0], totals[1], "{name}");
    }
}

/// What no flow covers is dropped under a reason, never passed to the host.
#[test]
fn every_drop_has_a_reason() {
    let Some(bench) = Bench::new("drops", true) else { return };
    let frame = Ip4::new(17, &udp(7, 9)).frame();
    let userspace = bench.in_userspace(TC_PORT, &frame);
    assert_eq!(userspace.dropped, [DropReason::UpcallFailed], "misses are switched off");
    for port in [TC_PORT, XDP_PORT] {
        let wire = bench.on_the_wire(port, &frame, 0);
        assert_eq!(show(&wire), show(&userspace), "from port {port}");
    }
    assert_eq!(bench.kernel.counter(Counter::Miss), 2);
    assert_eq!(bench.kernel.port_totals(switch_dpif::action::DpPort(TC_PORT)).dropped, 1);
}
