//! Both datapaths side by side, with the same ports and flows.

use std::sync::Arc;
use std::time::Duration;

use switch_common::counter::Drop as DropReason;
use switch_common::key::{FlowKey, FlowMask};
use switch_common::parse::{PacketMeta, parse_frame};
use switch_common::program;
use switch_datapath::attach::PortRequest;
use switch_datapath::prog_run::{ProgRun, RunAs};
use switch_datapath::{EbpfDatapath, Hook, Options, PortSettings};
use switch_dpif::action::{DpAction, DpPort};
use switch_dpif::datapath::{Datapath, FlowId};
use switch_dpif::userspace::{self, PortConfig, Sink, UserspaceDatapath};
use switch_tests::lab::FrameSocket;
use switch_tests::sandbox::{self, ip, veth};

pub const TC_PORT: u16 = 1;
pub const XDP_PORT: u16 = 2;
/// Ports that packets leave through, as at TC and, if their devices can, as XDP redirects.
pub const OUT: [u16; 2] = [3, 4];
/// A port that is down.
pub const DOWN: u16 = 5;

const XDP_PASS: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
const XDP_REDIRECT: u32 = 4;

/// What came out, or why nothing did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Port and frame, in order.
    pub out: Vec<(u16, Vec<u8>)>,
    pub dropped: Vec<DropReason>,
}

impl Sink for Outcome {
    fn output(&mut self, port: DpPort, frame: &[u8], _key: &FlowKey) {
        self.out.push((port.0, frame.to_vec()));
    }

    fn upcall(&mut self, _reason: u8, _cookie: u64, _frame: &[u8], _key: &FlowKey) {}

    fn random(&mut self) -> u32 {
        0
    }
}

/// The result of a test run: the frame as the program left it.
pub struct Ran {
    /// The program asked for a redirect.
    pub redirected: bool,
    /// XDP left the packet to TC.
    pub passed: bool,
    pub frame: Vec<u8>,
    pub dropped: Vec<DropReason>,
}

pub struct Bench {
    pub kernel: EbpfDatapath,
    pub userspace: UserspaceDatapath,
    /// Interface indices of the first two ports.
    ifindex: [u32; 2],
    /// The far ends of all ports.
    far: Vec<FrameSocket>,
    installed: Vec<(FlowId, FlowId)>,
}

impl Bench {
    /// `None`, with the reason on standard error, where there can be no eBPF datapath.
    pub fn new(name: &str, xdp_output: bool) -> Option<Bench> {
        if let Err(reason) = sandbox::enter() {
            eprintln!("skipped: {reason}");
            return None;
        }
        // Hosts' own neighbour discovery would be among the packets.
        for which in ["all", "default"] {
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
        }
        let instance = format!("table-{name}-{}", std::process::id());
        let options = Options { instance, flows: 4096, full_flows: 1024, ..Options::default() };
        let kernel = match EbpfDatapath::create(&options) {
            Ok(kernel) => kernel,
            Err(error) => {
                eprintln!("skipped: {error}");
                return None;
            }
        };
        let clock = Arc::new(|| 1_000_000_000_000);
        let userspace = UserspaceDatapath::new(userspace::Options { flows: 4096, vlan_limit: 2, clock });
        let mut bench = Bench { kernel, userspace, ifindex: [0; 2], far: Vec::new(), installed: Vec::new() };
        for port in 1..=5 {
            bench.add_port(port, xdp_output);
        }
        Some(bench)
    }

    fn add_port(&mut self, port: u16, xdp_output: bool) {
        let (near, far) = (format!("v{port}"), format!("w{port}"));
        let (ifindex, _) = veth(&near, &far);
        for device in [&near, &far] {
            ip(&format!("link set {device} promisc on"));
            // A veth takes frames from an XDP redirect only if its peer polls, which GRO makes it do.
            let _ = std::process::Command::new("ethtool").args(["-K", device, "gro", "on"]).output();
        }
        let hook = if port == XDP_PORT { Hook::Xdp { generic: false } } else { Hook::Tc };
        let settings = PortSettings {
            mtu: 1500,
            up: port != DOWN,
            upcalls: false,
            xdp_output: xdp_output && OUT.contains(&port),
            upcall_queue: 1,
        };
        let request = PortRequest { port: DpPort(port), ifindex, name: &near, hook, settings };
        self.kernel.attach_port(&request).expect("attach a veth");
        let config = PortConfig { mtu: settings.mtu, up: settings.up, upcalls: false };
        self.userspace.add_port(DpPort(port), config).expect("add a port");
        self.far.push(FrameSocket::on(&far).expect("packet socket"));
        if let Some(place) = self.ifindex.get_mut(usize::from(port) - 1) {
            *place = ifindex;
        }
    }

    /// Changes an output port's MTU.
    pub fn set_mtu(&self, port: u16, mtu: u32, xdp_output: bool) {
        let settings = PortSettings { mtu, up: true, upcalls: false, xdp_output, upcall_queue: 1 };
        self.kernel.update_port(DpPort(port), settings).expect("update a port");
        let config = PortConfig { mtu, up: true, upcalls: false };
        self.userspace.update_port(DpPort(port), config).expect("update a port");
    }

    /// Installs a flow in both datapaths. False if the eBPF one says that userspace must do it.
    pub fn put(&mut self, key: &FlowKey, mask: &FlowMask, actions: &[DpAction]) -> bool {
        let mut mask = *mask;
        mask.unite(&FlowMask::floor());
        mask.restrict(key.kind());
        let kernel = self.kernel.put_flow(key, &mask, actions).expect("put a flow");
        let userspace = self.userspace.put_flow(key, &mask, actions).expect("put a flow");
        self.installed.push((kernel, userspace));
        self.kernel.flow(kernel).is_some_and(|f| !f.slow_path)
    }

    /// Installs the flow of exactly this frame.
    pub fn put_exact(&mut self, port: u16, frame: &[u8], actions: &[DpAction]) -> bool {
        let (key, _) = parse_frame(frame, &meta(port)).expect("not a runt");
        self.put(&key, &FlowMask::EXACT, actions)
    }

    /// Removes all flows.
    pub fn clear(&mut self) {
        for (kernel, userspace) in self.installed.drain(..) {
            self.kernel.remove_flow(kernel).expect("remove a flow");
            self.userspace.remove_flow(userspace).expect("remove a flow");
        }
        if self.kernel.in_limbo() > 1000 {
            self.kernel.reap();
            self.userspace.reap();
        }
    }

    fn drops(&self, datapath: &dyn Datapath) -> Vec<u64> {
        DropReason::ALL.iter().map(|d| datapath.drops(*d)).collect()
    }

    /// The reasons counted since `before`, each as often as it was.
    fn drops_since(&self, datapath: &dyn Datapath, before: &[u64]) -> Vec<DropReason> {
        let mut reasons = Vec::new();
        for ((reason, before), after) in DropReason::ALL.iter().zip(before).zip(self.drops(datapath)) {
            reasons.extend(std::iter::repeat_n(*reason, (after - before) as usize));
        }
        reasons
    }

    /// Through the userspace datapath.
    pub fn in_userspace(&self, port: u16, frame: &[u8]) -> Outcome {
        let before = self.drops(&self.userspace);
        let mut outcome = Outcome::default();
        self.userspace.process(DpPort(port), frame, &meta(port), &mut outcome);
        outcome.dropped = self.drops_since(&self.userspace, &before);
        outcome
    }

    /// One test run of the program that has this port's hook; `None` for a frame that the kernel does not take
    /// for a test run (an IP packet without a whole header).
    pub fn test_run(&self, port: u16, frame: &[u8]) -> Option<Ran> {
        let before = self.drops(&self.kernel);
        let (run_as, name, ifindex) = match port {
            XDP_PORT => (RunAs::Xdp, program::XDP, self.ifindex[1]),
            _ => (RunAs::Tc, program::TC, self.ifindex[0]),
        };
        let program = self.kernel.program(name).expect("program");
        let result = ProgRun::new(run_as, frame, ifindex).run(program).ok()?;
        let redirect = if run_as == RunAs::Xdp { XDP_REDIRECT } else { TC_ACT_REDIRECT };
        Some(Ran {
            redirected: result.verdict == redirect,
            passed: run_as == RunAs::Xdp && result.verdict == XDP_PASS,
            frame: result.packet,
            dropped: self.drops_since(&self.kernel, &before),
        })
    }

    /// Sends the frame from the far end of `port` and collects what arrives at those of the output ports:
    /// `expected` frames, or what comes until it is clear that no more does.
    pub fn on_the_wire(&self, port: u16, frame: &[u8], expected: usize) -> Outcome {
        const PATIENCE: Duration = Duration::from_secs(2);
        const QUIET: Duration = Duration::from_millis(2);
        let before = self.drops(&self.kernel);
        self.far[usize::from(port) - 1].send(frame);
        let mut out = Vec::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            for port in OUT {
                while let Some(frame) = self.far[usize::from(port) - 1].receive(QUIET) {
                    out.push((port, frame));
                }
            }
            let dropped = self.drops(&self.kernel) != before;
            if out.len() >= expected && (expected > 0 || dropped) {
                break;
            }
        }
        out.sort();
        Outcome { out, dropped: self.drops_since(&self.kernel, &before) }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = self.kernel.shut_down() {
            eprintln!("pins left over: {error}");
        }
    }
}

pub fn meta(port: u16) -> PacketMeta {
    PacketMeta { in_port: port, vlan_limit: 2, ..PacketMeta::default() }
}
