//! XDP transmits that failed after the program had returned: only the kernel's tracepoints tell.
//!
//! Both fire for every XDP program of the host; only those of our ports are counted.

use aya_ebpf::programs::TracePointContext;
use switch_common::counter::Drop;

use crate::count::{add, port_row};
use crate::port::port_of;

/// `xdp:xdp_devmap_xmit`: a bulk of frames to one device, of which some did not go out.
#[inline(always)]
pub fn devmap_xmit(ctx: TracePointContext) {
    const FROM_IFINDEX: usize = 8;
    const DROPS: usize = 20;
    // SAFETY: offsets and types of the record's fields, which are part of the kernel's tracing ABI.
    let (from, drops) = unsafe {
        let (Ok(from), Ok(drops)) = (ctx.read_at::<u32>(FROM_IFINDEX), ctx.read_at::<u32>(DROPS)) else {
            return;
        };
        (from, drops)
    };
    failed(from, drops);
}

/// `xdp:xdp_redirect_err`: one frame that could not be redirected.
#[inline(always)]
pub fn redirect_err(ctx: TracePointContext) {
    const IFINDEX: usize = 16;
    // SAFETY: as above.
    if let Ok(from) = unsafe { ctx.read_at::<u32>(IFINDEX) } {
        failed(from, 1);
    }
}

#[inline(always)]
fn failed(ifindex: u32, frames: u32) {
    if frames == 0 {
        return;
    }
    let port = port_of(ifindex);
    if port == 0 {
        return;
    }
    add(Drop::XdpTransmit as usize, frames as u64);
    if let Some(row) = port_row(port as u32) {
        // SAFETY: this CPU's row.
        unsafe { (*row).dropped += frames as u64 };
    }
}
