//! Sending out of a port at TC.

use aya_ebpf::bindings::bpf_check_mtu_flags::BPF_MTU_CHK_SEGS;
use aya_ebpf::helpers::{bpf_check_mtu, bpf_clone_redirect, bpf_redirect};
use switch_common::counter::Drop;
use switch_common::port::{PORT_ACTIVE, PortEntry};

use crate::ether::{ETH_HEADER, VLAN_TAG, is_tagged};
use crate::maps::PORTS;
use crate::scratch::Origin;
use crate::tc::{Tc, drop};

/// Sends the packet itself: nothing can be done with it afterwards.
#[inline(always)]
pub fn send_last(hook: Tc, origin: Origin, port: u32) -> i32 {
    match target(hook, port) {
        // SAFETY: the helper takes plain numbers.
        Ok(ifindex) => unsafe { bpf_redirect(ifindex, 0) as i32 },
        Err(reason) => drop(origin, reason as u32),
    }
}

/// Sends a copy. The scratch is not live after it.
#[inline(always)]
pub fn send_copy(hook: Tc, port: u32) -> Result<(), Drop> {
    let ifindex = target(hook, port)?;
    // SAFETY: the program's context.
    match unsafe { bpf_clone_redirect(hook.0, ifindex, 0) } {
        0 => Ok(()),
        _ => Err(Drop::NoOutput),
    }
}

/// The interface of a port that exists, is up, and takes a packet of this length.
#[inline(always)]
fn target(hook: Tc, port: u32) -> Result<u32, Drop> {
    let Some(entry) = PORTS.get_ptr(port) else { return Err(Drop::NoOutput) };
    // SAFETY: a valid map value.
    let PortEntry { ifindex, flags, mtu, .. } = unsafe { *entry };
    if flags & PORT_ACTIVE == 0 {
        return Err(Drop::NoOutput);
    }
    if hook.len() > mtu + ETH_HEADER && too_long(hook, ifindex, mtu) {
        return Err(Drop::Mtu);
    }
    Ok(ifindex)
}

/// Whether a frame that is longer than `mtu` at first sight is too long for the interface. A redirect skips the
/// check that the kernel's own forwarding makes, and the device would send or cut it silently.
#[inline(always)]
fn too_long(hook: Tc, ifindex: u32, mtu: u32) -> bool {
    // SAFETY: the program's context and its packet pointers.
    unsafe {
        let skb = hook.0;
        if (*skb).gso_size != 0 {
            let mut seen = 0u32;
            return bpf_check_mtu(skb.cast(), ifindex, &raw mut seen, 0, BPF_MTU_CHK_SEGS as u64) != 0;
        }
        if (*skb).vlan_present != 0 {
            return true;
        }
        let tagged = is_tagged((*skb).data as usize, (*skb).data_end as usize);
        tagged != Some(true) || hook.len() > mtu + ETH_HEADER + VLAN_TAG
    }
}
