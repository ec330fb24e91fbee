//! One TCP stream between two veth ports with their offloads on, which is what containers and guests do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::figure::{Compared, Figure, Unit, Wanted, ratios};
use super::forwarder::{Hook, Kind};
use super::rig::{Bench, FAR, NEAR, Rig, Sink, Spec};
use super::statistics::{lower_bound, median};
use crate::interrupt;
use crate::netns;
use crate::step::Step;

const CASE: &str = "tcp";
const NEAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const FAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// Bytes of one write.
const CHUNK: usize = 128 * 1024;
/// Time without progress after which a connection counts as broken.
const STALLED: Duration = Duration::from_secs(10);
/// Share of the bootstrap's medians that lie below the lower bound: that of a two-sided 95 % interval.
const TAIL: f64 = 0.025;

fn build(bench: &Bench, role: &'static str, kind: Kind) -> Result<Rig> {
    let rig = Rig::build(bench, &Spec { role, kind, sink: Sink::Open, flows: 1 })?;
    rig.near.ip(&["address", "add", &format!("{NEAR_ADDRESS}/24"), "dev", NEAR])?;
    rig.far.ip(&["address", "add", &format!("{FAR_ADDRESS}/24"), "dev", FAR])?;
    Ok(rig)
}

/// Runs the case: pairs of transfers, one through each, in turns that begin with the one or the other.
pub fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let bridge = build(bench, "br", Kind::Bridge)?;
    let ours = build(bench, "sa", Kind::Sluice { hook: Hook::Auto, flags: Vec::new() })?;
    let (pairs, time) =
        if bench.quick { (7, Duration::from_millis(400)) } else { (31, Duration::from_millis(800)) };
    let mut step = Step::begin("TCP, one stream, in pairs");
    for rig in [&bridge, &ours] {
        transfer(rig, Duration::from_millis(300))?;
    }
    let (mut theirs, mut own) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        interrupt::check()?;
        step.note(&format!("pair {} of {pairs}", pair + 1));
        if pair % 2 == 0 {
            theirs.push(transfer(&bridge, time)?);
            own.push(transfer(&ours, time)?);
        } else {
            own.push(transfer(&ours, time)?);
            theirs.push(transfer(&bridge, time)?);
        }
    }
    let ratios = ratios(&own, &theirs);
    let compared = Compared {
        to: "Linux bridge".to_owned(),
        ratio: median(&ratios),
        per_cpu: None,
        bound: Some(lower_bound(&ratios, TAIL)),
    };
    step.done(&format!(
        "Linux bridge {}, Sluice {}",
        Unit::BitsPerSecond.show(median(&theirs)),
        Unit::BitsPerSecond.show(median(&own))
    ));
    Ok(vec![
        Figure::new(CASE, "one TCP stream, Linux bridge", median(&theirs), Unit::BitsPerSecond),
        Figure::new(CASE, "one TCP stream, Sluice", median(&own), Unit::BitsPerSecond)
            .compared(compared)
            .wanted(Wanted::MedianAndBound(1.0, 0.97)),
    ])
}

/// Sends for some time over one connection; bits a second, as the receiver saw them.
fn transfer(rig: &Rig, time: Duration) -> Result<f64> {
    let listener = rig.far.within(|| TcpListener::bind((FAR_ADDRESS, 0)).context("listen"))??;
    let address = listener.local_addr().context("ask for the port")?;
    thread::scope(|scope| {
        let receiver = rig.far.spawn(scope, move || receive(&listener))?;
        let sender = rig.near.spawn(scope, move || send(address, time))?;
        let sent = netns::join(sender)?;
        let received = netns::join(receiver)?;
        let (bytes, took) = received?;
        if sent? != bytes {
            bail!("not all that was sent arrived");
        }
        Ok(bytes as f64 * 8.0 / took.as_secs_f64().max(1e-9))
    })
}

fn receive(listener: &TcpListener) -> Result<(u64, Duration)> {
    let (mut connection, _) = accept(listener)?;
    connection.set_read_timeout(Some(STALLED))?;
    let mut buffer = vec![0; CHUNK];
    let mut total = connection.read(&mut buffer).context("receive")? as u64;
    let begun = Instant::now();
    loop {
        let count = connection.read(&mut buffer).context("receive")?;
        if count == 0 {
            return Ok((total, begun.elapsed()));
        }
        total += count as u64;
    }
}

/// Waits for the connection, but not for ever: the other side may have failed.
fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + STALLED;
    loop {
        match listener.accept() {
            Ok((connection, from)) => {
                connection.set_nonblocking(false)?;
                return Ok((connection, from));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                interrupt::sleep(Duration::from_millis(1))?;
            }
            Err(error) => return Err(error).context("wait for the sender"),
        }
    }
}

fn send(to: SocketAddr, time: Duration) -> Result<u64> {
    let mut connection = TcpStream::connect_timeout(&to, STALLED).context("connect")?;
    connection.set_write_timeout(Some(STALLED))?;
    let data = vec![0x5a; CHUNK];
    let begun = Instant::now();
    let mut total = 0;
    while begun.elapsed() < time {
        connection.write_all(&data).context("send")?;
        total += CHUNK as u64;
    }
    Ok(total)
}
