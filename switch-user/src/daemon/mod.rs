//! The daemon: its start, its threads, its end.
//!
//! ```text
//! control thread   configuration, links, ports, control socket     owns `Control`
//! handler threads  one a queue of the upcall pair                  read `View`, install flows
//! revalidator      corrects and expires flows                      reads `View`, replaces flows
//! ```
//!
//! The control thread publishes immutable [`forwarding::View`]s; the others never see one that is half made.

mod answer;
mod clock;
mod control;
mod devices;
mod drops;
mod flows;
mod forwarding;
mod handler;
mod instance;
mod publish;
mod queue;
pub mod reconcile;
mod revalidate;
mod tracing_packets;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::Mutex;
use switch_common::upcall::{FIRST_MISS_QUEUE, PROTOCOL_QUEUE};
use switch_datapath::EbpfDatapath;
use switch_netdev::{LinkWatch, Links, PacketOut, Preparer, Receiver, UpcallPair, XskOptions};
use switch_ofproto::{MacTables, Network};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::daemon_args::DaemonArgs;
use crate::config::Config;
use crate::control::server;
use answer::Answers;
use control::{Control, Parts};
use devices::Devices;
use forwarding::{Forwarding, UpcallCounters, View};
use handler::Handler;
use instance::Instance;
use revalidate::{Passes, Revalidator};

/// VLAN tags that are parsed at most.
const VLAN_LIMIT: u8 = 2;
/// MTU that the upcall pair serves at least.
const LEAST_MTU: u32 = 1500;
/// Changes of MAC tables that wait for the revalidator; when there are more, it looks at all flows instead.
const MAC_CHANGES: usize = 16_384;
/// Links are looked at again this often even if no event said so: an event can be lost.
const LINK_CHECK: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to end.
pub fn run(args: DaemonArgs) -> Result<()> {
    start_log(&args.log)?;
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "the daemon loads eBPF programs and makes network devices, for which it must be root: sudo sluice daemon ..."
        );
    }
    let config = Arc::new(Config::from_args(&args)?);
    let instance = Instance::open(&args.rundir)?;
    let preparer = Preparer::open().context("open netlink")?;
    remove_leftovers(&instance, &config, &args.bpffs, &preparer);

    let miss_queues = miss_queues(args.handlers);
    let port_mtu = largest_mtu(&config, preparer.links());
    let pair = UpcallPair::create(instance.id(), FIRST_MISS_QUEUE + miss_queues, port_mtu)
        .context("make the upcall pair")?;
    let mut notes = Vec::new();
    let datapath = Arc::new(create_datapath(&instance, &args, &pair)?);
    let receivers = open_receivers(&datapath, &pair, miss_queues, &mut notes)?;

    let (changed, changes) = crossbeam_channel::bounded(MAC_CHANGES);
    let (wake, published) = crossbeam_channel::bounded(1);
    let view = View {
        network: Network::new(0, Vec::new())?,
        ifindexes: HashMap::new(),
        flow_limit: config.flow_limit,
        max_idle_ms: config.max_idle.as_millis() as u64,
        vlan_limit: VLAN_LIMIT,
    };
    let forwarding = Arc::new(Forwarding {
        view: ArcSwap::from_pointee(view),
        macs: MacTables::new(),
        datapath: Arc::clone(&datapath) as _,
        flows: flows::FlowIndex::default(),
        clock: Arc::new(clock::MonotonicClock::default()),
        counters: UpcallCounters::default(),
        changed,
        overflowed: AtomicBool::new(false),
        wake,
    });
    let passes = Arc::new(Passes::default());
    let drops = Arc::new(drops::UserDrops::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    let revalidator = Revalidator::new(Arc::clone(&forwarding), changes, published, Arc::clone(&passes));
    threads.push(spawn("revalidator", &stop, move |stop| revalidator.run(stop))?);
    let handlers = receivers.len();
    for (queue, receiver) in receivers {
        let out = PacketOut::open()?;
        let protocol = queue == PROTOCOL_QUEUE;
        let name = if protocol { "protocol".to_owned() } else { format!("handler{queue}") };
        let handler = Handler::new(Arc::clone(&forwarding), Arc::clone(&drops), receiver, out, protocol);
        threads.push(spawn(&name, &stop, move |stop| handler.run(stop))?);
    }

    let socket = instance.path("control.sock");
    let control = Arc::new(Mutex::new(Control::new(Parts {
        instance,
        config,
        datapath,
        forwarding: Arc::clone(&forwarding),
        drops: Arc::clone(&drops),
        passes,
        pair,
        miss_queues,
        preparer,
        notes,
        vlan_limit: VLAN_LIMIT,
    })));
    let answers = Arc::new(Answers { control: Arc::clone(&control), forwarding, drops, handlers });
    let outcome = serve(&control, &socket, answers);

    control.lock().remove_everything();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread had panicked");
        }
    }
    match Arc::try_unwrap(control) {
        Ok(control) => control.into_inner().close(),
        Err(_) => tracing::error!("a control client is still being answered: leaving the datapath as it is"),
    }
    outcome
}

fn start_log(filter: &str) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).context("--log")?;
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color).init();
    Ok(())
}

/// A daemon that was killed leaves its programs at work. Until they can be adopted they are taken down, and what
/// it had changed on devices is put back.
fn remove_leftovers(instance: &Instance, config: &Config, bpffs: &Path, preparer: &Preparer) {
    if let Err(error) = EbpfDatapath::remove_stale(bpffs, instance.id()) {
        tracing::warn!(%error, "removing what an earlier daemon had left");
    }
    let Some(devices) = Devices::load(instance) else { return };
    for prepared in &devices.prepared {
        if let Err(error) = preparer.restore(prepared) {
            tracing::debug!(%error, "restoring a device");
        }
    }
    // Internal ports of bridges that are still wanted are taken over, with whatever the host has set on them.
    let links = preparer.links();
    for (bridge, hidden) in
        devices.internal.iter().filter(|(bridge, _)| !config.bridges.contains_key(*bridge))
    {
        if let Ok(link) = links.by_name(hidden)
            && let Err(error) = links.delete(link.ifindex)
        {
            tracing::warn!(bridge, %error, "removing the internal port of a bridge that is gone");
        }
    }
}

/// Handlers for misses: as asked for, else half of the CPUs, four at most.
fn miss_queues(asked: usize) -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    let n = if asked == 0 { (cpus / 2).clamp(1, 4) } else { asked };
    n as u32
}

fn largest_mtu(config: &Config, netlink: &Links) -> u32 {
    let links = netlink.list().unwrap_or_default();
    let wanted = |name: &str| config.bridges.values().any(|b| b.ports.contains_key(name));
    links.iter().filter(|l| wanted(&l.name)).map(|l| l.mtu).max().unwrap_or(0).max(LEAST_MTU)
}

fn create_datapath(instance: &Instance, args: &DaemonArgs, pair: &UpcallPair) -> Result<EbpfDatapath> {
    let flows = u32::try_from(args.max_flows).unwrap_or(u32::MAX);
    let options = switch_datapath::Options {
        instance: instance.id().to_owned(),
        bpffs: args.bpffs.clone(),
        flows,
        vlan_limit: VLAN_LIMIT,
        upcall_ifindex: pair.up0().ifindex,
        ..switch_datapath::Options::default()
    };
    let datapath = EbpfDatapath::create(&options)?;
    Ok(datapath)
}

/// Opens the receivers of all queues and joins them to the upcall program.
fn open_receivers(
    datapath: &EbpfDatapath,
    pair: &UpcallPair,
    miss_queues: u32,
    notes: &mut Vec<String>,
) -> Result<Vec<(u32, Receiver)>> {
    let up1 = pair.up1();
    let mut receivers = Vec::new();
    for queue in 0..FIRST_MISS_QUEUE + miss_queues {
        let receiver = Receiver::open(&up1.name, queue, pair.mtu(), XskOptions::default())?;
        receivers.push((queue, receiver));
    }
    datapath.attach_upcall(pair.up0().ifindex, up1.ifindex).context("attach the upcall programs")?;
    for (queue, receiver) in &mut receivers {
        let receiver = receiver.as_dyn();
        if receiver.is_xdp() {
            datapath.set_xsk(*queue, receiver.fd())?;
        } else {
            notes.push(format!(
                "AF_XDP of this kernel takes no jumbo frames: queue {queue} is a packet socket"
            ));
        }
    }
    if let Err(reason) = datapath.attach_tracepoints() {
        notes.push(format!("XDP transmits that fail are not counted: {reason}"));
    }
    Ok(receivers)
}

fn spawn(
    name: &str,
    stop: &Arc<AtomicBool>,
    work: impl FnOnce(&AtomicBool) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let stop = Arc::clone(stop);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&stop));
    thread.with_context(|| format!("start thread {name}"))
}

/// The control thread's loop: serves the socket and follows links until a signal ends it.
fn serve(control: &Arc<Mutex<Control>>, socket: &Path, answers: Arc<Answers>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let (mut watch, _) = LinkWatch::open().context("watch links")?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let listener = server::listen(socket).with_context(|| format!("open {}", socket.display()))?;
        control.lock().reconcile();
        let server = tokio::spawn(server::serve(listener, answers));
        println!("ready");
        std::io::stdout().flush().ok();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {}
                event = watch.next() => {
                    if let Err(error) = event {
                        tracing::warn!(%error, "watching links");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    tokio::task::block_in_place(|| control.lock().reconcile());
                }
                () = tokio::time::sleep(LINK_CHECK) => {
                    tokio::task::block_in_place(|| control.lock().reconcile());
                }
            }
        }
        server.abort();
        let _ = server.await;
        Ok(())
    })
}
