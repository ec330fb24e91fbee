//! A running `sluice daemon` in a namespace of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::namespace::{Namespace, run, try_run};

/// The daemon; stopped, politely first, when dropped.
pub struct Switch {
    rundir: tempfile::TempDir,
    daemon: Option<Child>,
    log: PathBuf,
    /// The instance id that its kernel state bears.
    instance: String,
}

/// How long the daemon may take to load its programs and be ready.
const START: Duration = Duration::from_secs(60);

impl Switch {
    /// Starts a daemon with these arguments besides `--rundir`, and waits until it is ready.
    pub fn start(ns: &Namespace, args: &[&str]) -> Switch {
        Switch::try_start(ns, args).unwrap_or_else(|e| panic!("the daemon does not start: {e}"))
    }

    pub fn try_start(ns: &Namespace, args: &[&str]) -> Result<Switch, String> {
        let rundir = tempfile::Builder::new().prefix("sluice-test-").tempdir().map_err(|e| e.to_string())?;
        let log = rundir.path().join("daemon.log");
        let mut switch = Switch { rundir, daemon: None, log, instance: String::new() };
        switch.launch(ns, args)?;
        switch.instance = switch.json(&["show"])["instance"].as_str().unwrap_or_default().to_owned();
        Ok(switch)
    }

    /// Starts the daemon again on the same run directory, after [`Switch::kill`].
    pub fn launch(&mut self, ns: &Namespace, args: &[&str]) -> Result<(), String> {
        let sluice = crate::guest::built("sluice").ok_or("sluice is not built")?;
        let log = std::fs::File::create(&self.log).map_err(|e| e.to_string())?;
        let mut command = ns.command(&sluice.to_string_lossy());
        command.arg("daemon").arg("--rundir").arg(self.rundir.path()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        self.daemon = Some(child);
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.trim() == "ready" {
                    let _ = sender.send(());
                }
            }
        });
        match ready.recv_timeout(START) {
            Ok(()) => Ok(()),
            Err(_) => {
                self.kill();
                Err(self.log())
            }
        }
    }

    pub fn rundir(&self) -> &std::path::Path {
        self.rundir.path()
    }

    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// What the daemon wrote to its standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(crate::guest::built("sluice").unwrap_or_default());
        command.args(args).arg("--rundir").arg(self.rundir.path());
        command
    }

    /// `sluice ARGS --rundir ...`; its output.
    pub fn ask(&self, args: &[&str]) -> String {
        run(&mut self.client(args))
    }

    /// The same with `--json`, parsed.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = run(self.client(args).arg("--json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?} printed no JSON ({e}): {text}"))
    }

    /// Waits until something holds.
    pub fn wait(&self, what: &str, mut f: impl FnMut(&Switch) -> bool) {
        let end = Instant::now() + Duration::from_secs(15);
        while !f(self) {
            assert!(
                Instant::now() < end,
                "{what} does not come about; show:\n{}\n{}",
                self.ask(&["show"]),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Packets dropped for a reason, so far.
    pub fn drops(&self, reason: &str) -> u64 {
        let report = self.json(&["drops"]);
        let reasons = report["reasons"].as_array().cloned().unwrap_or_default();
        let found = reasons.iter().find(|r| r["reason"] == reason);
        found
            .and_then(|r| r["packets"].as_u64())
            .unwrap_or_else(|| panic!("no drop reason {reason}: {report}"))
    }

    /// Ends the daemon with SIGTERM and waits; whether it ended well.
    pub fn stop(&mut self) -> bool {
        let Some(mut child) = self.daemon.take() else { return true };
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Ok(Some(status)) = child.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Kernel state that this instance has: pins, and devices in the namespace with its hidden names.
    pub fn leftovers(&self, ns: &Namespace) -> Vec<String> {
        let id = self.instance.clone();
        let mut found: Vec<String> = Vec::new();
        if let Ok(entries) = std::fs::read_dir("/sys/fs/bpf/sluice") {
            found.extend(
                entries
                    .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
                    .filter(|n| *n == id),
            );
        }
        let links = String::from_utf8_lossy(
            &try_run(Command::new("ip").args(["-n", ns.name(), "-o", "link"])).stdout,
        )
        .into_owned();
        found.extend(links.lines().filter(|l| l.contains(&id)).map(str::to_owned));
        found
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        if !self.stop() && !std::thread::panicking() {
            panic!("the daemon did not end well:\n{}", self.log());
        }
    }
}
