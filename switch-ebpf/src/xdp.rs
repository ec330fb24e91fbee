//! The XDP hook: packets as the driver received them.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use switch_common::action::{ACTIONS_PER_RUN, op};
use switch_common::counter::Drop;
use switch_common::flow::{FLOW_XDP_ACTIONS, FlowEntry, verdict};
use switch_common::key::{FLAGS_TCP_MASK, FlowKey};
use switch_common::parse::{FrameView, OffloadedTag, PacketMeta, parse};
use switch_common::port::{PORT_ACTIVE, PORT_XDP_OUTPUT};
use switch_common::program::XDP_ACTIONS;

use crate::count::{Amount, account, count_drop};
use crate::ether::{ETH_HEADER, VLAN_TAG, is_tagged};
use crate::handover::hand_over;
use crate::hook::{Hit, Hook};
use crate::maps::{ACTIONS, PORTS, SCRATCH, TX, XDP_PROGS, vlan_limit};
use crate::scratch::{Headers, Origin, Walk};

#[derive(Clone, Copy)]
pub struct Xdp(pub *mut xdp_md);

const DROP: i32 = xdp_action::XDP_DROP as i32;

impl Hook for Xdp {
    const DROPPED: i32 = DROP;

    #[inline(always)]
    fn view(self) -> FrameView {
        // SAFETY: the packet pointers of the program's context.
        unsafe { FrameView::new((*self.0).data as usize, (*self.0).data_end as usize) }
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: the program's context.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn is_plain(self) -> bool {
        true
    }

    #[inline(always)]
    fn prepare(self) {}

    #[inline(always)]
    fn parse(self, origin: Origin) -> Headers {
        Headers(parse_xdp(self.0, origin.in_port as u32))
    }

    #[inline(always)]
    fn amount(self, _headers: Headers) -> Amount {
        Amount { packets: 1, bytes: self.len() }
    }

    #[inline(always)]
    fn handed_over(self, _in_port: u16) -> Option<(u32, *const FlowEntry)> {
        None
    }

    /// TC looks the packet up again and sends it up: only there are offloaded checksums and segments right.
    #[inline(always)]
    fn missed(self, _origin: Origin, _headers: Headers) -> i32 {
        xdp_action::XDP_PASS as i32
    }

    #[inline(always)]
    unsafe fn deliver(self, hit: Hit) -> i32 {
        // SAFETY: `flow` and `key` are valid map values.
        unsafe {
            let flow = hit.flow;
            if hit.headers.malformed() && self.is_cut() {
                // The headers go on behind the first buffer, where only TC sees them.
                return xdp_action::XDP_PASS as i32;
            }
            match (*flow).verdict {
                verdict::OUTPUT => {
                    let port = (*flow).out_port as u32;
                    let Some(entry) = PORTS.get_ptr(port) else { return DROP };
                    let flags = (*entry).flags;
                    if flags & PORT_XDP_OUTPUT == 0 {
                        return self.to_tc(&hit);
                    }
                    let amount = self.amount(hit.headers);
                    account(hit.slot, amount, tcp_flags(hit.key));
                    if flags & PORT_ACTIVE == 0 {
                        return drop(hit.origin, Drop::NoOutput as u32);
                    }
                    if amount.bytes > (*entry).mtu + ETH_HEADER && self.too_long(amount.bytes, (*entry).mtu) {
                        return drop(hit.origin, Drop::Mtu as u32);
                    }
                    transmit(hit.origin, port)
                }
                verdict::DROP => {
                    account(hit.slot, self.amount(hit.headers), tcp_flags(hit.key));
                    drop(hit.origin, (*flow).drop_reason as u32)
                }
                _ => {
                    if !carries_out(flow) {
                        return self.to_tc(&hit);
                    }
                    account(hit.slot, self.amount(hit.headers), tcp_flags(hit.key));
                    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return DROP };
                    (*scratch).walk = Walk::begin(flow, hit.key, hit.headers, hit.origin);
                    XDP_PROGS.tail_call(&XdpContext::new(self.0), XDP_ACTIONS);
                    drop(hit.origin, Drop::Helper as u32)
                }
            }
        }
    }
}

impl Xdp {
    /// Bytes of the whole frame, in however many buffers.
    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: the program's context.
        unsafe { bpf_xdp_get_buff_len(self.0) as u32 }
    }

    /// Whether the frame goes on behind the bytes that can be read directly.
    #[inline(always)]
    fn is_cut(self) -> bool {
        self.len() as usize > self.view().len()
    }

    /// Whether a frame of `len` bytes is too long for `mtu` even without its VLAN tag, if it has one.
    #[inline(always)]
    pub fn too_long(self, len: u32, mtu: u32) -> bool {
        // SAFETY: the packet pointers of the program's context.
        match unsafe { is_tagged((*self.0).data as usize, (*self.0).data_end as usize) } {
            Some(true) => len > mtu + ETH_HEADER + VLAN_TAG,
            Some(false) => len > mtu + ETH_HEADER,
            None => true,
        }
    }

    #[inline(always)]
    unsafe fn to_tc(self, hit: &Hit) -> i32 {
        // SAFETY: a valid map value.
        let seq = unsafe { (&raw const (*hit.flow).seq).read_volatile() };
        // Even while the flow is live: one that was withdrawn just now must not be taken for live at TC.
        let seq = seq & !1;
        hand_over(self.0, hit.slot, seq) as i32
    }
}

/// Whether XDP can carry out the flow's list to its end. It must be known before the packet is changed: a
/// changed packet cannot be handed to TC, which would begin the list anew.
#[inline(always)]
unsafe fn carries_out(flow: *const FlowEntry) -> bool {
    // SAFETY: valid map values.
    unsafe {
        let len = (*flow).act_len as u32;
        if (*flow).flags & FLOW_XDP_ACTIONS == 0 || len > ACTIONS_PER_RUN as u32 {
            return false;
        }
        let Some(last) = ACTIONS.get_ptr((*flow).act_base.wrapping_add(len).wrapping_sub(1)) else {
            return false;
        };
        if (*last).op != op::OUTPUT {
            return false;
        }
        match PORTS.get_ptr((*last).port as u32) {
            Some(port) => (*port).flags & PORT_XDP_OUTPUT != 0,
            None => false,
        }
    }
}

/// Redirects to a port that takes XDP frames.
#[inline(always)]
pub fn transmit(origin: Origin, port: u32) -> i32 {
    match TX.redirect(port, xdp_action::XDP_DROP as u64) {
        Ok(action) => action as i32,
        Err(_) => drop(origin, Drop::NoOutput as u32),
    }
}

/// Counts the drop.
#[inline(always)]
pub fn drop(origin: Origin, reason: u32) -> i32 {
    count_drop(origin.in_port as u32, reason);
    DROP
}

/// TCP flags of a parsed key, host order.
#[inline(always)]
pub fn tcp_flags(key: *const FlowKey) -> u16 {
    // SAFETY: a valid map value.
    unsafe { u16::from_be((*key).flags & FLAGS_TCP_MASK.to_be()) }
}

/// Parses the frame into the scratch's key; [`Headers`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn parse_xdp(ctx: *mut xdp_md, in_port: u32) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    let meta = PacketMeta {
        in_port: in_port as u16,
        recirc_id: 0,
        tag: OffloadedTag { tpid: 0, tci: 0 },
        skb_mark: 0,
        skb_priority: 0,
        dp_hash: 0,
        vlan_limit: vlan_limit() as u8,
    };
    // SAFETY: the view is of this program's packet, the key a valid map value.
    Headers::of(unsafe { parse(Xdp(ctx).view(), &meta, &raw mut (*scratch).key) }).0
}
