//! VLAN tags at TC.
//!
//! The kernel keeps the outermost tag beside the frame: a push moves the one that was there into the frame, a pop
//! moves the next one out. Where the headers are then follows from how the frame's length changed.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_skb_vlan_pop, bpf_skb_vlan_push};
use switch_common::action::Action;
use switch_common::counter::Drop;
use switch_common::key::{VLAN_PCP_MASK, VLAN_PRESENT, VLAN_VID_MASK};

use super::edit::Editor;
use crate::ether::is_tpid;
use crate::scratch::Walk;
use crate::tc::Tc;

/// Moves the headers' offsets along with the frame's beginning.
#[inline(always)]
unsafe fn follow(walk: *mut Walk, before: u32, after: u32) {
    let shift = after.wrapping_sub(before) as u16;
    // SAFETY: the caller has checked the pointer.
    unsafe {
        (*walk).l3 = (*walk).l3.wrapping_add(shift);
        (*walk).l4 = (*walk).l4.wrapping_add(shift);
    }
}

/// The tag beside the frame, or else the one that the frame begins with: TPID (be16) and TCI (host order).
#[inline(always)]
fn outermost(packet: Tc) -> Option<(u16, u16)> {
    // SAFETY: the program's context.
    unsafe {
        if (*packet.0).vlan_present != 0 {
            return Some(((*packet.0).vlan_proto as u16, (*packet.0).vlan_tci as u16));
        }
    }
    let [tag] = packet.load::<1>(12, 4)?;
    let tpid = tag as u16;
    if is_tpid(tpid) {
        return Some((tpid, u16::from_be((tag >> 16) as u16)));
    }
    None
}

/// 0, or why the packet is dropped.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_push_vlan(skb: *mut __sk_buff, walk: *mut Walk, a: *const Action) -> u32 {
    if walk.is_null() || a.is_null() {
        return Drop::Helper as u32;
    }
    let packet = Tc(skb);
    // SAFETY: not null, so valid: the verifier proves it of every caller.
    unsafe {
        let before = packet.len();
        if bpf_skb_vlan_push(skb, (*a).port, (*a).arg as u16 & !VLAN_PRESENT) != 0 {
            return Drop::Helper as u32;
        }
        follow(walk, before, packet.len());
    }
    0
}

/// 0, or why the packet is dropped.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_pop_vlan(skb: *mut __sk_buff, walk: *mut Walk) -> u32 {
    if walk.is_null() {
        return Drop::Helper as u32;
    }
    let packet = Tc(skb);
    if outermost(packet).is_none() {
        return Drop::ActionFailed as u32;
    }
    let before = packet.len();
    // SAFETY: the program's context; `walk` is not null, so valid: the verifier proves it of every caller.
    unsafe {
        if bpf_skb_vlan_pop(skb) != 0 {
            return Drop::Helper as u32;
        }
        follow(walk, before, packet.len());
    }
    0
}

/// 0, or why the packet is dropped.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_set_vlan(skb: *mut __sk_buff, walk: *mut Walk, a: *const Action) -> u32 {
    if walk.is_null() || a.is_null() {
        return Drop::Helper as u32;
    }
    let packet = Tc(skb);
    let Some((tpid, tci)) = outermost(packet) else { return Drop::ActionFailed as u32 };
    // SAFETY: the program's context; not null, so valid: the verifier proves it of every caller.
    unsafe {
        let mask = (*a).v[0] as u16 & (VLAN_VID_MASK | VLAN_PCP_MASK);
        let new = tci & !mask | (*a).arg as u16 & mask;
        let before = packet.len();
        if bpf_skb_vlan_pop(skb) != 0 || bpf_skb_vlan_push(skb, tpid, new) != 0 {
            return Drop::Helper as u32;
        }
        follow(walk, before, packet.len());
    }
    0
}
