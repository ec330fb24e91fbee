//! Packets on their way to userspace.
//!
//! It takes two steps. The program that decides notes in [`UPCALL`] what the header shall say, and redirects the
//! packet (or a clone) to up0. There `upcall_push` runs at TC egress, within the same call and thus on the same
//! CPU, and puts the header on. In this way a clone can have a header while the packet itself stays as it is.
//!
//! The VLAN tag beside the frame goes into the header and stays beside the frame as well: it does not cross the
//! pair, so that userspace sees the outermost tag exactly once.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_ktime_get_ns, bpf_redirect, bpf_skb_change_head, bpf_skb_store_bytes,
};
use switch_common::ABI_VERSION;
use switch_common::bucket::RateLimit;
use switch_common::counter::{Counter, Drop};
use switch_common::key::VLAN_PRESENT;
use switch_common::port::PORT_UPCALLS;
use switch_common::upcall::{
    PROTOCOL_QUEUE, UPCALL_ETH_TYPE, UPCALL_HEADER, UpcallHeader, is_reserved_multicast, reason,
};

use crate::count::{count, count_drop, port_row};
use crate::ether::LOW48;
use crate::limit::{admitted, conforms};
use crate::maps::{PORT_LIMITS, PORTS, PROTOCOL_LIMITS, SCRATCH, UPCALL, upcall_ifindex};

/// What the next frame to up0 is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Upcall {
    /// 0: no frame is expected; one that comes is not ours.
    pub armed: u32,
    pub recirc_id: u32,
    pub dp_hash: u32,
    pub queue: u32,
    pub cookie: u64,
    pub in_port: u16,
    pub reason: u8,
    pub pad: [u8; 5],
    /// Where the header is put together, since its fields do not lie as the verifier wants them on the stack.
    pub header: UpcallHeader,
}

/// What the deciding program says about a packet.
#[derive(Clone, Copy)]
pub struct Notice {
    pub recirc_id: u32,
    pub dp_hash: u32,
    pub queue: u32,
    pub cookie: u64,
    pub in_port: u16,
    pub reason: u8,
}

/// Protocol traffic of one port: packets a second, and at once. Every protocol of its class sends a few a second;
/// this only keeps a broken neighbour from filling the queue.
const PROTOCOL_LIMIT: RateLimit = RateLimit::packets(4000, 1000);

/// Slow protocols (LACP, OAM), LLDP, connectivity fault management.
const PROTOCOL_TYPES: [u16; 3] = [0x8809, 0x88cc, 0x8902];

/// No flow: sends the packet up if its port may. Answers what the program returns.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn upcall_miss(in_port: u32, recirc_id: u32, dp_hash: u32) -> u32 {
    let in_port = in_port & 0xffff;
    count(Counter::Miss);
    let queue = match queue_of(in_port) {
        Ok(queue) => queue,
        Err(reason) => {
            if reason as u16 == Drop::UpcallLimit as u16
                && let Some(row) = port_row(in_port)
            {
                // SAFETY: this CPU's row.
                unsafe { (*row).limited += 1 };
            }
            count_drop(in_port, reason as u32);
            return TC_ACT_SHOT as u32;
        }
    };
    if let Some(row) = port_row(in_port) {
        // SAFETY: this CPU's row.
        unsafe { (*row).upcalls += 1 };
    }
    count(Counter::UpcallMiss);
    arm(Notice { recirc_id, dp_hash, queue, cookie: 0, in_port: in_port as u16, reason: reason::MISS });
    // SAFETY: the helper takes plain numbers.
    unsafe { bpf_redirect(upcall_ifindex(), 0) as u32 }
}

/// The queue of a miss from a port, or why it may not go up. The key is in the scratch.
#[inline(always)]
fn queue_of(in_port: u32) -> Result<u32, Drop> {
    let Some(port) = PORTS.get_ptr(in_port) else { return Err(Drop::UpcallFailed) };
    // SAFETY: valid map values.
    unsafe {
        if (*port).flags & PORT_UPCALLS == 0 || upcall_ifindex() == 0 {
            return Err(Drop::UpcallFailed);
        }
        if is_protocol() {
            let Some(tat) = PROTOCOL_LIMITS.get_ptr_mut(in_port) else { return Err(Drop::UpcallFailed) };
            return if conforms(tat, &PROTOCOL_LIMIT, 0, 1) {
                Ok(PROTOCOL_QUEUE)
            } else {
                Err(Drop::UpcallLimit)
            };
        }
        let Some(limit) = PORT_LIMITS.get_ptr_mut(in_port) else { return Err(Drop::UpcallFailed) };
        if admitted(limit, 0, 1) { Ok((*port).upcall_queue) } else { Err(Drop::UpcallLimit) }
    }
}

/// Whether the key in the scratch is of a packet that must not wait behind misses.
#[inline(always)]
fn is_protocol() -> bool {
    let Some(scratch) = SCRATCH.get_ptr(0) else { return false };
    // SAFETY: a valid map value.
    unsafe {
        let dst = *(&raw const (*scratch).key).cast::<u64>().add(1) & LOW48;
        let eth_type = u16::from_be((*scratch).key.eth_type);
        is_reserved_multicast(dst)
            || eth_type == PROTOCOL_TYPES[0]
            || eth_type == PROTOCOL_TYPES[1]
            || eth_type == PROTOCOL_TYPES[2]
    }
}

/// Sends a copy up because an action says so. The scratch is not live after it.
#[inline(always)]
pub fn copy_up(skb: *mut __sk_buff, notice: Notice) -> Result<(), Drop> {
    arm(notice);
    count(Counter::UpcallAction);
    // SAFETY: the program's context.
    let result = unsafe { bpf_clone_redirect(skb, upcall_ifindex(), 0) };
    if result == 0 { Ok(()) } else { Err(Drop::UpcallFailed) }
}

/// Queue of upcalls by action from a port.
#[inline(always)]
pub fn action_queue(in_port: u16) -> u32 {
    match PORTS.get_ptr(in_port as u32) {
        // SAFETY: a valid map value.
        Some(port) => unsafe { (*port).upcall_queue },
        None => PROTOCOL_QUEUE,
    }
}

#[inline(always)]
fn arm(notice: Notice) {
    if let Some(place) = UPCALL.get_ptr_mut(0) {
        // SAFETY: this CPU's map value.
        unsafe {
            (*place).recirc_id = notice.recirc_id;
            (*place).dp_hash = notice.dp_hash;
            (*place).queue = notice.queue;
            (*place).cookie = notice.cookie;
            (*place).in_port = notice.in_port;
            (*place).reason = notice.reason;
            (*place).armed = 1;
        }
    }
}

/// TC egress of up0: puts the header on, and chooses the queue.
#[inline(always)]
pub fn push(skb: *mut __sk_buff) -> i32 {
    let Some(place) = UPCALL.get_ptr_mut(0) else { return TC_ACT_SHOT };
    // SAFETY: this CPU's map value, and the program's context.
    unsafe {
        if (*place).armed == 0 {
            return TC_ACT_SHOT;
        }
        (*place).armed = 0;
        let tagged = (*skb).vlan_present != 0;
        (*place).header = UpcallHeader {
            // Locally administered addresses: no device takes the frame for its own.
            eth_dst: [2, 0, 0, 0, 0, 1],
            eth_src: [2, 0, 0, 0, 0, 0],
            eth_type: UPCALL_ETH_TYPE.to_be(),
            version: ABI_VERSION as u8,
            reason: (*place).reason,
            in_port: (*place).in_port,
            vlan_tpid: if tagged { (*skb).vlan_proto as u16 } else { 0 },
            vlan_tci: if tagged { (*skb).vlan_tci as u16 & !VLAN_PRESENT } else { 0 },
            gso_size: (*skb).gso_size as u16,
            frame_len: (*skb).len,
            recirc_id: (*place).recirc_id,
            dp_hash: (*place).dp_hash,
            skb_mark: (*skb).mark,
            skb_priority: (*skb).priority,
            pad: 0,
            cookie: (*place).cookie,
            sent_at: bpf_ktime_get_ns(),
        };
        if bpf_skb_change_head(skb, UPCALL_HEADER as u32, 0) != 0
            || bpf_skb_store_bytes(skb, 0, (&raw const (*place).header).cast(), UPCALL_HEADER as u32, 0) != 0
        {
            count_drop((*place).in_port as u32, Drop::UpcallFailed as u32);
            return TC_ACT_SHOT;
        }
        (*skb).queue_mapping = (*place).queue + 1;
    }
    TC_ACT_OK
}
