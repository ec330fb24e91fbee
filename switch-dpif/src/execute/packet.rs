//! A packet in userspace: its bytes, with room in front of them, and its key.

use switch_common::key::{FLAGS_FRAG_MASK, FlowKey, KEY_WORDS, VLAN_PRESENT};
use switch_common::parse::{Malformed, OffloadedTag, PacketMeta, Parsed, parse_frame};

use super::Misfit;
use super::headers::is_tpid;

/// Bytes in front of a new packet: sixteen tags, before a push has to move the whole packet.
const HEADROOM: usize = 64;
const TAG: usize = 4;
const MACS: usize = 12;
/// Key words that no header of the packet tells: marks, hashes, connection state, packet type; and tunnels, NSH
/// and the connection's original tuple.
const CARRIED: [core::ops::Range<usize>; 2] = [9..14, 20..KEY_WORDS];

/// Where the headers behind all tags are, and what they are. A pushed tag can put them out of the parser's reach,
/// and thus out of the key; actions still find them here.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Offsets in bytes, as in [`Parsed`].
    l3: usize,
    l4: usize,
    /// Host order; `None` if that header is not whole.
    network: Option<u16>,
    /// IP protocol.
    proto: u8,
    /// Fragment bits as in the key's flags, host order.
    fragment: u16,
}

impl Place {
    fn of(key: &FlowKey, parsed: &Parsed) -> Place {
        Place {
            l3: usize::from(parsed.l3),
            l4: usize::from(parsed.l4),
            network: (parsed.malformed != Malformed::L3).then(|| u16::from_be(key.eth_type)),
            proto: key.ip_proto,
            fragment: key.flags_host() & FLAGS_FRAG_MASK,
        }
    }
}

/// A packet that can be changed. It is at least as long as an Ethernet header, and all its VLAN tags are in the
/// frame. Its key is always that of the bytes as they stand, except for what no header tells.
#[derive(Clone, Debug)]
pub struct PacketBuf {
    bytes: Vec<u8>,
    start: usize,
    vlan_limit: u8,
    key: FlowKey,
    parsed: Parsed,
    place: Place,
}

impl PacketBuf {
    /// Copies a received frame, with the tag that came beside it. `None` for one that is shorter than an
    /// Ethernet header.
    pub fn new(frame: &[u8], meta: &PacketMeta) -> Option<PacketBuf> {
        let (key, parsed) = parse_frame(frame, meta)?;
        let mut bytes = Vec::with_capacity(HEADROOM + frame.len());
        bytes.resize(HEADROOM, 0);
        bytes.extend_from_slice(frame);
        let place = Place::of(&key, &parsed);
        let vlan_limit = meta.vlan_limit;
        let mut packet = PacketBuf { bytes, start: HEADROOM, vlan_limit, key, parsed, place };
        if meta.tag.tpid != 0 {
            packet.insert_tag(u16::from_be(meta.tag.tpid), meta.tag.tci);
        }
        Some(packet)
    }

    /// As [`PacketBuf::new`], with the input port, recirculation id, marks, connection state, tunnel and so on
    /// that `key` holds.
    pub fn with_key(frame: &[u8], tag: OffloadedTag, vlan_limit: u8, key: &FlowKey) -> Option<PacketBuf> {
        let mut packet = PacketBuf::new(frame, &PacketMeta { tag, vlan_limit, ..PacketMeta::default() })?;
        packet.key.in_port = key.in_port;
        packet.key.recirc = key.recirc;
        packet.carry(key);
        Some(packet)
    }

    /// The whole frame.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The frame, to be changed; [`PacketBuf::refresh`] must follow.
    pub(super) fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Where the headers are now.
    pub fn parsed(&self) -> Parsed {
        self.parsed
    }

    pub(super) fn l3(&self) -> usize {
        self.place.l3
    }

    pub(super) fn l4(&self) -> usize {
        self.place.l4
    }

    /// The EtherType behind all tags, in host order, if its header is whole.
    pub(super) fn network(&self) -> Option<u16> {
        self.place.network
    }

    /// IP protocol, and fragment bits as in a key's flags (host order).
    pub(super) fn datagram(&self) -> (u8, u16) {
        (self.place.proto, self.place.fragment)
    }

    /// How many tags are looked behind.
    pub fn vlan_limit(&self) -> u8 {
        self.vlan_limit
    }

    /// Pushes a tag in front of all others; both in host order.
    pub fn push_vlan(&mut self, tpid: u16, tci: u16) {
        self.insert_tag(tpid, tci & !VLAN_PRESENT);
    }

    fn insert_tag(&mut self, tpid: u16, tci: u16) {
        if self.start < TAG {
            self.bytes.splice(0..0, [0; HEADROOM]);
            self.start += HEADROOM;
        }
        let old = self.start;
        self.start -= TAG;
        self.bytes.copy_within(old..old + MACS, self.start);
        let [t0, t1] = tpid.to_be_bytes();
        let [c0, c1] = tci.to_be_bytes();
        self.bytes[old + MACS - TAG..old + MACS].copy_from_slice(&[t0, t1, c0, c1]);
        self.place.l3 += TAG;
        self.place.l4 += TAG;
        self.refresh();
    }

    /// Pops the outermost tag.
    ///
    /// # Errors
    /// There is none.
    pub fn pop_vlan(&mut self) -> Result<(), Misfit> {
        let frame = self.frame();
        if frame.len() < MACS + TAG + 2 || !is_tpid(frame) {
            return Err(Misfit::NoTag);
        }
        let old = self.start;
        self.start += TAG;
        self.bytes.copy_within(old..old + MACS, self.start);
        self.place.l3 = self.place.l3.saturating_sub(TAG);
        self.place.l4 = self.place.l4.saturating_sub(TAG);
        self.refresh();
        Ok(())
    }

    pub(super) fn set_priority(&mut self, value: u32, mask: u32) {
        self.key.skb_priority = self.key.skb_priority & !mask | value & mask;
        self.key.normalize_kind();
    }

    pub(super) fn set_mark(&mut self, value: u32, mask: u32) {
        self.key.skb_mark = self.key.skb_mark & !mask | value & mask;
        self.key.normalize_kind();
    }

    pub(super) fn set_hash(&mut self, value: u32) {
        self.key.dp_hash = value;
        self.key.normalize_kind();
    }

    /// Sets the id with which the packet is looked up next; 24 bits.
    pub fn set_recirc_id(&mut self, id: u32) {
        self.key.set_recirc_id(id);
    }

    /// Brings the key up to date after the bytes changed.
    pub(super) fn refresh(&mut self) {
        let meta = PacketMeta {
            in_port: self.key.in_port,
            recirc_id: self.key.recirc_id(),
            vlan_limit: self.vlan_limit,
            ..PacketMeta::default()
        };
        // A frame does not get shorter than an Ethernet header, so this always holds.
        if let Some((key, parsed)) = parse_frame(self.frame(), &meta) {
            let old = core::mem::replace(&mut self.key, key);
            self.parsed = parsed;
            // A tag that is one too many hides what is behind it.
            if !matches!(u16::from_be(key.eth_type), 0x8100 | 0x88a8) {
                self.place = Place::of(&key, &parsed);
            }
            self.carry(&old);
        }
    }

    fn carry(&mut self, from: &FlowKey) {
        for range in CARRIED {
            self.key.words_mut()[range.clone()].copy_from_slice(&from.words()[range]);
        }
        self.key.normalize_kind();
        self.parsed.kind = self.key.kind();
    }
}
