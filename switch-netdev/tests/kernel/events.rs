//! The event stream.

use std::time::Duration;

use switch_netdev::link::VethSpec;
use switch_netdev::{LinkEvent, LinkWatch, Links};
use tokio::time::timeout;

use crate::support;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

/// Reads until an event fits, for five seconds at most.
async fn until(watch: &mut LinkWatch, fits: impl Fn(&LinkEvent) -> bool) -> LinkEvent {
    timeout(Duration::from_secs(5), async {
        loop {
            let event = watch.next().await.expect("event");
            if fits(&event) {
                return event;
            }
        }
    })
    .await
    .expect("the event comes in time")
}

#[test]
fn links_come_change_and_go() {
    let Some(ns) = support::namespace() else { return };
    let Some(other) = support::namespace() else { return };
    let links = Links::open_in(&ns).expect("links");
    runtime().block_on(async {
        let (mut watch, first) = LinkWatch::open_in(&ns).expect("watch");
        assert_eq!(first.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["lo"]);

        links.create_veth(&VethSpec::new("a0", "a1")).expect("create");
        let new = until(&mut watch, |e| matches!(e, LinkEvent::New(l) if l.name == "a0")).await;
        let LinkEvent::New(a0) = new else { unreachable!() };
        assert_eq!(a0.kind, "veth");

        links.set_mtu(a0.ifindex, 1400).expect("mtu");
        until(&mut watch, |e| matches!(e, LinkEvent::Changed(l) if l.name == "a0" && l.mtu == 1400)).await;
        links.set_up(a0.ifindex, true).expect("up");
        until(&mut watch, |e| matches!(e, LinkEvent::Changed(l) if l.name == "a0" && l.is_up())).await;

        // A bridge's report on its port is neither a new link nor, at its end, a removed one.
        ns.output("ip", &["link", "add", "br0", "type", "bridge"]).expect("bridge");
        let br = links.by_name("br0").expect("br0").ifindex;
        ns.output("ip", &["link", "set", "a0", "master", "br0"]).expect("into the bridge");
        until(&mut watch, |e| matches!(e, LinkEvent::Changed(l) if l.name == "a0" && l.master == Some(br)))
            .await;
        ns.output("ip", &["link", "set", "a0", "nomaster"]).expect("out of the bridge");
        let event = until(&mut watch, |e| match e {
            LinkEvent::Removed { name, .. } => name == "a0",
            LinkEvent::Changed(l) => l.name == "a0" && l.master.is_none() && !l.is_running(),
            _ => false,
        })
        .await;
        assert!(matches!(event, LinkEvent::Changed(_)));

        let a1 = links.by_name("a1").expect("a1").ifindex;
        links.move_to(a1, &other).expect("move");
        until(&mut watch, |e| *e == LinkEvent::Removed { ifindex: a1, name: "a1".to_owned() }).await;
        links.delete(a0.ifindex).expect("delete");
        until(&mut watch, |e| *e == LinkEvent::Removed { ifindex: a0.ifindex, name: "a0".to_owned() }).await;
    });
}

#[test]
fn lost_events_bring_the_whole_list() {
    let Some(ns) = support::namespace() else { return };
    let links = Links::open_in(&ns).expect("links");
    links.create_veth(&VethSpec::new("a0", "a1")).expect("create");
    let a0 = links.by_name("a0").expect("a0").ifindex;
    runtime().block_on(async {
        let (mut watch, _) = LinkWatch::open_in(&ns).expect("watch");
        // Nobody reads meanwhile; each change is an event, until they overrun the socket's buffer.
        for i in 0..6000 {
            links.set_mtu(a0, 1400 + i % 2).expect("mtu");
        }
        links.create_veth(&VethSpec::new("b0", "b1")).expect("create");
        let event = until(&mut watch, |e| matches!(e, LinkEvent::Resync(_))).await;
        let LinkEvent::Resync(all) = event else { unreachable!() };
        assert!(all.iter().any(|l| l.name == "b0"));
        links.set_mtu(a0, 1300).expect("mtu");
        until(&mut watch, |e| matches!(e, LinkEvent::Changed(l) if l.name == "a0" && l.mtu == 1300)).await;
    });
}
