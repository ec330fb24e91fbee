//! What one packet needs beyond registers: its key, and how far its action list has been carried out.
//!
//! The scratch is one per CPU. Programs run with bottom halves off, so that no other packet comes between two
//! steps of one program or its tail calls. A clone that is sent out, though, runs whatever programs the other
//! device has: **nothing in the scratch may be relied upon across `bpf_clone_redirect`**. The interpreter
//! therefore keeps its [`Walk`] on the stack and puts it here only for a tail call.

use switch_common::flow::FlowEntry;
use switch_common::key::{FLAGS_FRAG_LATER, FlowKey, Kind};
use switch_common::parse::{Malformed, Parsed};

#[repr(C)]
pub struct Scratch {
    pub key: FlowKey,
    pub walk: Walk,
}

/// Where a packet's headers are, packed into what a verified function can return. 0: a runt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Headers(pub u64);

impl Headers {
    pub const RUNT: Headers = Headers(0);
    /// Of a frame that `parse_common` accepts.
    pub const COMMON: Headers = Headers::new(Kind::Short, 14, 34, Malformed::No);

    /// Of one that `parse_common_v6` accepts.
    pub const COMMON_V6: Headers = Headers::new(Kind::Long, 14, 54, Malformed::No);

    #[inline(always)]
    const fn new(kind: Kind, l3: u16, l4: u16, malformed: Malformed) -> Headers {
        Headers(kind as u64 | (malformed as u64) << 8 | (l3 as u64) << 16 | (l4 as u64) << 32)
    }

    #[inline(always)]
    pub fn of(parsed: Option<Parsed>) -> Headers {
        match parsed {
            Some(p) => Headers::new(p.kind, p.l3, p.l4, p.malformed),
            None => Headers::RUNT,
        }
    }

    #[inline(always)]
    pub const fn kind(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    pub const fn malformed(self) -> bool {
        self.0 & 0xff00 != 0
    }

    /// Whether not even the header that the EtherType names is whole.
    #[inline(always)]
    pub const fn without_l3(self) -> bool {
        self.0 >> 8 & 0xff == Malformed::L3 as u64
    }

    #[inline(always)]
    pub const fn l3(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    pub const fn l4(self) -> u16 {
        (self.0 >> 32) as u16
    }
}

/// What a packet brings along besides its bytes: where it came in, and what its recirculations left.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Origin {
    pub in_port: u16,
    pub recirculations: u16,
    pub recirc_id: u32,
    pub dp_hash: u32,
}

impl Origin {
    #[inline(always)]
    pub const fn fresh(in_port: u16) -> Origin {
        Origin { in_port, recirculations: 0, recirc_id: 0, dp_hash: 0 }
    }
}

/// How far an action list has been carried out, and where the packet's headers are by now.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    pub origin: Origin,
    /// The list: a slice of the map `ACTIONS`.
    pub base: u32,
    pub len: u32,
    /// Next record, counted from `base`.
    pub position: u32,
    /// Bytes that the next output sends at most; 0 for all.
    pub truncate: u32,
    /// Copies that have gone out or up.
    pub sent: u32,
    pub l3: u16,
    pub l4: u16,
    /// be16, as in the key; 0 if the header that it names is not whole.
    pub eth_type: u16,
    /// Protocol of the layer-4 header; 0 if the packet has none, or not a whole one. (Of ICMPv6, a whole header
    /// may not be there.)
    pub l4_proto: u8,
    pub pad: u8,
}

impl Walk {
    /// At the beginning of a flow's list. The packet's key is in the scratch.
    ///
    /// # Safety
    /// Both pointers must be valid map values.
    #[inline(always)]
    pub unsafe fn begin(
        flow: *const FlowEntry,
        key: *const FlowKey,
        headers: Headers,
        origin: Origin,
    ) -> Walk {
        // SAFETY: the caller's promise.
        unsafe {
            let mut walk = Walk {
                origin,
                base: (*flow).act_base,
                len: (*flow).act_len as u32,
                position: 0,
                truncate: 0,
                sent: 0,
                l3: 0,
                l4: 0,
                eth_type: 0,
                l4_proto: 0,
                pad: 0,
            };
            walk.place(key, headers);
            walk
        }
    }

    /// Notes where the headers are after the packet has been parsed.
    ///
    /// # Safety
    /// `key` must be valid and hold the packet's key.
    #[inline(always)]
    pub unsafe fn place(&mut self, key: *const FlowKey, headers: Headers) {
        self.l3 = headers.l3();
        self.l4 = headers.l4();
        // SAFETY: the caller's promise.
        let (eth_type, proto, flags) = unsafe { ((*key).eth_type, (*key).ip_proto, (*key).flags) };
        let ip = eth_type == ET_IPV4 || eth_type == ET_IPV6;
        let later = flags & FLAGS_FRAG_LATER.to_be() != 0;
        // The parser also calls a neighbour discovery message malformed for what is in its options.
        let whole = if proto == ICMPV6 { eth_type == ET_IPV6 } else { !headers.malformed() };
        self.eth_type = if headers.without_l3() { 0 } else { eth_type };
        self.l4_proto = if ip && whole && !later && !headers.without_l3() { proto } else { 0 };
    }
}

pub const ET_IPV4: u16 = 0x0800u16.to_be();
pub const ET_IPV6: u16 = 0x86ddu16.to_be();

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
