//! Ethernet addresses, and those that a switch does not forward.

use std::fmt;

/// Six bytes in the order of the wire.
pub type EthAddr = [u8; 6];

/// Broadcast included.
pub const fn is_multicast(address: &EthAddr) -> bool {
    address[0] & 1 == 1
}

/// Addresses to which NORMAL does not forward unless `forward-bpdu` is set, as in Open vSwitch: those that IEEE
/// 802.1Q (table 8-1) reserves for bridge protocols, and those of Cisco's and Extreme's protocols of this kind.
pub const fn is_reserved(address: &EthAddr) -> bool {
    match address {
        [0x01, 0x80, 0xc2, 0, 0, last] => *last <= 0x0f,
        // EDP and EAPS.
        [0x00, 0xe0, 0x2b, 0, 0, 0x00 | 0x04 | 0x06] => true,
        // ISL; PAgP, UDLD, CDP, DTP, VTP; PVST+; Uplink Fast and FlexLink.
        [0x01, 0x00, 0x0c, 0x00, 0x00, 0x00] => true,
        [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc | 0xcd] => true,
        [0x01, 0x00, 0x0c, 0xcd, 0xcd, 0xcd] => true,
        // Cisco's CFM.
        [0x01, 0x00, 0x0c, 0xcc, 0xcc, last] => *last >= 0xc0 && *last <= 0xc7,
        _ => false,
    }
}

/// Prints an address as `02:00:00:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Eth<'a>(pub &'a EthAddr);

impl fmt::Display for Eth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_addresses() {
        // As `ofproto/trace` of Open vSwitch 3.1 answers for each.
        for last in 0..=0x0f {
            assert!(is_reserved(&[1, 0x80, 0xc2, 0, 0, last]));
        }
        assert!(!is_reserved(&[1, 0x80, 0xc2, 0, 0, 0x10]));
        assert!(
            is_reserved(&[1, 0, 0x0c, 0xcc, 0xcc, 0xc7]) && !is_reserved(&[1, 0, 0x0c, 0xcc, 0xcc, 0xc8])
        );
        assert!(is_reserved(&[0, 0xe0, 0x2b, 0, 0, 4]) && !is_reserved(&[0, 0xe0, 0x2b, 0, 0, 5]));
        assert!(!is_reserved(&[0xff; 6]));
        assert_eq!(Eth(&[2, 0, 0, 0, 0, 0xab]).to_string(), "02:00:00:00:00:ab");
    }
}
