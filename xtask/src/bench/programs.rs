//! The reference programs, loaded: the generator, the bare redirects, the sinks.
//!
//! Each set is of one topology. Interface numbers are those of a namespace, so attaching and running happen in a
//! thread inside it.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, DevMap, PerCpuArray, PerCpuValues};
use aya::programs::tc::{self, TcAttachType};
use aya::programs::{SchedClassifier, TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use crate::netns::Namespace;

/// Where `bare_xdp` and `gen_flows` find their device in the map of devices.
const FORWARD: u32 = 0;
const GENERATE: u32 = 1;

/// Frames that the kernel makes at once: what a NAPI poll takes.
const BATCH: u32 = 64;

/// A loaded set of programs. Attachments end when it is dropped.
pub struct Programs {
    ebpf: Ebpf,
}

/// The number of an interface of the thread's namespace.
pub fn ifindex(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("find {name}"))
}

impl Programs {
    /// Loads the programs from an object file. `output` is the device that `bare_tc` and `bare_xdp` send to, of the
    /// namespace `switch`.
    pub fn load(object: &Path, switch: &Namespace, output: &str) -> Result<Programs> {
        let bytes = std::fs::read(object).with_context(|| format!("read {}", object.display()))?;
        switch.within(|| {
            let index = ifindex(output)?;
            let ebpf = EbpfLoader::new()
                .override_global("BENCH_IFINDEX", &index, true)
                .load(&bytes)
                .context("load the reference programs")?;
            let mut programs = Programs { ebpf };
            programs.devices()?.set(FORWARD, index, None, 0).context("name the output device")?;
            Ok(programs)
        })?
    }

    fn devices(&mut self) -> Result<DevMap<&mut aya::maps::MapData>> {
        let map = self.ebpf.map_mut("BENCH_TX").context("the object has no map BENCH_TX")?;
        Ok(DevMap::try_from(map)?)
    }

    fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("the object has no {name}"))?;
        let program: &mut Xdp = program.try_into()?;
        if program.fd().is_err() {
            program.load().with_context(|| format!("load {name}"))?;
        }
        Ok(program)
    }

    /// Attaches an XDP program natively.
    pub fn attach_xdp(&mut self, namespace: &Namespace, device: &str, name: &str) -> Result<()> {
        let program = self.xdp(name)?;
        namespace.within(|| {
            let index = ifindex(device)?;
            program
                .attach_to_if_index(index, XdpMode::Driver)
                .with_context(|| format!("attach {name} to {device}"))
                .map(|_| ())
        })?
    }

    /// Attaches a TC program to what comes in.
    pub fn attach_tc(&mut self, namespace: &Namespace, device: &str, name: &str) -> Result<()> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("the object has no {name}"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load().with_context(|| format!("load {name}"))?;
        namespace.within(|| {
            if program.attach(device, TcAttachType::Ingress).is_ok() {
                return Ok(());
            }
            // Before Linux 6.6 a qdisc has to carry it.
            tc::qdisc_add_clsact(device).with_context(|| format!("add a clsact qdisc to {device}"))?;
            program
                .attach(device, TcAttachType::Ingress)
                .with_context(|| format!("attach {name} to {device}"))
                .map(|_| ())
        })?
    }

    /// Makes `device` the one that the generator sends to, with frames of so many flows.
    pub fn prepare_generator(&mut self, namespace: &Namespace, device: &str, flows: u32) -> Result<()> {
        self.xdp("gen_flows")?;
        self.set_flows(flows)?;
        let mut devices = self.devices()?;
        namespace.within(|| {
            devices.set(GENERATE, ifindex(device)?, None, 0).context("name the generator's device")
        })?
    }

    fn set_flows(&mut self, flows: u32) -> Result<()> {
        let map = self.ebpf.map_mut("BENCH_FLOWS").context("the object has no map BENCH_FLOWS")?;
        let mut map: Array<_, u32> = Array::try_from(map)?;
        map.set(0, flows, 0).context("set the number of flows")
    }

    /// Sends `count` frames like `frame` from the thread's namespace, and returns when all have been sent. An
    /// idle 25 ms or so belong to each call.
    pub fn generate(&mut self, frame: &[u8], count: u32) -> Result<()> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = count;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        self.xdp("gen_flows")?.test_run(options).context("run the generator")?;
        Ok(())
    }

    /// Packets that the sinks have counted.
    pub fn counted(&self) -> Result<u64> {
        let map = self.ebpf.map("BENCH_COUNT").context("the object has no map BENCH_COUNT")?;
        let map: PerCpuArray<_, [u64; 2]> = PerCpuArray::try_from(map)?;
        let values: PerCpuValues<[u64; 2]> = map.get(&0, 0).context("read the sinks' counters")?;
        Ok(values.iter().map(|[packets, _]| packets).sum())
    }
}
