//! Frames out, seen at the far end.

use std::time::Duration;

use switch_netdev::packet_receiver::PacketReceiver;
use switch_netdev::{Links, PacketOut, Sent, UpcallReceiver};

use crate::support::{self, frame, number};

/// The Ethernet type that a [`PacketReceiver`] takes.
const TYPE: u16 = switch_common::upcall::UPCALL_ETH_TYPE;

#[test]
fn frames_arrive_at_the_peer_in_order() {
    let Some(here) = support::namespace() else { return };
    let Some(there) = support::namespace() else { return };
    let (port, _) = support::veth(&here, "p0", &there, "e0");
    let mut far = there.run(|| PacketReceiver::open("e0", 0, 1500)).expect("enter").expect("receiver");
    let mut out = here.run(PacketOut::open).expect("enter").expect("socket");
    for i in 0..1000 {
        out.push(port.ifindex, &frame(TYPE, i, 64 + i as usize));
    }
    assert_eq!(out.len(), 1000);
    assert!(out.flush().iter().all(|r| *r == Sent::Yes));
    assert!(out.is_empty());
    let mut next = 0;
    while far.wait(Duration::from_secs(1)).expect("wait") {
        far.recv_batch(&mut |f| {
            assert_eq!(f, frame(TYPE, next, 64 + next as usize));
            assert_eq!(number(f), next);
            next += 1;
        })
        .expect("receive");
        if next == 1000 {
            break;
        }
    }
    assert_eq!(next, 1000);
    assert_eq!(far.statistics().frames, 1000);
    assert_eq!(out.statistics().sent, 1000);
}

#[test]
fn what_cannot_leave_is_counted_and_stops_nothing() {
    let Some(here) = support::namespace() else { return };
    let Some(there) = support::namespace() else { return };
    let (up, _) = support::veth(&here, "p0", &there, "e0");
    let (down, _) = support::veth(&here, "p1", &there, "e1");
    let links = Links::open_in(&here).expect("links");
    links.set_up(down.ifindex, false).expect("down");
    let mut out = here.run(PacketOut::open).expect("enter").expect("socket");
    out.push(up.ifindex, &frame(TYPE, 0, 64));
    out.push(down.ifindex, &frame(TYPE, 1, 64));
    out.push(up.ifindex, &frame(TYPE, 2, 2000));
    out.push(up.ifindex, &[0; 7]);
    out.push(4_000_000, &frame(TYPE, 3, 64));
    out.push_parts(up.ifindex, &[&frame(TYPE, 4, 64)[..20], &[0; 44]]);
    assert_eq!(
        out.flush(),
        [Sent::Yes, Sent::LinkDown, Sent::TooLong, Sent::TooShort, Sent::NoLink, Sent::Yes]
    );
    let statistics = out.statistics();
    assert_eq!((statistics.sent, statistics.link_down, statistics.too_long), (2, 1, 1));
}
