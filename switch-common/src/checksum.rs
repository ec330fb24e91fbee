//! Internet checksums (RFC 1071) and their incremental update (RFC 1624).
//!
//! All words are taken as they lie in memory: the sum of such words is the same whatever the byte order.

/// Folds a sum of 16-bit words.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let s = (sum & 0xffff_ffff) + (sum >> 32);
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    s as u16
}

/// The 16-bit words of a u64, as a sum that can be folded.
#[inline(always)]
pub const fn sum64(x: u64) -> u64 {
    (x & 0xffff_ffff) + (x >> 32)
}

/// The checksum field after the bytes that it covers changed; `removed` and `added` are sums of words
/// ([`sum64`]) of what was there and what is there now (RFC 1624, equation 3).
#[inline(always)]
pub const fn update(check: u16, removed: u64, added: u64) -> u16 {
    let sum = (!check) as u64 + (!fold(removed)) as u64 + added;
    !fold(sum)
}

/// Sum of a byte string's words, an odd last byte padded with zero.
pub fn sum_bytes(bytes: &[u8]) -> u64 {
    let mut sum = 0u64;
    let mut words = bytes.chunks_exact(2);
    for w in &mut words {
        sum += u16::from_ne_bytes([w[0], w[1]]) as u64;
    }
    if let [last] = words.remainder() {
        sum += u16::from_ne_bytes([*last, 0]) as u64;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incremental_is_the_same_as_anew() {
        let mut b = *b"\x45\x00\x00\x54\xbe\xef\x40\x00\x40\x01\0\0\x0a\x01\x02\x03\x0a\x09\x08\x07";
        let old = !fold(sum_bytes(&b));
        b[10..12].copy_from_slice(&old.to_ne_bytes());
        assert_eq!(fold(sum_bytes(&b)), 0xffff);
        let before = u32::from_ne_bytes([b[12], b[13], b[14], b[15]]);
        let after = u32::from_ne_bytes([192, 168, 7, 9]);
        b[12..16].copy_from_slice(&after.to_ne_bytes());
        let new = update(old, sum64(before as u64), sum64(after as u64));
        b[10..12].copy_from_slice(&new.to_ne_bytes());
        assert_eq!(fold(sum_bytes(&b)), 0xffff);
    }
}
