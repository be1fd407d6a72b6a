//! The limits that bound a guest, and the reasons to stop one during its turn.
//!
//! | limit | enforced by |
//! |---|---|
//! | computing time | [`turn`], which the watcher thread of [`crate::pool`] checks, and between turns the thread or task that serves operations |
//! | memory | [`heap`] for V8's heap, [`buffers`] for array buffers, [`crate::operations`] for pending operations |
//! | memory of all guests together | [`Resident::reserve`](crate::job::Resident::reserve) |
//! | call stack | [`stack`] |
//! | size of a request | [`crate::operations`] |
//! | size of the module, transpiler | [`crate::prepare`] |
//!
//! No guest survives a breach: it is terminated, or its job fails at the end of the turn even if
//! the guest caught an exception. [`crate::fatal`] handles what V8 cannot recover from.

pub(crate) mod buffers;
pub(crate) mod heap;
pub(crate) mod stack;
pub(crate) mod turn;

use manifold_runtime_api::{Error, Limit, Limits, Reason};

/// The reason to stop a guest during its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It exceeded its computing time.
    ComputeTime,
    /// Its job was cancelled.
    Cancelled,
    /// The heap is full.
    Heap,
}

impl Stop {
    /// Returns the error with which the job ends, for a guest with these limits.
    pub(crate) fn error(self, limits: &Limits) -> Error {
        match self {
            Self::ComputeTime => Limit::ComputeTime { time: limits.compute_time }.into(),
            Self::Heap => Limit::Memory { bytes: heap::guest_bytes(limits) }.into(),
            Self::Cancelled => Error::new(Reason::Cancelled),
        }
    }
}
