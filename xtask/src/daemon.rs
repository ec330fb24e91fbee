//! The daemon under test: started, waited for, asked, ended.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt::{self, Interrupted};
use crate::netns::Namespace;
use crate::process::{self, Background, Ended};
use crate::step::Step;

/// How long it may take to load its programs, on a slow machine.
const READY: Duration = Duration::from_secs(120);

/// Where BPF programs and maps are pinned.
const PINS: &str = "/sys/fs/bpf/sluice";

/// A running `sluice daemon` with a run directory of its own.
#[derive(Debug)]
pub struct Daemon {
    // The process goes before its run directory: fields are dropped in this order.
    process: Option<Background>,
    instance: Option<String>,
    sluice: PathBuf,
    rundir: RunDir,
}

impl Daemon {
    /// Starts it, in a namespace if one is given, and returns when it forwards.
    pub fn start(sluice: &Path, namespace: Option<&Namespace>, arguments: &[String]) -> Result<Daemon> {
        let rundir = RunDir::create()?;
        let log = rundir.log();
        let file = File::create(&log).with_context(|| format!("write {}", log.display()))?;
        let mut command = Command::new(sluice);
        command
            .arg("daemon")
            .arg("--rundir")
            .arg(&rundir.path)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(file.try_clone().context("share the log file")?);
        if let Some(namespace) = namespace {
            namespace.enter(&mut command)?;
        }
        let mut step = Step::begin("starting the switch");
        let process = Background::start("sluice daemon", &mut command)?;
        let mut daemon = Daemon { process: Some(process), instance: None, sluice: sluice.to_owned(), rundir };
        if let Err(error) = daemon.wait_ready(file, &mut step) {
            drop(step);
            if error.is::<Interrupted>() {
                return Err(error);
            }
            let said = daemon.log_tail();
            return Err(error).with_context(|| format!("the switch did not start; it said:\n{said}"));
        }
        daemon.instance = daemon.ask_json("show", &[])?["instance"].as_str().map(str::to_owned);
        step.done("");
        Ok(daemon)
    }

    fn wait_ready(&mut self, mut log: File, step: &mut Step) -> Result<()> {
        let process = self.process.as_mut().context("the daemon was ended")?;
        let pipe = process.child().stdout.take().context("the daemon's standard output is not piped")?;
        let (tell, ready) = mpsc::channel();
        // Reads on after that, so that the daemon never writes to a closed or a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let _ = std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes());
                if line.trim() == "ready" {
                    let _ = tell.send(());
                }
            }
        });
        let deadline = Instant::now() + READY;
        loop {
            match ready.recv_timeout(Duration::from_millis(20)) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => process.alive()?,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(Duration::from_millis(50));
                    process.alive()?;
                    bail!("it closed its standard output without a word");
                }
            }
            interrupt::check()?;
            step.note("loading its programs into the kernel");
            if Instant::now() > deadline {
                bail!("it was not ready after {} s", READY.as_secs());
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Background::pid)
    }

    /// A command of `sluice` for this daemon.
    pub fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.sluice);
        command.arg(verb).arg("--rundir").arg(&self.rundir.path).args(arguments);
        command
    }

    /// What a command of `sluice` prints.
    pub fn ask(&self, verb: &str, arguments: &[&str]) -> Result<String> {
        process::output(&mut self.command(verb, arguments))
    }

    /// The same as JSON.
    pub fn ask_json(&self, verb: &str, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        serde_json::from_str(&self.ask(verb, &all)?).with_context(|| format!("sluice {verb} --json"))
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.rundir.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].iter().map(|l| format!("    {l}\n")).collect()
    }

    /// Ends it in order; an error if it failed, or left something behind.
    pub fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { return Ok(()) };
        match process.stop()? {
            Ended::Well => {}
            Ended::Badly(how) => bail!("the switch ended badly: {how}"),
        }
        if let Some(pins) = self.pins().filter(|p| p.exists()) {
            bail!("{} was left behind", pins.display());
        }
        Ok(())
    }

    fn pins(&self) -> Option<PathBuf> {
        self.instance.as_ref().map(|i| Path::new(PINS).join(i))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A daemon that crashed leaves its pins, so that forwarding goes on: not wanted here.
        self.process = None;
        if let Some(pins) = self.pins() {
            let _ = std::fs::remove_dir_all(pins);
        }
    }
}

/// A folder for sockets. It lies under the folder for temporary files because the path of a Unix socket may
/// only have 107 bytes (unix(7)), which that of a checkout can exceed.
#[derive(Debug)]
struct RunDir {
    path: PathBuf,
}

impl RunDir {
    fn create() -> Result<RunDir> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = std::env::temp_dir();
        remove_stale(&folder);
        // One that exists is never used: it may be another run's, or somebody's link.
        for number in 0..1000 {
            let path = folder.join(format!("sluice-{}-{number}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(RunDir { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("make {}", path.display())),
            }
        }
        bail!("no free name for a run directory in {}", folder.display())
    }
}

/// Removes the run directories of xtasks that were killed.
fn remove_stale(folder: &Path) {
    use std::os::unix::fs::MetadataExt;
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| e.ok()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix("sluice-").and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
        let gone = maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        // Anybody may put a name into this folder: only our own directory is removed, and no link followed.
        let ours = entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == nix::unistd::geteuid().as_raw());
        if gone && ours {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl RunDir {
    fn log(&self) -> PathBuf {
        self.path.join("daemon.log")
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
