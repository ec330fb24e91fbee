//! Programs of the benchmark: what forwarding costs without a switch, where frames come from, and where they end.
//!
//! Frames come from `gen_flows`, which the kernel runs a million times a call on frames of its own
//! (`BPF_PROG_TEST_RUN` with live frames) and which sends each as another flow's.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{Array, DevMap, PerCpuArray, ProgramArray};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Where `bare_xdp` (entry 0) and `gen_flows` (entry 1) send to.
#[map]
static BENCH_TX: DevMap = DevMap::with_max_entries(2, 0);

/// Flows that the frames are of, one after the other: at most 2^20; 0 leaves the frames as they are.
#[map]
static BENCH_FLOWS: Array<u32> = Array::with_max_entries(1, 0);

/// The next frame's flow, per CPU.
#[map]
static BENCH_NEXT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// The program that `vary_xdp` goes on in: its entry 0.
#[map]
static BENCH_CALL: ProgramArray = ProgramArray::with_max_entries(1, 0);

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

/// Bytes of the headers that [`vary`] writes into: Ethernet, IPv4 without options, UDP ports.
const VARIED: usize = 14 + 20 + 4;
/// Bits of a flow's number that go into the UDP source port.
const PORT_BITS: u32 = 10;
/// Lowest source port.
const FIRST_PORT: u16 = 1024;

/// Makes an untagged IPv4/UDP frame the next flow's: source port and the low half of the source address hold its
/// number. The IP identification is the complement of that half, so that the header's checksum stays right
/// (RFC 1071). The UDP checksum must be 0, which is none (RFC 768).
#[inline(always)]
fn vary(ctx: &XdpContext) {
    let Some(flows) = BENCH_FLOWS.get(0) else { return };
    let Some(next) = BENCH_NEXT.get_ptr_mut(0) else { return };
    if *flows == 0 || ctx.data() + VARIED > ctx.data_end() {
        return;
    }
    let frame = ctx.data() as *mut u8;
    // SAFETY: `next` is a valid map value, of this CPU alone; the frame's first `VARIED` bytes can be written.
    unsafe {
        let flow = *next;
        *next = if flow + 1 < *flows { flow + 1 } else { 0 };
        let half = (flow >> PORT_BITS) as u16;
        let port = FIRST_PORT + (flow & ((1 << PORT_BITS) - 1)) as u16;
        frame.add(14 + 4).cast::<u16>().write_unaligned((!half).to_be());
        frame.add(14 + 14).cast::<u16>().write_unaligned(half.to_be());
        frame.add(14 + 20).cast::<u16>().write_unaligned(port.to_be());
    }
}

/// The generator.
#[xdp(frags)]
pub fn gen_flows(ctx: XdpContext) -> u32 {
    vary(&ctx);
    BENCH_TX.redirect(1, xdp_action::XDP_ABORTED as u64).unwrap_or(xdp_action::XDP_ABORTED)
}

/// Goes on in another program with a frame of the next flow, so that a cache of flows does not help it.
#[xdp(frags)]
pub fn vary_xdp(ctx: XdpContext) -> u32 {
    vary(&ctx);
    // SAFETY: the kernel only puts programs of this kind into the array, and checks the index.
    unsafe { BENCH_CALL.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
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
