//! From XDP to TC with the flow's number.
//!
//! What XDP cannot do (an output to a device without XDP transmit, most action lists) is done at TC. The flow
//! that XDP has found goes along in the metadata in front of the packet. It is the same for every packet of a
//! flow, since GRO does not merge packets whose metadata differ.

use aya_ebpf::bindings::{__sk_buff, xdp_action, xdp_md};
use aya_ebpf::helpers::bpf_xdp_adjust_meta;
use switch_common::counter::Counter;
use switch_common::flow::{FlowEntry, Handover};

use crate::cache::live;
use crate::count::count;
use crate::maps::magic;

/// Passes the packet to TC. Where there is no room for metadata, TC looks up again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hand_over(ctx: *mut xdp_md, slot: u32, seq: u32) -> u32 {
    // SAFETY: `ctx` is the program's context; the write is behind a check of its range.
    unsafe {
        if bpf_xdp_adjust_meta(ctx, -(size_of::<Handover>() as i32)) != 0 {
            count(Counter::HandoverStale);
            return xdp_action::XDP_PASS;
        }
        let meta = (*ctx).data_meta as usize;
        if meta + size_of::<Handover>() > (*ctx).data as usize {
            return xdp_action::XDP_PASS;
        }
        (meta as *mut Handover).write_unaligned(Handover { magic: magic(), slot, seq });
    }
    count(Counter::HandedOver);
    xdp_action::XDP_PASS
}

/// The flow that XDP has found, if it still is one.
///
/// Metadata stay with a packet that is forwarded; one that comes back in on another port carries the flow of its
/// first port, which therefore is checked as well.
#[inline(always)]
pub fn take_over(skb: *mut __sk_buff, in_port: u16) -> Option<(u32, *const FlowEntry)> {
    // SAFETY: the program's context; the read is behind a check of its range.
    let handover = unsafe {
        let meta = (*skb).data_meta as usize;
        if meta + size_of::<Handover>() > (*skb).data as usize {
            return None;
        }
        (meta as *const Handover).read_unaligned()
    };
    if handover.magic != magic() {
        return None;
    }
    if let Some(flow) = live(handover.slot, handover.seq)
        // SAFETY: a valid map value.
        && unsafe { (*flow).key[0] } as u16 == in_port
    {
        return Some((handover.slot, flow));
    }
    count(Counter::HandoverStale);
    None
}
