//! The demo: four 'virtual machines' on one bridge, and proof that the switch does what it must.
//!
//! ```text
//!   a  access, VLAN 10 ─┐                    ┌─ c  access, VLAN 20
//!                       ├── br0 in `switch` ─┤
//!   b  access, VLAN 10 ─┘                    └─ d  trunk of 10 and 20
//! ```
//!
//! Each machine is a network namespace with a virtual cable. All have addresses of one network, so that only
//! the VLANs keep them apart.

mod checks;
mod probe;
mod vlan;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::daemon::Daemon;
use crate::interrupt;
use crate::netns::{self, Namespace};
use crate::run::live_view;
use crate::step::Step;
use crate::terminal::{Paint, Stream, Table};
use crate::traffic::{self, Amount, End};
use checks::{Must, Outcome};
use vlan::VlanDevice;

const PREFIX: &str = "slvm";

/// The device that each machine has.
const DEVICE: &str = "net0";

/// One of the four machines.
#[derive(Debug)]
struct Machine {
    role: &'static str,
    namespace: Namespace,
    mac: [u8; 6],
}

impl Machine {
    fn port(&self) -> String {
        format!("vm-{}", self.role)
    }
}

/// An address of a machine, and the device that it is on.
#[derive(Clone, Debug)]
struct Place {
    machine: usize,
    device: String,
    number: u8,
}

impl Place {
    fn v4(&self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.number).into()
    }

    fn v6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number.into()).into()
    }
}

/// The machines, their cables, and the namespace that the switch is in.
#[derive(Debug)]
struct Topology {
    // Relays of VLAN devices end before the namespaces that they are in: fields are dropped in this order.
    vlan_devices: Vec<VlanDevice>,
    machines: Vec<Machine>,
    switch: Namespace,
    /// The addresses of a, b, c, d in VLAN 10 and d in VLAN 20.
    places: Vec<Place>,
}

/// VLANs of the machines' ports, as the daemon's flags say it.
const PORTS: [(&str, &str); 4] = [("a", "tag=10"), ("b", "tag=10"), ("c", "tag=20"), ("d", "trunks=10+20")];

impl Topology {
    fn make() -> Result<Topology> {
        netns::remove_stale(PREFIX);
        let switch = Namespace::create(PREFIX, "switch")?;
        let mut machines = Vec::new();
        for (index, (role, _)) in (1_u8..).zip(PORTS) {
            interrupt::check()?;
            let namespace = Namespace::create(PREFIX, role)?;
            let machine = Machine { role, namespace, mac: [2, 0x53, 0x4c, 0, 0, index] };
            let far = text_of([2, 0x53, 0x4c, 0, 1, index]);
            netns::cable(
                (&switch, &machine.port(), &far),
                (&machine.namespace, DEVICE, &text_of(machine.mac)),
            )?;
            machines.push(machine);
        }
        let mut topology = Topology { vlan_devices: Vec::new(), machines, switch, places: Vec::new() };
        for (machine, number) in [(0, 1), (1, 2), (2, 3)] {
            topology.places.push(Place { machine, device: DEVICE.to_owned(), number });
        }
        let trunk = &topology.machines[3];
        // Both of its addresses are of one network: each is to answer on its own device only.
        for (setting, value) in [("arp_ignore", "1"), ("arp_announce", "2"), ("rp_filter", "0")] {
            trunk.namespace.sysctl(&format!("ipv4/conf/all/{setting}"), value)?;
        }
        for (number, vlan) in [(4, 10), (5, 20)] {
            let device = VlanDevice::create(&trunk.namespace, DEVICE, vlan, &text_of(trunk.mac))?;
            topology.places.push(Place { machine: 3, device: device.name().to_owned(), number });
            topology.vlan_devices.push(device);
        }
        for place in &topology.places {
            let namespace = &topology.machines[place.machine].namespace;
            namespace.ip(&["address", "add", &format!("{}/24", place.v4()), "dev", &place.device])?;
            // Without duplicate address detection, or the address could not be used for its first second.
            namespace.ip(&[
                "address",
                "add",
                &format!("{}/64", place.v6()),
                "dev",
                &place.device,
                "nodad",
            ])?;
        }
        // The same network lies behind two of its devices: answers to c have to take the second.
        let (c, device) = (&topology.places[2], &topology.places[4].device);
        let namespace = &topology.machines[3].namespace;
        namespace.ip(&["route", "add", &format!("{}/32", c.v4()), "dev", device])?;
        namespace.ip(&["route", "add", &format!("{}/128", c.v6()), "dev", device])?;
        Ok(topology)
    }

    fn end(&self, place: usize) -> End<'_> {
        let place = &self.places[place];
        let namespace = &self.machines[place.machine].namespace;
        End { namespace, device: &place.device, address: place.v4() }
    }

    fn daemon_flags(&self) -> Vec<String> {
        let ports = self.machines.iter().zip(PORTS).map(|(m, (_, vlan))| format!("{},{vlan}", m.port()));
        let flags = ports.flat_map(|port| ["--port".to_owned(), port]);
        ["--bridge".to_owned(), "br0".to_owned()].into_iter().chain(flags).collect()
    }
}

fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Makes the demo, checks it and shows it. Returns whether all was as it must be.
pub fn run(sluice: &Path, more_flags: &[String], once: bool) -> Result<bool> {
    let step = Step::begin("making four VMs and their cables");
    let topology = Topology::make()?;
    step.done(&format!("VLANs on the trunk by {}", topology.vlan_devices[0].means()));

    let mut flags = topology.daemon_flags();
    flags.extend_from_slice(more_flags);
    let mut daemon = Daemon::start(sluice, Some(&topology.switch), &flags)?;

    let mut outcomes = checks::all(&topology)?;
    let report =
        daemon.ask("show", &[])? + "\n" + &daemon.ask("flows", &[])? + "\n" + &daemon.ask("drops", &[])?;
    if !once {
        print_outcomes(&outcomes);
        watch(&topology, &daemon)?;
    }
    let step = Step::begin("ending the switch");
    let end = daemon.stop();
    outcomes.push(Outcome::of(
        "the switch ends and leaves nothing behind",
        Must::Pass,
        end.map(|()| String::new()),
    ));
    drop(daemon);
    drop(topology);
    step.done("");

    let well = outcomes.iter().all(|o| o.well);
    if once {
        println!("\n{report}");
        print_outcomes(&outcomes);
    } else if !outcomes.last().is_none_or(|o| o.well) {
        print_outcomes(&outcomes[outcomes.len() - 1..]);
    }
    Ok(well)
}

fn print_outcomes(outcomes: &[Outcome]) {
    let stream = Stream::stdout();
    let mut table = Table::new(["", "check", "must", "result"]);
    for outcome in outcomes {
        let (mark, paint) = if outcome.well { ("✓", Paint::Good) } else { ("✗", Paint::Bad) };
        table.row([
            (mark.to_owned(), Some(paint)),
            (outcome.what.clone(), None),
            (outcome.must.text().to_owned(), Some(Paint::Dim)),
            (outcome.detail.clone(), (!outcome.well).then_some(Paint::Bad)),
        ]);
    }
    print!("{}", table.render(stream));
    let bad = outcomes.iter().filter(|o| !o.well).count();
    let (text, paint) = match bad {
        0 => (format!("all {} checks are as they must be", outcomes.len()), Paint::Good),
        _ => (format!("{bad} of {} checks are not as they must be", outcomes.len()), Paint::Bad),
    };
    println!("\n  {}", stream.paint(paint, &text));
}

/// Keeps some traffic going and shows the live view.
fn watch(topology: &Topology, daemon: &Daemon) -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            // Pairs in VLAN 10, over the trunk in 10, over the trunk in 20.
            for (from, to) in [(0, 1), (3, 0), (4, 2)].into_iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // What goes wrong here shows in the view, and a connection cut by Ctrl-C is no failure.
                let _ = traffic::tcp(
                    topology.end(from),
                    topology.end(to),
                    Amount::Time(Duration::from_millis(700)),
                );
                let _ = traffic::ping(topology.end(to), topology.places[from].v4(), 3);
            }
        });
        let viewed = live_view(daemon);
        stop.store(true, Ordering::Relaxed);
        let _ = traffic.join();
        viewed
    })
    .context("show the live view")
}
