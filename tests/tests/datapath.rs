//! The eBPF datapath in the kernel: loading, attaching in every way, what is left behind when something fails, and
//! that the programs do what the flows say. No traffic: packets are given to the programs by test runs.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use switch_common::counter::{Counter, Drop};
use switch_common::flow::Handover;
use switch_common::key::{FlowKey, FlowMask};
use switch_common::parse::{PacketMeta, parse_frame};
use switch_common::program;
use switch_datapath::attach::PortRequest;
use switch_datapath::pins::PinError;
use switch_datapath::prog_run::{ProgRun, RunAs};
use switch_datapath::{AttachError, CreateError, EbpfDatapath, Hook, Options, PortSettings, TcMode, XdpMode};
use switch_dpif::action::{DpAction, DpPort, Layer, Set};
use switch_dpif::datapath::{Datapath, DatapathError};
use switch_tests::guest::{self, Guest, Initramfs, Kernel, Series};
use switch_tests::sandbox::{index, ip, veth};

const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

const BPFFS: &str = "/sys/fs/bpf";

/// A datapath with a name of its own, taken down at the end of the test, also of a failed one.
struct Lab {
    dp: EbpfDatapath,
    instance: String,
    /// End as a killed process does: descriptors close, nothing is taken down.
    killed: bool,
}

impl Lab {
    /// `None`: skip the test, for the reason that was printed.
    fn new(test: &str, change: impl FnOnce(&mut Options)) -> Option<Lab> {
        if let Err(reason) = switch_tests::sandbox::enter() {
            eprintln!("{test}: skipped: {reason}");
            return None;
        }
        let instance = format!("test-{}-{test}", std::process::id());
        let mut options =
            Options { instance: instance.clone(), flows: 1000, full_flows: 100, ..Options::default() };
        change(&mut options);
        match EbpfDatapath::create(&options) {
            Ok(dp) => Some(Lab { dp, instance, killed: false }),
            Err(CreateError::System(error)) => {
                eprintln!("{test}: skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("sluice").join(&self.instance)
    }

    fn attach(&self, port: u16, ifindex: u32, hook: Hook, xdp_output: bool) -> switch_datapath::PortStatus {
        self.dp.attach_port(&request(port, ifindex, hook, xdp_output)).unwrap()
    }

    fn run(&self, run_as: RunAs, packet: &[u8], ifindex: u32) -> (u32, Vec<u8>) {
        let name = if run_as == RunAs::Xdp { program::XDP } else { program::TC };
        let r = ProgRun::new(run_as, packet, ifindex).run(self.dp.program(name).unwrap()).unwrap();
        (r.verdict, r.packet)
    }
}

impl std::ops::Drop for Lab {
    fn drop(&mut self) {
        if self.killed {
            return;
        }
        if let Err(error) = self.dp.shut_down() {
            eprintln!("{}: {error}", self.instance);
        }
    }
}

fn settings(xdp_output: bool) -> PortSettings {
    PortSettings { mtu: 1500, up: true, upcalls: true, xdp_output, upcall_queue: 1 }
}

fn request(port: u16, ifindex: u32, hook: Hook, xdp_output: bool) -> PortRequest<'static> {
    PortRequest { port: DpPort(port), ifindex, name: "veth", hook, settings: settings(xdp_output) }
}

fn udp(dst_port: u16) -> Vec<u8> {
    let mut p = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 46];
    p.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    p.extend([0x12, 0x34]);
    p.extend(dst_port.to_be_bytes());
    p.extend([0, 26, 0, 0]);
    p.resize(60, 0);
    p
}

fn arp() -> Vec<u8> {
    let mut p = vec![0xff; 6];
    p.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
    p.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    p.resize(60, 0);
    p
}

fn key(packet: &[u8], in_port: u16) -> FlowKey {
    let meta = PacketMeta { in_port, vlan_limit: 2, ..PacketMeta::default() };
    parse_frame(packet, &meta).unwrap().0
}

fn exact(key: &FlowKey) -> FlowMask {
    let mut m = FlowMask::EXACT;
    m.restrict(key.kind());
    m
}

fn set_dst(mac: [u8; 6]) -> DpAction {
    let value = FlowKey { eth_dst: mac, ..FlowKey::ZERO };
    let mask = FlowMask(FlowKey { eth_dst: [0xff; 6], ..FlowKey::ZERO });
    DpAction::Set(Set::new(Layer::Ethernet, &value, &mask))
}

#[test]
fn pins_come_and_go() {
    let Some(lab) = Lab::new("pins", |_| {}) else { return };
    let pins = lab.pins();
    assert!(pins.join("maps/FLOWS").exists() && pins.join("programs/sluice_xdp").exists());
    let again = Options { instance: lab.instance.clone(), ..Options::default() };
    assert!(matches!(EbpfDatapath::create(&again), Err(CreateError::Pin(PinError::Leftovers(_)))));
    assert!(pins.join("maps/FLOWS").exists());
    lab.dp.shut_down().unwrap();
    assert!(!pins.exists());
}

#[test]
fn flows_decide() {
    let Some(lab) = Lab::new("flows", |o| o.flows = 3) else { return };
    let (a, b) = (veth("a0", "a1").0, veth("b0", "b1").0);
    lab.attach(1, a, Hook::Tc, false);
    lab.attach(2, b, Hook::Tc, false);
    let dp = &lab.dp;

    // Nothing to go up to: a miss is dropped, and counted.
    let packet = udp(5);
    assert_eq!(lab.run(RunAs::Tc, &packet, a).0, TC_ACT_SHOT);
    assert_eq!((dp.counter(Counter::Miss), dp.drops(Drop::UpcallFailed)), (1, 1));
    assert_eq!(dp.port_totals(DpPort(1)).dropped, 1);

    let k = key(&packet, 1);
    let id = dp.put_flow(&k, &exact(&k), &[DpAction::Output(DpPort(2))]).unwrap();
    for _ in 0..3 {
        assert_eq!(lab.run(RunAs::Tc, &packet, a).0, TC_ACT_REDIRECT);
    }
    assert_eq!((dp.counter(Counter::MegaflowHit), dp.counter(Counter::CacheHit)), (1, 2));
    let stats = dp.flow_stats(id).unwrap();
    assert_eq!((stats.packets, stats.bytes), (3, 180));
    assert!(dp.now_ms() - stats.used < 2000, "{} {}", dp.now_ms(), stats.used);
    assert_eq!(dp.lookup(&k), Some(id));

    // The same match again: the older flow is gone at once, also from the cache.
    let mac = [2, 9, 9, 9, 9, 9];
    let newer = dp.put_flow(&k, &exact(&k), &[set_dst(mac), DpAction::Output(DpPort(2))]).unwrap();
    let (verdict, out) = lab.run(RunAs::Tc, &packet, a);
    assert_eq!((verdict, &out[..6]), (TC_ACT_REDIRECT, &mac[..]));
    assert!(dp.flow(id).is_none() && dp.flow_stats(id).is_none() && dp.remove_flow(id).is_err());
    let reaped = dp.reap();
    assert_eq!((reaped.len(), reaped[0].id, reaped[0].stats.packets), (1, id, 3));

    // Dropped by policy, with its reason; a wider match of its own; a limit.
    let other = udp(6);
    let ko = key(&other, 1);
    dp.put_flow(&ko, &exact(&ko), &[]).unwrap();
    assert_eq!(lab.run(RunAs::Tc, &other, a).0, TC_ACT_SHOT);
    assert_eq!((dp.drops(Drop::Policy), dp.port_totals(DpPort(1)).policy_dropped), (1, 1));
    let arp = arp();
    let ka = key(&arp, 1);
    let flood = dp.put_flow(&ka, &FlowMask::floor(), &[DpAction::Output(DpPort(2))]).unwrap();
    assert_eq!(lab.run(RunAs::Tc, &arp, a).0, TC_ACT_REDIRECT);
    assert_eq!(dp.flow_stats(flood).unwrap().packets, 1);
    let last = key(&udp(7), 1);
    assert!(matches!(dp.put_flow(&last, &exact(&last), &[]), Err(DatapathError::FlowTableFull { limit: 3 })));
    assert_eq!((dp.flow_count(), dp.masks().len()), (3, 2));
    let mut dumped = Vec::new();
    dp.for_each_flow(&mut |f| dumped.push(f.id));
    assert_eq!(dumped.len(), 3);

    // Removed: the next packet misses, though the cache had it.
    assert_eq!(lab.run(RunAs::Tc, &packet, a).0, TC_ACT_REDIRECT);
    dp.remove_flow(newer).unwrap();
    assert_eq!(lab.run(RunAs::Tc, &packet, a).0, TC_ACT_SHOT);
    assert_eq!(dp.reap().len(), 1);
    assert!(dp.reap().is_empty());
    dp.sort_masks();
    assert_eq!(lab.run(RunAs::Tc, &other, a).0, TC_ACT_SHOT);
    assert_eq!(dp.drops(Drop::Policy), 2);
}

#[test]
fn slow_path_and_meters() {
    let Some(lab) = Lab::new("slow", |_| {}) else { return };
    let a = veth("a0", "a1").0;
    lab.attach(1, a, Hook::Tc, false);
    let k = key(&udp(5), 1);
    // Truncation for one of several outputs is not for the datapath.
    let list = [DpAction::Truncate(64), DpAction::Output(DpPort(1)), DpAction::Output(DpPort(1))];
    let id = lab.dp.put_flow(&k, &exact(&k), &list).unwrap();
    let dump = lab.dp.flow(id).unwrap();
    assert!(dump.slow_path && dump.actions == list);
    assert!(lab.dp.set_meter(5, true, 1000, 100).is_ok());
    assert!(lab.dp.set_meter(1 << 20, true, 1000, 100).is_err());
    assert!(lab.dp.set_upcall_limit(DpPort(1), 1000, 10).is_ok());
    assert!(matches!(lab.dp.set_upcall_limit(DpPort(2), 1, 1), Err(DatapathError::NoPort(2))));
}

#[test]
fn xdp_natively_and_what_it_hands_over() {
    let Some(lab) = Lab::new("xdp", |_| {}) else { return };
    let (a, b) = (veth("a0", "a1").0, veth("b0", "b1").0);
    let status = lab.attach(1, a, Hook::Xdp { generic: false }, true);
    assert_eq!((status.xdp, status.native_refused), (Some(XdpMode::Native), None));
    lab.attach(2, b, Hook::Xdp { generic: false }, true);
    let dp = &lab.dp;
    let packet = udp(5);
    assert_eq!(lab.run(RunAs::Xdp, &packet, a).0, XDP_PASS);

    let k = key(&packet, 1);
    dp.put_flow(&k, &exact(&k), &[DpAction::Output(DpPort(2))]).unwrap();
    assert_eq!(lab.run(RunAs::Xdp, &packet, a).0, XDP_REDIRECT);
    let mac = [2, 8, 8, 8, 8, 8];
    dp.put_flow(&k, &exact(&k), &[set_dst(mac), DpAction::Output(DpPort(2))]).unwrap();
    let (verdict, out) = lab.run(RunAs::Xdp, &packet, a);
    assert_eq!((verdict, &out[..6]), (XDP_REDIRECT, &mac[..]));

    // The port ceases to take XDP output: both forms go over TC, unchanged so far.
    dp.update_port(DpPort(2), settings(false)).unwrap();
    let (verdict, out) = lab.run(RunAs::Xdp, &packet, a);
    let (handover, frame) = out.split_at(size_of::<Handover>());
    assert_eq!((verdict, frame), (XDP_PASS, &packet[..]));
    assert_ne!(handover[..8], [0; 8]);
    assert_eq!(dp.counter(Counter::HandedOver), 1);
    dp.update_port(DpPort(2), settings(true)).unwrap();
    assert_eq!(lab.run(RunAs::Xdp, &packet, a).0, XDP_REDIRECT);

    dp.put_flow(&k, &exact(&k), &[]).unwrap();
    assert_eq!(lab.run(RunAs::Xdp, &packet, a).0, XDP_DROP);
    assert_eq!(dp.drops(Drop::Policy), 1);
    dp.detach_port(DpPort(1)).unwrap();
    assert!(!ip("-d link show a0").contains("prog/xdp"));
    assert!(matches!(dp.detach_port(DpPort(1)), Err(AttachError::NoPort(1))));
}

#[test]
fn generic_xdp_says_why() {
    let Some(lab) = Lab::new("generic", |_| {}) else { return };
    // The loopback device has no native XDP.
    let status = lab.attach(1, index("lo"), Hook::Xdp { generic: false }, false);
    assert_eq!(status.xdp, Some(XdpMode::Generic));
    assert!(status.native_refused.is_some_and(|r| !r.is_empty()));
    assert!(ip("link show lo").contains("xdpgeneric"));
    lab.dp.detach_port(DpPort(1)).unwrap();
    assert!(!ip("link show lo").contains("xdp"));
}

#[test]
fn clsact_filters() {
    let Some(lab) = Lab::new("clsact", |o| o.tc_mode = TcMode::Clsact) else { return };
    let a = veth("a0", "a1").0;
    let status = lab.attach(1, a, Hook::Tc, false);
    assert!(!status.tcx);
    let tc = |words: &str| {
        let out = std::process::Command::new("tc").args(words.split(' ')).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let shown = tc("filter show dev a0 ingress");
    assert!(
        shown.contains(&format!("sluice_tc:{}", lab.instance)) && shown.contains("direct-action"),
        "{shown}"
    );
    // Another instance cannot take the place, and leaves no traces.
    let options = Options {
        instance: format!("{}-other", lab.instance),
        flows: 10,
        tc_mode: TcMode::Clsact,
        ..Options::default()
    };
    let other = EbpfDatapath::create(&options).unwrap();
    assert!(matches!(other.attach_port(&request(1, a, Hook::Tc, false)), Err(AttachError::Link { .. })));
    other.shut_down().unwrap();
    assert!(tc("filter show dev a0 ingress").contains("sluice_tc"));
    lab.dp.detach_port(DpPort(1)).unwrap();
    assert!(!tc("filter show dev a0 ingress").contains("sluice_tc"));
}

#[test]
fn what_a_killed_daemon_left() {
    for tc_mode in [TcMode::Auto, TcMode::Clsact] {
        let mode = if tc_mode == TcMode::Auto { "tcx" } else { "clsact" };
        let Some(mut lab) = Lab::new(&format!("stale-{mode}"), |o| o.tc_mode = tc_mode) else { return };
        let a = veth("a0", "a1").0;
        lab.attach(1, a, Hook::Xdp { generic: false }, true);
        let k = key(&udp(5), 1);
        lab.dp.put_flow(&k, &exact(&k), &[]).unwrap();
        let program = lab.dp.program(program::XDP).unwrap().try_clone_to_owned().unwrap();
        let (instance, pins) = (lab.instance.clone(), lab.pins());
        lab.killed = true;
        std::mem::drop(lab);
        assert!(ip("link show a0").contains("xdp") && pins.exists());
        let packet = udp(5);
        let run = ProgRun::new(RunAs::Xdp, &packet, a).run(program.as_fd()).unwrap();
        assert_eq!(run.verdict, XDP_DROP);
        EbpfDatapath::remove_stale(Path::new(BPFFS), &instance).unwrap();
        assert!(!ip("link show a0").contains("xdp") && !pins.exists());
        let out = std::process::Command::new("tc").args(["filter", "show", "dev", "a0", "ingress"]).output();
        assert!(!String::from_utf8_lossy(&out.unwrap().stdout).contains("sluice"));
    }
}

#[test]
fn refusals_leave_nothing() {
    let Some(lab) = Lab::new("refusals", |_| {}) else { return };
    let a = veth("a0", "a1").0;
    let dp = &lab.dp;
    assert!(matches!(dp.attach_port(&request(0, a, Hook::Tc, false)), Err(AttachError::BadPort(0))));
    let gone = dp.attach_port(&request(1, 0x7fff_0000, Hook::Tc, false)).unwrap_err();
    assert!(gone.to_string().contains("gone"), "{gone}");
    lab.attach(1, a, Hook::Xdp { generic: false }, false);
    let twice = dp.attach_port(&request(2, a, Hook::Tc, false));
    assert!(matches!(twice, Err(AttachError::InterfaceTaken { port: 1, .. })));
    let b = veth("b0", "b1").0;
    assert!(matches!(dp.attach_port(&request(1, b, Hook::Tc, false)), Err(AttachError::PortTaken(1))));

    // Somebody else's XDP program stays, and our TC program goes again.
    let options = Options { instance: format!("{}-other", lab.instance), flows: 10, ..Options::default() };
    let other = EbpfDatapath::create(&options).unwrap();
    let busy = other.attach_port(&request(1, a, Hook::Xdp { generic: false }, false)).unwrap_err();
    assert!(busy.to_string().contains("another XDP program"), "{busy}");
    let links = std::fs::read_dir(format!("{BPFFS}/sluice/{}/links", options.instance)).unwrap();
    assert_eq!(links.count(), 0);
    other.shut_down().unwrap();
    assert!(ip("link show a0").contains("xdp"));

    // A device that vanishes while attached.
    ip("link del a0");
    dp.detach_port(DpPort(1)).unwrap();
    assert_eq!(std::fs::read_dir(lab.pins().join("links")).unwrap().count(), 0);
}

#[test]
fn upcall_pair() {
    let Some(lab) = Lab::new("upcall", |_| {}) else { return };
    let (up0, up1) = veth("up0", "up1");
    lab.dp.attach_upcall(up0, up1).unwrap();
    assert!(matches!(lab.dp.attach_upcall(up0, up1), Err(AttachError::UpcallTaken)));
    assert!(ip("link show up1").contains("xdp"));
    match lab.dp.attach_tracepoints() {
        Ok(()) => {}
        Err(reason) => assert!(reason.contains("trace"), "{reason}"),
    }
    lab.dp.shut_down().unwrap();
    assert!(!ip("link show up1").contains("xdp"));
}

/// Some of these tests on Debian 12's own kernel, in a guest: 6.1 has no tcx, and with the one CPU that a guest has,
/// grace periods are waited for by way of a map.
#[test]
fn on_the_oldest_kernel() {
    if let Some(why) = guest::missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let kernel = match Kernel::fetch(Series::V6_1) {
        Ok(kernel) => kernel,
        Err(error) => {
            eprintln!("skipped: {error:#}");
            return;
        }
    };
    let mut files = Initramfs::with_busybox().unwrap();
    files.program(&std::env::current_exe().unwrap(), "sbin/datapath").unwrap();
    for program in ["ip", "tc"] {
        let Some(path) = guest::find_program(program) else {
            eprintln!("skipped: {program} is not installed");
            return;
        };
        // Where the search path has it before busybox's own.
        files.program(&path, &format!("usr/sbin/{program}")).unwrap();
    }
    // Under emulation each load takes the verifier many seconds.
    let script = "/sbin/datapath --test-threads 1 --nocapture flows_decide xdp_natively 2>&1";
    let modules = ["veth", "sch_ingress", "cls_bpf"];
    let result = Guest::new(kernel, &modules, files, script).run(Duration::from_secs(420)).unwrap();
    assert_eq!(result.status, Some(0), "{}", result.console);
    let console = &result.console;
    assert!(console.contains("2 passed") && !console.contains("skipped"), "{console}");
}
