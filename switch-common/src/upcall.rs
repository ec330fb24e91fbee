//! The header in front of a frame on its way to userspace.
//!
//! It begins as an Ethernet header of a type for local experiments (IEEE 802, 0x88b5), so that every device and
//! queue on the way takes it for a frame. The frame follows at once, without the VLAN tag that the kernel kept
//! beside it, which stands in the header.

/// Bytes.
pub const UPCALL_HEADER: usize = 64;

/// `eth_type` of the header (host order).
pub const UPCALL_ETH_TYPE: u16 = 0x88b5;

/// Why a frame goes up.
pub mod reason {
    /// No flow.
    pub const MISS: u8 = 0;
    /// A userspace action (controller, sampling): the cookie says which.
    pub const ACTION: u8 = 1;
    /// The flow's actions are beyond the datapath: userspace carries out what the cookie names.
    pub const SLOW_PATH: u8 = 2;
}

/// Queue of the upcall pair for protocol traffic (LACP, STP, LLDP, CFM, ...), which no flood of misses delays.
pub const PROTOCOL_QUEUE: u32 = 0;
/// First queue for misses.
pub const FIRST_MISS_QUEUE: u32 = 1;

#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpcallHeader {
    pub eth_dst: [u8; 6],
    pub eth_src: [u8; 6],
    /// be16.
    pub eth_type: u16,
    /// [`crate::ABI_VERSION`].
    pub version: u8,
    /// [`reason`].
    pub reason: u8,
    /// Datapath port.
    pub in_port: u16,
    /// be16; 0 for no tag beside the frame.
    pub vlan_tpid: u16,
    /// Host order.
    pub vlan_tci: u16,
    /// Bytes of payload a segment; 0 if the frame was not a GSO one.
    pub gso_size: u16,
    /// Bytes of the frame, before GSO and without the tag.
    pub frame_len: u32,
    pub recirc_id: u32,
    pub dp_hash: u32,
    pub skb_mark: u32,
    pub skb_priority: u32,
    pub pad: u32,
    pub cookie: u64,
    /// ns, `bpf_ktime_get_ns` when it was sent up.
    pub sent_at: u64,
}

const _: () = assert!(size_of::<UpcallHeader>() == UPCALL_HEADER);

impl UpcallHeader {
    /// Reads the header of a frame from the upcall pair; `None` if it is too short, or not one.
    pub fn read(frame: &[u8]) -> Option<UpcallHeader> {
        let bytes: &[u8; UPCALL_HEADER] = frame.first_chunk()?;
        // SAFETY: 64 readable bytes; the type is plain integers, so every bit pattern is valid.
        let h = unsafe { bytes.as_ptr().cast::<UpcallHeader>().read_unaligned() };
        (h.eth_type == UPCALL_ETH_TYPE.to_be() && h.version == crate::ABI_VERSION as u8).then_some(h)
    }

    pub fn bytes(&self) -> &[u8; UPCALL_HEADER] {
        // SAFETY: same size, no padding, and bytes need no alignment.
        unsafe { &*(self as *const UpcallHeader).cast() }
    }
}

/// Whether a destination address (low 48 bits of key word 1, wire order) is one of those that IEEE 802.1Q
/// (table 8-1) reserves for bridge protocols, 01:80:c2:00:00:00 to 0f.
#[inline(always)]
pub const fn is_reserved_multicast(dst: u64) -> bool {
    // The first five bytes as they lie in memory, and the last one's high nibble.
    dst.to_le() & 0xf0ff_ffff_ffff == 0x0000_00c2_8001
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_addresses() {
        let word = |m: [u8; 6]| u64::from_ne_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0]);
        assert!(is_reserved_multicast(word([1, 0x80, 0xc2, 0, 0, 2])));
        assert!(is_reserved_multicast(word([1, 0x80, 0xc2, 0, 0, 0x0f])));
        assert!(!is_reserved_multicast(word([1, 0x80, 0xc2, 0, 0, 0x10])));
        assert!(!is_reserved_multicast(word([1, 0x80, 0xc2, 0, 1, 0])));
        assert!(!is_reserved_multicast(word([0xff; 6])));
    }
}
