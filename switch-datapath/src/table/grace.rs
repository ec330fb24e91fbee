//! Counting grace periods: whether every program run that began before something happened has ended.

/// A moment, in grace periods begun until then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stamp(u64);

/// Grace periods, numbered from 1 in the order of their beginnings.
#[derive(Default)]
pub struct GraceCount {
    begun: u64,
    /// Number of the last one that has ended.
    ended: u64,
}

impl GraceCount {
    /// Now.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.begun)
    }

    /// Whether a whole grace period lies between `stamp` and now: one that was under way at that moment does not
    /// count.
    pub fn has_passed(&self, stamp: Stamp) -> bool {
        self.ended > stamp.0
    }

    /// A grace period begins: answers its number.
    pub fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    /// The grace period with this number has ended.
    pub fn end(&mut self, number: u64) {
        self.ended = self.ended.max(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_under_way_does_not_count() {
        let mut g = GraceCount::default();
        let before = g.stamp();
        let n = g.begin();
        let during = g.stamp();
        assert!(!g.has_passed(before));
        g.end(n);
        assert!(g.has_passed(before) && !g.has_passed(during));
        let n = g.begin();
        g.end(n);
        assert!(g.has_passed(during));
    }
}
