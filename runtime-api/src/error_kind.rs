//! [`ErrorKind`] and [`Status`]: which party caused a failure, and whether a retry may succeed.

use std::fmt;

/// Which party caused an error. Programs use it to decide how to react.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The guest failed, trapped, or violated the ABI.
    Guest,
    /// The request is invalid: a bad image, a bad tree, or a cycle.
    Request,
    /// A guest exceeded a limit or a budget.
    Limit,
    /// The runtime, or something that it depends on, failed.
    Runtime,
    /// The store failed, or an object is missing.
    Store,
    /// The run was cancelled, or it panicked.
    Cancelled,
}

impl ErrorKind {
    /// Returns the kind as one lower-case word. The guest ABI transmits this word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Request => "request",
            Self::Limit => "limit",
            Self::Runtime => "runtime",
            Self::Store => "store",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether a retry may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The same request fails again.
    Permanent,
    /// The same request may succeed later.
    Transient,
}
