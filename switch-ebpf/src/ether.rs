//! Lengths and types of the Ethernet layer (IEEE 802.3, 802.1Q).

/// Bytes of an Ethernet header.
pub const ETH_HEADER: u32 = 14;
/// Bytes of a VLAN tag.
pub const VLAN_TAG: u32 = 4;
/// The address in a word whose upper bytes are something else's.
pub const LOW48: u64 = 0xffff_ffff_ffff;

/// Whether this EtherType (be16) says that a VLAN tag follows.
#[inline(always)]
pub const fn is_tpid(eth_type: u16) -> bool {
    eth_type == 0x8100u16.to_be() || eth_type == 0x88a8u16.to_be()
}

/// Whether a frame begins with a VLAN tag; `None` if the first `ETH_HEADER` bytes cannot be read.
///
/// # Safety
/// `start` and `end` must be the packet pointers of the program's context.
#[inline(always)]
pub unsafe fn is_tagged(start: usize, end: usize) -> Option<bool> {
    if start + ETH_HEADER as usize > end {
        return None;
    }
    // SAFETY: the range was checked.
    Some(is_tpid(unsafe { ((start + 12) as *const u16).read_unaligned() }))
}
