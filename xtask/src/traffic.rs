//! Real traffic between namespaces: pings, and TCP with its bytes compared.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::{self, Namespace};

/// One end of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    pub namespace: &'a Namespace,
    /// Device that the traffic has to leave through.
    pub device: &'a str,
    pub address: IpAddr,
}

/// What `ping` counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pings {
    pub sent: u32,
    pub received: u32,
    pub duplicates: u32,
}

/// Sends pings, a tenth of a second apart.
pub fn ping(from: End<'_>, to: IpAddr, count: u32) -> Result<Pings> {
    let mut command = Command::new("ping");
    command
        .args([
            "-n",
            "-q",
            "-i",
            "0.1",
            "-W",
            "1",
            "-c",
            &count.to_string(),
            "-I",
            from.device,
            &to.to_string(),
        ])
        .env("LC_ALL", "C");
    from.namespace.enter(&mut command)?;
    // Exit status 1 only says that answers are missing.
    let out = command.output().context("start ping")?;
    let text = String::from_utf8_lossy(&out.stdout);
    parse_pings(&text)
        .with_context(|| format!("ping: {}{}", text.trim(), String::from_utf8_lossy(&out.stderr).trim()))
}

/// Reads `3 packets transmitted, 3 received, +1 duplicates, 0% packet loss, time 204ms`.
fn parse_pings(text: &str) -> Option<Pings> {
    let line = text.lines().find(|l| l.contains("packets transmitted"))?;
    let number = |word: &str| {
        let part = line.split(", ").find(|p| p.contains(word))?;
        part.split(' ').next()?.trim_start_matches('+').parse().ok()
    };
    Some(Pings {
        sent: number("transmitted")?,
        received: number("received")?,
        duplicates: number("duplicates").unwrap_or(0),
    })
}

/// What a TCP transfer took.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    pub bytes: u64,
    pub time: Duration,
}

impl Transfer {
    /// Bits per second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.time.as_secs_f64()
    }
}

/// How much a TCP connection carries.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    Bytes(u64),
    Time(Duration),
}

/// Time without progress after which a connection counts as broken.
const STALLED: Duration = Duration::from_secs(5);
const CHUNK: usize = 128 * 1024;

/// Sends over one TCP connection, and compares what arrives with what was sent. The time runs from the first
/// byte to the receiver's word that it has read the last.
pub fn tcp(client: End<'_>, server: End<'_>, amount: Amount) -> Result<Transfer> {
    let pattern = pattern();
    thread::scope(|scope| {
        let (ready, listening) = mpsc::channel();
        let pattern = &pattern;
        let receiver = server.namespace.spawn(scope, move || receive(server.address, pattern, &ready))?;
        // The sender of the channel goes with the thread: an error there ends the wait here.
        let Ok(address) = listening.recv() else {
            return Err(netns::join(receiver)?
                .err()
                .unwrap_or_else(|| anyhow::anyhow!("no listening socket")));
        };
        let sender = client.namespace.spawn(scope, move || send(client.device, address, pattern, amount))?;
        let sent = netns::join(sender)?;
        let received = netns::join(receiver)?;
        let transfer = sent?;
        if received? != transfer.bytes {
            bail!("{} bytes were sent, others arrived", transfer.bytes);
        }
        Ok(transfer)
    })
}

/// Whether a TCP connection can be made within a time.
pub fn reachable(client: End<'_>, server: End<'_>, limit: Duration) -> Result<bool> {
    let listener = server.namespace.within(|| TcpListener::bind((server.address, 0)))??;
    let to = listener.local_addr()?;
    client.namespace.within(|| match connect_through(client.device, to, limit) {
        Ok(_) => Ok(true),
        // EINPROGRESS: the limit is over (socket(7), SO_SNDTIMEO). EHOSTUNREACH: nobody answered for the address.
        Err(error) => match error.downcast_ref() {
            Some(nix::Error::EINPROGRESS | nix::Error::EHOSTUNREACH | nix::Error::ETIMEDOUT) => Ok(false),
            _ => Err(error),
        },
    })?
}

/// A piece of data without period below its length, so that a lost or doubled part cannot go unnoticed.
fn pattern() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..CHUNK)
        .map(|_| {
            // xorshift64.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn receive(address: IpAddr, pattern: &[u8], ready: &mpsc::Sender<SocketAddr>) -> Result<u64> {
    let listener = TcpListener::bind((address, 0)).with_context(|| format!("listen on {address}"))?;
    listener.set_nonblocking(true)?;
    ready.send(listener.local_addr()?).context("tell the client")?;
    let deadline = Instant::now() + STALLED;
    let mut connection = loop {
        match listener.accept() {
            Ok((connection, _)) => break connection,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error).context("wait for the client"),
        }
    };
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(STALLED))?;
    connection.set_write_timeout(Some(STALLED))?;
    let mut buffer = vec![0; CHUNK];
    let mut total = 0_u64;
    loop {
        let count = connection.read(&mut buffer).context("receive")?;
        if count == 0 {
            break;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let at = usize::try_from(total % pattern.len() as u64)?;
            let step = rest.len().min(pattern.len() - at);
            if rest[..step] != pattern[at..at + step] {
                bail!("damaged data after {total} bytes");
            }
            rest = &rest[step..];
            total += step as u64;
        }
    }
    connection.write_all(&total.to_be_bytes()).context("confirm")?;
    Ok(total)
}

fn send(device: &str, to: SocketAddr, pattern: &[u8], amount: Amount) -> Result<Transfer> {
    let mut connection = connect_through(device, to, STALLED)?;
    connection.set_read_timeout(Some(STALLED))?;
    let begun = Instant::now();
    let mut bytes = 0_u64;
    loop {
        let piece = match amount {
            Amount::Bytes(total) => usize::try_from((total - bytes).min(pattern.len() as u64))?,
            Amount::Time(time) => usize::from(begun.elapsed() < time) * pattern.len(),
        };
        if piece == 0 {
            break;
        }
        connection.write_all(&pattern[..piece]).context("send")?;
        bytes += piece as u64;
    }
    connection.shutdown(std::net::Shutdown::Write)?;
    let mut confirmed = [0; 8];
    connection.read_exact(&mut confirmed).context("wait for the receiver's word")?;
    if u64::from_be_bytes(confirmed) != bytes {
        bail!("{bytes} bytes were sent and {} arrived", u64::from_be_bytes(confirmed));
    }
    Ok(Transfer { bytes, time: begun.elapsed() })
}

/// Connects through a device, whatever the routes say: a host in two VLANs has two ways to the same network.
fn connect_through(device: &str, to: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket: OwnedFd =
        socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("open a socket")?;
    setsockopt(&socket, sockopt::BindToDevice, &device.into())
        .with_context(|| format!("bind to {device}"))?;
    // On Linux the limit for sending is also the limit for connecting (socket(7)).
    let limit = TimeVal::new(limit.as_secs() as libc::time_t, limit.subsec_micros().into());
    setsockopt(&socket, sockopt::SendTimeout, &limit).context("set a time limit")?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).with_context(|| format!("connect to {to}"))?;
    Ok(TcpStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ping_says() {
        let text = "PING x\n\n--- 10.0.0.1 ping statistics ---\n\
                    3 packets transmitted, 3 received, 0% packet loss, time 204ms\nrtt x\n";
        assert_eq!(parse_pings(text), Some(Pings { sent: 3, received: 3, duplicates: 0 }));
        let text = "3 packets transmitted, 3 received, +2 duplicates, 0% packet loss, time 204ms\n";
        assert_eq!(parse_pings(text), Some(Pings { sent: 3, received: 3, duplicates: 2 }));
        let text = "2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 1ms\n";
        assert_eq!(parse_pings(text), Some(Pings { sent: 2, received: 0, duplicates: 0 }));
        assert_eq!(parse_pings("ping: connect: Network is unreachable\n"), None);
    }
}
