//! A network namespace for one test thread: it has no name, and is gone with all its devices when the thread ends.

use std::process::Command;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

/// Moves the calling thread into a new network namespace. The error is the reason to skip the test.
pub fn enter() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("no new network namespace: {e}"))?;
    // Interfaces that come up must not send anything of their own (neighbour discovery, multicast listeners).
    for scope in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
        if let Err(error) = std::fs::write(&path, "1") {
            eprintln!("{path}: {error}");
        }
    }
    ip("link set lo up");
    Ok(())
}

/// Runs `ip` with these words in the thread's namespace; panics if it fails.
pub fn ip(words: &str) -> String {
    let out = Command::new("ip").args(words.split_whitespace()).output();
    let out = out.unwrap_or_else(|e| panic!("cannot run ip: {e}"));
    assert!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Makes a veth pair that is up, and answers the interface indices.
pub fn veth(a: &str, b: &str) -> (u32, u32) {
    ip(&format!("link add {a} type veth peer name {b}"));
    ip(&format!("link set {a} up"));
    ip(&format!("link set {b} up"));
    (index(a), index(b))
}

/// The index of an interface in the thread's namespace; panics if there is none.
pub fn index(name: &str) -> u32 {
    if_nametoindex(name).unwrap_or_else(|e| panic!("no interface {name}: {e}"))
}
