//! Links and namespaces.

use switch_netdev::link::{OperState, VethSpec};
use switch_netdev::{Ethtool, EthtoolError, LinkError, Links, MacAddress, NamedNamespace, namespace};

use crate::support;

#[test]
fn a_namespace_is_known_to_ip_and_gone_after_drop() {
    let Some(ns) = support::namespace() else { return };
    let name = ns.name().to_owned();
    let list = || {
        support::stdout({
            let mut c = std::process::Command::new("ip");
            c.args(["netns", "list"]);
            c
        })
    };
    assert!(list().contains(&name));
    let lo = Links::open_in(&ns).expect("links").by_name("lo").expect("lo");
    assert!(lo.is_up());
    let inside = ns.output("ip", &["-o", "link"]).expect("ip runs inside");
    assert_eq!(String::from_utf8_lossy(&inside.stdout).lines().count(), 1);
    let error = ns.output("ip", &["link", "show", "nosuch"]).expect_err("it fails");
    assert!(error.to_string().contains("nosuch"), "{error}");
    assert!(NamedNamespace::create(&name).is_err(), "the name is taken");
    drop(ns);
    assert!(!list().contains(&name));
    assert!(namespace::list(&name).expect("list").is_empty());
}

#[test]
fn stale_namespaces_are_removed_and_live_ones_kept() {
    let Some(live) = support::namespace() else { return };
    // No process has a number beyond the kernel's limit of 2^22.
    let stale = NamedNamespace::create("slustale-4194399-0").expect("make it");
    let removed = namespace::remove_stale("slustale").expect("remove");
    assert_eq!(removed, ["slustale-4194399-0"]);
    assert!(namespace::list("slustale").expect("list").is_empty());
    assert_eq!(namespace::list(live.name()).expect("list").len(), 1);
    drop(stale);
}

#[test]
fn a_veth_pair_is_made_changed_and_deleted() {
    let Some(ns) = support::namespace() else { return };
    let links = Links::open_in(&ns).expect("links");
    let mut spec = VethSpec::new("a0", "a1");
    let mac = MacAddress([2, 0, 0, 0, 0, 7]);
    spec.ends[0].mac = Some(mac);
    links.create_veth(&VethSpec { queues: 3, mtu: 1800, ..spec }).expect("create");
    let a0 = links.by_name("a0").expect("a0");
    let a1 = links.by_name("a1").expect("a1");
    assert_eq!((a0.kind.as_str(), a0.mtu, a0.mac), ("veth", 1800, mac));
    assert_eq!((a0.rx_queues, a0.tx_queues, a1.rx_queues), (3, 3, 3));
    assert_eq!((a0.peer, a1.peer, a0.peer_nsid), (Some(a1.ifindex), Some(a0.ifindex), None));
    assert!(!a0.is_up() && a0.is_ethernet());

    let error = links.create_veth(&spec).expect_err("the names are taken");
    assert_eq!(error.errno(), Some(libc::EEXIST));
    assert!(error.to_string().contains("a0"), "{error}");

    links.set_mtu(a0.ifindex, 9000).expect("mtu");
    links.set_mac(a0.ifindex, MacAddress([2, 0, 0, 0, 0, 8])).expect("mac");
    links.set_promiscuous(a0.ifindex, true).expect("promiscuous");
    links.disable_ipv6(&a0).expect("no IPv6");
    links.set_up(a0.ifindex, true).expect("up");
    links.set_up(a1.ifindex, true).expect("up");
    let a0 = links.by_index(a0.ifindex).expect("a0");
    assert_eq!((a0.mtu, a0.mac), (9000, MacAddress([2, 0, 0, 0, 0, 8])));
    assert!(a0.is_up() && a0.is_running() && a0.is_promiscuous());
    assert_eq!(a0.oper_state, OperState::Up);
    let addresses = ns.output("ip", &["-6", "-o", "addr", "show", "a0"]).expect("ip");
    assert!(addresses.stdout.is_empty());

    links.set_promiscuous(a0.ifindex, false).expect("not promiscuous");
    links.set_up(a0.ifindex, false).expect("down");
    links.rename(a0.ifindex, "b0").expect("rename");
    assert!(!links.by_name("b0").expect("b0").is_promiscuous());
    assert!(matches!(links.by_name("a0"), Err(LinkError::NotFound { .. })));
    assert_eq!(links.list().expect("list").len(), 3);

    links.delete(a0.ifindex).expect("delete");
    assert!(matches!(links.by_name("a1"), Err(LinkError::NotFound { .. })));
    assert!(matches!(links.set_up(a0.ifindex, true), Err(LinkError::NotFound { .. })));
}

#[test]
fn refusals_carry_the_kernels_words() {
    let Some(ns) = support::namespace() else { return };
    let links = Links::open_in(&ns).expect("links");
    links.create_veth(&VethSpec::new("a0", "a1")).expect("create");
    let a0 = links.by_name("a0").expect("a0");
    let error = links.set_mtu(a0.ifindex, 1_000_000).expect_err("too large");
    let text = error.to_string();
    assert!(text.contains("a0") && text.contains("MTU") && text.contains("mtu greater"), "{text}");
    assert!(matches!(links.by_name("far too long a name"), Err(LinkError::BadName { .. })));
}

#[test]
fn a_peer_is_found_in_its_namespace() {
    let Some(here) = support::namespace() else { return };
    let Some(there) = support::namespace() else { return };
    let (port, far) = support::veth(&here, "p0", &there, "e0");
    assert!(port.peer_nsid.is_some());
    let links = Links::open_in(&here).expect("links");
    let (namespace, peer) = links.peer(&port).expect("found").expect("there is one");
    assert_eq!((peer.ifindex, peer.name.as_str(), peer.mac), (far.ifindex, "e0", far.mac));
    assert_eq!(namespace.identity().expect("identity"), there.identity().expect("identity"));

    links.create_veth(&VethSpec::new("x0", "x1")).expect("create");
    let x0 = links.by_name("x0").expect("x0");
    let (_, x1) = links.peer(&x0).expect("found").expect("there is one");
    assert_eq!(x1.name, "x1");
    let lo = links.by_name("lo").expect("lo");
    assert!(links.peer(&lo).expect("no error").is_none());
}

#[test]
fn features_are_switched_and_verified() {
    let Some(ns) = support::namespace() else { return };
    let links = Links::open_in(&ns).expect("links");
    links.create_veth(&VethSpec::new("a0", "a1")).expect("create");
    let ethtool = Ethtool::open_in(&ns).expect("ethtool");
    assert_eq!(ethtool.driver("a0").expect("driver"), "veth");
    assert!(ethtool.is_active("a0", "tx-checksumming").expect("read"));
    let changed = ethtool.set("a0", "tx-checksumming", false).expect("off");
    assert!(changed.contains(&"tx-checksum-ip-generic".to_owned()), "{changed:?}");
    assert!(!ethtool.is_active("a0", "tx-checksumming").expect("read"));
    assert!(!ethtool.is_active("a0", "tcp-segmentation-offload").expect("read"), "it hangs on the checksum");
    assert!(ethtool.set("a0", "tx", false).expect("again").is_empty(), "nothing to change");
    for feature in &changed {
        ethtool.set("a0", feature, true).expect("back on");
    }
    assert!(ethtool.is_active("a0", "tcp-segmentation-offload").expect("read"));
    assert!(ethtool.is_active("a0", "tx-vlan-offload").expect("read"));
    ethtool.set("a0", "tx-vlan-offload", false).expect("off");
    let shown = ns.output("ethtool", &["-k", "a0"]).expect("ethtool");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("tx-vlan-offload: off"));
    assert!(matches!(ethtool.set("a0", "no-such-feature", true), Err(EthtoolError::NoFeature { .. })));
    assert!(matches!(ethtool.set("lo", "rx-vlan-filter", true), Err(EthtoolError::Fixed { .. })));
    assert!(ethtool.features("gone").expect_err("no such link").is_gone());
    assert!(ethtool.channels("a0").expect("read").is_some_and(|c| c.combined + c.rx >= 1));
}
