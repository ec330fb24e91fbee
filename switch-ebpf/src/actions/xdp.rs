//! Action lists in XDP: changes of headers, and then one output.
//!
//! Whether a list is such a one has been decided before the packet is touched (`crate::xdp`): from here there
//! is no way back to TC.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::programs::XdpContext;
use switch_common::action::{ACTIONS_PER_RUN, Action, op};
use switch_common::counter::Drop;
use switch_common::port::PORT_ACTIVE;

use super::fields;
use super::xdp_vlan::{xdp_pop_vlan, xdp_push_vlan, xdp_set_vlan};
use crate::maps::{ACTIONS, PORTS, SCRATCH};
use crate::scratch::{Origin, Walk};
use crate::xdp::{Xdp, drop, transmit};

/// Carries out the list that the scratch says.
#[inline(always)]
pub fn run(ctx: XdpContext) -> i32 {
    let xdp = Xdp(ctx.ctx);
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return xdp_action::XDP_DROP as i32 };
    // SAFETY: a valid map value.
    let mut walk = unsafe { (*scratch).walk };
    let mut n = 0;
    while n < ACTIONS_PER_RUN {
        n += 1;
        if walk.position >= walk.len {
            break;
        }
        let Some(a) = ACTIONS.get(walk.base.wrapping_add(walk.position)) else { break };
        walk.position += 1;
        let failed = match a.op {
            op::OUTPUT => return output(xdp, walk.origin, a.port as u32),
            op::PUSH_VLAN => xdp_push_vlan(xdp.0, &mut walk, a),
            op::POP_VLAN => xdp_pop_vlan(xdp.0, &mut walk),
            op::SET_VLAN => xdp_set_vlan(xdp.0, a),
            op::SET_ETH => xdp_set_eth(xdp.0, &walk, a),
            op::SET_IPV4 => xdp_set_ipv4(xdp.0, &walk, a),
            op::SET_IPV6_SRC => xdp_set_ipv6_src(xdp.0, &walk, a),
            op::SET_IPV6_DST => xdp_set_ipv6_dst(xdp.0, &walk, a),
            op::SET_IPV6 => xdp_set_ipv6(xdp.0, &walk, a),
            op::SET_PORTS => xdp_set_ports(xdp.0, &walk, a),
            op::SET_ICMP => xdp_set_icmp(xdp.0, &walk, a),
            op::SET_ARP => xdp_set_arp(xdp.0, &walk, a),
            op::SET_ARP_HW => xdp_set_arp_hw(xdp.0, &walk, a),
            op::SET_ND_TARGET => xdp_set_nd_target(xdp.0, &walk, a),
            op::SET_ND_LL => xdp_set_nd_ll(xdp.0, &walk, a),
            op::SET_MPLS => xdp_set_mpls(xdp.0, &walk, a),
            _ => Drop::ActionFailed as u32,
        };
        if failed != 0 {
            return drop(walk.origin, failed);
        }
    }
    drop(walk.origin, Drop::ActionFailed as u32)
}

#[inline(always)]
fn output(xdp: Xdp, origin: Origin, port: u32) -> i32 {
    let Some(entry) = PORTS.get_ptr(port) else { return drop(origin, Drop::NoOutput as u32) };
    // SAFETY: a valid map value.
    let (flags, mtu) = unsafe { ((*entry).flags, (*entry).mtu) };
    if flags & PORT_ACTIVE == 0 {
        return drop(origin, Drop::NoOutput as u32);
    }
    if xdp.too_long(xdp.len(), mtu) {
        return drop(origin, Drop::Mtu as u32);
    }
    transmit(origin, port)
}

macro_rules! field_actions {
    ($($name:ident = $body:path;)*) => {$(
        /// 0, or why the packet is dropped.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name(ctx: *mut xdp_md, walk: *const Walk, a: *const Action) -> u32 {
            if walk.is_null() || a.is_null() {
                return Drop::Helper as u32;
            }
            // SAFETY: not null, so valid: the verifier proves it of every caller.
            let done = unsafe { $body(Xdp(ctx), &*walk, &*a) };
            if done.is_some() { 0 } else { Drop::ActionFailed as u32 }
        }
    )*};
}

field_actions! {
    xdp_set_eth = fields::set_eth;
    xdp_set_ipv4 = fields::set_ipv4;
    xdp_set_ipv6_src = fields::set_ipv6_src;
    xdp_set_ipv6_dst = fields::set_ipv6_dst;
    xdp_set_ipv6 = fields::set_ipv6;
    xdp_set_ports = fields::set_ports;
    xdp_set_icmp = fields::set_icmp;
    xdp_set_arp = fields::set_arp;
    xdp_set_arp_hw = fields::set_arp_hw;
    xdp_set_nd_target = fields::set_nd_target;
    xdp_set_nd_ll = fields::set_nd_ll;
    xdp_set_mpls = fields::set_mpls;
}
