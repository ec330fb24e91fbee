//! Open vSwitch's userspace datapath, from Debian's packages unpacked under the target folder.
//!
//! Nothing of it is installed, and no service is started: the two daemons run with folders of their own, the switch
//! inside the namespace whose interfaces it gets, and end with this.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::rig::Bench;
use crate::interrupt;
use crate::netns::Namespace;
use crate::process::{self, Background};
use crate::setup::apt;
use crate::workspace::Workspace;

/// The packages, and those of the libraries that a small system lacks.
const PACKAGES: &[&str] = &[
    "openvswitch-switch",
    "openvswitch-common",
    "libunbound8",
    "libevent-2.1-7",
    "libbpf1",
    "libxdp1",
    "libcap-ng0",
    "libnuma1",
];

/// How long its database may take to hear that a port works.
const PATIENCE: &str = "20";

/// Fetches and unpacks the packages.
pub fn fetch(workspace: &Workspace) -> Result<()> {
    apt::unpack(workspace, PACKAGES, &root(workspace))
}

fn root(workspace: &Workspace) -> PathBuf {
    workspace.target().join("ovs")
}

/// A running switch. It can be made to pause, since its poll thread takes a whole CPU while it has nothing to do.
pub struct OpenVswitch {
    // Dropped in this order.
    switch: Background,
    _database: Background,
    files: Files,
}

impl OpenVswitch {
    /// Starts it over AF_XDP between the devices of a namespace.
    pub fn start(bench: &Bench, role: &str, namespace: &Namespace, devices: &[&str]) -> Result<OpenVswitch> {
        let files = Files::new(&bench.workspace, role)?;
        let conf = files.run.join("conf.db");
        let mut create = files.command("usr/bin/ovsdb-tool");
        create.arg("create").arg(&conf).arg(files.root.join("usr/share/openvswitch/vswitch.ovsschema"));
        process::output(&mut create)?;
        let mut command = files.command("usr/sbin/ovsdb-server");
        command.arg(&conf).arg(format!("--remote=punix:{}", files.run.join("db.sock").display()));
        let database = files.start("ovsdb-server", &mut command, "database")?;
        files.wait_for("db.sock")?;
        files.vsctl(&["--no-wait", "init"])?;
        // The poll thread on the second CPU; the generator is on the first.
        files.vsctl(&["--no-wait", "set", "open_vswitch", ".", "other_config:pmd-cpu-mask=0x2"])?;

        let mut command = files.command("usr/lib/openvswitch-switch/ovs-vswitchd");
        command.arg(format!("unix:{}", files.run.join("db.sock").display()));
        namespace.enter(&mut command)?;
        let switch = files.start("ovs-vswitchd", &mut command, "switch")?;
        let mut this = OpenVswitch { switch, _database: database, files };
        this.files.wait_for("switch.ctl")?;
        this.add_ports(devices).with_context(|| format!("Open vSwitch said:\n{}", this.log_tail()))?;
        Ok(this)
    }

    fn add_ports(&mut self, devices: &[&str]) -> Result<()> {
        let mut arguments = vec!["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"];
        for device in devices {
            arguments.extend([
                "--",
                "add-port",
                "br0",
                device,
                "--",
                "set",
                "interface",
                device,
                "type=afxdp",
            ]);
        }
        self.files.vsctl(&arguments)?;
        for device in devices {
            let error = self.files.vsctl(&["get", "interface", device, "error"])?;
            if error.trim() != "[]" {
                bail!("port {device}: {}", error.trim());
            }
        }
        Ok(())
    }

    /// Removes all flows of its datapath.
    pub fn forget_flows(&self) -> Result<()> {
        self.appctl(&["dpctl/del-flows"]).map(|_| ())
    }

    /// Asks the switch over its control socket.
    pub fn appctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.files.command("usr/bin/ovs-appctl");
        command.arg("-t").arg(self.files.run.join("switch.ctl")).args(["-T", PATIENCE]).args(arguments);
        process::output(&mut command)
    }

    /// Its switch's process id.
    pub fn pid(&self) -> u32 {
        self.switch.pid()
    }

    /// Takes no CPU until [`OpenVswitch::resume`].
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.switch.pid()).context("process id")?;
        kill(Pid::from_raw(pid), signal).context("signal ovs-vswitchd")
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.files.run.join("switch.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|l| !l.contains("|INFO|")).collect();
        lines[lines.len().saturating_sub(12)..].iter().map(|l| format!("    {l}\n")).collect()
    }
}

impl Drop for OpenVswitch {
    fn drop(&mut self) {
        // A stopped process does not end when it is asked to.
        let _ = self.resume();
    }
}

/// Its programs, and the folder of one run.
struct Files {
    root: PathBuf,
    run: PathBuf,
}

impl Files {
    fn new(workspace: &Workspace, role: &str) -> Result<Files> {
        // A short path: that of a Unix socket has 107 bytes at most (unix(7)).
        let run = std::env::temp_dir().join(format!("sluice-ovs-{}-{role}", std::process::id()));
        std::fs::create_dir(&run).with_context(|| format!("make {}", run.display()))?;
        Ok(Files { root: root(workspace), run })
    }

    fn command(&self, program: &str) -> Command {
        let libraries = self.root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let mut command = Command::new(self.root.join(program));
        for folder in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(folder, &self.run);
        }
        command
            .env("OVS_PKGDATADIR", self.root.join("usr/share/openvswitch"))
            .env("LIBXDP_OBJECT_PATH", libraries.join("bpf"))
            .env("LD_LIBRARY_PATH", libraries);
        command
    }

    fn start(&self, name: &str, command: &mut Command, file: &str) -> Result<Background> {
        let path = self.run.join(format!("{file}.log"));
        let log = File::create(&path).with_context(|| format!("write {}", path.display()))?;
        command.arg(format!("--unixctl={}", self.run.join(format!("{file}.ctl")).display()));
        command.stdout(log.try_clone().context("share a log")?).stderr(log);
        Background::start(name, command)
    }

    fn wait_for(&self, socket: &str) -> Result<()> {
        let path: &Path = &self.run.join(socket);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !path.exists() {
            if Instant::now() > deadline {
                bail!("Open vSwitch did not open {}", path.display());
            }
            interrupt::sleep(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn vsctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("usr/bin/ovs-vsctl");
        command
            .arg(format!("--db=unix:{}", self.run.join("db.sock").display()))
            .args(["-t", PATIENCE])
            .args(arguments);
        process::output(&mut command)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.run);
    }
}
