//! The daemon's side of the control socket.
//!
//! Bounded in every direction: so many clients at once, so long a request, so long a wait for a client that
//! does not read. Nothing that a client sends reaches further than [`Answer::answer`].

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::report::{Reply, Request};

/// Clients served at the same time; more wait in the kernel's queue.
const MAX_CLIENTS: usize = 32;
/// Bytes of one request: a 64 KiB packet in hexadecimal fits.
const MAX_REQUEST: u64 = 256 * 1024;
/// How long a client may take to send a request or to read an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers requests. Called on a blocking thread.
pub trait Answer: Send + Sync + 'static {
    fn answer(&self, request: Request) -> Reply;
}

/// Opens the socket, readable and writable by its owner only. A stale one is replaced: the caller holds the run
/// directory's lock.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(old);
    listener
}

/// Serves for ever.
pub async fn serve(listener: UnixListener, daemon: Arc<dyn Answer>) {
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let daemon = Arc::clone(&daemon);
                tokio::spawn(async move {
                    if let Err(error) = serve_client(stream, daemon).await {
                        tracing::debug!(%error, "control client");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: others may free some.
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_client(stream: UnixStream, daemon: Arc<dyn Answer>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(MAX_REQUEST);
        let n = tokio::time::timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await??;
        if n == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let reply = if !whole && n as u64 >= MAX_REQUEST {
            Reply::Error(format!("the request is longer than {MAX_REQUEST} bytes"))
        } else {
            match serde_json::from_slice::<Request>(&line) {
                Ok(request) => {
                    let daemon = Arc::clone(&daemon);
                    tokio::task::spawn_blocking(move || daemon.answer(request))
                        .await
                        .unwrap_or_else(|_| Reply::Error("the request could not be answered".into()))
                }
                Err(error) => Reply::Error(format!("the request is not understood: {error}")),
            }
        };
        let mut bytes = serde_json::to_vec(&reply)?;
        bytes.push(b'\n');
        tokio::time::timeout(PATIENCE, writer.write_all(&bytes)).await??;
        if !whole {
            return Ok(());
        }
    }
}
