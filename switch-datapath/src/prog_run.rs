//! Running loaded programs on given packets, for tests and benchmarks: `BPF_PROG_TEST_RUN`
//! (the kernel's `Documentation/bpf/bpf_prog_run.rst`).
//!
//! Redirects are not carried out: the return value tells that there would have been one.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys;

/// Which program type, since each has its own context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunAs {
    Xdp,
    Tc,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct ProgRun<'a> {
    pub run_as: RunAs,
    /// A frame, from its Ethernet header on; at least 14 bytes.
    pub packet: &'a [u8],
    /// Interface that the packet comes in on; 0 for the loopback device. For XDP it must be a device with XDP
    /// queues, such as a veth that has a program.
    pub ifindex: u32,
    /// skb mark and priority; TC only.
    pub mark: u32,
    pub priority: u32,
    /// How often; the time is the average.
    pub repeat: u32,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgRunResult {
    /// An XDP or TC action code.
    pub verdict: u32,
    /// The packet as the last repetition left it.
    pub packet: Vec<u8>,
    /// ns of one repetition.
    pub ns: u32,
}

impl<'a> ProgRun<'a> {
    pub fn new(run_as: RunAs, packet: &'a [u8], ifindex: u32) -> ProgRun<'a> {
        ProgRun { run_as, packet, ifindex, mark: 0, priority: 0, repeat: 1 }
    }

    /// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    fn xdp_context(&self) -> Vec<u8> {
        let len = self.packet.len() as u32;
        [0, len, 0, self.ifindex, 0, 0].iter().flat_map(|w: &u32| w.to_ne_bytes()).collect()
    }

    /// The head of `struct __sk_buff`, of which a test run takes mark (word 2), priority (8) and ifindex (10).
    fn tc_context(&self) -> Vec<u8> {
        let mut words = [0u32; 11];
        words[2] = self.mark;
        words[8] = self.priority;
        words[10] = self.ifindex;
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    /// Runs a program with room for a packet that grows by up to 256 bytes.
    pub fn run(&self, program: BorrowedFd<'_>) -> io::Result<ProgRunResult> {
        let mut out = vec![0; self.packet.len() + 256];
        let (verdict, len, ns) = self.run_into(program, &mut out)?;
        out.truncate(len);
        Ok(ProgRunResult { verdict, packet: out, ns })
    }

    /// As [`ProgRun::run`], into a buffer of the caller's: answers verdict, bytes and ns.
    pub fn run_into(&self, program: BorrowedFd<'_>, out: &mut [u8]) -> io::Result<(u32, usize, u32)> {
        let context = match self.run_as {
            // Without an interface the kernel takes the loopback device's only if no context is given.
            RunAs::Xdp if self.ifindex == 0 => Vec::new(),
            RunAs::Xdp => self.xdp_context(),
            RunAs::Tc => self.tc_context(),
        };
        let run = sys::TestRun {
            data_in: self.packet,
            data_out: out,
            context_in: &context,
            repeat: self.repeat.max(1),
        };
        let r = sys::test_run(program, run)?;
        Ok((r.return_value, r.data_len as usize, r.duration))
    }
}
