//! Reference programs of the benchmark: what forwarding costs without a switch, and where frames end.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{DevMap, PerCpuArray};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Where `bare_xdp` sends to: its entry 0.
#[map]
static BENCH_TX: DevMap = DevMap::with_max_entries(64, 0);

/// Packets and bytes that reached a sink, per CPU.
#[map]
static BENCH_COUNT: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Interface that `bare_tc` sends to; set at load.
#[unsafe(no_mangle)]
static BENCH_IFINDEX: u32 = 0;

#[inline(always)]
fn count(bytes: u32) {
    if let Some(c) = BENCH_COUNT.get_ptr_mut(0) {
        // SAFETY: a valid map value, of this CPU alone.
        unsafe {
            (*c)[0] += 1;
            (*c)[1] += bytes as u64;
        }
    }
}

/// The upper limit of XDP forwarding: a redirect and nothing else.
#[xdp(frags)]
pub fn bare_xdp(_ctx: XdpContext) -> u32 {
    BENCH_TX.redirect(0, xdp_action::XDP_ABORTED as u64).unwrap_or(xdp_action::XDP_ABORTED)
}

/// The upper limit of TC forwarding.
#[classifier]
pub fn bare_tc(_ctx: TcContext) -> i32 {
    // SAFETY: a volatile read of a constant that the loader sets; the helper takes plain numbers.
    unsafe { bpf_redirect((&raw const BENCH_IFINDEX).read_volatile(), 0) as i32 }
}

/// Counts and drops in XDP, and makes a veth peer take redirected frames.
#[xdp(frags)]
pub fn xdp_sink(ctx: XdpContext) -> u32 {
    // SAFETY: the context is valid while the program runs.
    unsafe { count((*ctx.ctx).data_end - (*ctx.ctx).data) };
    xdp_action::XDP_DROP
}

/// Passes everything to the stack, and makes a veth peer take redirected frames.
#[xdp(frags)]
pub fn xdp_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Counts and drops at TC.
#[classifier]
pub fn tc_sink(ctx: TcContext) -> i32 {
    count(ctx.len());
    TC_ACT_SHOT
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
