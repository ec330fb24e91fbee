//! Internal ports.

use switch_netdev::internal::{InternalPortError, hidden_name, stable_mac};
use switch_netdev::link::VethSpec;
use switch_netdev::{InternalPort, InternalPortSpec, LinkError, Links};

use crate::support;

#[test]
fn an_internal_port_survives_moves_and_is_adopted() {
    let Some(ns) = support::namespace() else { return };
    let Some(other) = support::namespace() else { return };
    let hidden = hidden_name("abc234", "br0");
    let mac = stable_mac("abc234", "br0");
    let spec = InternalPortSpec { name: "br0", hidden: &hidden, mac, mtu: 1500 };
    ns.run(|| {
        let links = Links::open().expect("links");
        let first = InternalPort::create(&spec).expect("create");
        assert!(!first.adopted() && first.hidden().is_up());
        let br0 = links.by_name("br0").expect("br0");
        assert_eq!((br0.mac, br0.is_up()), (mac, false));
        drop(first);

        let second = InternalPort::create(&spec).expect("adopt");
        assert!(second.adopted());
        assert_eq!(links.by_name("br0").expect("br0"), br0);

        links.move_to(br0.ifindex, &other).expect("move");
        let third = InternalPort::create(&spec).expect("adopt");
        assert!(third.adopted());
        let host = third.host_end().expect("found elsewhere");
        assert_eq!((host.name.as_str(), host.mac), ("br0", mac));
        third.set_mtu(1400).expect("both ends");
        assert_eq!(third.host_end().expect("found").mtu, 1400);
        assert_eq!(links.by_name(&hidden).expect("hidden").mtu, 1400);

        third.delete().expect("delete");
        assert!(matches!(links.by_name(&hidden), Err(LinkError::NotFound { .. })));
        assert!(Links::open_in(&other).expect("links").by_name("br0").is_err());

        links.create_veth(&VethSpec::new("br0", "x")).expect("somebody else's");
        assert!(matches!(InternalPort::create(&spec), Err(InternalPortError::NameTaken { .. })));
        assert!(links.by_name(&hidden).is_err(), "nothing is left of the attempt");
    })
    .expect("enter");
}
