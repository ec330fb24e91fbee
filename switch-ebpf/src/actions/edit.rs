//! How a hook reads and writes a packet's bytes, and keeps the checksums right that cover them.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::{bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes};
use switch_common::checksum::{fold, update};

use crate::scratch::{ICMPV6, TCP, UDP};
use crate::tc::Tc;
use crate::xdp::Xdp;

/// Whether a checksum that the packet carries covers the bytes and has been mended with them.
///
/// It matters where a device has summed up the whole packet (CHECKSUM_COMPLETE): a change and its mended checksum
/// cancel each other out there, a change alone has to be added. An IPv6 address counts as plain, since the
/// kernel's helper takes the pseudo header's change out of that sum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    Mended,
    Plain,
}

/// A change that a layer-4 checksum covers: sums of words before and after ([`switch_common::checksum::sum64`]).
#[derive(Clone, Copy)]
pub struct Change {
    pub before: u64,
    pub after: u64,
    /// The bytes are of the pseudo header, not of the layer-4 packet itself.
    pub pseudo: bool,
}

pub trait Editor: Copy {
    /// Reads `len` bytes into words, as they lie in the packet; at most `8 * W`, and a multiple of two.
    fn load<const W: usize>(self, at: usize, len: usize) -> Option<[u64; W]>;

    /// Writes them.
    fn store<const W: usize>(self, at: usize, len: usize, words: &[u64; W], cover: Cover) -> bool;

    /// Brings the checksum of the layer-4 header at `l4` up to date. False if it is not there.
    fn mend(self, l4: usize, proto: u8, change: Change) -> bool;
}

/// Where a protocol has its checksum; `None` for one without, or whose checksum is not an Internet checksum.
/// ICMP's is not listed for a change of the pseudo header, which it does not cover.
#[inline(always)]
pub const fn checksum_offset(proto: u8, pseudo: bool) -> Option<usize> {
    match proto {
        TCP => Some(16),
        UDP => Some(6),
        ICMPV6 => Some(2),
        crate::scratch::ICMP if !pseudo => Some(2),
        _ => None,
    }
}

impl Editor for Tc {
    #[inline(always)]
    fn load<const W: usize>(self, at: usize, len: usize) -> Option<[u64; W]> {
        let mut buffer = [0u64; W];
        let mut words = [0u64; W];
        // SAFETY: the program's context; `buffer` is at least `len` bytes. Volatile, so that LLVM reads whole
        // words and not, misaligned, what is later made of them: the stack does not allow it.
        unsafe {
            if bpf_skb_load_bytes(self.0.cast(), at as u32, (&raw mut buffer).cast(), len as u32) != 0 {
                return None;
            }
            let mut i = 0;
            while i < W {
                words[i] = (&raw const buffer[i]).read_volatile();
                i += 1;
            }
        }
        Some(words)
    }

    #[inline(always)]
    fn store<const W: usize>(self, at: usize, len: usize, words: &[u64; W], cover: Cover) -> bool {
        let flags = if cover == Cover::Plain { BPF_F_RECOMPUTE_CSUM as u64 } else { 0 };
        let mut buffer = [0u64; W];
        // SAFETY: the program's context; `buffer` is at least `len` bytes. Volatile for the same reason.
        unsafe {
            let mut i = 0;
            while i < W {
                (&raw mut buffer[i]).write_volatile(words[i]);
                i += 1;
            }
            bpf_skb_store_bytes(self.0, at as u32, (&raw const buffer).cast(), len as u32, flags) == 0
        }
    }

    #[inline(always)]
    fn mend(self, l4: usize, proto: u8, change: Change) -> bool {
        if change.before == change.after {
            return true;
        }
        let Some(at) = checksum_offset(proto, change.pseudo) else { return true };
        let mut flags = 0;
        if change.pseudo {
            flags |= BPF_F_PSEUDO_HDR as u64;
        }
        if proto == UDP {
            flags |= BPF_F_MARK_MANGLED_0 as u64;
        }
        let difference = (!fold(change.before)) as u64 + fold(change.after) as u64;
        // SAFETY: the program's context. A size of 0 (in the low bits of the flags) says that `to` is a sum.
        unsafe { bpf_l4_csum_replace(self.0, (l4 + at) as u32, 0, difference, flags) == 0 }
    }
}

/// Farther into a packet than any header that is edited; keeps the verifier's sums in bounds.
const FARTHEST: usize = 0x3fff;

impl Xdp {
    /// The address of `len` bytes of the packet.
    #[inline(always)]
    fn at(self, offset: usize, len: usize) -> Option<*mut u8> {
        if offset > FARTHEST {
            return None;
        }
        let mut offset = offset;
        // SAFETY: the program's context. The first statement changes nothing after the check above, which the
        // verifier, though, does not always see to be of the same number; the second hides from LLVM how the sum
        // came about, which otherwise adds up check and access in different orders.
        unsafe {
            core::arch::asm!("{0} &= 0x3fff", inout(reg) offset, options(nomem, nostack));
            let mut start = (*self.0).data as usize + offset;
            core::arch::asm!("{0} = {0}", inout(reg) start, options(nomem, nostack, preserves_flags));
            if start + len > (*self.0).data_end as usize { None } else { Some(start as *mut u8) }
        }
    }
}

impl Editor for Xdp {
    #[inline(always)]
    fn load<const W: usize>(self, at: usize, len: usize) -> Option<[u64; W]> {
        let from = self.at(at, len)?;
        let mut words = [0u64; W];
        let mut i = 0;
        while i < W {
            // SAFETY: `len` readable bytes from `from` on.
            words[i] = unsafe {
                match len - 8 * i {
                    2 => from.add(8 * i).cast::<u16>().read_unaligned() as u64,
                    4 => from.add(8 * i).cast::<u32>().read_unaligned() as u64,
                    _ => from.add(8 * i).cast::<u64>().read_unaligned(),
                }
            };
            i += 1;
        }
        Some(words)
    }

    #[inline(always)]
    fn store<const W: usize>(self, at: usize, len: usize, words: &[u64; W], _cover: Cover) -> bool {
        let Some(to) = self.at(at, len) else { return false };
        let mut i = 0;
        while i < W {
            // SAFETY: `len` writable bytes from `to` on.
            unsafe {
                match len - 8 * i {
                    2 => to.add(8 * i).cast::<u16>().write_unaligned(words[i] as u16),
                    4 => to.add(8 * i).cast::<u32>().write_unaligned(words[i] as u32),
                    _ => to.add(8 * i).cast::<u64>().write_unaligned(words[i]),
                }
            }
            i += 1;
        }
        true
    }

    #[inline(always)]
    fn mend(self, l4: usize, proto: u8, change: Change) -> bool {
        if change.before == change.after {
            return true;
        }
        let Some(at) = checksum_offset(proto, change.pseudo) else { return true };
        let Some(field) = self.at(l4 + at, 2) else { return false };
        // SAFETY: two bytes of the packet.
        unsafe {
            let old = field.cast::<u16>().read_unaligned();
            // A checksum of zero says that there is none; one that comes out as zero is written as all ones
            // (RFC 768; for IPv6 RFC 6935).
            if proto == UDP && old == 0 {
                return true;
            }
            let mut new = update(old, change.before, change.after);
            if proto == UDP && new == 0 {
                new = 0xffff;
            }
            field.cast::<u16>().write_unaligned(new);
        }
        true
    }
}
