//! Tables of what `--port` and `--bridge` take and refuse.

use super::*;

fn vlan_config(mode: VlanMode, tag: Option<u16>, trunks: &[u16]) -> VlanConfig {
    VlanConfig { mode, tag, trunks: trunks.to_vec(), priority_tags: PriorityTags::Never }
}

#[test]
fn vlan_defaults_are_those_of_open_vswitch() {
    use VlanMode::*;
    let table = [
        ("p", vlan_config(Trunk, None, &[])),
        ("p,tag=10", vlan_config(Access, Some(10), &[])),
        ("p,tag=0", vlan_config(Access, Some(0), &[])),
        ("p,tag=4095", vlan_config(Access, Some(4095), &[])),
        ("p,trunks=20+10+20", vlan_config(Trunk, None, &[10, 20])),
        ("p,native=1", vlan_config(NativeUntagged, Some(1), &[])),
        ("p,trunks=10+20,native=1", vlan_config(NativeUntagged, Some(1), &[10, 20])),
        ("p,native=1,mode=native-tagged", vlan_config(NativeTagged, Some(1), &[])),
        ("p,tag=1,mode=native-tagged,trunks=2", vlan_config(NativeTagged, Some(1), &[2])),
        ("p,mode=access", vlan_config(Access, None, &[])),
        ("p,mode=native-untagged", vlan_config(NativeUntagged, None, &[])),
        ("p,mode=trunk,trunks=7", vlan_config(Trunk, None, &[7])),
    ];
    for (text, want) in table {
        let port: PortArg = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(port.config.vlan, want, "{text}");
        let bridge: BridgeArg = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(bridge.local, want, "{text}");
    }
}

#[test]
fn names_and_the_other_options() {
    let port: PortArg =
        "br1/eth2,trunks=10+20,native=1,hook=xdp,ofport=7,priority-tags=if-nonzero".parse().expect("a port");
    assert_eq!(
        port,
        PortArg {
            bridge: Some("br1".into()),
            name: "eth2".into(),
            config: PortConfig {
                vlan: VlanConfig {
                    mode: VlanMode::NativeUntagged,
                    tag: Some(1),
                    trunks: vec![10, 20],
                    priority_tags: PriorityTags::IfNonzero,
                },
                hook: HookWish::Xdp,
                ofport_request: Some(7),
            },
        }
    );
    let plain: PortArg = "eth1".parse().expect("a port");
    assert_eq!((plain.bridge, plain.name.as_str(), plain.config.hook), (None, "eth1", HookWish::Auto));
    assert_eq!(plain.config.ofport_request, None);
}

#[test]
fn errors_name_the_bad_part() {
    let table = [
        ("", "port has no name before the first ','"),
        (",tag=1", "port has no name before the first ','"),
        ("br0/", "port has no name before the first ','"),
        ("/eth1", "bridge has no name before the first ','"),
        ("tag=1", "'tag=1' cannot be the name of a port: an option stands where the name belongs"),
        ("br0/a/b", "'a/b' cannot be the name of a port: it holds '/', ':' or blanks"),
        ("eth 1", "'eth 1' cannot be the name of a port: it holds '/', ':' or blanks"),
        ("averylonginterfa", "'averylonginterfa' cannot be the name of a port: it is longer than 15 bytes"),
        (
            "averylongbridgen/p",
            "'averylongbridgen' cannot be the name of a bridge: it is longer than 15 bytes",
        ),
        ("..", "'..' cannot be the name of a port: Linux reserves it"),
        ("p,tag", "'tag' needs a value: tag=..."),
        ("p,tag=", "'tag' needs a value: tag=..."),
        (
            "p,colour=red",
            "there is no option 'colour'; there are tag, trunks, native, mode, priority-tags, hook, ofport",
        ),
        ("p,", "there is no option ''; there are tag, trunks, native, mode, priority-tags, hook, ofport"),
        ("p,tag=4096", "tag=4096: '4096' is not a VLAN, a number from 0 to 4095"),
        ("p,tag=+5", "tag=+5: '+5' is not a VLAN, a number from 0 to 4095"),
        ("p,trunks=10+x", "trunks=10+x: 'x' is not a VLAN, a number from 0 to 4095"),
        ("p,trunks=10+", "trunks=10+: '' is not a VLAN, a number from 0 to 4095"),
        ("p,native=99999999", "native=99999999: '99999999' is not a VLAN, a number from 0 to 4095"),
        ("p,tag=1,tag=2", "option 'tag' is given twice"),
        ("p,hook=ebpf", "hook=ebpf: it is one of auto, tc, xdp"),
        ("p,mode=tagged", "mode=tagged: it is one of access, trunk, native-tagged, native-untagged"),
        ("p,priority-tags=yes", "priority-tags=yes: it is one of no, if-nonzero, always"),
        ("p,ofport=0", "ofport=0: an OpenFlow port number is from 1 to 65279"),
        ("p,ofport=65280", "ofport=65280: an OpenFlow port number is from 1 to 65279"),
        (
            "p,tag=1,native=2",
            "tag and native do not go together: tag is for access ports, native for trunks with an untagged VLAN",
        ),
        (
            "p,tag=1,trunks=2",
            "tag and trunks do not go together: a tag makes an access port; \
             for the untagged VLAN of a trunk say native=N",
        ),
        (
            "p,mode=access,trunks=2",
            "trunks and mode=access do not go together: an access port carries one VLAN",
        ),
        (
            "p,mode=access,native=2",
            "native and mode=access do not go together: an access port has a tag: tag=N",
        ),
        (
            "p,mode=trunk,tag=2",
            "tag and mode=trunk do not go together: a trunk has no untagged VLAN; \
             say mode=native-untagged or mode=native-tagged",
        ),
    ];
    for (text, want) in table {
        match text.parse::<PortArg>() {
            Ok(port) => panic!("{text} is taken as {port:?}"),
            Err(error) => assert_eq!(error.to_string(), want, "{text}"),
        }
    }
}

#[test]
fn a_bridge_has_no_hook() {
    let error = "br0,hook=xdp".parse::<BridgeArg>().expect_err("refused");
    assert_eq!(
        error.to_string(),
        "there is no option 'hook'; there are tag, trunks, native, mode, priority-tags"
    );
    let error = "br0/br1".parse::<BridgeArg>().expect_err("refused");
    assert_eq!(error.to_string(), "'br0/br1' cannot be the name of a bridge: it holds '/', ':' or blanks");
}

proptest::proptest! {
    /// No text makes the parser panic, and what it takes has a name that Linux takes.
    #[test]
    fn any_text(text in "\\PC{0,24}|[a-z0-9/]{1,6}(,(tag|trunks|native|mode|hook)=[0-9a-z+]{0,5}){0,3}") {
        if let Ok(port) = text.parse::<PortArg>() {
            assert!((1..=15).contains(&port.name.len()) && !port.name.contains('/'));
            assert!(port.config.vlan.trunks.is_sorted() && port.config.vlan.tag.is_none_or(|t| t <= MAX_VLAN));
        }
    }
}
