//! Frames of every shape, built from their fields with checksums computed from scratch, and a check of a frame's
//! checksums that shares nothing with the code under test.

/// An Internet checksum (RFC 1071) over `parts`, each of an even length but for the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// Where a layer-4 protocol has its checksum, and whether that covers the addresses.
fn checksum_place(proto: u8, ipv6: bool) -> Option<(usize, bool)> {
    match proto {
        1 if !ipv6 => Some((2, false)),
        6 => Some((16, true)),
        17 => Some((6, true)),
        58 if ipv6 => Some((2, true)),
        _ => None,
    }
}

fn pseudo_header(src: &[u8], dst: &[u8], proto: u8, len: usize) -> Vec<u8> {
    [src, dst, &(len as u32).to_be_bytes(), &[0, 0, 0, proto]].concat()
}

fn fill(body: &mut [u8], proto: u8, addresses: (&[u8], &[u8])) {
    let Some((at, pseudo)) = checksum_place(proto, addresses.0.len() == 16) else { return };
    body[at..at + 2].fill(0);
    let head = if pseudo { pseudo_header(addresses.0, addresses.1, proto, body.len()) } else { Vec::new() };
    let mut check = checksum(&[&head, body]);
    if proto == 17 && check == 0 {
        check = 0xffff;
    }
    body[at..at + 2].copy_from_slice(&check.to_be_bytes());
}

pub const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub fn ethernet(dst: [u8; 6], src: [u8; 6], eth_type: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &eth_type.to_be_bytes(), payload].concat()
}

/// The frame with one more tag in front.
pub fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    [&frame[..12], &tpid.to_be_bytes(), &tci.to_be_bytes(), &frame[12..]].concat()
}

/// An IPv4 packet's fields (RFC 791).
#[derive(Clone)]
pub struct Ip4 {
    pub macs: ([u8; 6], [u8; 6]),
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub tos: u8,
    pub ttl: u8,
    pub proto: u8,
    /// Flags and offset.
    pub fragment: u16,
    pub options: Vec<u8>,
    /// Whether the body's checksum is to be filled in.
    pub sum: bool,
    pub body: Vec<u8>,
}

impl Ip4 {
    pub fn new(proto: u8, body: &[u8]) -> Ip4 {
        Ip4 {
            macs: (B, A),
            src: [10, 1, 2, 3],
            dst: [192, 168, 7, 9],
            tos: 0,
            ttl: 64,
            proto,
            fragment: 0,
            options: Vec::new(),
            sum: true,
            body: body.to_vec(),
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        let len = 20 + self.options.len();
        let total = (len + self.body.len()) as u16;
        let mut header = vec![0x40 | (len / 4) as u8, self.tos];
        header.extend(total.to_be_bytes());
        header.extend([0x12, 0x34]);
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.proto, 0, 0]);
        header.extend(self.src);
        header.extend(self.dst);
        header.extend(&self.options);
        let check = checksum(&[&header]);
        header[10..12].copy_from_slice(&check.to_be_bytes());
        let mut body = self.body.clone();
        if self.sum {
            fill(&mut body, self.proto, (&self.src, &self.dst));
        }
        ethernet(self.macs.0, self.macs.1, 0x0800, &[header, body].concat())
    }
}

/// An IPv6 packet's fields (RFC 8200).
#[derive(Clone)]
pub struct Ip6 {
    pub macs: ([u8; 6], [u8; 6]),
    pub src: [u8; 16],
    pub dst: [u8; 16],
    pub class: u8,
    pub label: u32,
    pub hops: u8,
    pub proto: u8,
    /// Extension headers: type, and bytes of which the first will be the next header.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub sum: bool,
    /// The destination that the checksum covers, if it is not `dst` (RFC 8200, section 8.1).
    pub last_hop: Option<[u8; 16]>,
    pub body: Vec<u8>,
}

impl Ip6 {
    pub fn new(proto: u8, body: &[u8]) -> Ip6 {
        Ip6 {
            macs: (B, A),
            src: [0xfd, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7],
            dst: [0xfd, 0, 0, 9, 0, 8, 0, 3, 0, 4, 0xaa, 5, 0xbb, 6, 0xcc, 7],
            class: 0xa5,
            label: 0x1_2345,
            hops: 63,
            proto,
            extensions: Vec::new(),
            sum: true,
            last_hop: None,
            body: body.to_vec(),
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        for (i, (_, bytes)) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(i + 1).map_or(self.proto, |e| e.0);
            rest.push(next);
            rest.extend(&bytes[1..]);
        }
        let mut body = self.body.clone();
        if self.sum {
            fill(&mut body, self.proto, (&self.src, &self.last_hop.unwrap_or(self.dst)));
        }
        rest.extend(body);
        let first = 6 << 28 | u32::from(self.class) << 20 | self.label;
        let mut packet = first.to_be_bytes().to_vec();
        packet.extend((rest.len() as u16).to_be_bytes());
        packet.extend([self.extensions.first().map_or(self.proto, |e| e.0), self.hops]);
        packet.extend(self.src);
        packet.extend(self.dst);
        packet.extend(rest);
        ethernet(self.macs.0, self.macs.1, 0x86dd, &packet)
    }
}

pub fn tcp(src: u16, dst: u16) -> Vec<u8> {
    let mut b = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    b.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    b.extend(b"hello, tcp!");
    b
}

pub fn udp(src: u16, dst: u16) -> Vec<u8> {
    let mut b = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    b.extend([0, 19, 0, 0]);
    b.extend(b"hello, udp!");
    b
}

/// Echo request.
pub fn icmp(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 1, 2, 3, 4, 9, 9, 9, 9]
}

pub fn arp(op: u16, sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4])) -> Vec<u8> {
    let mut b = vec![0, 1, 8, 0, 6, 4];
    b.extend(op.to_be_bytes());
    b.extend(sender.0);
    b.extend(sender.1);
    b.extend(target.0);
    b.extend(target.1);
    b.resize(46, 0);
    ethernet(B, A, 0x0806, &b)
}

/// A neighbour message (RFC 4861): type, target, and options of type and address.
pub fn nd(kind: u8, target: [u8; 16], options: &[(u8, [u8; 6])]) -> Vec<u8> {
    let mut b = vec![kind, 0, 0, 0, 0x60, 0, 0, 0];
    b.extend(target);
    for (option, mac) in options {
        b.extend([*option, 1]);
        b.extend(mac);
    }
    b
}

pub fn mpls(labels: &[u32]) -> Vec<u8> {
    let mut b = Vec::new();
    for l in labels {
        b.extend(l.to_be_bytes());
    }
    b.extend([0x45; 44]);
    ethernet(B, A, 0x8847, &b)
}

/// A fragment header (RFC 8200, section 4.5); offset and "more" as they stand in it.
pub fn fragment_header(offset: u16) -> (u8, Vec<u8>) {
    let mut v = vec![0, 0];
    v.extend(offset.to_be_bytes());
    v.extend([1, 2, 3, 4]);
    (44, v)
}

/// A routing header with one address.
pub fn routing_header(segments_left: u8) -> (u8, Vec<u8>) {
    let mut v = vec![0, 2, 4, segments_left, 0, 0, 0, 0];
    v.extend(HOP);
    (43, v)
}

/// The address in [`routing_header`].
pub const HOP: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

pub fn hop_by_hop() -> (u8, Vec<u8>) {
    (0, vec![0, 0, 1, 4, 0, 0, 0, 0])
}

/// One or more frames of each shape that the parser tells apart: untagged, with one tag, and with two.
pub fn all() -> Vec<(String, Vec<u8>)> {
    let target = [0xfe; 16];
    let mut without = Ip4::new(17, &udp(12345, 53)).frame();
    without[40..42].fill(0);
    let ip4 = |proto, body: &[u8], change: &dyn Fn(&mut Ip4)| {
        let mut p = Ip4::new(proto, body);
        change(&mut p);
        p.frame()
    };
    let ip6 = |proto, body: &[u8], extensions: &[(u8, Vec<u8>)], sum: bool| {
        Ip6 { extensions: extensions.to_vec(), sum, ..Ip6::new(proto, body) }.frame()
    };
    let routed = Ip6 {
        extensions: vec![hop_by_hop(), routing_header(1)],
        last_hop: Some(HOP),
        ..Ip6::new(17, &udp(12345, 53))
    };
    let plain: Vec<(&str, Vec<u8>)> = vec![
        ("tcp", ip4(6, &tcp(12345, 80), &|p| p.fragment = 0x4000)),
        ("udp", ip4(17, &udp(12345, 53), &|_| ())),
        ("udp without checksum", without),
        ("icmp", ip4(1, &icmp(8, 0), &|_| ())),
        ("ip options", ip4(6, &tcp(12345, 80), &|p| p.options = vec![1; 12])),
        ("first fragment", ip4(17, &udp(12345, 53), &|p| p.fragment = 0x2000)),
        (
            "later fragment",
            ip4(17, &udp(12345, 53), &|p| {
                p.fragment = 0x2010;
                p.sum = false;
            }),
        ),
        ("gre", ip4(47, &[0; 24], &|_| ())),
        ("tcp6", ip6(6, &tcp(12345, 80), &[], true)),
        ("udp6", ip6(17, &udp(12345, 53), &[], true)),
        ("icmp6", ip6(58, &icmp(128, 0), &[], true)),
        ("solicitation", ip6(58, &nd(135, target, &[(1, A)]), &[], true)),
        ("advertisement", ip6(58, &nd(136, target, &[(14, A), (2, B)]), &[], true)),
        ("hop by hop", ip6(6, &tcp(12345, 80), &[hop_by_hop()], true)),
        ("routing", routed.frame()),
        ("routing, arrived", ip6(17, &udp(12345, 53), &[routing_header(0)], true)),
        ("first fragment6", ip6(17, &udp(12345, 53), &[fragment_header(1)], true)),
        ("later fragment6", ip6(17, &udp(12345, 53), &[fragment_header(0x101)], false)),
        ("arp", arp(1, (A, [10, 0, 0, 1]), ([0; 6], [10, 0, 0, 2]))),
        ("mpls", mpls(&[0x0001_2040, 0x0002_313f])),
        ("unknown type", ethernet(B, A, 0x1234, &[7; 50])),
        ("802.3", ethernet(B, A, 43, &[&[0x42, 0x42, 3][..], &[0; 43]].concat())),
    ];
    let mut all = Vec::new();
    for (name, frame) in plain {
        all.push((format!("{name}, one tag"), tagged(&frame, 0x8100, 0x600a)));
        all.push((format!("{name}, two tags"), tagged(&tagged(&frame, 0x8100, 11), 0x88a8, 10)));
        all.push((name.to_owned(), frame));
    }
    all
}

/// The first bytes of each untagged frame, cut where headers end and in their middles.
pub fn cut() -> Vec<(String, Vec<u8>)> {
    let mut cut = Vec::new();
    for (name, frame) in all().into_iter().filter(|(n, _)| !n.contains("tag")) {
        for len in [15, 18, 20, 33, 34, 38, 41, 42, 45, 53, 54, 58, 61, 70, 77] {
            if len < frame.len() {
                cut.push((format!("{name}, first {len} bytes"), frame[..len].to_vec()));
            }
        }
    }
    cut
}

/// Checks every checksum in a frame from scratch; frames without any are right.
pub fn check(frame: &[u8]) -> Result<(), String> {
    let be16 = |at: usize| frame.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    let mut l3 = 14;
    while matches!(be16(l3 - 2), 0x8100 | 0x88a8) {
        l3 += 4;
    }
    let ip = &frame[l3.min(frame.len())..];
    match be16(l3 - 2) {
        0x0800 => check_ip4(ip),
        0x86dd => check_ip6(ip),
        _ => Ok(()),
    }
}

fn check_ip4(ip: &[u8]) -> Result<(), String> {
    let header = usize::from(ip[0] & 15) * 4;
    if checksum(&[&ip[..header]]) != 0 {
        return Err("IPv4 header checksum".to_owned());
    }
    let whole = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff == 0;
    let end = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if whole { check_l4(&ip[header..end], ip[9], (&ip[12..16], &ip[16..20])) } else { Ok(()) }
}

fn check_ip6(ip: &[u8]) -> Result<(), String> {
    let (mut next, mut at) = (ip[6], 40);
    let mut dst = &ip[24..40];
    while let 0 | 43 | 44 | 60 = next {
        if next == 44 {
            return Ok(());
        }
        if next == 43 && ip[at + 3] != 0 {
            dst = &ip[at + 8..at + 24];
        }
        next = ip[at];
        at += 8 + 8 * usize::from(ip[at + 1]);
    }
    let end = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    check_l4(&ip[at..end], next, (&ip[8..24], dst))
}

fn check_l4(body: &[u8], proto: u8, addresses: (&[u8], &[u8])) -> Result<(), String> {
    let Some((at, pseudo)) = checksum_place(proto, addresses.0.len() == 16) else { return Ok(()) };
    if proto == 17 && body[at..at + 2] == [0, 0] {
        return Ok(());
    }
    let head = if pseudo { pseudo_header(addresses.0, addresses.1, proto, body.len()) } else { Vec::new() };
    if checksum(&[&head, body]) == 0 { Ok(()) } else { Err(format!("checksum of protocol {proto}")) }
}

#[test]
fn built_frames_are_sound() {
    for (name, frame) in all() {
        assert_eq!(check(&frame), Ok(()), "{name}");
    }
}
