//! Action lists at TC: everything that a list can ask for.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_skb_change_tail};
use aya_ebpf::programs::TcContext;
use switch_common::action::{ACTIONS_PER_RUN, Action, MAX_RECIRCULATIONS, op};
use switch_common::counter::{Counter, Drop};
use switch_common::hash;
use switch_common::key::FlowKey;
use switch_common::program::{TC_ACTIONS, TC_RECIRCULATE};

use super::fields;
use super::tc_vlan::{tc_pop_vlan, tc_push_vlan, tc_set_vlan};
use crate::count::count;
use crate::hook::Hook;
use crate::limit::admitted;
use crate::lookup::parse_and_look_up;
use crate::maps::{ACTIONS, METERS, SCRATCH, TC_PROGS};
use crate::output::{send_copy, send_last};
use crate::scratch::{Origin, Scratch, Walk};
use crate::tc::{Tc, drop};
use crate::upcall::{Notice, action_queue, copy_up};

/// Carries out the list that the scratch says, from where it says, as far as one program may.
#[inline(always)]
pub fn run(ctx: TcContext) -> i32 {
    let hook = Tc(ctx.skb.skb);
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return TC_ACT_SHOT };
    // SAFETY: a valid map value. From here on the state is on the stack: see `crate::scratch`.
    let mut walk = unsafe { (*scratch).walk };
    let mut n = 0;
    while n < ACTIONS_PER_RUN {
        n += 1;
        if walk.position >= walk.len {
            return end(&walk);
        }
        let Some(a) = ACTIONS.get(walk.base.wrapping_add(walk.position)) else {
            return drop(walk.origin, Drop::Helper as u32);
        };
        walk.position += 1;
        let failed = match a.op {
            op::OUTPUT if walk.position >= walk.len => return tc_output_last(hook.0, &walk, a) as i32,
            op::OUTPUT => tc_output(hook.0, &mut walk, a),
            op::PUSH_VLAN => tc_push_vlan(hook.0, &mut walk, a),
            op::POP_VLAN => tc_pop_vlan(hook.0, &mut walk),
            op::SET_VLAN => tc_set_vlan(hook.0, &mut walk, a),
            op::SET_ETH => tc_set_eth(hook.0, &walk, a),
            op::SET_IPV4 => tc_set_ipv4(hook.0, &walk, a),
            op::SET_IPV6_SRC => tc_set_ipv6_src(hook.0, &walk, a),
            op::SET_IPV6_DST => tc_set_ipv6_dst(hook.0, &walk, a),
            op::SET_IPV6 => tc_set_ipv6(hook.0, &walk, a),
            op::SET_PORTS => tc_set_ports(hook.0, &walk, a),
            op::SET_ICMP => tc_set_icmp(hook.0, &walk, a),
            op::SET_ARP => tc_set_arp(hook.0, &walk, a),
            op::SET_ARP_HW => tc_set_arp_hw(hook.0, &walk, a),
            op::SET_ND_TARGET => tc_set_nd_target(hook.0, &walk, a),
            op::SET_ND_LL => tc_set_nd_ll(hook.0, &walk, a),
            op::SET_MPLS => tc_set_mpls(hook.0, &walk, a),
            op::SET_PRIORITY => {
                // SAFETY: the program's context.
                unsafe { (*hook.0).priority = a.arg };
                0
            }
            op::SET_MARK => {
                let mask = a.v[0] as u32;
                // SAFETY: the program's context.
                unsafe { (*hook.0).mark = (*hook.0).mark & !mask | a.arg & mask };
                0
            }
            op::TRUNCATE => {
                walk.truncate = a.arg;
                0
            }
            op::HASH => tc_hash(hook.0, &mut walk, a),
            op::SAMPLE => {
                // SAFETY: the helper has no conditions.
                if a.arg != u32::MAX && unsafe { bpf_get_prandom_u32() } as u32 >= a.arg {
                    walk.position = walk.position.wrapping_add(a.port as u32);
                }
                0
            }
            op::METER => tc_meter(hook.0, &walk, a),
            op::USERSPACE => tc_userspace(hook.0, &mut walk, a),
            op::RECIRCULATE => return recirculate(&ctx, &mut walk, scratch, a.arg),
            op::DROP => return drop(walk.origin, a.arg),
            _ => Drop::ActionFailed as u32,
        };
        if failed != 0 {
            return drop(walk.origin, failed);
        }
    }
    if walk.position >= walk.len {
        return end(&walk);
    }
    // SAFETY: a valid map value; the tail-called program runs at once.
    unsafe {
        (*scratch).walk = walk;
        TC_PROGS.tail_call(&ctx, TC_ACTIONS);
    }
    drop(walk.origin, Drop::Helper as u32)
}

/// The list is through, and its last record was no output.
#[inline(always)]
fn end(walk: &Walk) -> i32 {
    if walk.sent == 0 {
        return drop(walk.origin, Drop::Policy as u32);
    }
    TC_ACT_SHOT
}

/// The last record: the packet itself goes out. Answers what the program returns.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_output_last(skb: *mut __sk_buff, walk: *const Walk, a: *const Action) -> u32 {
    if walk.is_null() || a.is_null() {
        return TC_ACT_SHOT as u32;
    }
    // SAFETY: not null, so valid: the verifier proves it of every caller.
    let (truncate, l4, origin, port) = unsafe { ((*walk).truncate, (*walk).l4, (*walk).origin, (*a).port) };
    if truncate != 0 {
        cut(Tc(skb), truncate, l4);
    }
    send_last(Tc(skb), origin, port as u32) as u32
}

/// A copy goes out. A port that does not take it does not end the list.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_output(skb: *mut __sk_buff, walk: *mut Walk, a: *const Action) -> u32 {
    if walk.is_null() || a.is_null() {
        return Drop::Helper as u32;
    }
    // SAFETY: not null, so valid: the verifier proves it of every caller.
    unsafe {
        if (*walk).truncate != 0 {
            cut(Tc(skb), (*walk).truncate, (*walk).l4);
        }
        (*walk).truncate = 0;
        (*walk).sent += 1;
        if let Err(reason) = send_copy(Tc(skb), (*a).port as u32) {
            drop((*walk).origin, reason as u32);
        }
    }
    0
}

/// A copy goes up, with the action's reason and cookie.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_userspace(skb: *mut __sk_buff, walk: *mut Walk, a: *const Action) -> u32 {
    if walk.is_null() || a.is_null() {
        return Drop::Helper as u32;
    }
    // SAFETY: not null, so valid: the verifier proves it of every caller.
    unsafe {
        (*walk).sent += 1;
        let Origin { in_port, recirc_id, dp_hash, .. } = (*walk).origin;
        let queue = action_queue(in_port);
        let (cookie, reason) = ((*a).v[0], (*a).port as u8);
        if let Err(failure) = copy_up(skb, Notice { recirc_id, dp_hash, queue, cookie, in_port, reason }) {
            drop((*walk).origin, failure as u32);
        }
    }
    0
}

/// Farther behind a layer-4 header's beginning than any checksum field ends.
const CHECKSUM_END: u32 = 18;

/// Cuts the packet, whose layer-4 header is at `l4`, to `len` bytes, its tag beside it included.
///
/// The kernel refuses to cut before the layer-4 header, and before a checksum that is still to be filled in: the
/// packet is then cut right behind those.
#[inline(always)]
fn cut(hook: Tc, len: u32, l4: u16) {
    let tag = hook.tag_len();
    let len = if len > tag + 14 { len - tag } else { 14 };
    let l4 = l4 as u32;
    if hook.len() <= len {
        return;
    }
    // SAFETY: the program's context.
    unsafe {
        if bpf_skb_change_tail(hook.0, len, 0) != 0
            && len < l4 + CHECKSUM_END
            && (len >= l4 || bpf_skb_change_tail(hook.0, l4, 0) != 0)
            && hook.len() > l4 + CHECKSUM_END
        {
            bpf_skb_change_tail(hook.0, l4 + CHECKSUM_END, 0);
        }
    }
}

/// Looks the packet up again, with another recirculation id.
#[inline(always)]
fn recirculate(ctx: &TcContext, walk: &mut Walk, scratch: *mut Scratch, id: u32) -> i32 {
    if walk.origin.recirculations as u32 >= MAX_RECIRCULATIONS {
        return drop(walk.origin, Drop::RecircLimit as u32);
    }
    walk.origin.recirculations += 1;
    walk.origin.recirc_id = id;
    count(Counter::Recirculated);
    // SAFETY: a valid map value; the tail-called program runs at once.
    unsafe {
        (*scratch).walk = *walk;
        TC_PROGS.tail_call(ctx, TC_RECIRCULATE);
    }
    drop(walk.origin, Drop::Helper as u32)
}

/// The second and later look-ups.
#[inline(always)]
pub fn recirculated(ctx: TcContext) -> i32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return TC_ACT_SHOT };
    // SAFETY: a valid map value.
    let origin = unsafe { (*scratch).walk.origin };
    parse_and_look_up(Tc(ctx.skb.skb), scratch, origin)
}

macro_rules! field_actions {
    ($($name:ident = $body:path;)*) => {$(
        /// 0, or why the packet is dropped.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(skb: *mut __sk_buff, walk: *const Walk, a: *const Action) -> u32 {
            if walk.is_null() || a.is_null() {
                return Drop::Helper as u32;
            }
            // SAFETY: not null, so valid: the verifier proves it of every caller.
            let done = unsafe { $body(Tc(skb), &*walk, &*a) };
            if done.is_some() { 0 } else { Drop::ActionFailed as u32 }
        }
    )*};
}

field_actions! {
    tc_set_eth = fields::set_eth;
    tc_set_ipv4 = fields::set_ipv4;
    tc_set_ipv6_src = fields::set_ipv6_src;
    tc_set_ipv6_dst = fields::set_ipv6_dst;
    tc_set_ipv6 = fields::set_ipv6;
    tc_set_ports = fields::set_ports;
    tc_set_icmp = fields::set_icmp;
    tc_set_arp = fields::set_arp;
    tc_set_arp_hw = fields::set_arp_hw;
    tc_set_nd_target = fields::set_nd_target;
    tc_set_nd_ll = fields::set_nd_ll;
    tc_set_mpls = fields::set_mpls;
}

/// `dp_hash` over the packet as it stands now.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_hash(skb: *mut __sk_buff, walk: *mut Walk, a: *const Action) -> u32 {
    if walk.is_null() || a.is_null() {
        return Drop::Helper as u32;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return Drop::Helper as u32 };
    // SAFETY: not null, so valid: the verifier proves it of every caller.
    unsafe {
        // What the scratch held may be gone: see `crate::scratch`.
        let headers = Tc(skb).parse((*walk).origin);
        let key: *const FlowKey = &raw const (*scratch).key;
        (*walk).origin.dp_hash = hash::connection((*key).words(), (*a).arg, (*a).port == 1);
        (*walk).l3 = headers.l3();
        (*walk).l4 = headers.l4();
    }
    0
}

/// Passes, or is over the meter's rate. A meter that does not exist does not limit.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_meter(skb: *mut __sk_buff, walk: *const Walk, a: *const Action) -> u32 {
    if walk.is_null() || a.is_null() {
        return Drop::Helper as u32;
    }
    // SAFETY: not null, so valid: the verifier proves it of every caller.
    let (l4, id) = unsafe { ((*walk).l4, (*a).arg) };
    let Some(meter) = METERS.get_ptr_mut(id) else { return 0 };
    let amount = Tc(skb).amount_at(l4);
    // SAFETY: a valid map value.
    if unsafe { admitted(meter, amount.bytes, amount.packets) } { 0 } else { Drop::Meter as u32 }
}
