//! Actions on packets in userspace: key and packet stay in step, checksums stay right, nothing panics.

mod packets;

use packets::{Net, Spec, Transport, checksums_are_right, specs};
use proptest::collection::vec;
use proptest::prelude::*;
use switch_common::action::apply_to_key;
use switch_common::counter::Drop;
use switch_common::key::{FLAGS_KIND_MASK, FlowKey, FlowMask, KEY_WORDS};
use switch_common::parse::{OffloadedTag, PacketMeta, parse_frame};
use switch_dpif::action::{DpAction, DpPort, Layer, Set};
use switch_dpif::encode::encode;
use switch_dpif::execute::{Misfit, Output, PacketBuf, apply_set, execute};

/// Remembers what it is told.
#[derive(Default)]
struct Recorder {
    frames: Vec<(u16, Vec<u8>)>,
    upcalls: Vec<(u8, u64, Vec<u8>)>,
    drops: Vec<Drop>,
    recirculated: Vec<FlowKey>,
    meters: Vec<u32>,
    conforms: bool,
    random: u32,
}

impl Output for Recorder {
    fn output(&mut self, port: DpPort, frame: &[u8], max_len: Option<u32>, _: &FlowKey) {
        let len = max_len.map_or(frame.len(), |m| frame.len().min(m as usize));
        self.frames.push((port.0, frame[..len].to_vec()));
    }

    fn userspace(&mut self, reason: u8, cookie: u64, frame: &[u8], _: &FlowKey) {
        self.upcalls.push((reason, cookie, frame.to_vec()));
    }

    fn drop(&mut self, reason: Drop) {
        self.drops.push(reason);
    }

    fn recirculate(&mut self, packet: &mut PacketBuf) {
        self.recirculated.push(*packet.key());
    }

    fn meter(&mut self, id: u32, _: u32) -> bool {
        self.meters.push(id);
        self.conforms
    }

    fn random(&mut self) -> u32 {
        self.random
    }
}

const META: PacketMeta = PacketMeta {
    in_port: 3,
    recirc_id: 0,
    tag: OffloadedTag { tpid: 0, tci: 0 },
    skb_mark: 0,
    skb_priority: 0,
    dp_hash: 0,
    vlan_limit: 2,
};

fn packet(frame: &[u8]) -> PacketBuf {
    PacketBuf::new(frame, &META).unwrap()
}

fn run(frame: &[u8], actions: &[DpAction]) -> Recorder {
    let mut out = Recorder { conforms: true, ..Recorder::default() };
    execute(&mut packet(frame), actions, &mut out);
    out
}

fn keyed(f: impl FnOnce(&mut FlowKey)) -> FlowKey {
    let mut k = FlowKey::ZERO;
    f(&mut k);
    k
}

/// Whether a packet of this spec has the header.
fn has(spec: &Spec, layer: Layer) -> bool {
    let ip = matches!(spec.net, Net::Ipv4 { .. } | Net::Ipv6 { .. });
    let ports = matches!(spec.transport, Transport::Tcp | Transport::Udp(_) | Transport::Sctp);
    let icmp = matches!(spec.transport, Transport::Icmp | Transport::Icmpv6 | Transport::Nd { .. });
    match layer {
        Layer::Ethernet | Layer::Priority | Layer::Mark => true,
        Layer::Vlan => !spec.tags.is_empty(),
        Layer::Ipv4 => matches!(spec.net, Net::Ipv4 { .. }),
        Layer::Ipv6 => matches!(spec.net, Net::Ipv6 { .. }),
        Layer::Arp => spec.net == Net::Arp,
        Layer::Mpls => matches!(spec.net, Net::Mpls(_)),
        Layer::Tcp | Layer::Udp | Layer::Sctp => ip && ports,
        Layer::Icmp | Layer::Icmpv6 => ip && icmp,
        Layer::Nd => matches!(spec.transport, Transport::Nd { .. }),
    }
}

/// The key as a set should leave it.
fn expected(before: &FlowKey, spec: &Spec, set: &Set) -> FlowKey {
    let mut k = *before;
    let words = k.words_mut().iter_mut().zip(set.value.words()).zip(set.mask.words());
    for ((w, v), m) in words {
        *w = *w & !m | v & m;
    }
    if let (Layer::Nd, Transport::Nd { source, target, .. }) = (set.layer, spec.transport) {
        if !source {
            k.arp_sha = [0; 6];
        }
        if !target {
            k.arp_tha = [0; 6];
        }
    }
    if set.layer == Layer::Icmp || set.layer == Layer::Icmpv6 {
        // Another type is another set of fields.
        let (src, dst) = (k.tp_src, k.tp_dst);
        k = *before;
        (k.tp_src, k.tp_dst) = (src, dst);
    }
    k
}

fn without_kind(k: &FlowKey) -> FlowKey {
    keyed(|n| {
        *n = *k;
        n.flags &= !FLAGS_KIND_MASK.to_be();
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn key_and_packet_stay_in_step(
        spec in specs(),
        layer in 0..Layer::ALL.len(),
        value: [u64; KEY_WORDS],
        bits: [u64; KEY_WORDS],
        whole: bool,
    ) {
        let layer = Layer::ALL[layer];
        let mut mask = if whole { FlowMask::EXACT } else { FlowMask(FlowKey::from_words(bits)) };
        if layer == Layer::Mpls {
            // Whether there is another entry behind it is another packet.
            mask.0.mpls_lse[0] &= !0x100u32.to_be();
        }
        let set = Set::new(layer, &FlowKey::from_words(value), &mask);
        let frame = spec.build();
        prop_assert_eq!(checksums_are_right(&spec, &frame), Ok(()));
        let mut p = packet(&frame);
        let before = *p.key();
        let result = apply_set(&mut p, &set);
        prop_assert_eq!(result.is_ok(), has(&spec, layer), "{:?}", result);
        let after = *p.key();
        if result.is_err() {
            prop_assert_eq!(p.frame(), &frame[..]);
            prop_assert_eq!(after, before);
            return Ok(());
        }
        prop_assert_eq!(p.frame().len(), frame.len());
        prop_assert_eq!(checksums_are_right(&spec, p.frame()), Ok(()));
        let want = expected(&before, &spec, &set);
        match layer {
            Layer::Icmp | Layer::Icmpv6 => {
                prop_assert_eq!((after.tp_src, after.tp_dst), (want.tp_src, want.tp_dst));
            }
            _ => prop_assert_eq!(without_kind(&after), without_kind(&want)),
        }
        // The key is what the packet says.
        let (parsed, _) = parse_frame(p.frame(), &META).unwrap();
        if !matches!(layer, Layer::Priority | Layer::Mark) {
            prop_assert_eq!(parsed, after);
        }
        // The records of the eBPF datapath say the same.
        let encoded = encode(&[DpAction::Set(set), DpAction::output(1)]);
        if encoded.slow_path.is_none() && !matches!(layer, Layer::Vlan | Layer::Priority | Layer::Mark) {
            let mut words = before;
            for a in encoded.records.iter().filter(|a| a.op != switch_common::action::op::OUTPUT) {
                prop_assert!(apply_to_key(words.words_mut(), a));
            }
            if layer == Layer::Nd {
                words.arp_sha = if before.arp_sha == [0; 6] { [0; 6] } else { words.arp_sha };
                words.arp_tha = if before.arp_tha == [0; 6] { [0; 6] } else { words.arp_tha };
            }
            if !matches!(layer, Layer::Icmp | Layer::Icmpv6) {
                prop_assert_eq!(without_kind(&after), without_kind(&words));
            }
        }
    }

    #[test]
    fn tags_come_and_go(spec in specs(), tags in vec((any::<bool>(), any::<u16>()), 1..24)) {
        let frame = spec.build();
        let mut p = packet(&frame);
        let key = *p.key();
        for (service, tci) in &tags {
            p.push_vlan(if *service { 0x88a8 } else { 0x8100 }, *tci);
        }
        prop_assert_eq!(p.frame().len(), frame.len() + 4 * tags.len());
        let (service, tci) = tags[tags.len() - 1];
        prop_assert_eq!(u16::from_be(p.key().vlan_tci), tci | 0x1000);
        prop_assert_eq!(u16::from_be(p.key().vlan_tpid), if service { 0x88a8 } else { 0 });
        for _ in &tags {
            prop_assert_eq!(p.pop_vlan(), Ok(()));
        }
        prop_assert_eq!(p.frame(), &frame[..]);
        prop_assert_eq!(*p.key(), key);
    }

    #[test]
    fn a_tag_beside_the_frame_is_the_outermost(spec in specs(), tci in any::<u16>()) {
        let tci = tci & !0x1000;
        let tag = OffloadedTag { tpid: 0x8100u16.to_be(), tci };
        let frame = spec.build();
        let p = PacketBuf::new(&frame, &PacketMeta { tag, ..META }).unwrap();
        let mut tagged = packet(&frame);
        tagged.push_vlan(0x8100, tci);
        prop_assert_eq!(p.frame(), tagged.frame());
        prop_assert_eq!(p.key(), tagged.key());
        let (parsed, _) = parse_frame(&frame, &PacketMeta { tag, ..META }).unwrap();
        prop_assert_eq!(*p.key(), parsed);
    }

    #[test]
    fn nothing_panics(
        bytes in vec(any::<u8>(), 0..200),
        spec in specs(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        list in vec(actions(), 0..6),
        limit in 0..3u8,
        random: bool,
    ) {
        let mut frame = if random { bytes } else { spec.build() };
        if !frame.is_empty() {
            for (at, b) in flips {
                let at = at.index(frame.len());
                frame[at] = b;
            }
            frame.truncate(cut.index(frame.len()) + 1);
        }
        let meta = PacketMeta { vlan_limit: limit, ..META };
        if let Some(mut p) = PacketBuf::new(&frame, &meta) {
            let mut out = Recorder { conforms: true, ..Recorder::default() };
            execute(&mut p, &list, &mut out);
            // The key stays that of the bytes, whatever they are.
            let key = *p.key();
            let meta = PacketMeta {
                skb_mark: key.skb_mark,
                skb_priority: key.skb_priority,
                dp_hash: key.dp_hash,
                recirc_id: key.recirc_id(),
                ..meta
            };
            let (parsed, _) = parse_frame(p.frame(), &meta).unwrap();
            prop_assert_eq!(parsed, key);
        } else {
            prop_assert!(frame.len() < 14);
        }
    }
}

fn actions() -> impl Strategy<Value = DpAction> {
    let set =
        (0..Layer::ALL.len(), any::<[u64; KEY_WORDS]>(), any::<[u64; KEY_WORDS]>()).prop_map(|(l, v, m)| {
            DpAction::Set(Set::new(Layer::ALL[l], &FlowKey::from_words(v), &FlowMask(FlowKey::from_words(m))))
        });
    let leaf = prop_oneof![
        8 => set,
        2 => any::<u16>().prop_map(DpAction::output),
        2 => (any::<u16>(), any::<u16>()).prop_map(|(tpid, tci)| DpAction::PushVlan { tpid, tci }),
        2 => Just(DpAction::PopVlan),
        1 => any::<u32>().prop_map(DpAction::Truncate),
        1 => (any::<u32>(), any::<bool>()).prop_map(|(basis, symmetric)| DpAction::Hash { basis, symmetric }),
        1 => (1u32..1 << 24).prop_map(DpAction::Recirculate),
        1 => any::<u32>().prop_map(DpAction::Meter),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(reason, cookie)| DpAction::Userspace { reason, cookie }),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        (any::<u32>(), vec(inner, 0..3))
            .prop_map(|(probability, actions)| DpAction::Sample { probability, actions })
    })
}

#[test]
fn lists_go_where_they_say() {
    let frame = Spec::udp4().build();
    let r =
        run(&frame, &[DpAction::output(1), DpAction::push_vlan(7), DpAction::output(2), DpAction::PopVlan]);
    assert_eq!(r.frames.len(), 2);
    assert_eq!(r.frames[0], (1, frame.clone()));
    assert_eq!(r.frames[1].1[12..16], [0x81, 0, 0, 7]);
    assert!(r.drops.is_empty());

    let r = run(&frame, &[DpAction::Truncate(20), DpAction::output(1), DpAction::output(2)]);
    assert_eq!((r.frames[0].1.len(), r.frames[1].1.len()), (20, frame.len()));

    assert_eq!(run(&frame, &[]).drops, [Drop::Policy]);
    assert_eq!(run(&frame, &[DpAction::push_vlan(1)]).drops, [Drop::Policy]);
    assert_eq!(run(&frame, &[DpAction::Drop(Drop::Reserved), DpAction::output(1)]).drops, [Drop::Reserved]);
    let r = run(&frame, &[DpAction::output(1), DpAction::PopVlan, DpAction::output(2)]);
    assert_eq!((r.frames.len(), r.drops), (1, vec![Drop::ActionFailed]));

    let r = run(&frame, &[DpAction::Userspace { reason: 1, cookie: 77 }]);
    assert_eq!((&r.upcalls[..], r.drops.len()), (&[(1, 77, frame.clone())][..], 0));
}

#[test]
fn headers_behind_too_many_tags_can_still_be_set() {
    let frame = Spec { tags: vec![(0x88a8, 1), (0x8100, 2)], ..Spec::udp4() }.build();
    let ttl =
        DpAction::Set(Set::new(Layer::Ipv4, &keyed(|k| k.ip_ttl = 9), &FlowMask(keyed(|k| k.ip_ttl = !0))));
    let r = run(&frame, &[DpAction::push_vlan(3), ttl, DpAction::output(1)]);
    assert_eq!((r.frames[0].1[26 + 8], r.drops.len()), (9, 0));
    let spec = Spec { tags: vec![(0, 0); 3], ..Spec::udp4() };
    assert_eq!(checksums_are_right(&spec, &r.frames[0].1), Ok(()));
}

#[test]
fn samples_have_a_copy() {
    let frame = Spec::udp4().build();
    let sample =
        DpAction::Sample { probability: 100, actions: vec![DpAction::push_vlan(9), DpAction::output(8)] };
    let list = [sample, DpAction::output(2)];
    let r = run(&frame, &list);
    assert_eq!(r.frames.len(), 2);
    assert_eq!(r.frames[1], (2, frame.clone()));
    let mut out = Recorder { random: 100, ..Recorder::default() };
    execute(&mut packet(&frame), &list, &mut out);
    assert_eq!(out.frames, [(2, frame.clone())]);
    // A sample alone goes nowhere.
    assert_eq!(run(&frame, &list[..1]).drops, [Drop::Policy]);
}

#[test]
fn meters_recirculation_and_hash() {
    let frame = Spec::udp4().build();
    let mut out = Recorder { conforms: false, ..Recorder::default() };
    execute(&mut packet(&frame), &[DpAction::Meter(4), DpAction::output(1)], &mut out);
    assert_eq!((out.frames.len(), out.drops, out.meters), (0, vec![Drop::Meter], vec![4]));

    let hash = DpAction::Hash { basis: 5, symmetric: false };
    let r = run(&frame, &[hash, DpAction::Recirculate(9)]);
    let key = r.recirculated[0];
    assert_eq!(key.recirc_id(), 9);
    assert_eq!(key.dp_hash, switch_common::hash::connection(packet(&frame).key().words(), 5, false));
    assert_ne!(key.dp_hash, 0);
    assert!(r.drops.is_empty());
}

/// The frame's IPv4 header becomes that of a fragment, with its checksum.
fn fragment(frame: &mut [u8], offset: u16) {
    frame[20..22].copy_from_slice(&offset.to_be_bytes());
    frame[24..26].fill(0);
    let mut sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[test]
fn fragments() {
    let mut address = keyed(|k| k.addr[0] = u32::from_ne_bytes([1, 1, 1, 1]));
    let set = Set::new(Layer::Ipv4, &address, &FlowMask(keyed(|k| k.addr[0] = !0)));
    // A later fragment has no transport header: only the IPv4 header changes.
    let mut frame = Spec::udp4().build();
    fragment(&mut frame, 0x2001);
    let mut p = packet(&frame);
    assert_eq!(apply_set(&mut p, &set), Ok(()));
    assert_eq!(p.frame()[34..], frame[34..]);
    address.tp_src = 9;
    let ports = Set::new(Layer::Udp, &address, &FlowMask::EXACT);
    assert_eq!(apply_set(&mut p, &ports), Err(Misfit::NoHeader(Layer::Udp)));
    // The first one has it, and its checksum goes with the address.
    let mut frame = Spec::udp4().build();
    fragment(&mut frame, 0x2000);
    let mut p = packet(&frame);
    assert_eq!(apply_set(&mut p, &set), Ok(()));
    assert_ne!(p.frame()[40..42], frame[40..42]);
    // SCTP's covers what is not here.
    let mut frame = Spec { transport: Transport::Sctp, ..Spec::udp4() }.build();
    fragment(&mut frame, 0x2000);
    assert_eq!(apply_set(&mut packet(&frame), &ports), Err(Misfit::SctpFragment));
}

#[test]
fn the_last_destination_of_a_routing_header_is_what_the_checksum_covers() {
    let spec = Spec { net: Net::Ipv6 { extensions: 2 }, transport: Transport::Tcp, ..Spec::udp4() };
    let set = Set::new(Layer::Ipv6, &keyed(|k| k.addr[4] = 1), &FlowMask(keyed(|k| k.addr[4] = !0)));
    let mut frame = spec.build();
    frame[14 + 40 + 3] = 1; // One segment left.
    let mut p = packet(&frame);
    assert_eq!(apply_set(&mut p, &set), Ok(()));
    assert_eq!(p.frame()[62..], frame[62..]);
}

#[test]
fn a_checksum_of_zero_is_written_as_ones() {
    // The source port that makes the sum come out as zero: what the checksum is with port 0.
    let spec = Spec::udp4();
    let set = |port: u16| {
        Set::new(Layer::Udp, &keyed(|k| k.tp_src = port.to_be()), &FlowMask(keyed(|k| k.tp_src = !0)))
    };
    let mut p = packet(&spec.build());
    assert_eq!(apply_set(&mut p, &set(0)), Ok(()));
    let check = u16::from_be_bytes([p.frame()[40], p.frame()[41]]);
    assert_eq!(apply_set(&mut p, &set(check)), Ok(()));
    assert_eq!(p.frame()[40..42], [0xff, 0xff]);
    assert_eq!(checksums_are_right(&spec, p.frame()), Ok(()));
}
