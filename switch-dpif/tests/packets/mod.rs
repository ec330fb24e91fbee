//! Packets for tests: built header by header, with all checksums right, and checked from scratch without any of
//! the code under test.
#![allow(dead_code)] // Each test program uses its part.

use proptest::prelude::*;

/// What a packet is made of.
#[derive(Clone, Debug)]
pub struct Spec {
    /// TPID and TCI, outermost first.
    pub tags: Vec<(u16, u16)>,
    pub net: Net,
    pub transport: Transport,
    pub payload: Vec<u8>,
    /// Bytes behind the datagram, as devices pad short frames.
    pub padding: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Net {
    /// Words of options.
    Ipv4 {
        options: u8,
    },
    /// Extension headers: hop-by-hop, destination options, routing with no segments left, authentication.
    Ipv6 {
        extensions: u8,
    },
    Arp,
    /// Entries.
    Mpls(u8),
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Tcp,
    /// Without a checksum if false.
    Udp(bool),
    Sctp,
    Icmp,
    Icmpv6,
    /// Neighbour solicitation or advertisement with these options.
    Nd {
        advertisement: bool,
        source: bool,
        target: bool,
    },
    Other,
}

pub const SRC4: [u8; 4] = [10, 1, 2, 3];
pub const DST4: [u8; 4] = [172, 16, 9, 1];
pub const SRC6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
pub const DST6: [u8; 16] = [0x20, 0x01, 0xd, 0xb8, 0, 0, 0, 0, 0xff, 0xfe, 9, 8, 7, 6, 5, 4];

/// RFC 1071, the plain way.
fn ones_complement(bytes: &[u8]) -> u32 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = parts.iter().map(|p| ones_complement(p)).sum::<u32>();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// CRC32c bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for b in bytes {
        crc ^= u32::from(*b);
        for _ in 0..8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn pseudo_header(src: &[u8], dst: &[u8], len: usize, proto: u8) -> Vec<u8> {
    let mut h = [src, dst].concat();
    h.extend_from_slice(&(len as u32).to_be_bytes());
    h.extend_from_slice(&[0, 0, 0, proto]);
    h
}

impl Spec {
    pub fn udp4() -> Spec {
        Spec {
            tags: Vec::new(),
            net: Net::Ipv4 { options: 0 },
            transport: Transport::Udp(true),
            payload: b"payload".to_vec(),
            padding: 0,
        }
    }

    pub fn proto(&self) -> u8 {
        match self.transport {
            Transport::Tcp => 6,
            Transport::Udp(_) => 17,
            Transport::Sctp => 132,
            Transport::Icmp => 1,
            Transport::Icmpv6 | Transport::Nd { .. } => 58,
            Transport::Other => 47,
        }
    }

    fn transport_bytes(&self, pseudo: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
        let mut b: Vec<u8> = match self.transport {
            Transport::Tcp => {
                let mut h =
                    vec![0x12, 0x34, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0x20, 0, 0, 0, 0, 0];
                h.extend_from_slice(&self.payload);
                h
            }
            Transport::Udp(_) => {
                let len = (8 + self.payload.len()) as u16;
                let mut h = vec![0x12, 0x34, 0x00, 0x35];
                h.extend_from_slice(&len.to_be_bytes());
                h.extend_from_slice(&[0, 0]);
                h.extend_from_slice(&self.payload);
                h
            }
            Transport::Sctp => {
                let mut h = vec![0x12, 0x34, 0x0b, 0x59, 1, 2, 3, 4, 0, 0, 0, 0];
                h.extend_from_slice(&self.payload);
                h
            }
            Transport::Icmp | Transport::Icmpv6 => {
                let ty = if self.transport == Transport::Icmp { 8 } else { 128 };
                let mut h = vec![ty, 0, 0, 0, 1, 2, 3, 4];
                h.extend_from_slice(&self.payload);
                h
            }
            Transport::Nd { advertisement, source, target } => {
                let mut h = vec![if advertisement { 136 } else { 135 }, 0, 0, 0, 0x60, 0, 0, 0];
                h.extend_from_slice(&DST6);
                if source {
                    h.extend_from_slice(&[1, 1, 2, 0, 0, 0, 0, 0xa]);
                }
                if target {
                    h.extend_from_slice(&[2, 1, 2, 0, 0, 0, 0, 0xb]);
                }
                h
            }
            Transport::Other => self.payload.clone(),
        };
        let pseudo = pseudo(b.len());
        match self.transport {
            Transport::Tcp => {
                let c = checksum(&[&pseudo, &b]);
                b[16..18].copy_from_slice(&c.to_be_bytes());
            }
            Transport::Udp(true) => {
                let c = match checksum(&[&pseudo, &b]) {
                    0 => 0xffff,
                    c => c,
                };
                b[6..8].copy_from_slice(&c.to_be_bytes());
            }
            Transport::Icmp => {
                let c = checksum(&[&b]);
                b[2..4].copy_from_slice(&c.to_be_bytes());
            }
            Transport::Icmpv6 | Transport::Nd { .. } => {
                let c = checksum(&[&pseudo, &b]);
                b[2..4].copy_from_slice(&c.to_be_bytes());
            }
            Transport::Sctp => {
                let c = crc32c(&b);
                b[8..12].copy_from_slice(&c.to_le_bytes());
            }
            Transport::Udp(false) | Transport::Other => {}
        }
        b
    }

    pub fn build(&self) -> Vec<u8> {
        let mut f = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
        for (tpid, tci) in &self.tags {
            f.extend_from_slice(&tpid.to_be_bytes());
            f.extend_from_slice(&tci.to_be_bytes());
        }
        let proto = self.proto();
        match self.net {
            Net::Ipv4 { options } => {
                f.extend_from_slice(&[8, 0]);
                let l4 = self.transport_bytes(&|len| pseudo_header(&SRC4, &DST4, len, proto));
                let header = 20 + 4 * usize::from(options);
                let total = (header + l4.len()) as u16;
                let mut h = vec![0x45 + options, 0x20];
                h.extend_from_slice(&total.to_be_bytes());
                h.extend_from_slice(&[0xbe, 0xef, 0x40, 0, 64, proto, 0, 0]);
                h.extend_from_slice(&SRC4);
                h.extend_from_slice(&DST4);
                h.resize(header, 1);
                let c = checksum(&[&h]);
                h[10..12].copy_from_slice(&c.to_be_bytes());
                f.extend_from_slice(&h);
                f.extend_from_slice(&l4);
            }
            Net::Ipv6 { extensions } => {
                f.extend_from_slice(&[0x86, 0xdd]);
                let l4 = self.transport_bytes(&|len| pseudo_header(&SRC6, &DST6, len, proto));
                let mut chain: Vec<(u8, Vec<u8>)> = Vec::new();
                if extensions & 1 != 0 {
                    chain.push((0, vec![0, 0, 1, 4, 0, 0, 0, 0]));
                }
                if extensions & 2 != 0 {
                    chain.push((43, vec![0, 0, 0, 0, 0, 0, 0, 0]));
                }
                if extensions & 4 != 0 {
                    chain.push((
                        51,
                        vec![0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
                    ));
                }
                if extensions & 8 != 0 {
                    chain.push((60, vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
                }
                let kinds: Vec<u8> = chain.iter().map(|c| c.0).chain([proto]).collect();
                let mut behind = Vec::new();
                for (i, (_, bytes)) in chain.iter_mut().enumerate() {
                    bytes[0] = kinds[i + 1];
                    behind.extend_from_slice(bytes);
                }
                behind.extend_from_slice(&l4);
                f.extend_from_slice(&[0x62, 0x01, 0x23, 0x45]);
                f.extend_from_slice(&(behind.len() as u16).to_be_bytes());
                f.extend_from_slice(&[kinds[0], 63]);
                f.extend_from_slice(&SRC6);
                f.extend_from_slice(&DST6);
                f.extend_from_slice(&behind);
            }
            Net::Arp => {
                f.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
                f.extend_from_slice(&SRC4);
                f.extend_from_slice(&[0; 6]);
                f.extend_from_slice(&DST4);
            }
            Net::Mpls(entries) => {
                f.extend_from_slice(&[0x88, 0x47]);
                for i in 0..entries {
                    f.extend_from_slice(&[0, 1, (i + 1 == entries) as u8, 64 - i]);
                }
                f.extend_from_slice(&self.payload);
            }
            Net::Other => {
                f.extend_from_slice(&[0x12, 0x34]);
                f.extend_from_slice(&self.payload);
            }
        }
        f.resize(f.len() + self.padding, 0);
        f
    }
}

/// Whether every checksum of a packet with this spec's structure is right, computed anew. Addresses and ports
/// are read from the packet.
pub fn checksums_are_right(spec: &Spec, frame: &[u8]) -> Result<(), String> {
    let l3 = 14 + 4 * spec.tags.len();
    let (l4, end, pseudo) = match spec.net {
        Net::Ipv4 { options } => {
            let l4 = l3 + 20 + 4 * usize::from(options);
            if checksum(&[&frame[l3..l4]]) != 0 {
                return Err("IPv4 header".to_owned());
            }
            let end = l3 + usize::from(u16::from_be_bytes([frame[l3 + 2], frame[l3 + 3]]));
            (
                l4,
                end,
                pseudo_header(&frame[l3 + 12..l3 + 16], &frame[l3 + 16..l3 + 20], end - l4, spec.proto()),
            )
        }
        Net::Ipv6 { extensions } => {
            let sizes = [8, 8, 24, 16];
            let l4 = l3 + 40 + (0..4).filter(|i| extensions >> i & 1 != 0).map(|i| sizes[i]).sum::<usize>();
            let end = l3 + 40 + usize::from(u16::from_be_bytes([frame[l3 + 4], frame[l3 + 5]]));
            (
                l4,
                end,
                pseudo_header(&frame[l3 + 8..l3 + 24], &frame[l3 + 24..l3 + 40], end - l4, spec.proto()),
            )
        }
        _ => return Ok(()),
    };
    let b = &frame[l4..end];
    let right = match spec.transport {
        Transport::Tcp | Transport::Icmpv6 | Transport::Nd { .. } => checksum(&[&pseudo, b]) == 0,
        Transport::Udp(true) => b[6..8] != [0, 0] && checksum(&[&pseudo, b]) == 0,
        Transport::Udp(false) => b[6..8] == [0, 0],
        Transport::Icmp => checksum(&[b]) == 0,
        Transport::Sctp => {
            let mut zeroed = b.to_vec();
            zeroed[8..12].fill(0);
            crc32c(&zeroed).to_le_bytes() == b[8..12]
        }
        Transport::Other => true,
    };
    if right { Ok(()) } else { Err(format!("{:?}", spec.transport)) }
}

/// Any such packet.
pub fn specs() -> impl Strategy<Value = Spec> {
    let tag = (prop_oneof![Just(0x8100u16), Just(0x88a8)], any::<u16>());
    let transport = prop_oneof![
        Just(Transport::Tcp),
        any::<bool>().prop_map(Transport::Udp),
        Just(Transport::Sctp),
        Just(Transport::Icmp),
        Just(Transport::Other),
    ];
    let v6 = prop_oneof![
        Just(Transport::Tcp),
        any::<bool>().prop_map(Transport::Udp),
        Just(Transport::Sctp),
        Just(Transport::Icmpv6),
        (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(advertisement, source, target)| Transport::Nd { advertisement, source, target }),
    ];
    let net = prop_oneof![
        4 => (0..=10u8, transport).prop_map(|(options, t)| (Net::Ipv4 { options }, t)),
        4 => (0..16u8, v6).prop_map(|(extensions, t)| (Net::Ipv6 { extensions }, t)),
        1 => Just((Net::Arp, Transport::Other)),
        1 => (1..5u8).prop_map(|n| (Net::Mpls(n), Transport::Other)),
        1 => Just((Net::Other, Transport::Other)),
    ];
    (proptest::collection::vec(tag, 0..3), net, proptest::collection::vec(any::<u8>(), 0..70), 0..40usize)
        .prop_map(|(tags, (net, transport), payload, padding)| {
            // The parser reads neighbour discovery options to the end of the frame, as the kernel's Open vSwitch
            // does, so that padding would make the message malformed.
            let padding = if matches!(transport, Transport::Nd { .. }) { 0 } else { padding };
            Spec { tags, net, transport, payload, padding }
        })
}
