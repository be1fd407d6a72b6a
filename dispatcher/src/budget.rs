use std::time::Duration;

/// What a call from outside and everything it leads to may use up together.
///
/// A budget is inherited downwards and never widened: nested runs draw from the same one. A breach ends the whole call with
/// [`Limit`](manifold_runtime_api::Limit), except that of the depth, which ends the nested run. No part of a budget decides an
/// answer: what was made under a breach is never memoized, and who shares a run with a call that has less left runs it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// Time from the beginning of the call. It does not pass while everything under way waits for a run permit or for its module
    /// to be compiled. Default: one hour.
    pub deadline: Duration,
    /// What the guests compute, in units of their runtimes' own; only runtimes that measure it can run with a bound. Default:
    /// not measured.
    pub fuel: Option<u64>,
    /// Memory that the guests hold at one time, in bytes, suspended ones included. Default: 16 GiB.
    pub memory_bytes: u64,
    /// How deep runs are nested. Default: 200,000.
    pub depth: u32,
    /// How many runs there are. Default: 100 million.
    pub runs: u64,
    /// What the guests store, in bytes, each time they store it. Default: 64 GiB.
    pub written_bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            deadline: Duration::from_secs(60 * 60),
            fuel: None,
            memory_bytes: 16 * GIB,
            depth: 200_000,
            runs: 100_000_000,
            written_bytes: 64 * GIB,
        }
    }
}

impl Budget {
    /// The default budget.
    pub fn new() -> Self {
        Self::default()
    }

    /// With another deadline.
    #[must_use]
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = time;
        self
    }

    /// With bounded fuel.
    #[must_use]
    pub fn fuel(mut self, units: u64) -> Self {
        self.fuel = Some(units);
        self
    }

    /// With another bound of memory.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// With another bound of nesting.
    #[must_use]
    pub fn depth(mut self, levels: u32) -> Self {
        self.depth = levels;
        self
    }

    /// With another number of runs.
    #[must_use]
    pub fn runs(mut self, count: u64) -> Self {
        self.runs = count;
        self
    }

    /// With another bound of what is stored.
    #[must_use]
    pub fn written_bytes(mut self, bytes: u64) -> Self {
        self.written_bytes = bytes;
        self
    }

    /// The tighter of both, part by part.
    #[must_use]
    pub fn within(self, outer: Self) -> Self {
        Self {
            deadline: self.deadline.min(outer.deadline),
            fuel: self.fuel.into_iter().chain(outer.fuel).min(),
            memory_bytes: self.memory_bytes.min(outer.memory_bytes),
            depth: self.depth.min(outer.depth),
            runs: self.runs.min(outer.runs),
            written_bytes: self.written_bytes.min(outer.written_bytes),
        }
    }
}
