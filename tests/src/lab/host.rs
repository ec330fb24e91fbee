//! A host: a namespace with one interface, `eth0`, whose cable ends in the switch's namespace.

use std::process::Command;

use super::namespace::{Namespace, run, try_run};

#[derive(Debug)]
pub struct Host {
    pub ns: Namespace,
    /// Name of the cable's end at the switch.
    pub port: String,
    /// 02:00:00:00:00:NN
    pub mac: [u8; 6],
}

impl Host {
    /// Host number `n` has address 10.0.0.n/24, fd00::n/64 and MAC 02:00:00:00:00:0n.
    pub fn new(switch: &Namespace, n: u8) -> Host {
        Host::with_mtu(switch, n, 1500)
    }

    pub fn with_mtu(switch: &Namespace, n: u8, mtu: u32) -> Host {
        let ns = Namespace::new(&format!("h{n}"));
        let port = format!("p{n}");
        let mac = [2, 0, 0, 0, 0, n];
        let mtu = mtu.to_string();
        run(Command::new("ip")
            .args(["-n", switch.name(), "link", "add", &port, "mtu", &mtu, "type", "veth"])
            .args(["peer", "name", "eth0", "mtu", &mtu, "address", &format!("02:00:00:00:00:{n:02x}")])
            .args(["netns", ns.name()]));
        switch.ip(&["link", "set", &port, "up"]);
        ns.sysctl("net.ipv6.conf.all.accept_dad", "0");
        ns.sysctl("net.ipv6.conf.default.accept_dad", "0");
        ns.ip(&["addr", "add", &format!("10.0.0.{n}/24"), "dev", "eth0"]);
        ns.ip(&["-6", "addr", "add", &format!("fd00::{n:x}/64"), "dev", "eth0", "nodad"]);
        ns.ip(&["link", "set", "eth0", "up"]);
        Host { ns, port, mac }
    }

    /// Whether `count` pings to an address are answered.
    pub fn pings(&self, address: &str) -> bool {
        self.ping_with(address, &["-c", "2", "-i", "0.2", "-W", "1"])
    }

    pub fn ping_with(&self, address: &str, options: &[&str]) -> bool {
        try_run(self.ns.command("ping").arg("-q").args(options).arg(address)).status.success()
    }

    /// Sends `bytes` bytes of a pattern over TCP to another host, with the kernel's default offloads, and checks
    /// that they arrive unchanged. The address is the receiver's.
    pub fn tcp_to(&self, receiver: &Host, address: &str, bytes: usize) -> Result<(), String> {
        use std::io::{Read, Write};
        use std::net::{TcpListener, TcpStream};
        use std::time::{Duration, Instant};
        let listen = if address.contains(':') { format!("[{address}]:0") } else { format!("{address}:0") };
        let listener =
            receiver.ns.inside(move || TcpListener::bind(listen)).map_err(|e| format!("bind: {e}"))?;
        let to = listener.local_addr().map_err(|e| e.to_string())?;
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let reader = std::thread::spawn(move || -> Result<usize, String> {
            let end = Instant::now() + Duration::from_secs(20);
            let mut stream = loop {
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                    Err(e) => return Err(format!("no connection: {e}")),
                }
            };
            stream.set_nonblocking(false).map_err(|e| e.to_string())?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|e| e.to_string())?;
            let (mut got, mut buffer) = (0, vec![0; 256 * 1024]);
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return Ok(got),
                    Ok(n) => {
                        if let Some(i) =
                            buffer[..n].iter().enumerate().position(|(i, b)| *b != pattern(got + i))
                        {
                            return Err(format!("byte {} arrived changed", got + i));
                        }
                        got += n;
                    }
                    Err(e) => return Err(format!("after {got} bytes: {e}")),
                }
            }
        });
        let sent = self.ns.inside(move || -> Result<(), String> {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))
                .map_err(|e| format!("connect: {e}"))?;
            stream.set_write_timeout(Some(Duration::from_secs(10))).map_err(|e| e.to_string())?;
            let data: Vec<u8> = (0..bytes).map(pattern).collect();
            stream.write_all(&data).map_err(|e| format!("write: {e}"))
        });
        let got = reader.join().map_err(|_| "the receiver panicked".to_owned())?;
        sent?;
        match got? {
            n if n == bytes => Ok(()),
            n => Err(format!("{n} of {bytes} bytes arrived")),
        }
    }
}

/// Byte `i` of the pattern: no two neighbouring segments look alike.
fn pattern(i: usize) -> u8 {
    (i ^ i >> 8 ^ i >> 16) as u8
}
