//! What is decided about runs and when: the rules of giving, taking and waiting, apart from what carries
//! them out. The simulation of many nodes follows the same rules.

use std::time::Duration;

/// How long a run has waited before it is given away.
pub(crate) const QUEUED: Duration = Duration::from_millis(2);
/// How often a node looks whether runs wait.
pub(crate) const GIVES: Duration = Duration::from_millis(2);
/// How much work is given away at once, in microseconds.
pub(crate) const ENOUGH: u64 = 20_000;
/// Work that takes less, in microseconds, stays where it is: moving it takes as long.
pub(crate) const WORTH_IT: u64 = 2_000;
/// How many units are given away at once.
pub(crate) const MAX_UNITS: u64 = 256;
/// How long a node still counts as wanting runs after it asked.
pub(crate) const WANTS: Duration = Duration::from_secs(1);
/// How long a node goes on listening to others that want runs although none waits, so that it need not
/// subscribe all the time.
pub(crate) const LISTENS: Duration = Duration::from_millis(10);

/// How long a node that was given a unit has to claim it.
pub(crate) const TO_CLAIM: Duration = Duration::from_secs(1);

/// How long a run is in progress, at least, before it is claimed.
const LONG: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(2);
/// How many claims all nodes make in a second, at most: a third of what a server stores.
const CLAIMS: u64 = 8_000;

/// Returns how long a run is in progress before it is claimed, so that `nodes` nodes with so many permits
/// do not make more claims than the server can store.
pub(crate) fn long(nodes: u64, permits: u64) -> Duration {
    let micros = nodes.saturating_mul(permits).saturating_mul(1_000_000) / CLAIMS;
    LONG.max(Duration::from_micros(micros)).min(LONGEST)
}

/// Time that doubles from one wait to the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Pause {
    const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// How long a node waits before it asks for runs again.
    pub(crate) const fn between_asks() -> Self {
        Self::new(Duration::from_millis(2), Duration::from_millis(200))
    }

    /// How long a node waits before it looks for the outcome of a unit without a hint.
    pub(crate) const fn between_looks() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(2))
    }

    /// How long a node waits before it looks for cycles. Every cycle has a newest wait, and whoever begins
    /// that wait looks soon.
    pub(crate) const fn between_searches() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// Returns how long the next wait is.
    pub(crate) const fn next(&self) -> Duration {
        self.next
    }

    /// Doubles the next wait.
    pub(crate) fn grow(&mut self) {
        self.next = (self.next * 2).min(self.most);
    }

    /// Makes the next wait as short as the first.
    pub(crate) const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The runs that are given away at once.
#[derive(Debug)]
pub(crate) struct Share {
    most: u64,
    /// How much work it has at most, in microseconds.
    enough: u64,
    units: u64,
    micros: u64,
}

impl Share {
    /// Begins a share of the runs that wait.
    pub(crate) fn new(waiting: usize) -> Self {
        Self::with(waiting, ENOUGH)
    }

    /// Begins a share of so much work, in microseconds.
    pub(crate) fn with(waiting: usize, enough: u64) -> Self {
        Self { most: (waiting as u64 / 2).clamp(1, MAX_UNITS), enough, units: 0, micros: 0 }
    }

    /// Returns whether the share can have more runs.
    pub(crate) fn has_room(&self) -> bool {
        self.units < self.most && self.micros < self.enough
    }

    /// Returns whether a run that takes so many microseconds is worth moving, with those that would follow
    /// it. `None` if nothing is known.
    pub(crate) fn accepts(&self, micros: Option<u64>) -> bool {
        micros.is_none_or(|micros| micros.saturating_mul(self.most) >= WORTH_IT)
    }

    /// Adds a run. If nothing is known about how long it takes, it is the last: one is enough to learn
    /// something.
    pub(crate) fn add(&mut self, micros: Option<u64>) {
        self.units += 1;
        self.micros = self.micros.saturating_add(micros.unwrap_or(self.enough));
    }
}

/// How long units of one image take, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Estimate(Option<u64>);

impl Estimate {
    /// Records how long a unit took.
    pub(crate) fn measured(&mut self, micros: u64) {
        let before = self.0.unwrap_or(micros);
        self.0 = Some(before.saturating_mul(7).saturating_add(micros) / 8);
    }

    /// Returns how long a unit takes. `None` if none was measured.
    pub(crate) const fn micros(&self) -> Option<u64> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_half_of_what_waits_or_twenty_milliseconds() {
        let take = |waiting, micros| {
            let mut share = Share::new(waiting);
            while share.has_room() && share.accepts(micros) {
                share.add(micros);
            }
            share.units
        };
        assert_eq!(take(1, Some(30_000)), 1);
        assert_eq!(take(100, Some(30_000)), 1);
        assert_eq!(take(100, Some(1_000)), 20);
        assert_eq!(take(10, Some(1_000)), 5);
        assert_eq!(take(10, Some(100)), 0, "five of them take less than moving them");
        assert_eq!(take(10_000, Some(100)), 200);
        assert_eq!(take(100, None), 1);
        assert_eq!(take(100_000, Some(1)), 0);
    }

    #[test]
    fn more_nodes_claim_only_longer_runs() {
        assert_eq!(long(1, 2), Duration::from_millis(5));
        assert_eq!(long(16, 2), Duration::from_millis(5));
        assert_eq!(long(1_000, 4), Duration::from_millis(500));
        assert_eq!(long(u64::MAX, 4), LONGEST);
    }
}
