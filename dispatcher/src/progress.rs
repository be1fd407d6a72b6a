//! [`Progress`]: the progress of a long operation.

/// The progress of a long operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The plural noun for the units that are counted, for display: "objects".
    pub what: &'static str,
    /// The number of units done.
    pub done: u64,
    /// The total number of units.
    pub total: u64,
}

impl Progress {
    /// Creates the progress `done` of `total`.
    pub const fn new(what: &'static str, done: u64, total: u64) -> Self {
        Self { what, done, total }
    }
}
