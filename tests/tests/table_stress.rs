//! The flow table under fire: one thread installs, replaces and removes flows of several masks without pause, while
//! two threads, one on each CPU, look packets up through the real XDP and TC programs by test runs. Every answer is
//! compared with an oracle.
//!
//! Each packet belongs to one flow number, and each installation of a flow carries its number and a version in the
//! Ethernet address that it sets. The writer notes when a version begins and when the call that made it has
//! returned, so that a reader knows which versions were possible while it looked:
//! * an answer of another flow, or of a version that was over before the look-up began, is an error;
//! * a miss is an error, unless the flow was absent at some time during the look-up, or an entry of the hash table
//!   was moving.
//!
//! In the end every hit must stand in the statistics of some flow: a slot that was used again too early would lose
//! some.
//!
//! `SLUICE_STRESS_SECONDS` sets the duration (default 20).

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use switch_common::counter::{Counter, Drop as DropReason};
use switch_common::key::{FlowKey, FlowMask};
use switch_common::parse::{PacketMeta, parse_frame};
use switch_common::program;
use switch_datapath::attach::PortRequest;
use switch_datapath::prog_run::{ProgRun, RunAs};
use switch_datapath::{CreateError, EbpfDatapath, Hook, Options, PortSettings};
use switch_dpif::action::{DpAction, DpPort, Layer, Set};
use switch_dpif::datapath::{Datapath, DatapathError, FlowId};
use switch_tests::sandbox::{enter, veth};

const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// Flow numbers. At most this many flows are installed at a time.
const FLOWS: usize = 6000;
/// Those that half of all writes and look-ups go to, so that they meet.
const HOT: usize = 48;
/// Shapes of flows: each its own mask.
const SHAPES: usize = 11;
/// Header changes of a long list; XDP carries out lists of up to 128 records.
const LONG_LIST: usize = 100;
/// Packets of each flow that come again and again, so that the exact-match cache has them.
const REPEATED: usize = 3;
/// Versions of one flow that the oracle remembers.
const HISTORY: usize = 64;

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

    fn flow(&mut self) -> usize {
        if self.next() >> 63 == 0 { self.below(HOT) } else { self.below(FLOWS) }
    }
}

/// A packet of flow `n`: what its mask does not match is random.
fn packet(n: usize, rng: &mut Rng) -> Vec<u8> {
    let id = (n / SHAPES) as u16;
    let [hi, lo] = id.to_be_bytes();
    let r = rng.next().to_be_bytes();
    let mut src_mac = [2, r[0], r[1], r[2], r[3], r[4]];
    let dst_mac = [2, r[5], r[6], r[7], r[0], r[1]];
    match n % SHAPES {
        shape @ 0..=5 => {
            // IPv4/UDP. The TOS names the shape in every mask, so that no two shapes cover the same packet.
            let (mut src, mut dst) = ([10, r[2], r[3], r[4]], [10, r[5], r[6], r[7]]);
            let mut ports = [r[1], r[2], r[3], r[4]];
            match shape {
                0 => (src, dst, ports) = ([10, 1, hi, lo], [10, 2, lo, hi], [hi, lo, 1, 2]),
                1 => src = [10, 3, hi, lo],
                2 => dst = [hi, lo, 9, r[0]],
                3 => ports = [hi, lo, lo, hi],
                4 => src_mac = [2, 0, 0, 7, hi, lo],
                _ => (src, ports[2], ports[3]) = ([10, 77, r[0], r[1]], hi, lo),
            }
            let mut p = [&dst_mac[..], &src_mac, &[8, 0, 0x45, shape as u8 * 4 + 4, 0, 46]].concat();
            p.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            p.extend([src, dst, ports].concat());
            p.extend([0, 26, 0, 0]);
            p.resize(60, 0);
            p
        }
        shape @ 6..=8 => {
            // IPv6/UDP, the shape in the traffic class.
            let label = if shape == 8 { [0, hi, lo] } else { [r[0] & 15, r[1], r[2]] };
            let mut src = [r, r].concat();
            let mut dst = [r, r].concat();
            if shape == 6 {
                (src, dst) = (vec![0x20; 16], vec![0x30; 16]);
                src[14..].copy_from_slice(&[hi, lo]);
                dst[2..4].copy_from_slice(&[lo, hi]);
            } else if shape == 7 {
                dst[..8].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 7, hi, lo]);
            }
            let class = shape as u8;
            let mut p = [&dst_mac[..], &src_mac, &[0x86, 0xdd]].concat();
            p.extend([0x60 | class >> 4, class << 4 | label[0], label[1], label[2], 0, 16, 17, 64]);
            p.extend(src);
            p.extend(dst);
            p.extend([r[0], r[1], r[2], r[3], 0, 16, 0, 0]);
            p.extend([0; 8]);
            p
        }
        shape => {
            // ARP; the opcode names the shape.
            let mut spa = [10, r[0], r[1], r[2]];
            let mut sha = src_mac;
            if shape == 9 {
                spa = [10, 6, hi, lo];
            } else {
                sha = [2, 5, 5, 5, hi, lo];
            }
            let mut p = [&dst_mac[..], &src_mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, shape as u8 - 8]].concat();
            p.extend(sha);
            p.extend(spa);
            p.extend([0, 0, 0, 0, 0, 0, 10, r[3], r[4], r[5]]);
            p.resize(60, 0);
            p
        }
    }
}

fn mask(n: usize) -> FlowMask {
    let mut m = FlowMask::floor();
    let k = &mut m.0;
    let shape = n % SHAPES;
    if shape <= 8 {
        k.ip_tos = 0xff;
    } else {
        k.ip_proto = 0xff;
    }
    match shape {
        0 => (k.addr[0], k.addr[1], k.tp_src, k.tp_dst) = (!0, !0, !0, !0),
        1 => k.addr[0] = !0,
        2 => k.addr[1] = 0xffff_ff00u32.to_be(),
        3 => (k.tp_src, k.tp_dst) = (!0, !0),
        4 => k.eth_src = [0xff; 6],
        5 => (k.addr[0], k.tp_dst) = (0xffff_0000u32.to_be(), !0),
        6 => k.addr = [!0; 8],
        7 => (k.addr[4], k.addr[5]) = (!0, !0),
        8 => k.ipv6_label = 0xf_ffffu32.to_be(),
        9 => k.addr[0] = !0,
        _ => k.arp_sha = [0xff; 6],
    }
    m
}

fn key_of(packet: &[u8]) -> FlowKey {
    let meta = PacketMeta { in_port: 1, vlan_limit: 2, ..PacketMeta::default() };
    parse_frame(packet, &meta).unwrap().0
}

/// The address that version `v` of flow `n` sets.
fn identity(n: usize, v: u64) -> [u8; 6] {
    let (n, v) = ((n as u16).to_be_bytes(), (v as u32).to_be_bytes());
    [n[0], n[1], v[0], v[1], v[2], v[3]]
}

/// One version in 64 has a long list, so that programs are in it for microseconds: a list whose room is given
/// away too early shows as another flow's address.
fn actions(n: usize, v: u64) -> Vec<DpAction> {
    let value = FlowKey { eth_dst: identity(n, v), ..FlowKey::ZERO };
    let mask = FlowMask(FlowKey { eth_dst: [0xff; 6], ..FlowKey::ZERO });
    let set = DpAction::Set(Set::new(Layer::Ethernet, &value, &mask));
    let mut list = vec![set; if v.is_multiple_of(64) { LONG_LIST } else { 1 }];
    list.push(DpAction::Output(DpPort(2)));
    list
}

/// What the writer has done to one flow. Version 0 is "absent", from the beginning.
struct History {
    begun: AtomicU64,
    done: AtomicU64,
    present: [AtomicU8; HISTORY],
}

impl History {
    fn new() -> History {
        History { begun: 0.into(), done: 0.into(), present: std::array::from_fn(|_| 0.into()) }
    }

    fn begin(&self, present: bool) -> u64 {
        let v = self.begun.load(Ordering::Relaxed) + 1;
        self.present[v as usize % HISTORY].store(present.into(), Ordering::SeqCst);
        self.begun.store(v, Ordering::SeqCst);
        v
    }

    fn finish(&self, v: u64) {
        self.done.store(v, Ordering::SeqCst);
    }

    /// Version `v` did not come to be.
    fn cancel(&self, v: u64) {
        self.begun.store(v - 1, Ordering::SeqCst);
    }

    fn is_present(&self, v: u64) -> bool {
        self.present[v as usize % HISTORY].load(Ordering::SeqCst) != 0
    }

    /// Versions that were possible, or none if there were too many to remember.
    fn possible(&self, done_before: u64) -> Option<RangeInclusive<u64>> {
        let begun = self.begun.load(Ordering::SeqCst);
        (begun - done_before < HISTORY as u64 / 2).then_some(done_before..=begun)
    }
}

#[derive(Default, Debug)]
struct Seen {
    lookups: u64,
    hits: u64,
    misses: u64,
    /// Hits while the flow was being changed: the writer and a reader met.
    met: u64,
    /// Misses that only a moving entry explains.
    moving: u64,
    unknown: u64,
}

/// Flow number → the flow, and its version.
type Installed = HashMap<usize, (FlowId, u64)>;

#[derive(Default, Debug)]
struct Written {
    installed: u64,
    replaced: u64,
    removed: u64,
    /// The hash table had no room.
    refused: u64,
}

struct Stress {
    dp: EbpfDatapath,
    histories: Vec<History>,
    stop: AtomicBool,
    failed: AtomicBool,
    ifindex: u32,
}

impl Stress {
    fn reader(&self, cpu: usize) -> Result<Seen, String> {
        let mut set = CpuSet::new();
        set.set(cpu).map_err(|e| e.to_string())?;
        sched_setaffinity(Pid::from_raw(0), &set).map_err(|e| format!("CPU {cpu}: {e}"))?;
        let programs = [
            (RunAs::Xdp, self.dp.program(program::XDP).ok_or("no XDP program")?, XDP_REDIRECT, XDP_PASS),
            (RunAs::Tc, self.dp.program(program::TC).ok_or("no TC program")?, TC_ACT_REDIRECT, TC_ACT_SHOT),
        ];
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ (cpu as u64 + 1) << 20);
        let mut seen = Seen::default();
        let mut out = [0u8; 256];
        while !self.stop.load(Ordering::Relaxed) {
            let n = rng.flow();
            let variant = rng.below(REPEATED + 1) as u64;
            let frame = if variant < REPEATED as u64 {
                packet(n, &mut Rng((n as u64 + 1) << 8 | variant))
            } else {
                packet(n, &mut rng)
            };
            let (run_as, program, hit, miss) = programs[rng.below(2)];
            let history = &self.histories[n];
            let done = history.done.load(Ordering::SeqCst);
            let moved = self.dp.moved();
            let run = ProgRun::new(run_as, &frame, self.ifindex).run_into(program, &mut out);
            let (verdict, _, _) = run.map_err(|e| format!("test run: {e}"))?;
            let possible = history.possible(done);
            seen.lookups += 1;
            if verdict == hit {
                seen.hits += 1;
                let got = u64::from(u32::from_be_bytes([out[2], out[3], out[4], out[5]]));
                let Some(possible) = possible else {
                    seen.unknown += 1;
                    continue;
                };
                seen.met += u64::from(possible.start() != possible.end());
                let right =
                    out[..2] == identity(n, 0)[..2] && possible.contains(&got) && history.is_present(got);
                if !right {
                    return Err(format!(
                        "{run_as:?} on CPU {cpu}: flow {n} (shape {}) was answered {:?}, flow {} version {got}; \
                         possible were {possible:?}",
                        n % SHAPES,
                        &out[..6],
                        u16::from_be_bytes([out[0], out[1]]),
                    ));
                }
            } else if verdict == miss {
                seen.misses += 1;
                let Some(mut possible) = possible else {
                    seen.unknown += 1;
                    continue;
                };
                let shown = possible.clone();
                if possible.all(|v| history.is_present(v)) {
                    if self.dp.moved() == moved {
                        return Err(format!("{run_as:?} on CPU {cpu}: flow {n} missed; versions {shown:?}"));
                    }
                    seen.moving += 1;
                }
            } else {
                return Err(format!("{run_as:?} answered {verdict}"));
            }
        }
        Ok(seen)
    }

    /// Installs a flow, waiting for slots and lists that only wait for a grace period. `None` if the table has no
    /// room for it, which happens because it is made too small on purpose.
    fn put(&self, key: &FlowKey, mask: &FlowMask, n: usize, v: u64) -> Result<Option<FlowId>, String> {
        loop {
            match self.dp.put_flow(key, mask, &actions(n, v)) {
                Ok(id) => return Ok(Some(id)),
                Err(DatapathError::FlowTableFull { .. } | DatapathError::ActionsFull { .. }) => {
                    if self.dp.in_limbo() < 1000 || self.failed.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    std::thread::yield_now();
                }
                Err(e) => return Err(format!("installing flow {n}: {e}")),
            }
        }
    }

    /// Writes until the end; answers what it did and the flows that are installed then, with their versions.
    fn writer(&self, until: Instant) -> Result<(Written, Installed), String> {
        let mut rng = Rng(88172645463325252);
        let mut installed = Installed::new();
        let keys: Vec<(FlowKey, FlowMask)> =
            (0..FLOWS).map(|n| (key_of(&packet(n, &mut rng)), mask(n))).collect();
        let mut written = Written::default();
        while Instant::now() < until && !self.failed.load(Ordering::Relaxed) {
            for _ in 0..64 {
                let n = rng.flow();
                let history = &self.histories[n];
                let before = installed.get(&n).copied();
                if let (Some((id, _)), true) = (before, rng.next() >> 63 == 0) {
                    let v = history.begin(false);
                    self.dp.remove_flow(id).map_err(|e| format!("removing flow {n}: {e}"))?;
                    history.finish(v);
                    installed.remove(&n);
                    written.removed += 1;
                    continue;
                }
                let v = history.begin(true);
                let (key, mask) = &keys[n];
                match self.put(key, mask, n, v)? {
                    Some(id) => {
                        history.finish(v);
                        installed.insert(n, (id, v));
                        *(if before.is_some() { &mut written.replaced } else { &mut written.installed }) += 1;
                    }
                    None => {
                        history.cancel(v);
                        written.refused += 1;
                    }
                }
            }
        }
        Ok((written, installed))
    }
}

fn create(instance: &str) -> Option<EbpfDatapath> {
    let options = Options {
        instance: instance.to_owned(),
        flows: FLOWS as u32 + 16_384,
        full_flows: 8192,
        actions: 1 << 20,
        // Few, so that entries have to move all the time.
        buckets: 2048,
        ..Options::default()
    };
    match EbpfDatapath::create(&options) {
        Ok(dp) => Some(dp),
        Err(CreateError::System(error)) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

struct ShutDown<'a>(&'a EbpfDatapath);

impl Drop for ShutDown<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.shut_down() {
            eprintln!("{error}");
        }
    }
}

#[test]
fn every_answer_is_right() {
    if let Err(reason) = enter() {
        eprintln!("skipped: {reason}");
        return;
    }
    let Some(dp) = create(&format!("test-{}-stress", std::process::id())) else { return };
    let seconds = std::env::var("SLUICE_STRESS_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    let (a, b) = (veth("a0", "a1").0, veth("b0", "b1").0);
    let settings = PortSettings { mtu: 1500, up: true, upcalls: false, xdp_output: true, upcall_queue: 0 };
    let s = Stress {
        dp,
        histories: (0..FLOWS).map(|_| History::new()).collect(),
        stop: AtomicBool::new(false),
        failed: AtomicBool::new(false),
        ifindex: a,
    };
    let _end = ShutDown(&s.dp);
    for (port, ifindex) in [(1, a), (2, b)] {
        let hook = Hook::Xdp { generic: false };
        s.dp.attach_port(&PortRequest { port: DpPort(port), ifindex, name: "veth", hook, settings }).unwrap();
    }

    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get().min(2));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut counted = 0u64;
    let (written, seen) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|i| {
                let s = &s;
                scope.spawn(move || {
                    let result = s.reader(i % cpus);
                    s.failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    result
                })
            })
            .collect();
        let reaper = scope.spawn(|| {
            let mut packets = 0;
            let mut rounds = 0u32;
            while !s.stop.load(Ordering::Relaxed) {
                packets += s.dp.reap().iter().map(|r| r.stats.packets).sum::<u64>();
                rounds += 1;
                if rounds.is_multiple_of(16) {
                    s.dp.sort_masks();
                }
            }
            packets
        });
        let written = s.writer(until);
        s.stop.store(true, Ordering::Relaxed);
        let seen: Vec<_> = readers.into_iter().map(|r| r.join().unwrap()).collect();
        counted += reaper.join().unwrap();
        (written, seen)
    });
    let (writes, installed) = written.unwrap();
    let seen: Vec<Seen> = seen.into_iter().map(|r| r.unwrap()).collect();
    println!(
        "{writes:?}, {} entries moved, {} cache hits; readers: {seen:?}",
        s.dp.moved(),
        s.dp.counter(Counter::CacheHit),
    );

    // At rest, every flow is what the oracle says, for both programs.
    let mut rng = Rng(1);
    let mut hits: u64 = seen.iter().map(|s| s.hits).sum();
    for n in 0..FLOWS {
        let frame = packet(n, &mut rng);
        let expected = installed.get(&n);
        assert_eq!(s.dp.lookup(&key_of(&frame)), expected.map(|(id, _)| *id), "flow {n}");
        for (run_as, name) in [(RunAs::Xdp, program::XDP), (RunAs::Tc, program::TC)] {
            let r = ProgRun::new(run_as, &frame, a).run(s.dp.program(name).unwrap()).unwrap();
            let hit =
                matches!((run_as, r.verdict), (RunAs::Xdp, XDP_REDIRECT) | (RunAs::Tc, TC_ACT_REDIRECT));
            assert_eq!(hit, expected.is_some(), "flow {n}");
            if let Some((_, v)) = expected {
                assert_eq!(r.packet[..6], identity(n, *v), "flow {n}");
                hits += 1;
            }
        }
    }
    counted += s.dp.reap().iter().map(|r| r.stats.packets).sum::<u64>();
    assert_eq!(s.dp.in_limbo(), 0);
    s.dp.for_each_flow(&mut |f| counted += f.stats.packets);
    assert_eq!(counted, hits, "every hit is in some flow's statistics");
    assert_eq!(s.dp.flow_count(), installed.len());
    assert!(s.dp.counter(Counter::CacheHit) > hits / 20, "{}", s.dp.counter(Counter::CacheHit));
    for reason in [DropReason::ActionFailed, DropReason::Helper, DropReason::NoOutput, DropReason::Mtu] {
        assert_eq!(s.dp.drops(reason), 0, "{reason:?}");
    }
    assert!(writes.refused < writes.installed / 100, "{writes:?}");
    assert!(s.dp.moved() > 0 && seen.iter().all(|s| s.hits > 0 && s.misses > 0 && s.met > 0));
}
