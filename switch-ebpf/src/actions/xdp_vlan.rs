//! VLAN tags in XDP, where all of them are in the frame (IEEE 802.1Q, clause 9).

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_xdp_adjust_head;
use switch_common::action::Action;
use switch_common::counter::Drop;
use switch_common::key::{VLAN_PCP_MASK, VLAN_PRESENT, VLAN_VID_MASK};

use super::edit::{Cover, Editor};
use crate::ether::is_tpid;
use crate::scratch::Walk;
use crate::xdp::Xdp;

const TAG: i32 = 4;
/// Both addresses.
const MACS: usize = 12;

/// 0, or why the packet is dropped.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xdp_push_vlan(ctx: *mut xdp_md, walk: *mut Walk, a: *const Action) -> u32 {
    if walk.is_null() || a.is_null() {
        return Drop::Helper as u32;
    }
    let packet = Xdp(ctx);
    // SAFETY: the program's context; not null, so valid: the verifier proves it of every caller.
    unsafe {
        let Some(macs) = packet.load::<2>(0, MACS) else { return Drop::ActionFailed as u32 };
        if bpf_xdp_adjust_head(ctx, -TAG) != 0 {
            return Drop::Helper as u32;
        }
        let tci = ((*a).arg as u16 & !VLAN_PRESENT).to_be();
        let words = [macs[0], macs[1] & 0xffff_ffff | ((*a).port as u64) << 32 | (tci as u64) << 48];
        if !packet.store(0, MACS + TAG as usize, &words, Cover::Plain) {
            return Drop::Helper as u32;
        }
        (*walk).l3 += TAG as u16;
        (*walk).l4 += TAG as u16;
    }
    0
}

/// 0, or why the packet is dropped.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xdp_pop_vlan(ctx: *mut xdp_md, walk: *mut Walk) -> u32 {
    if walk.is_null() {
        return Drop::Helper as u32;
    }
    let packet = Xdp(ctx);
    // The tag, and the type behind it.
    let Some([w0, w1, _]) = packet.load::<3>(0, MACS + TAG as usize + 2) else {
        return Drop::ActionFailed as u32;
    };
    if !is_tpid((w1 >> 32) as u16) {
        return Drop::ActionFailed as u32;
    }
    // SAFETY: the program's context; not null, so valid: the verifier proves it of every caller.
    unsafe {
        if bpf_xdp_adjust_head(ctx, TAG) != 0 || !packet.store(0, MACS, &[w0, w1], Cover::Plain) {
            return Drop::Helper as u32;
        }
        (*walk).l3 = (*walk).l3.wrapping_sub(TAG as u16);
        (*walk).l4 = (*walk).l4.wrapping_sub(TAG as u16);
    }
    0
}

/// 0, or why the packet is dropped.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xdp_set_vlan(ctx: *mut xdp_md, a: *const Action) -> u32 {
    if a.is_null() {
        return Drop::Helper as u32;
    }
    let packet = Xdp(ctx);
    let Some([tag]) = packet.load::<1>(MACS, TAG as usize) else { return Drop::ActionFailed as u32 };
    if !is_tpid(tag as u16) {
        return Drop::ActionFailed as u32;
    }
    // SAFETY: not null, so valid: the verifier proves it of every caller.
    let (arg, mask) = unsafe { ((*a).arg as u16, (*a).v[0] as u16 & (VLAN_VID_MASK | VLAN_PCP_MASK)) };
    let tci = u16::from_be((tag >> 16) as u16) & !mask | arg & mask;
    let new = tag & 0xffff | (tci.to_be() as u64) << 16;
    if packet.store(MACS, TAG as usize, &[new], Cover::Plain) { 0 } else { Drop::Helper as u32 }
}
