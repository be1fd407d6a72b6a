//! [`Selection`]: which spans a bounded trace keeps.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use crate::format::{Kept, SpanRecord};

/// How many of the slowest spans and root calls are kept at most.
const SLOWEST: usize = 1000;
const SLOWEST_CALLS: usize = 100;

/// Decides which spans are kept: all up to a bound, and beyond it the slowest, the critical paths of
/// the slowest root calls, a sample, and what contains them.
///
/// The sample is a quarter of the bound over the number of spans so far, so it grows with the
/// logarithm of that number.
#[derive(Debug)]
pub(crate) struct Selection {
    bound: u64,
    seen: u64,
    slowest: Slowest,
    slowest_calls: Slowest,
    /// Spans that contain a kept one and have not ended.
    ancestors: HashSet<u64>,
    lot: u64,
}

impl Selection {
    pub(crate) fn new(bound: u64) -> Self {
        Self {
            bound,
            seen: 0,
            slowest: Slowest::new(usize::try_from(bound / 20).unwrap_or(SLOWEST).min(SLOWEST)),
            slowest_calls: Slowest::new(SLOWEST_CALLS),
            ancestors: HashSet::new(),
            lot: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// Returns whether all spans so far are kept.
    pub(crate) const fn is_complete(&self) -> bool {
        self.seen <= self.bound
    }

    /// Returns why the span is kept, if it is.
    pub(crate) fn keep(&mut self, span: &SpanRecord) -> Option<Kept> {
        self.seen += 1;
        let is_slow = self.slowest.is_one(span.own().as_nanos());
        if self.is_complete() {
            return Some(Kept::All);
        }
        let weight = (self.seen * 4).div_ceil(self.bound.max(1));
        let kept = if span.parent.is_none() {
            self.slowest_calls.is_one(span.duration().as_nanos()).then_some(Kept::Slow)
        } else if is_slow {
            Some(Kept::Slow)
        } else if self.draw(weight) {
            Some(Kept::Sample(u32::try_from(weight).unwrap_or(u32::MAX)))
        } else {
            None
        };
        let is_ancestor = self.ancestors.remove(&span.id);
        let kept = kept.or(is_ancestor.then_some(Kept::Ancestor));
        if kept.is_some() {
            self.ancestors.extend(span.parent);
        }
        kept
    }

    /// Returns `true` in one of `weight` cases.
    fn draw(&mut self, weight: u64) -> bool {
        // Xorshift. The sequence is fixed, and independent of what the spans are.
        self.lot ^= self.lot << 13;
        self.lot ^= self.lot >> 7;
        self.lot ^= self.lot << 17;
        self.lot.is_multiple_of(weight.max(1))
    }
}

/// The largest of the values so far.
#[derive(Debug)]
struct Slowest {
    count: usize,
    heap: BinaryHeap<Reverse<u128>>,
}

impl Slowest {
    const fn new(count: usize) -> Self {
        Self { count, heap: BinaryHeap::new() }
    }

    /// Adds a value. Returns whether it is one of the largest so far.
    fn is_one(&mut self, value: u128) -> bool {
        if self.heap.len() == self.count {
            if self.heap.peek().is_some_and(|Reverse(least)| value <= *least) {
                return false;
            }
            self.heap.pop();
        }
        self.heap.push(Reverse(value));
        true
    }
}
