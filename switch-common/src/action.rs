//! Action records: what the datapath does with a packet of a flow, in the order of the list.
//!
//! Every record has the same size, so that a list is an array slice and its interpreter a bounded loop. A value
//! to set always comes with a mask of the bits to change, both in the layout of the key's words, so that the
//! flow need not match the bits that stay.

use crate::key::KEY_WORDS;

/// Operations of [`Action`]. `v[..]` are its four words.
pub mod op {
    /// Send out of port `port` as the packet stands now.
    pub const OUTPUT: u8 = 1;
    /// Push a tag: `port` is the TPID (be16), `arg` the TCI without `VLAN_PRESENT` (host order).
    pub const PUSH_VLAN: u8 = 2;
    /// Pop the outermost tag.
    pub const POP_VLAN: u8 = 3;
    /// `v[0]` destination and `v[2]` source (low 48 bits, wire order), `v[1]` and `v[3]` their masks.
    pub const SET_ETH: u8 = 4;
    /// `v[0]` addresses as key word 4, `v[1]` mask; `v[2]` byte 0 TOS, byte 1 TTL, `v[3]` mask.
    pub const SET_IPV4: u8 = 5;
    /// `v[0..2]` source as key words 4 and 5, `v[2..4]` mask.
    pub const SET_IPV6_SRC: u8 = 6;
    /// `v[0..2]` destination as key words 6 and 7, `v[2..4]` mask.
    pub const SET_IPV6_DST: u8 = 7;
    /// `v[0]` low half flow label (be32), byte 4 traffic class, byte 5 hop limit; `v[1]` mask.
    pub const SET_IPV6: u8 = 8;
    /// Ports of TCP, UDP or SCTP: `v[0]` as the low half of key word 3, `v[1]` mask.
    pub const SET_PORTS: u8 = 9;
    /// ICMP or ICMPv6: `v[0]` byte 0 type, byte 1 code; `v[1]` mask.
    pub const SET_ICMP: u8 = 10;
    /// ARP addresses: `v[0]` protocol addresses as key word 4, `v[1]` mask; `arg` opcode (host order) if
    /// `port` is 1.
    pub const SET_ARP: u8 = 11;
    /// ARP hardware addresses: `v[0]` sender, `v[1]` mask, `v[2]` target, `v[3]` mask (low 48 bits).
    pub const SET_ARP_HW: u8 = 12;
    /// Neighbour discovery target: `v[0..2]` as key words 18 and 19, `v[2..4]` mask.
    pub const SET_ND_TARGET: u8 = 13;
    /// Neighbour discovery options: `v[0]` source link-layer address, `v[1]` mask, `v[2]` target, `v[3]` mask.
    pub const SET_ND_LL: u8 = 14;
    /// Outermost MPLS label stack entry: `v[0]` (be32), `v[1]` mask.
    pub const SET_MPLS: u8 = 15;
    /// skb priority: `arg`.
    pub const SET_PRIORITY: u8 = 16;
    /// skb mark: `arg`; mask in `v[0]`.
    pub const SET_MARK: u8 = 17;
    /// The next output sends at most `arg` bytes.
    pub const TRUNCATE: u8 = 18;
    /// `dp_hash` becomes [`crate::hash::connection`] with basis `arg`; `port` 1 for symmetric.
    pub const HASH: u8 = 19;
    /// Look the packet up again with recirculation id `arg`. The last of a list.
    pub const RECIRCULATE: u8 = 20;
    /// With probability `arg` / 2^32 the next `port` records are carried out, else skipped.
    pub const SAMPLE: u8 = 21;
    /// Meter `arg`: a packet over its rate is dropped.
    pub const METER: u8 = 22;
    /// Send a copy to userspace: reason in `port` ([`crate::upcall::reason`]), cookie in `v[0]`.
    pub const USERSPACE: u8 = 23;
    /// Drop, for reason `arg` ([`crate::counter::Drop`]). The last of a list.
    pub const DROP: u8 = 24;
    /// Change the VLAN id and priority of the outermost tag: `arg` TCI (host order), mask in `v[0]`.
    pub const SET_VLAN: u8 = 25;
}

/// One record.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Action {
    /// [`op`].
    pub op: u8,
    pub pad: u8,
    pub port: u16,
    pub arg: u32,
    pub v: [u64; 4],
}

const _: () = assert!(size_of::<Action>() == 40);

impl Action {
    pub const fn new(op: u8, port: u16, arg: u32, v: [u64; 4]) -> Action {
        Action { op, pad: 0, port, arg, v }
    }

    pub const fn output(port: u16) -> Action {
        Action::new(op::OUTPUT, port, 0, [0; 4])
    }
}

/// Records of one list at most: what a list of this many outputs costs is a flood to that many ports.
pub const MAX_ACTIONS: usize = 4096;

/// Records that one run of the interpreter carries out before it goes on in another (a tail call).
pub const ACTIONS_PER_RUN: usize = 128;

/// Recirculations of one packet at most.
pub const MAX_RECIRCULATIONS: u32 = 8;

/// The words whose change an action can make, for keeping a key in step with its packet: the key as it reads
/// after `action`, if that only sets header fields. Answers false for an action that sets none.
pub fn apply_to_key(words: &mut [u64; KEY_WORDS], a: &Action) -> bool {
    fn set(w: &mut u64, value: u64, mask: u64) {
        *w = *w & !mask | value & mask;
    }
    let v = &a.v;
    match a.op {
        op::SET_ETH => {
            set(&mut words[1], v[0], v[1]);
            set(&mut words[2], v[2], v[3]);
        }
        op::SET_IPV4 => {
            set(&mut words[4], v[0], v[1]);
            set(&mut words[0], v[2] << 48, v[3] << 48);
        }
        op::SET_IPV6_SRC => {
            set(&mut words[4], v[0], v[2]);
            set(&mut words[5], v[1], v[3]);
        }
        op::SET_IPV6_DST => {
            set(&mut words[6], v[0], v[2]);
            set(&mut words[7], v[1], v[3]);
        }
        op::SET_IPV6 => {
            set(&mut words[8], v[0] & 0xffff_ffff, v[1] & 0xffff_ffff);
            set(&mut words[0], v[0] >> 32 << 48, v[1] >> 32 << 48);
        }
        op::SET_PORTS => set(&mut words[3], v[0] & 0xffff_ffff, v[1] & 0xffff_ffff),
        op::SET_ICMP => {
            let spread = |x: u64| (x & 0xff) << 8 | (x >> 8 & 0xff) << 24;
            set(&mut words[3], spread(v[0]), spread(v[1]));
        }
        op::SET_ARP => {
            set(&mut words[4], v[0], v[1]);
            if a.port == 1 {
                set(&mut words[0], (a.arg as u64 & 0xff) << 40, 0xff << 40);
            }
        }
        op::SET_ARP_HW | op::SET_ND_LL => {
            set(&mut words[16], v[0], v[1]);
            set(&mut words[17], v[2], v[3]);
        }
        op::SET_ND_TARGET => {
            set(&mut words[18], v[0], v[2]);
            set(&mut words[19], v[1], v[3]);
        }
        op::SET_MPLS => set(&mut words[14], v[0] & 0xffff_ffff, v[1] & 0xffff_ffff),
        _ => return false,
    }
    true
}
