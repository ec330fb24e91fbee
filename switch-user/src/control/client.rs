//! The command line's side of the control socket: blocking, one request and one answer at a time.
//!
//! Every wait has an end, and every error says what to do about it. Several requests may go over one
//! connection; after an error the connection is of no further use.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::report::{
    DropsReport, FdbReport, FlowsReport, Reply, Request, ShowReport, TopReport, TraceReport,
};

/// The socket's name in the run directory.
pub const SOCKET: &str = "control.sock";
/// How long the daemon may take to accept, and from a request to each piece of its answer.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of one answer; a full table of a million flows stays under it.
const MAX_REPLY: u64 = 2 << 30;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no sluice daemon answers on {}: start one with 'sluice daemon', or name its run directory with --rundir",
        .path.display()
    )]
    NoDaemon { path: PathBuf },
    #[error("{} may only be used by the user that runs the daemon: try as root", .path.display())]
    NotAllowed { path: PathBuf },
    #[error("{}: {why}", .path.display())]
    Connect { path: PathBuf, why: Errno },
    #[error("the daemon on {} did not answer within {} seconds", .path.display(), .after.as_secs())]
    Timeout { path: PathBuf, after: Duration },
    #[error("the daemon on {} closed the connection without an answer", .path.display())]
    Closed { path: PathBuf },
    #[error("the connection to {} broke: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the daemon on {} speaks another version of this protocol: {why}", .path.display())]
    Protocol { path: PathBuf, why: String },
    /// What the daemon says against the request.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    patience: Duration,
}

impl Client {
    /// Connects to the daemon of this run directory.
    pub fn connect(rundir: &Path) -> Result<Client, ClientError> {
        Client::connect_within(rundir, PATIENCE)
    }

    /// The same with another end to every wait.
    pub fn connect_within(rundir: &Path, patience: Duration) -> Result<Client, ClientError> {
        let path = rundir.join(SOCKET);
        match dial(&path, patience) {
            Ok(fd) => {
                let stream = BufReader::new(UnixStream::from(fd));
                Ok(Client { stream, path, patience })
            }
            Err(Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR) => Err(ClientError::NoDaemon { path }),
            Err(Errno::EACCES | Errno::EPERM) => Err(ClientError::NotAllowed { path }),
            Err(Errno::EAGAIN) => Err(ClientError::Timeout { path, after: patience }),
            Err(why) => Err(ClientError::Connect { path, why }),
        }
    }

    /// Sends a request and waits for its answer. [`Reply::Error`] comes back as [`ClientError::Refused`].
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|e| self.protocol(&e.to_string()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|e| self.io(e))?;

        line.clear();
        (&mut self.stream).take(MAX_REPLY).read_until(b'\n', &mut line).map_err(|e| self.io(e))?;
        if line.last() != Some(&b'\n') {
            return Err(match line.len() as u64 {
                MAX_REPLY => self.protocol("the answer is too long"),
                _ => ClientError::Closed { path: self.path.clone() },
            });
        }
        match serde_json::from_slice(&line) {
            Ok(Reply::Error(text)) => Err(ClientError::Refused(text)),
            Ok(reply) => Ok(reply),
            Err(e) => Err(self.protocol(&e.to_string())),
        }
    }

    pub fn show(&mut self) -> Result<ShowReport, ClientError> {
        match self.ask(&Request::Show)? {
            Reply::Show(report) => Ok(report),
            _ => Err(self.unexpected()),
        }
    }

    /// Flows of one bridge, or of all.
    pub fn flows(&mut self, bridge: Option<String>) -> Result<FlowsReport, ClientError> {
        match self.ask(&Request::Flows { bridge })? {
            Reply::Flows(report) => Ok(report),
            _ => Err(self.unexpected()),
        }
    }

    /// The MAC table of one bridge, or of all.
    pub fn fdb(&mut self, bridge: Option<String>) -> Result<FdbReport, ClientError> {
        match self.ask(&Request::Fdb { bridge })? {
            Reply::Fdb(report) => Ok(report),
            _ => Err(self.unexpected()),
        }
    }

    /// Has the learnt addresses of one bridge forgotten, or of all.
    pub fn flush_fdb(&mut self, bridge: Option<String>) -> Result<(), ClientError> {
        match self.ask(&Request::FdbFlush { bridge })? {
            Reply::Done => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    pub fn drops(&mut self) -> Result<DropsReport, ClientError> {
        match self.ask(&Request::Drops)? {
            Reply::Drops(report) => Ok(report),
            _ => Err(self.unexpected()),
        }
    }

    pub fn top(&mut self) -> Result<TopReport, ClientError> {
        match self.ask(&Request::Top)? {
            Reply::Top(report) => Ok(report),
            _ => Err(self.unexpected()),
        }
    }

    /// What would happen to a packet that `port` received: its bytes in hexadecimal, or a flow.
    pub fn trace(
        &mut self,
        port: String,
        packet: Option<String>,
        flow: Option<String>,
    ) -> Result<TraceReport, ClientError> {
        match self.ask(&Request::TracePacket { port, packet, flow })? {
            Reply::Trace(report) => Ok(report),
            _ => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> ClientError {
        self.protocol("the answer does not belong to the request")
    }

    fn protocol(&self, why: &str) -> ClientError {
        ClientError::Protocol { path: self.path.clone(), why: why.to_owned() }
    }

    fn io(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Timeout { path, after: self.patience }
            }
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Closed { path },
            _ => ClientError::Io { path, source },
        }
    }
}

/// Connects with an end to the wait, which the standard library's connect lacks: a daemon that accepts nobody
/// leaves clients in the kernel's queue.
fn dial(path: &Path, patience: Duration) -> nix::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX / 1_000_000));
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Err(Errno::EINTR) => {}
            other => return other.map(|()| fd),
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
