//! Which slots of the flow table are free.
//!
//! Slots under `full_slots` also have a [`FlowRest`](switch_common::flow::FlowRest), which `Full` flows need;
//! the others take such a slot only when there is no other left. The slot that was freed last is used first: its
//! cache lines are the warmest.

use switch_common::flow::NO_SLOT;

/// Numbers of one range: those never used yet, and a stack of those that came back.
struct Range {
    next: u32,
    end: u32,
    returned: Vec<u32>,
}

impl Range {
    fn peek(&self) -> Option<u32> {
        self.returned.last().copied().or((self.next < self.end).then_some(self.next))
    }

    fn take(&mut self) -> Option<u32> {
        if let Some(slot) = self.returned.pop() {
            return Some(slot);
        }
        (self.next < self.end).then(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn free(&self) -> usize {
        self.returned.len() + (self.end - self.next) as usize
    }
}

/// The allocator.
pub struct Slots {
    low: Range,
    high: Range,
}

impl Slots {
    /// For slots 1 to `slots - 1`, of which those under `full_slots` can hold `Full` flows.
    pub fn new(slots: u32, full_slots: u32) -> Slots {
        let first = NO_SLOT + 1;
        let border = full_slots.clamp(first, slots.max(first));
        Slots {
            low: Range { next: first, end: border, returned: Vec::new() },
            high: Range { next: border, end: slots.max(border), returned: Vec::new() },
        }
    }

    /// The slot that [`Slots::take`] would answer.
    pub fn peek(&self, full: bool) -> Option<u32> {
        if full { self.low.peek() } else { self.high.peek().or_else(|| self.low.peek()) }
    }

    pub fn take(&mut self, full: bool) -> Option<u32> {
        if full { self.low.take() } else { self.high.take().or_else(|| self.low.take()) }
    }

    /// Gives a slot back that was taken.
    pub fn give_back(&mut self, slot: u32) {
        let range = if slot < self.low.end { &mut self.low } else { &mut self.high };
        range.returned.push(slot);
    }

    /// Slots free for flows of any kind.
    pub fn free(&self) -> usize {
        self.low.free() + self.high.free()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_overflow() {
        let mut s = Slots::new(6, 3);
        assert_eq!(s.free(), 5);
        assert_eq!(s.take(true), Some(1));
        let others: Vec<_> = std::iter::from_fn(|| s.take(false)).collect();
        assert_eq!(others, [3, 4, 5, 2]);
        assert_eq!((s.take(true), s.take(false), s.free()), (None, None, 0));
        s.give_back(4);
        s.give_back(2);
        assert_eq!(s.peek(true), Some(2));
        assert_eq!(s.peek(false), Some(4));
        assert_eq!((s.take(false), s.take(false)), (Some(4), Some(2)));
    }
}
