//! Rate limiting as the Generic Cell Rate Algorithm (ITU-T I.371, annex A): a token bucket whose whole state is
//! one 64-bit time, so that it can be updated with a compare-and-exchange and no lock.

/// Decides about one packet.
///
/// * `tat`: the bucket's state, the "theoretical arrival time", in ns;
/// * `now`: ns, of the same clock;
/// * `cost`: ns that this packet takes at the configured rate;
/// * `burst`: ns by which packets may come early.
///
/// `Some(new state)` if the packet conforms.
#[inline(always)]
pub const fn admit(tat: u64, now: u64, cost: u64, burst: u64) -> Option<u64> {
    let start = if tat > now { tat } else { now };
    let next = start.wrapping_add(cost);
    if next.wrapping_sub(now) > burst { None } else { Some(next) }
}

/// A meter or limit as the datapath reads it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// State, changed by the datapath only.
    pub tat: u64,
    /// ns a packet costs, or ns × 2^16 a byte if `per_byte` is 1.
    pub cost: u64,
    /// ns; 0 = no limit at all.
    pub burst: u64,
    pub per_byte: u32,
    pub pad: u32,
}

impl RateLimit {
    /// `rate` packets a second, `burst` packets at once. A rate of 0 is no limit.
    pub const fn packets(rate: u64, burst: u64) -> RateLimit {
        if rate == 0 {
            return RateLimit { tat: 0, cost: 0, burst: 0, per_byte: 0, pad: 0 };
        }
        let cost = 1_000_000_000 / rate;
        let cost = if cost == 0 { 1 } else { cost };
        let burst = if burst == 0 { 1 } else { burst };
        RateLimit { tat: 0, cost, burst: cost.saturating_mul(burst), per_byte: 0, pad: 0 }
    }

    /// `rate` bytes a second, `burst` bytes at once.
    pub const fn bytes(rate: u64, burst: u64) -> RateLimit {
        if rate == 0 {
            return RateLimit { tat: 0, cost: 0, burst: 0, per_byte: 1, pad: 0 };
        }
        let cost = (1_000_000_000u64 << 16) / rate;
        let cost = if cost == 0 { 1 } else { cost };
        let burst = (cost as u128 * burst as u128) >> 16;
        let burst = if burst > u64::MAX as u128 { u64::MAX } else { burst as u64 };
        RateLimit { tat: 0, cost, burst: if burst == 0 { 1 } else { burst }, per_byte: 1, pad: 0 }
    }

    /// ns that a frame of `len` bytes, standing for `packets` packets, costs.
    #[inline(always)]
    pub const fn cost_of(&self, len: u32, packets: u32) -> u64 {
        if self.per_byte != 0 {
            (self.cost.wrapping_mul(len as u64)) >> 16
        } else {
            self.cost.wrapping_mul(packets as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_burst_hold() {
        let l = RateLimit::packets(1000, 10);
        let (mut tat, mut passed) = (0, 0);
        for now in (0..1_000_000_000u64).step_by(100_000) {
            if let Some(t) = admit(tat, now + 1_000_000_000, l.cost_of(64, 1), l.burst) {
                tat = t;
                passed += 1;
            }
        }
        assert!((1000..=1010).contains(&passed), "{passed}");
    }
}
