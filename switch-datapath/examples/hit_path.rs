//! What a hit costs: the programs run on packets again and again (`BPF_PROG_TEST_RUN`), beside a bare redirect.
//!
//! ```text
//! hit_path IN OUT BENCH_OBJECT [ROUNDS]
//! ```
//!
//! `IN` and `OUT` are two veth interfaces of the namespace in which this runs; they become ports for as long.
//! Prints a line for each way to hit: name, ns a packet, ns of the bare redirect, separated by tabs. Both are the
//! least of the rounds, in which all take turns: what else the machine does can only make a round slower.
//!
//! To a cache of exact matches, the same packet is a hit from the second time on. So megaflows are measured with a
//! program in front that makes each packet another flow's, in front of the bare redirect, too.

use std::error::Error;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::{Array, DevMap, ProgramArray};
use aya::programs::{ProgramFd, ProgramInfo, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use switch_common::key::{FlowKey, FlowMask};
use switch_common::parse::{PacketMeta, parse_frame};
use switch_common::program;
use switch_datapath::prog_run::{ProgRun, RunAs};
use switch_datapath::{EbpfDatapath, Hook, Options, PortRequest, PortSettings};
use switch_dpif::action::{DpAction, DpPort};
use switch_dpif::datapath::{Datapath, FlowId};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BPFFS: &str = "/sys/fs/bpf";
const IN: DpPort = DpPort(1);
const OUT: DpPort = DpPort(2);
const VLAN_LIMIT: u8 = 2;
/// Flows beside those that are hit.
const CROWD: u32 = 65_536;
/// Repetitions of one measurement: some ms.
const REPEAT: u32 = 100_000;
const ROUNDS: usize = 15;
/// Flows that varied packets are of: many more than a cache holds.
const VARIETY: u32 = 1 << 20;
/// Numbers of masks that a megaflow look-up has to get through.
const MASKS: [u32; 4] = [1, 8, 32, 64];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, object, rest @ ..] = &arguments[..] else {
        return Err("usage: hit_path IN OUT BENCH_OBJECT [ROUNDS]".into());
    };
    let rounds = rest.first().map_or(Ok(ROUNDS), |r| r.parse())?;
    let instance = format!("hit-path-{}", std::process::id());
    let options = Options {
        instance: instance.clone(),
        bpffs: BPFFS.into(),
        vlan_limit: VLAN_LIMIT,
        ..Options::default()
    };
    let datapath = EbpfDatapath::create(&options)?;
    let bench = Bench { datapath: &datapath, input: ifindex(input)?, output: ifindex(output)?, rounds };
    let measured = bench.run(Path::new(object), &instance);
    datapath.shut_down()?;
    for Measured { name, ns, bare } in measured? {
        println!("{name}\t{ns}\t{bare}");
    }
    Ok(())
}

struct Measured {
    name: String,
    ns: u32,
    bare: u32,
}

struct Bench<'a> {
    datapath: &'a EbpfDatapath,
    input: u32,
    output: u32,
    rounds: usize,
}

impl Bench<'_> {
    fn run(&self, object: &Path, instance: &str) -> Result<Vec<Measured>> {
        for (port, ifindex, name) in [(IN, self.input, "the input"), (OUT, self.output, "the output")] {
            let settings =
                PortSettings { mtu: 1500, up: true, upcalls: false, xdp_output: true, upcall_queue: 1 };
            let hook = Hook::Xdp { generic: false };
            self.datapath.attach_port(&PortRequest { port, ifindex, name, hook, settings })?;
        }
        let mut references = References::load(object, self.output)?;
        let pinned = Path::new(BPFFS).join("sluice").join(instance).join("programs").join(program::XDP);
        let switch = ProgramInfo::from_pin(pinned)?.fd()?;
        let mut measured = self.exact_matches(&references)?;
        for masks in MASKS {
            measured.push(self.megaflows(&mut references, &switch, masks)?);
        }
        Ok(measured)
    }

    /// Hits of the exact-match cache, on both hooks.
    fn exact_matches(&self, references: &References) -> Result<Vec<Measured>> {
        let program = |name| self.datapath.program(name).ok_or("a program is missing");
        let (xdp, tc) = (program(program::XDP)?, program(program::TC)?);
        let (mut ways, mut flows) = (Vec::new(), Vec::new());
        for (stack, packet) in stacks() {
            flows.push(self.put(&packet, &stations())?);
            for (hook, run_as, ours, bare) in
                [("XDP", RunAs::Xdp, xdp, &references.bare_xdp), ("TC", RunAs::Tc, tc, &references.bare_tc)]
            {
                let name = format!("exact match, {hook}, {stack}");
                ways.push((
                    Measured { name, ns: u32::MAX, bare: u32::MAX },
                    run_as,
                    packet.clone(),
                    ours,
                    bare.as_fd(),
                ));
            }
        }
        for _ in 0..self.rounds {
            for (measured, run_as, packet, ours, bare) in &mut ways {
                measured.bare = measured.bare.min(self.time(*bare, *run_as, packet)?);
                measured.ns = measured.ns.min(self.time(*ours, *run_as, packet)?);
            }
        }
        self.remove(&flows)?;
        Ok(ways.into_iter().map(|way| way.0).collect())
    }

    /// Hits of a megaflow whose mask is the last of so many, among a crowd of others.
    fn megaflows(&self, references: &mut References, switch: &ProgramFd, masks: u32) -> Result<Measured> {
        let packet = ipv4();
        let mut flows = Vec::new();
        for i in 0..if masks > 1 { CROWD } else { 0 } {
            // Addresses that no packet has, no two alike, under prefixes of different lengths.
            let (mut key, mut mask) = (parsed(&packet)?, stations());
            let number = i % (masks - 1);
            let (from, to) = (24 + number % 8, 24 + number / 8);
            mask.0.addr[0] = (u32::MAX << (32 - from)).to_be();
            mask.0.addr[1] = (u32::MAX << (32 - to)).to_be();
            key.addr[0] = (0xc000_0000 | i << 8).to_be();
            key.addr[1] = (0xc000_0000 | i << 8).to_be();
            flows.push(self.datapath.put_flow(&key, &mask, &[DpAction::Output(OUT)])?);
        }
        flows.push(self.put(&packet, &stations())?);
        let (mut ns, mut bare) = (u32::MAX, u32::MAX);
        for _ in 0..self.rounds {
            references.go_on_in(None)?;
            bare = bare.min(self.time(references.vary_xdp.as_fd(), RunAs::Xdp, &packet)?);
            references.go_on_in(Some(switch))?;
            ns = ns.min(self.time(references.vary_xdp.as_fd(), RunAs::Xdp, &packet)?);
        }
        let in_use = self.datapath.masks().len();
        if in_use != masks as usize {
            return Err(format!("{in_use} masks are in use instead of {masks}").into());
        }
        self.remove(&flows)?;
        Ok(Measured { name: format!("megaflow, XDP, IPv4/UDP, mask {masks} of {masks}"), ns, bare })
    }

    /// Removes flows, and the masks that they alone had.
    fn remove(&self, flows: &[FlowId]) -> Result<()> {
        for flow in flows {
            self.datapath.remove_flow(*flow)?;
        }
        self.datapath.reap();
        Ok(())
    }

    fn put(&self, packet: &[u8], mask: &FlowMask) -> Result<FlowId> {
        Ok(self.datapath.put_flow(&parsed(packet)?, mask, &[DpAction::Output(OUT)])?)
    }

    /// ns of one run. The first runs put the packet's flow into the cache.
    fn time(&self, program: BorrowedFd<'_>, run_as: RunAs, packet: &[u8]) -> Result<u32> {
        /// `XDP_REDIRECT` and `TC_ACT_REDIRECT`.
        const REDIRECT: [u32; 2] = [4, 7];
        let run = ProgRun { repeat: REPEAT, ..ProgRun::new(run_as, packet, self.input) };
        let outcome = run.run(program)?;
        if outcome.verdict != REDIRECT[usize::from(run_as == RunAs::Tc)] {
            return Err(format!("the verdict was {}, not a redirect", outcome.verdict).into());
        }
        Ok(outcome.ns)
    }
}

/// The programs to compare with.
struct References {
    ebpf: Ebpf,
    bare_xdp: OwnedFd,
    bare_tc: OwnedFd,
    vary_xdp: OwnedFd,
}

impl References {
    fn load(object: &Path, output: u32) -> Result<References> {
        let bytes = std::fs::read(object)?;
        let mut ebpf = EbpfLoader::new().override_global("BENCH_IFINDEX", &output, true).load(&bytes)?;
        let mut devices = DevMap::try_from(ebpf.map_mut("BENCH_TX").ok_or("no map BENCH_TX")?)?;
        devices.set(0, output, None, 0)?;
        let mut flows: Array<_, u32> =
            Array::try_from(ebpf.map_mut("BENCH_FLOWS").ok_or("no map BENCH_FLOWS")?)?;
        flows.set(0, VARIETY, 0)?;
        let bare_xdp = load_xdp(&mut ebpf, "bare_xdp")?;
        let vary_xdp = load_xdp(&mut ebpf, "vary_xdp")?;
        let tc: &mut SchedClassifier = ebpf.program_mut("bare_tc").ok_or("no program bare_tc")?.try_into()?;
        tc.load()?;
        let bare_tc = tc.fd()?.as_fd().try_clone_to_owned()?;
        Ok(References { ebpf, bare_xdp, bare_tc, vary_xdp })
    }

    /// Has `vary_xdp` go on in the switch, or in the bare redirect.
    fn go_on_in(&mut self, switch: Option<&ProgramFd>) -> Result<()> {
        let bare: &Xdp = self.ebpf.program("bare_xdp").ok_or("no program bare_xdp")?.try_into()?;
        let next = switch.map_or_else(|| bare.fd(), Ok)?.try_clone()?;
        let mut calls = ProgramArray::try_from(self.ebpf.map_mut("BENCH_CALL").ok_or("no map BENCH_CALL")?)?;
        Ok(calls.set(0, &next, 0)?)
    }
}

fn load_xdp(ebpf: &mut Ebpf, name: &str) -> Result<OwnedFd> {
    let program: &mut Xdp = ebpf.program_mut(name).ok_or_else(|| format!("no program {name}"))?.try_into()?;
    program.load()?;
    Ok(program.fd()?.as_fd().try_clone_to_owned()?)
}

/// The interface's number in this namespace.
fn ifindex(name: &str) -> Result<u32> {
    let c_name = CString::new(name)?;
    // SAFETY: the name is a C string that lives through the call.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(format!("no interface {name}: {}", std::io::Error::last_os_error()).into()),
        index => Ok(index),
    }
}

/// What a learning switch matches on: stations and tags.
fn stations() -> FlowMask {
    let mut mask = FlowMask::floor();
    mask.0.eth_dst = [0xff; 6];
    mask.0.eth_src = [0xff; 6];
    mask.0.vlan_tci = 0xffff;
    mask
}

fn parsed(packet: &[u8]) -> Result<FlowKey> {
    let meta = PacketMeta { in_port: IN.0, vlan_limit: VLAN_LIMIT, ..PacketMeta::default() };
    Ok(parse_frame(packet, &meta).ok_or("the packet has no headers")?.0)
}

/// The packets of which exact matches are measured.
fn stacks() -> [(&'static str, Vec<u8>); 4] {
    let tagged = |tags: [u8; 8]| {
        let mut packet = ipv4();
        packet.splice(12..12, tags);
        packet
    };
    [
        ("IPv4/UDP", ipv4()),
        ("IPv6/UDP", ipv6()),
        ("two VLANs", tagged([0x81, 0, 0, 10, 0x81, 0, 0, 20])),
        ("two VLANs, 802.1ad outside", tagged([0x88, 0xa8, 0, 10, 0x81, 0, 0, 20])),
    ]
}

fn ethernet(eth_type: u16) -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    packet.extend(eth_type.to_be_bytes());
    packet
}

fn udp(packet: &mut Vec<u8>, length: u16) {
    packet.extend(1024_u16.to_be_bytes());
    packet.extend(9_u16.to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.resize(packet.len() + usize::from(length) - 6, 0);
}

/// 64 bytes of IPv4/UDP.
fn ipv4() -> Vec<u8> {
    let mut packet = ethernet(0x0800);
    packet.extend([0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 0, 10, 2, 0, 1]);
    udp(&mut packet, 30);
    packet
}

/// 84 bytes of IPv6/UDP.
fn ipv6() -> Vec<u8> {
    let mut packet = ethernet(0x86dd);
    packet.extend([0x60, 0, 0, 0, 0, 30, 17, 64]);
    for station in [1, 2] {
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, station]);
    }
    udp(&mut packet, 30);
    packet
}
