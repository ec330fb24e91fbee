//! Ports: the hook's choice, preparation and restoration.

use std::time::Duration;

use switch_netdev::link::VethSpec;
use switch_netdev::xdp_features::{XdpFeatures, xdp_features};
use switch_netdev::{
    Ethtool, Hook, HookChoice, HookWish, Links, PrepareError, Prepared, Preparer, UpcallReceiver,
    UpcallSocket, XdpOutput, XskOptions, choose_hook, xdp_output,
};

use crate::bpf::{Attached, Tagger};
use crate::support;

fn choice(hook: Hook) -> HookChoice {
    HookChoice { hook, generic: false, why: String::new() }
}

#[test]
fn a_veth_under_xdp_has_its_peer_prepared_and_all_is_restored() {
    let Some(here) = support::namespace() else { return };
    let Some(there) = support::namespace() else { return };
    let (port, _) = support::veth(&here, "p0", &there, "e0");
    let far = Ethtool::open_in(&there).expect("ethtool");
    let before = (Ethtool::open_in(&here).expect("ethtool").features("p0"), far.features("e0"));
    here.run(|| {
        let preparer = Preparer::open().expect("preparer");
        let prepared = preparer.prepare(port.ifindex, &choice(Hook::Xdp), None).expect("prepare");
        let link = preparer.links().by_index(port.ifindex).expect("p0");
        assert!(link.is_promiscuous());
        for feature in ["tx-vlan-offload", "tx-vlan-stag-hw-insert", "tx-checksumming"] {
            assert!(!far.is_active("e0", feature).expect("read"), "{feature}");
        }
        assert!(!preparer.ethtool().is_active("p0", "rx-vlan-offload").expect("read"));

        // A later daemon has only what was stored, and finds the link as the first one left it.
        let stored = serde_json::to_string(&prepared).expect("stored");
        let earlier: Prepared = serde_json::from_str(&stored).expect("read back");
        assert_eq!(earlier, prepared);
        let again = preparer.prepare(port.ifindex, &choice(Hook::Xdp), Some(earlier)).expect("prepare again");
        assert_eq!(again, prepared, "the first state is still remembered");
        let tc = preparer.prepare(port.ifindex, &choice(Hook::Tc), Some(again)).expect("another hook");
        assert_eq!(tc.hook(), Hook::Tc);
        assert!(far.is_active("e0", "tx-vlan-offload").expect("read"), "TC needs nothing of the peer");
        let xdp = preparer.prepare(port.ifindex, &choice(Hook::Xdp), Some(tc)).expect("back");
        preparer.restore(&xdp).expect("restore");
        assert!(!preparer.links().by_index(port.ifindex).expect("p0").is_promiscuous());
        preparer.restore(&xdp).expect("a second time does nothing");
    })
    .expect("enter");
    let after = (Ethtool::open_in(&here).expect("ethtool").features("p0"), far.features("e0"));
    assert_eq!(before.0.expect("features"), after.0.expect("features"));
    assert_eq!(before.1.expect("features"), after.1.expect("features"));
}

#[test]
fn what_a_user_set_before_stays_after() {
    let Some(here) = support::namespace() else { return };
    let Some(there) = support::namespace() else { return };
    let (port, _) = support::veth(&here, "p0", &there, "e0");
    let far = Ethtool::open_in(&there).expect("ethtool");
    far.set("e0", "tx-vlan-offload", false).expect("by the user");
    here.run(|| {
        let preparer = Preparer::open().expect("preparer");
        preparer.links().set_promiscuous(port.ifindex, true).expect("by the user");
        let prepared = preparer.prepare(port.ifindex, &choice(Hook::Xdp), None).expect("prepare");
        preparer.restore(&prepared).expect("restore");
        assert!(preparer.links().by_index(port.ifindex).expect("p0").is_promiscuous());
        assert!(!far.is_active("e0", "tx-vlan-offload").expect("read"));
        assert!(far.is_active("e0", "tx-checksumming").expect("read"));
        // What is gone needs no restoring.
        preparer.links().delete(port.ifindex).expect("delete");
        preparer.restore(&prepared).expect("restore");
        assert!(matches!(
            preparer.prepare(port.ifindex, &choice(Hook::Tc), None),
            Err(PrepareError::Link(_))
        ));
    })
    .expect("enter");
}

#[test]
fn a_tagged_frame_keeps_its_tag_once_the_peer_is_prepared() {
    let Some(here) = support::namespace() else { return };
    let Some(there) = support::namespace() else { return };
    let (port, far) = support::veth(&here, "p0", &there, "e0");
    // It leaves the tag beside the frame, as a bridge, a VLAN device or another switch in the namespace would.
    let _tagger = match there.run(|| Tagger::new(far.ifindex, 7)).expect("enter") {
        Ok(tagger) => tagger,
        Err(error) => return eprintln!("skipped: this kernel has no tcx: {error}"),
    };
    let frame = support::frame(0x88b5, 1, 64);
    here.run(|| {
        let mut socket = UpcallSocket::open("p0", 0, XskOptions::default()).expect("socket");
        let program = Attached::new(port.ifindex, true).expect("program");
        program.insert(0, socket.fd()).expect("into the map");
        let mut seen = || {
            there.run(|| support::send_through_tc(far.ifindex, &frame)).expect("enter");
            let mut seen = Vec::new();
            while seen.is_empty() && socket.wait(Duration::from_secs(1)).expect("wait") {
                socket.recv_batch(&mut |f| seen.push(f.to_vec())).expect("receive");
            }
            seen
        };
        let preparer = Preparer::open().expect("preparer");
        assert_eq!(seen(), std::slice::from_ref(&frame), "the peer's offload hides the tag from XDP");
        let prepared = preparer.prepare(port.ifindex, &choice(Hook::Xdp), None).expect("prepare");
        let tagged = [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
        assert_eq!(seen(), [tagged]);
        preparer.restore(&prepared).expect("restore");
        assert_eq!(seen(), std::slice::from_ref(&frame), "as it was");
    })
    .expect("enter");
}

#[test]
fn hooks_by_what_a_device_is() {
    let Some(here) = support::namespace() else { return };
    let Some(there) = support::namespace() else { return };
    let (port, _) = support::veth(&here, "p0", &there, "e0");
    here.output("ip", &["link", "add", "br0", "type", "bridge"]).expect("bridge");
    here.output("ip", &["tuntap", "add", "t0", "mode", "tap", "vnet_hdr"]).expect("tap");
    here.output("ip", &["tuntap", "add", "t1", "mode", "tap"]).expect("tap");
    let links = Links::open_in(&here).expect("links");
    let ethtool = Ethtool::open_in(&here).expect("ethtool");
    let check = |name: &str, wish, hook, words: &str| {
        let link = links.by_name(name).expect("the link");
        let made = choose_hook(&links, &ethtool, &link, wish).expect("a choice");
        assert_eq!(made.hook, hook, "{name} {wish:?}: {}", made.why);
        assert!(!made.generic);
        assert!(made.why.contains(words), "{name} {wish:?}: {}", made.why);
    };
    check("p0", HookWish::Auto, Hook::Tc, "veth");
    check("p0", HookWish::Xdp, Hook::Xdp, "configured");
    check("p0", HookWish::Tc, Hook::Tc, "configured");
    check("br0", HookWish::Auto, Hook::Tc, "bridge");
    check("br0", HookWish::Xdp, Hook::Tc, "already worked on");
    check("t0", HookWish::Auto, Hook::Tc, "tun");
    check("t0", HookWish::Xdp, Hook::Tc, "vnet_hdr");
    check("t1", HookWish::Xdp, Hook::Xdp, "configured");
    check("lo", HookWish::Xdp, Hook::Tc, "Ethernet");

    let features = xdp_features(&links, &ethtool, &port).expect("features");
    assert!(features.native(), "{features:?}");
}

#[test]
fn a_veth_takes_redirected_frames_while_its_peer_polls() {
    let Some(here) = support::namespace() else { return };
    let Some(there) = support::namespace() else { return };
    let (port, _) = support::veth(&here, "p0", &there, "e0");
    let links = Links::open_in(&here).expect("links");
    let ethtool = Ethtool::open_in(&here).expect("ethtool");
    let XdpFeatures { reported, .. } = xdp_features(&links, &ethtool, &port).expect("features");
    let far = Ethtool::open_in(&there).expect("ethtool");
    assert_eq!(xdp_output(&links, &ethtool, &port).expect("output"), XdpOutput::No);
    far.set("e0", "generic-receive-offload", true).expect("GRO");
    let taken = xdp_output(&links, &ethtool, &port).expect("output");
    assert_eq!(taken, if reported { XdpOutput::MultiBuffer } else { XdpOutput::Linear });
    links.create_veth(&VethSpec::new("q0", "q1")).expect("create");
    let q0 = links.by_name("q0").expect("q0");
    assert_eq!(xdp_output(&links, &ethtool, &q0).expect("output"), XdpOutput::No);
}
