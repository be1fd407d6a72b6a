//! [`Budget`]: the bounds on one root call.

use std::time::Duration;

/// Bounds on the resources that a root call and all runs nested in it use together.
///
/// Nested runs draw from the budget of their root call, and cannot widen it. A breach ends the
/// whole call with a [`Limit`](manifold_runtime_api::Limit), except a breach of the depth, which
/// ends the nested run. A budget never influences a memoized outcome: an outcome that was computed
/// after a breach is not memoized. A call that shares a run with a call that has less budget left
/// runs the request again if that budget ends the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// Time from the start of the call. The clock is paused while everything in progress waits for
    /// a run permit or for its module to be compiled. Default: one hour.
    pub deadline: Duration,
    /// Fuel that the guests use, in units of their runtimes. With a bound, only runtimes that
    /// measure fuel can run. `None` means that fuel is not measured. Default: `None`.
    pub fuel: Option<u64>,
    /// Memory that the guests hold at the same time, in bytes. Suspended guests count. Default: 16
    /// GiB.
    pub memory_bytes: u64,
    /// Number of levels to which runs are nested. Default: 200,000.
    pub depth: u32,
    /// Number of runs. Default: 100 million.
    pub runs: u64,
    /// Size of the objects that the guests store, in bytes, with the arguments that images which they
    /// run have bound. An object counts every time it is stored. Default: 64 GiB.
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
    /// Creates the default budget.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`Budget::deadline`](#structfield.deadline).
    #[must_use]
    pub fn deadline(mut self, time: Duration) -> Self {
        self.deadline = time;
        self
    }

    /// Sets [`Budget::fuel`](#structfield.fuel).
    #[must_use]
    pub fn fuel(mut self, units: u64) -> Self {
        self.fuel = Some(units);
        self
    }

    /// Sets [`Budget::memory_bytes`](#structfield.memory_bytes).
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Sets [`Budget::depth`](#structfield.depth).
    #[must_use]
    pub fn depth(mut self, levels: u32) -> Self {
        self.depth = levels;
        self
    }

    /// Sets [`Budget::runs`](#structfield.runs).
    #[must_use]
    pub fn runs(mut self, count: u64) -> Self {
        self.runs = count;
        self
    }

    /// Sets [`Budget::written_bytes`](#structfield.written_bytes).
    #[must_use]
    pub fn written_bytes(mut self, bytes: u64) -> Self {
        self.written_bytes = bytes;
        self
    }

    /// Returns a budget with the tighter bound of both budgets in every field.
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
