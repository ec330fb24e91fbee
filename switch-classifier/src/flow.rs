//! What a rule can match: a packet as the OpenFlow pipeline sees it.
//!
//! A [`Flow`] is the datapath's [`FlowKey`] followed by the state that the pipeline adds: metadata, registers,
//! the OpenFlow port, the action set's output, the conjunction and the values of tunnel options. Like the key it
//! is whole 8-byte words with every pad byte named, so that it can be masked, hashed and compared as words.
//!
//! Pipeline state never reaches the datapath. It is a function of the key and of the rules that were hit before,
//! whose wildcards hold the bits it was made of; so a bit of it that a rule matches costs a megaflow nothing.
//! Whoever copies packet bits into pipeline state (or into other packet bits) must see to that: what is copied
//! comes to matter when it is copied.
//! Tunnel options are the exception: they came with the packet, and the key stands for them by `tun_opts`.

use switch_common::key::{FlowKey, FlowMask, KEY_WORDS, Kind};

use crate::fields::Field;

/// 8-byte words of pipeline state that is made by the pipeline itself.
pub const STATE_WORDS: usize = 11;
/// 8-byte words of tunnel option values: as many bytes as Open vSwitch has for them.
pub const TUN_METADATA_WORDS: usize = 32;
/// 8-byte words of a whole [`Flow`].
pub const FLOW_WORDS: usize = KEY_WORDS + STATE_WORDS + 1 + TUN_METADATA_WORDS;

/// Bytes of a whole [`Flow`].
pub const FLOW_BYTES: usize = FLOW_WORDS * 8;

/// First word of the tunnel options.
const TUN_METADATA_START: usize = KEY_WORDS + STATE_WORDS;

/// A packet in the pipeline, or, with the same layout, a mask of one: see [`FlowWildcards`].
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    // words 0 to 35
    /// The datapath's key. Byte order as stated there.
    pub key: FlowKey,
    // word 36
    /// OpenFlow metadata (OpenFlow 1.5.1, section 7.2.3.8), host order.
    pub metadata: u64,
    // words 37 to 44
    /// Registers (OpenFlow packet registers and Nicira extensions), host order. Register 0 is the upper half of
    /// the 64-bit `xreg0`.
    pub regs: [u32; 16],
    // word 45
    /// OpenFlow port of the bridge that the packet is in, host order; the datapath's port is in the key.
    pub in_port: u32,
    /// OpenFlow port of the action set's output action (OpenFlow 1.5.1, section 7.2.3.8), host order.
    pub actset_output: u32,
    // word 46
    /// Id of the conjunction that the packet satisfied, 0 for none; host order.
    pub conj_id: u32,
    pub pad_46: u32,
    // word 47
    /// Bit `i`: the packet carries the tunnel option that is mapped to `tun_metadata<i>`.
    pub tun_metadata_present: u64,
    // words 48 to 79
    /// Values of the mapped tunnel options, in the bytes of the wire, where the option map puts them.
    pub tun_metadata: [u64; TUN_METADATA_WORDS],
}

const _: () = assert!(size_of::<Flow>() == FLOW_BYTES);
const _: () = assert!(align_of::<Flow>() == 8);
const _: () = assert!(core::mem::offset_of!(Flow, metadata) == KEY_WORDS * 8);
const _: () = assert!(core::mem::offset_of!(Flow, in_port) == 45 * 8);
const _: () = assert!(core::mem::offset_of!(Flow, tun_metadata_present) == TUN_METADATA_START * 8);

impl Flow {
    pub const ZERO: Flow = Flow::from_words([0; FLOW_WORDS]);

    pub const fn from_words(words: [u64; FLOW_WORDS]) -> Flow {
        // SAFETY: the two types have the same size, and every bit pattern is a valid `Flow`.
        unsafe { core::mem::transmute(words) }
    }

    /// The packet as it enters the pipeline: the datapath's key, the OpenFlow port it came in on, and no other
    /// state.
    pub const fn new(key: FlowKey, in_port: u32) -> Flow {
        let mut flow = Flow::ZERO;
        flow.key = key;
        flow.in_port = in_port;
        flow
    }

    #[inline]
    pub const fn words(&self) -> &[u64; FLOW_WORDS] {
        // SAFETY: same size and alignment, and no padding (the assertions above, and every pad has a name).
        unsafe { &*(self as *const Flow).cast() }
    }

    #[inline]
    pub const fn words_mut(&mut self) -> &mut [u64; FLOW_WORDS] {
        // SAFETY: as in `words`, and every bit pattern is valid on either side.
        unsafe { &mut *(self as *mut Flow).cast() }
    }

    #[inline]
    fn bytes(&self) -> &[u8; FLOW_BYTES] {
        // SAFETY: same size, no padding, and bytes need no alignment.
        unsafe { &*(self as *const Flow).cast() }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8; FLOW_BYTES] {
        // SAFETY: as in `bytes`, and every bit pattern is valid on either side.
        unsafe { &mut *(self as *mut Flow).cast() }
    }

    /// The field's value as a number (host order), in its lowest `width` bits.
    pub fn get(&self, field: Field) -> u128 {
        let info = field.info();
        (info.order.read(&self.bytes()[info.offset..info.offset + info.len]) >> info.shift) & info.ones()
    }

    /// Sets the field to a number (host order); bits past the field's width are lost.
    pub fn set(&mut self, field: Field, value: u128) {
        let info = field.info();
        let place = &mut self.bytes_mut()[info.offset..info.offset + info.len];
        let others = info.order.read(place) & !(info.ones() << info.shift);
        info.order.write(place, others | (value & info.ones()) << info.shift);
    }

    /// Every word and-ed with the mask's.
    pub fn masked(&self, mask: &FlowWildcards) -> Flow {
        let mut out = *self;
        for (o, m) in out.words_mut().iter_mut().zip(mask.words()) {
            *o &= m;
        }
        out
    }
}

impl Default for Flow {
    fn default() -> Self {
        Flow::ZERO
    }
}

/// Which bits of a [`Flow`] matter: the same layout, a set bit meaning "must be equal".
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowWildcards(pub Flow);

impl FlowWildcards {
    /// Nothing matters.
    pub const EMPTY: FlowWildcards = FlowWildcards(Flow::ZERO);
    /// Everything matters.
    pub const EXACT: FlowWildcards = FlowWildcards(Flow::from_words([!0; FLOW_WORDS]));

    #[inline]
    pub const fn words(&self) -> &[u64; FLOW_WORDS] {
        self.0.words()
    }

    #[inline]
    pub const fn words_mut(&mut self) -> &mut [u64; FLOW_WORDS] {
        self.0.words_mut()
    }

    /// The field's mask bits, as a number.
    pub fn get(&self, field: Field) -> u128 {
        self.0.get(field)
    }

    /// The whole field matters.
    pub fn set_field(&mut self, field: Field) {
        self.0.set(field, field.info().ones());
    }

    /// These bits of the field matter, besides those that did already.
    pub fn set_bits(&mut self, field: Field, bits: u128) {
        self.0.set(field, self.0.get(field) | bits);
    }

    /// The first `len` bits of the field matter, counted from its most significant one, besides those that did
    /// already. More than the field's width means all of it.
    pub fn set_prefix(&mut self, field: Field, len: u32) {
        self.set_bits(field, field.info().prefix_mask(len));
    }

    /// Adds the bits of another mask.
    pub fn unite(&mut self, other: &FlowWildcards) {
        for (a, b) in self.words_mut().iter_mut().zip(other.words()) {
            *a |= b;
        }
    }

    /// Adds the bits of a datapath mask.
    pub fn unite_key(&mut self, other: &FlowMask) {
        for (a, b) in self.0.key.words_mut().iter_mut().zip(other.words()) {
            *a |= b;
        }
    }

    /// Whether every bit of `other` is one of this mask too.
    pub fn contains(&self, other: &FlowWildcards) -> bool {
        self.words().iter().zip(other.words()).all(|(a, b)| b & !a == 0)
    }

    /// The number of bits that matter.
    pub fn count(&self) -> u32 {
        self.words().iter().map(|w| w.count_ones()).sum()
    }

    /// The mask of a megaflow for packets of this kind.
    ///
    /// It has the key's bits, what every megaflow matches ([`FlowMask::floor`]), all of `tun_opts` where a
    /// tunnel option matters, and the IP protocol where ports or TCP flags matter, without which Open vSwitch's
    /// notation for flows cannot express them. The OpenFlow port needs no bit: it follows from the datapath's
    /// port, which the floor holds.
    pub fn datapath_mask(&self, kind: Kind) -> FlowMask {
        let mut mask = FlowMask(self.0.key);
        mask.unite(&FlowMask::floor());
        if self.words()[TUN_METADATA_START..].iter().any(|w| *w != 0) {
            mask.0.tun_opts = !0;
        }
        if [Field::TpSrc, Field::TpDst, Field::TcpFlags].into_iter().any(|f| self.get(f) != 0) {
            mask.0.ip_proto = 0xff;
        }
        mask.restrict(kind);
        mask
    }
}

impl Default for FlowWildcards {
    fn default() -> Self {
        FlowWildcards::EMPTY
    }
}

/// The bits that make a megaflow narrower when they come to matter: those of the key that are not matched anyway,
/// and tunnel options.
pub static COSTLY: FlowWildcards = costly();

const fn costly() -> FlowWildcards {
    let floor = FlowMask::floor();
    let mut words = [0; FLOW_WORDS];
    let mut w = 0;
    while w < FLOW_WORDS {
        words[w] = if w < KEY_WORDS {
            !floor.words()[w]
        } else if w < TUN_METADATA_START {
            0
        } else {
            !0
        };
        w += 1;
    }
    FlowWildcards(Flow::from_words(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_the_struct() {
        let mut f = Flow::ZERO;
        f.set(Field::NwSrc, 0x0a01_0203);
        assert_eq!(f.key.ipv4_src(), 0x0a01_0203);
        f.set(Field::TpDst, 80);
        assert_eq!(f.key.tp_dst, 80u16.to_be());
        f.key.set_recirc_id(0xabcdef);
        assert_eq!(f.get(Field::RecircId), 0xabcdef);
        f.key.flags = 0x4012u16.to_be();
        f.set(Field::IpFrag, 3);
        assert_eq!(f.key.flags, 0x7012u16.to_be());
        assert_eq!((f.get(Field::TcpFlags), f.get(Field::KeyKind)), (0x12, 1));
        f.set(Field::Metadata, 7);
        f.set(Field::InPort, 0xffff_fffe);
        f.set(Field::reg(3).unwrap(), 9);
        assert_eq!((f.metadata, f.in_port, f.regs[3]), (7, 0xffff_fffe, 9));
        f.set(Field::EthDst, 0x0102_0304_0506_0708);
        assert_eq!(f.key.eth_dst, [3, 4, 5, 6, 7, 8]);
        assert_eq!(Flow::from_words(*f.words()), f);
    }

    #[test]
    fn datapath_mask_adds_what_a_megaflow_needs() {
        let mut wc = FlowWildcards::EMPTY;
        assert_eq!(wc.datapath_mask(Kind::Full), FlowMask::floor());
        wc.set_field(Field::Metadata);
        assert_eq!(wc.datapath_mask(Kind::Full), FlowMask::floor());
        wc.set_prefix(Field::TpDst, 3);
        let mask = wc.datapath_mask(Kind::Short);
        assert_eq!((mask.0.tp_dst, mask.0.ip_proto), (0xe000u16.to_be(), 0xff));
        wc.0.tun_metadata[5] = 1;
        assert_eq!(wc.datapath_mask(Kind::Full).0.tun_opts, !0);
        assert_eq!(wc.datapath_mask(Kind::Short).0.tun_opts, 0);
    }

    #[test]
    fn prefixes_count_from_the_top() {
        let mut wc = FlowWildcards::EMPTY;
        wc.set_prefix(Field::NwDst, 9);
        assert_eq!(wc.0.key.addr[1], 0xff80_0000u32.to_be());
        wc.set_prefix(Field::Ipv6Dst, 128);
        assert_eq!(wc.0.key.addr[4..], [!0; 4]);
        wc.set_prefix(Field::Ipv6Src, 0);
        assert_eq!(wc.0.key.addr[0], 0);
    }
}
