//! The keyed hash of key words, the same in the datapath and in userspace.
//!
//! It is NH, the first layer of UMAC (RFC 4418, section 5.2): one 32×32-bit multiplication a word, each with a
//! random key of its own, summed, and then mixed once. On the grids of addresses and ports that real traffic is
//! made of it spreads as well as random numbers do, which cheaper multiply-and-rotate hashes do not; and since
//! the key is random per start, nobody outside can aim at one bucket.

use crate::key::KEY_WORDS;

/// 32-bit key words: two for each key word.
pub const HASH_KEY_LEN: usize = 2 * KEY_WORDS;

/// The random key.
pub type HashKey = [u32; HASH_KEY_LEN];

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
const FINAL: u64 = 0xff51_afd7_ed55_8ccd;

/// One step: adds the product for word `i` of value `x`.
#[inline(always)]
pub const fn step(sum: u64, x: u64, i: usize, key: &HashKey) -> u64 {
    let lo = (x as u32).wrapping_add(key[2 * i]) as u64;
    let hi = ((x >> 32) as u32).wrapping_add(key[2 * i + 1]) as u64;
    sum.wrapping_add(lo.wrapping_mul(hi))
}

/// Where a hash over words of mask `id` starts.
#[inline(always)]
pub const fn begin(id: u64) -> u64 {
    id.wrapping_mul(MIX)
}

/// Mixes the sum, so that each of the 64 bits depends on all of it.
#[inline(always)]
pub const fn finish(sum: u64) -> u64 {
    let h = (sum ^ sum >> 32).wrapping_mul(FINAL);
    h ^ h >> 32
}

/// Hash of `words`, each and-ed with the mask word beside it.
#[inline]
pub fn masked(words: &[u64], mask: &[u64], id: u64, key: &HashKey) -> u64 {
    let mut sum = begin(id);
    for (i, (w, m)) in words.iter().zip(mask).enumerate() {
        sum = step(sum, w & m, i, key);
    }
    finish(sum)
}

/// Hash of `words` as they are.
#[inline]
pub fn plain(words: &[u64], id: u64, key: &HashKey) -> u64 {
    let mut sum = begin(id);
    for (i, w) in words.iter().enumerate() {
        sum = step(sum, *w, i, key);
    }
    finish(sum)
}

/// Hash of a packet's connection, for the datapath's hash action and what follows from it (select groups,
/// bonds): addresses, protocol and ports, from a key's words 0, 3 and 4 to 7. Not keyed, so that the same
/// connection keeps its member over a restart. With `symmetric` both directions hash alike.
#[inline(always)]
pub const fn connection(words: &[u64; KEY_WORDS], basis: u32, symmetric: bool) -> u32 {
    let proto = words[0] >> 40 & 0xff;
    let ports = words[3] as u32;
    let ipv4 = (words[3] >> 48) as u16 == 0x0800u16.to_be();
    let (mut a, mut b) = if ipv4 {
        (words[4] & 0xffff_ffff, words[4] >> 32)
    } else {
        (mix(words[4], words[5]), mix(words[6], words[7]))
    };
    let (mut p, mut q) = ((ports & 0xffff) as u64, (ports >> 16) as u64);
    if symmetric {
        let (x, y) = (a ^ b, a.wrapping_add(b));
        a = x;
        b = y;
        let (x, y) = (p ^ q, p.wrapping_add(q));
        p = x;
        q = y;
    }
    let h = mix(mix(a, b), mix(p << 32 | q, proto << 32 | basis as u64));
    (h ^ h >> 32) as u32
}

#[inline(always)]
const fn mix(a: u64, b: u64) -> u64 {
    let h = (a ^ MIX).wrapping_mul(FINAL) ^ b;
    let h = (h ^ h >> 29).wrapping_mul(MIX);
    h ^ h >> 32
}
