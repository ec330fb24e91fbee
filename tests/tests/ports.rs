//! Ports that come, go, change, or cannot be had; daemons that end in every way.

use std::process::Command;
use std::time::Duration;

use switch_tests::guest::built;
use switch_tests::lab::{Host, Namespace, Switch, run, try_run};
use switch_tests::need_lab;

fn port<'a>(show: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let bridges = show["bridges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ports = bridges.iter().flat_map(|b| b["ports"].as_array().map(Vec::as_slice).unwrap_or_default());
    ports.into_iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no port {name}: {show}"))
}

#[test]
fn the_host_uses_the_internal_port() {
    need_lab!();
    let ns = Namespace::new("sw");
    let a = Host::new(&ns, 1);
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1"]);
    ns.ip(&["addr", "add", "10.0.0.100/24", "dev", "br0"]);
    ns.ip(&["link", "set", "br0", "up"]);
    assert!(a.pings("10.0.0.100"), "{}", switch.ask(&["show"]));
    let show = switch.json(&["show"]);
    assert_eq!(port(&show, "br0")["ofport"], 65534, "{show}");
    assert_eq!(port(&show, "br0")["kind"], "internal", "{show}");
}

#[test]
fn several_bridges_do_not_mix() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, _b, _c] = [1, 2, 3].map(|n| Host::new(&ns, n));
    let args =
        ["--bridge", "br0", "--bridge", "br1", "--port", "br0/p1", "--port", "br0/p2", "--port", "br1/p3"];
    let _switch = Switch::start(&ns, &args);
    assert!(a.pings("10.0.0.2"));
    assert!(!a.pings("10.0.0.3"));
}

#[test]
fn an_interface_that_appears_later_is_picked_up() {
    need_lab!();
    let ns = Namespace::new("sw");
    let a = Host::new(&ns, 1);
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2"]);
    let show = switch.json(&["show"]);
    assert_eq!(port(&show, "p2")["link"], "missing", "{show}");
    assert!(port(&show, "p2")["error"].as_str().is_some_and(|e| e.contains("p2")), "{show}");
    let b = Host::new(&ns, 2);
    switch.wait("p2 attached", |s| port(&s.json(&["show"]), "p2")["hook"] == "tc");
    assert!(a.pings("10.0.0.2"));
    // It goes away and comes back as another device.
    ns.ip(&["link", "del", "p2"]);
    switch.wait("p2 gone", |s| port(&s.json(&["show"]), "p2")["link"] == "missing");
    drop(b);
    let _b = Host::new(&ns, 2);
    switch.wait("p2 attached again", |s| port(&s.json(&["show"]), "p2")["hook"] == "tc");
    assert!(a.pings("10.0.0.2"));
}

#[test]
fn link_and_mtu_are_followed() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, _b] = [1, 2].map(|n| Host::new(&ns, n));
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2"]);
    assert!(a.pings("10.0.0.2"));
    ns.ip(&["link", "set", "p2", "down"]);
    switch.wait("p2 down", |s| port(&s.json(&["show"]), "p2")["link"] == "down");
    assert!(!a.pings("10.0.0.2"));
    ns.ip(&["link", "set", "p2", "mtu", "1400"]);
    ns.ip(&["link", "set", "p2", "up"]);
    switch.wait("p2 up with its MTU", |s| {
        let show = s.json(&["show"]);
        port(&show, "p2")["link"] == "up" && port(&show, "p2")["mtu"] == 1400
    });
    assert!(a.pings("10.0.0.2"));
}

#[test]
fn traffic_of_other_ports_goes_on_while_one_is_plugged() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, b] = [1, 2].map(|n| Host::new(&ns, n));
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2", "--port", "p3"]);
    assert!(a.pings("10.0.0.2"));
    let mut ping = a.ns.command("ping");
    ping.args(["-q", "-i", "0.01", "-c", "300", "-W", "1", "10.0.0.2"]);
    let ping = std::thread::spawn(move || try_run(&mut ping));
    for _ in 0..5 {
        let c = Host::new(&ns, 3);
        switch.wait("p3 attached", |s| port(&s.json(&["show"]), "p3")["hook"] == "tc");
        ns.ip(&["link", "del", "p3"]);
        drop(c);
        std::thread::sleep(Duration::from_millis(100));
    }
    let out = ping.join().expect("ping");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains(" 0% packet loss"), "{text}");
    drop(b);
}

#[test]
fn restored_when_it_ends() {
    need_lab!();
    let ns = Namespace::new("sw");
    let _a = Host::new(&ns, 1);
    let before = ns.ip(&["-d", "-o", "link", "show", "p1"]);
    let mut switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1"]);
    assert!(ns.ip(&["-d", "-o", "link", "show", "p1"]).contains("promiscuity 1"));
    assert!(!switch.leftovers(&ns).is_empty(), "pins and hidden devices exist while it runs");
    assert!(switch.stop(), "{}", switch.log());
    assert_eq!(ns.ip(&["-d", "-o", "link", "show", "p1"]), before);
    assert_eq!(switch.leftovers(&ns), Vec::<String>::new());
    assert!(!ns.ip(&["-o", "link"]).contains("br0"));
}

#[test]
fn killed_and_started_again() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, _b] = [1, 2].map(|n| Host::new(&ns, n));
    let args = ["--bridge", "br0", "--port", "p1", "--port", "p2"];
    let mut switch = Switch::start(&ns, &args);
    assert!(a.pings("10.0.0.2"));
    switch.kill();
    // What is pinned forwards on.
    assert!(a.pings("10.0.0.2"), "known flows outlive the daemon");
    switch.launch(&ns, &args).unwrap_or_else(|e| panic!("{e}"));
    assert!(a.pings("10.0.0.2"));
    assert!(switch.stop(), "{}", switch.log());
    assert_eq!(switch.leftovers(&ns), Vec::<String>::new());
    assert!(!ns.ip(&["-d", "-o", "link", "show", "p1"]).contains("promiscuity 1"));
}

#[test]
fn what_a_killed_daemon_had_made_is_not_left_behind() {
    need_lab!();
    let ns = Namespace::new("sw");
    let _a = Host::new(&ns, 1);
    let mut switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1"]);
    switch.kill();
    assert!(ns.ip(&["-o", "link"]).contains("br0"));
    switch.launch(&ns, &["--bridge", "br9"]).unwrap_or_else(|e| panic!("{e}"));
    let links = ns.ip(&["-o", "link"]);
    assert!(!links.contains("br0") && links.contains("br9"), "{links}");
    assert!(ns.ip(&["-d", "-o", "link", "show", "p1"]).contains("promiscuity 0"));
}

#[test]
fn a_second_daemon_is_refused() {
    need_lab!();
    let ns = Namespace::new("sw");
    let switch = Switch::start(&ns, &["--bridge", "br0"]);
    let sluice = built("sluice").expect("built");
    let mut second = ns.command(&sluice.to_string_lossy());
    second.arg("daemon").arg("--rundir").arg(switch.rundir()).args(["--bridge", "br0"]);
    let out = try_run(&mut second);
    assert!(!out.status.success());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("another sluice daemon"), "{text}");
}

#[test]
fn two_daemons_live_side_by_side() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, _b, c, _d] = [1, 2, 3, 4].map(|n| Host::new(&ns, n));
    let _one = Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2"]);
    let _two = Switch::start(&ns, &["--bridge", "br1", "--port", "p3", "--port", "p4"]);
    assert!(a.pings("10.0.0.2"));
    assert!(c.pings("10.0.0.4"));
    assert!(!a.pings("10.0.0.3"));
}

#[test]
fn a_port_that_refuses_is_named_and_the_rest_works() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, _b] = [1, 2].map(|n| Host::new(&ns, n));
    // Loopback can be no port of a switch.
    let switch = Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2", "--port", "lo"]);
    assert!(a.pings("10.0.0.2"));
    let show = switch.json(&["show"]);
    assert!(port(&show, "lo")["error"].as_str().is_some_and(|e| e.contains("lo")), "{show}");
    assert!(run(Command::new("ip").args(["-n", ns.name(), "link", "show", "lo"])).contains("UP"));
}

#[test]
fn flows_expire_when_idle() {
    need_lab!();
    let ns = Namespace::new("sw");
    let [a, _b] = [1, 2].map(|n| Host::new(&ns, n));
    let switch =
        Switch::start(&ns, &["--bridge", "br0", "--port", "p1", "--port", "p2", "--max-idle", "1500"]);
    for h in [&a, &_b] {
        h.ns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    }
    assert!(a.pings("10.0.0.2"));
    let count = |s: &Switch| s.json(&["flows"])["flows"].as_array().map_or(0, Vec::len);
    assert!(count(&switch) > 0);
    switch.wait("idle flows gone", |s| count(s) == 0);
}
