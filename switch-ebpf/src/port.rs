//! Which datapath port an interface is.

use switch_common::port::{IFINDEX_PROBES, IFINDEX_SLOTS};

use crate::maps::IFINDEX;

/// The port of an interface, or 0.
#[inline(always)]
pub fn port_of(ifindex: u32) -> u16 {
    let mut probe = 0;
    while probe < IFINDEX_PROBES {
        let Some(e) = IFINDEX.get_ptr(ifindex.wrapping_add(probe) % IFINDEX_SLOTS) else {
            return 0;
        };
        // SAFETY: a valid map value. The daemon writes an entry's eight bytes at once, so that the two fields fit.
        let word = unsafe { (e as *const u64).read_volatile() };
        if word as u32 == ifindex {
            return (word >> 32) as u16;
        }
        probe += 1;
    }
    0
}
