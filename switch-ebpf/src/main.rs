//! The datapath programs of the switch.
//!
//! Every packet of a port enters at [`sluice_xdp`] or [`sluice_tc`], which share everything but the packet
//! itself ([`hook`]): which port, which key, which flow ([`lookup`]). A flow that is one plain output is done
//! there and then. Longer lists are carried out by the interpreters [`xdp_actions`] and [`tc_actions`], which
//! are tail calls. A packet without a flow goes up through [`upcall`].
//!
//! Promises:
//! * a packet of a port never reaches the host's own stack;
//! * every dropped packet is counted under a reason;
//! * nothing is decided here that the daemon has not written into a map;
//! * nothing newer than Linux 6.1 is needed.
//!
//! Building: see `Cargo.toml`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod actions;
mod cache;
mod count;
mod ether;
mod handover;
mod hook;
mod limit;
mod lookup;
mod maps;
mod megaflow;
mod output;
mod port;
mod scratch;
mod tc;
mod trace;
mod upcall;
mod xdp;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{classifier, tracepoint, xdp};
use aya_ebpf::programs::{TcContext, TracePointContext, XdpContext};

use crate::maps::XSKS;

/// XDP of a port.
#[xdp(frags)]
pub fn sluice_xdp(ctx: XdpContext) -> u32 {
    lookup::enter(xdp::Xdp(ctx.ctx)) as u32
}

/// TC ingress of a port.
#[classifier]
pub fn sluice_tc(ctx: TcContext) -> i32 {
    lookup::enter(tc::Tc(ctx.skb.skb))
}

/// Carries out an action list in XDP.
#[xdp(frags)]
pub fn xdp_actions(ctx: XdpContext) -> u32 {
    actions::xdp::run(ctx) as u32
}

/// Carries out an action list at TC.
#[classifier]
pub fn tc_actions(ctx: TcContext) -> i32 {
    actions::tc::run(ctx)
}

/// Looks a packet up again after an action said so.
#[classifier]
pub fn tc_recirculate(ctx: TcContext) -> i32 {
    actions::tc::recirculated(ctx)
}

/// TC egress of the upcall pair's near end.
#[classifier]
pub fn upcall_push(ctx: TcContext) -> i32 {
    upcall::push(ctx.skb.skb)
}

/// XDP of the upcall pair's far end: each queue's frames to its socket.
#[xdp(frags)]
pub fn upcall_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: the program's context.
    let queue = unsafe { (*ctx.ctx).rx_queue_index };
    XSKS.redirect(queue, xdp_action::XDP_DROP as u64).unwrap_or(xdp_action::XDP_DROP)
}

#[tracepoint]
pub fn xdp_transmit(ctx: TracePointContext) -> u32 {
    trace::devmap_xmit(ctx);
    0
}

#[tracepoint]
pub fn xdp_redirect_err(ctx: TracePointContext) -> u32 {
    trace::redirect_err(ctx);
    0
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
