//! The TC hook: packets as the kernel's stack would see them.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use aya_ebpf::helpers::bpf_skb_pull_data;
use aya_ebpf::programs::TcContext;
use switch_common::counter::Drop;
use switch_common::flow::{FlowEntry, verdict};
use switch_common::key::{Kind, VLAN_PRESENT};
use switch_common::parse::{FrameView, OffloadedTag, PacketMeta, parse};
use switch_common::program::TC_ACTIONS;

use crate::count::{Amount, account, count_drop};
use crate::handover::take_over;
use crate::hook::{Hit, Hook};
use crate::maps::{SCRATCH, TC_PROGS, vlan_limit};
use crate::output::send_last;
use crate::scratch::{Headers, Origin, TCP, UDP, Walk};
use crate::upcall::upcall_miss;
use crate::xdp::tcp_flags;

#[derive(Clone, Copy)]
pub struct Tc(pub *mut __sk_buff);

/// Bytes that `parse_common` wants.
const COMMON_HEADERS: u32 = 54;
/// Bytes in which the headers of any sensible packet end.
const ALL_HEADERS: u32 = 256;

impl Hook for Tc {
    const DROPPED: i32 = TC_ACT_SHOT;

    #[inline(always)]
    fn view(self) -> FrameView {
        // SAFETY: the packet pointers of the program's context.
        unsafe { FrameView::new((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: the program's context.
        unsafe { (*self.0).ifindex }
    }

    #[inline(always)]
    fn is_plain(self) -> bool {
        // SAFETY: the program's context.
        unsafe { (*self.0).vlan_present | (*self.0).mark | (*self.0).priority == 0 }
    }

    #[inline(always)]
    fn prepare(self) {
        let readable = self.view().len() as u32;
        if readable < COMMON_HEADERS && readable < self.len() {
            self.pull(COMMON_HEADERS);
        }
    }

    #[inline(always)]
    fn parse(self, origin: Origin) -> Headers {
        let headers = Headers(parse_tc(self.0, origin.in_port as u32, origin.recirc_id, origin.dp_hash));
        let readable = self.view().len() as u32;
        if readable >= ALL_HEADERS || readable >= self.len() || !may_go_on(headers) {
            return headers;
        }
        self.pull(ALL_HEADERS);
        Headers(parse_tc(self.0, origin.in_port as u32, origin.recirc_id, origin.dp_hash))
    }

    #[inline(always)]
    fn amount(self, headers: Headers) -> Amount {
        self.amount_at(headers.l4())
    }

    #[inline(always)]
    fn handed_over(self, in_port: u16) -> Option<(u32, *const FlowEntry)> {
        take_over(self.0, in_port)
    }

    #[inline(always)]
    fn missed(self, origin: Origin, _headers: Headers) -> i32 {
        upcall_miss(origin.in_port as u32, origin.recirc_id, origin.dp_hash) as i32
    }

    #[inline(always)]
    unsafe fn deliver(self, hit: Hit) -> i32 {
        // SAFETY: `flow` and `key` are valid map values.
        unsafe {
            let flow = hit.flow;
            account(hit.slot, self.amount(hit.headers), tcp_flags(hit.key));
            match (*flow).verdict {
                verdict::OUTPUT => send_last(self, hit.origin, (*flow).out_port as u32),
                verdict::DROP => drop(hit.origin, (*flow).drop_reason as u32),
                _ => {
                    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return TC_ACT_SHOT };
                    (*scratch).walk = Walk::begin(flow, hit.key, hit.headers, hit.origin);
                    TC_PROGS.tail_call(&TcContext::new(self.0), TC_ACTIONS);
                    drop(hit.origin, Drop::Helper as u32)
                }
            }
        }
    }
}

impl Tc {
    /// Bytes of the frame, without a tag beside it, before it is cut into segments.
    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: the program's context.
        unsafe { (*self.0).len }
    }

    /// What the frame, whose layer-4 header is at `l4`, counts for.
    #[inline(always)]
    pub fn amount_at(self, l4: u16) -> Amount {
        // SAFETY: the program's context.
        if unsafe { (*self.0).gso_size } != 0 {
            let packed = amount_of_segments(self.0, l4 as u32);
            return Amount { packets: (packed >> 32) as u32, bytes: packed as u32 };
        }
        Amount { packets: 1, bytes: self.len() + self.tag_len() }
    }

    /// Bytes that the tag beside the frame will take.
    #[inline(always)]
    pub fn tag_len(self) -> u32 {
        // SAFETY: the program's context.
        if unsafe { (*self.0).vlan_present } != 0 { 4 } else { 0 }
    }

    /// Makes the first `len` bytes directly readable, or all of a shorter frame.
    #[inline(always)]
    fn pull(self, len: u32) {
        let len = if len < self.len() { len } else { self.len() };
        // SAFETY: the program's context. When it fails, the bytes stay unreadable, which the parser bears.
        unsafe { bpf_skb_pull_data(self.0, len) };
    }
}

/// Whether the parser may have wanted bytes that were not directly readable. The headers of TCP and UDP are
/// readable in whatever the kernel or a driver hands over; pulling a large packet's payload would cost a copy.
#[inline(always)]
fn may_go_on(headers: Headers) -> bool {
    if headers == Headers::RUNT || headers.malformed() {
        return true;
    }
    let Some(scratch) = SCRATCH.get_ptr(0) else { return false };
    // SAFETY: a valid map value.
    let proto = unsafe { (*scratch).key.ip_proto };
    headers.kind() == Kind::Full as u8 && proto != TCP && proto != UDP
}

/// Counts the drop.
#[inline(always)]
pub fn drop(origin: Origin, reason: u32) -> i32 {
    count_drop(origin.in_port as u32, reason);
    TC_ACT_SHOT
}

/// Parses the frame into the scratch's key; [`Headers`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn parse_tc(skb: *mut __sk_buff, in_port: u32, recirc_id: u32, dp_hash: u32) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the program's context; the view is of its packet, the key a valid map value.
    unsafe {
        let tag = if (*skb).vlan_present != 0 {
            OffloadedTag { tpid: (*skb).vlan_proto as u16, tci: (*skb).vlan_tci as u16 & !VLAN_PRESENT }
        } else {
            OffloadedTag { tpid: 0, tci: 0 }
        };
        let meta = PacketMeta {
            in_port: in_port as u16,
            recirc_id,
            tag,
            skb_mark: (*skb).mark,
            skb_priority: (*skb).priority,
            dp_hash,
            vlan_limit: vlan_limit() as u8,
        };
        Headers::of(parse(Tc(skb).view(), &meta, &raw mut (*scratch).key)).0
    }
}

/// What a GSO frame whose layer-4 header is at `l4` will be on the wire: packets in the upper half, bytes in the
/// lower. The kernel's own count is 0 for frames from a guest, and its length leaves out repeated headers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn amount_of_segments(skb: *mut __sk_buff, l4: u32) -> u64 {
    let hook = Tc(skb);
    let len = hook.len();
    // SAFETY: the program's context; the read is behind a check of its range.
    let (size, segments, proto) = unsafe {
        let proto = match SCRATCH.get_ptr(0) {
            Some(s) => (*s).key.ip_proto,
            None => 0,
        };
        ((*skb).gso_size, (*skb).gso_segs, proto)
    };
    let mut headers = (l4 & 0xffff) + 8;
    if proto == TCP {
        let mut words = 5;
        // SAFETY: as above.
        unsafe {
            let at = (*skb).data as usize + (l4 & 0x3fff) as usize;
            if at + 20 <= (*skb).data_end as usize {
                words = *((at + 12) as *const u8) >> 4;
            }
        }
        headers = (l4 & 0xffff) + 4 * words as u32;
    }
    if size == 0 || headers >= len {
        return 1 << 32 | (len + hook.tag_len()) as u64;
    }
    let segments = if segments != 0 { segments } else { (len - headers).div_ceil(size) };
    let bytes = len + (segments - 1) * headers + segments * hook.tag_len();
    (segments as u64) << 32 | bytes as u64
}
