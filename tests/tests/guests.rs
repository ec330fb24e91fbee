//! The switch on other kernels, and between real guests.

use std::path::PathBuf;
use std::time::Duration;

use switch_tests::guest::{self, Guest, Initramfs, Kernel, Series, Tap, built, find_program};
use switch_tests::lab::{Namespace, Switch};

/// What the demonstration needs, for a guest.
fn demo_initramfs() -> Option<Initramfs> {
    let mut fs = Initramfs::with_busybox().expect("initramfs");
    for (name, path) in [("sluice", built("sluice")?), ("xtask", built("xtask")?)] {
        fs.program(&path, &format!("work/target/release/{name}")).expect(name);
    }
    for name in ["ip", "nsenter", "ping", "ethtool"] {
        let path: PathBuf = find_program(name)?;
        fs.program(&path, &format!("usr/bin/{name}")).expect(name);
    }
    Some(fs)
}

/// `cargo xtask run -- --once` on a kernel.
fn demo_on(series: Series) {
    if let Some(why) = guest::missing() {
        eprintln!("skipped: {why}");
        return;
    }
    let Some(fs) = demo_initramfs() else {
        eprintln!("skipped: sluice or xtask is not built in release form, or a program is missing");
        return;
    };
    let kernel = Kernel::fetch(series).expect("kernel package");
    let script = "cd /work && ulimit -l unlimited; ./target/release/xtask run --prebuilt --once";
    let modules = ["crc32c_generic", "veth", "tun", "sch_ingress", "cls_bpf", "8021q"];
    let result = Guest::new(kernel, &modules, fs, script)
        .memory_mib(2048)
        .run(Duration::from_secs(600))
        .expect("guest");
    assert_eq!(result.status, Some(0), "{}", result.console);
}

#[test]
fn demo_on_6_1() {
    demo_on(Series::V6_1);
}

#[test]
fn demo_on_6_12() {
    demo_on(Series::V6_12);
}

/// Two guests on taps with virtio's default offloads: TCP through the switch, every byte compared.
#[test]
fn guests_talk_tcp_with_offloads() {
    if let Some(why) = guest::missing().or_else(switch_tests::lab::missing) {
        eprintln!("skipped: {why}");
        return;
    }
    let ns = Namespace::new("sw");
    for tap in ["tap1", "tap2"] {
        ns.ip(&["tuntap", "add", tap, "mode", "tap", "vnet_hdr"]);
        ns.ip(&["link", "set", tap, "up"]);
    }
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "tap1", "--port", "tap2"]);
    let kernel = Kernel::fetch(Series::V6_1).expect("kernel package");
    let modules = ["virtio_pci", "virtio_net"];
    let setup = "ip addr add 10.9.0.N/24 dev eth0; ip link set eth0 up; ";
    let fs = || {
        let mut fs = Initramfs::with_busybox().expect("initramfs");
        fs.program(&find_program("ip").expect("ip"), "usr/bin/ip").expect("ip");
        fs
    };
    let netns = ns.path();
    let enter = move |command: &mut std::process::Command| {
        use std::os::unix::process::CommandExt;
        let file = std::fs::File::open(&netns).expect("namespace");
        // SAFETY: setns is async-signal-safe and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(move || {
                nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)
            });
        }
    };
    let tap =
        |n: u8| Tap { name: format!("tap{n}"), mac: format!("52:54:00:00:00:0{n}"), options: String::new() };
    // 24 MB of a known pattern, its checksum taken on both sides.
    let receive = format!(
        "{}echo listening; nc -l -p 5001 > /tmp/got; sum=$(md5sum < /tmp/got); echo \"received $sum\"; [ -s /tmp/got ]",
        setup.replace('N', "1")
    );
    let send = format!(
        "{}i=0; while ! busybox nc -z 10.9.0.1 5001 2>/dev/null && [ $i -lt 0 ]; do i=$((i+1)); done; \
         seq 1 3000000 > /tmp/data; echo \"sent $(md5sum < /tmp/data)\"; \
         n=0; until ip neigh | grep -q 10.9.0.1 || [ $n -gt 20 ]; do busybox arping -c 1 -I eth0 10.9.0.1; n=$((n+1)); done; \
         nc -w 20 10.9.0.1 5001 < /tmp/data",
        setup.replace('N', "2")
    );
    let mut receiver = Guest::new(kernel.clone(), &modules, fs(), &receive)
        .tap(tap(1))
        .start(enter.clone())
        .expect("receiver");
    receiver.wait_for("listening", Duration::from_secs(120)).expect("listening");
    let sender = Guest::new(kernel, &modules, fs(), &send).tap(tap(2)).start(enter).expect("sender");
    let sent = sender.finish(Duration::from_secs(240)).expect("sender");
    let got = receiver.finish(Duration::from_secs(40)).expect("receiver");
    let sum = |console: &str, word: &str| {
        console.lines().find_map(|l| l.split_once(word).map(|(_, s)| s.trim().to_owned()))
    };
    let (s, r) = (sum(&sent.console, "sent "), sum(&got.console, "received "));
    assert!(
        s.is_some() && s == r,
        "{s:?} {r:?}\n{}\n{}\n{}",
        sent.console,
        got.console,
        switch.ask(&["show"])
    );
}
