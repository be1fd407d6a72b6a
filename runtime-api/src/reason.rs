//! What can go wrong: the kinds of failures that a program can match on.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::error::{ErrorKind, Status};
use crate::image::ImageProblem;
use crate::object::{ObjectId, ObjectKind};
use crate::tree::TreeError;

/// A bound that the host sets on a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// Linear memory or heap, in bytes.
    #[error("memory of {bytes} bytes")]
    Memory {
        /// The bound.
        bytes: u64,
    },
    /// Elements of a table.
    #[error("table of {elements} elements")]
    Table {
        /// The bound.
        elements: u64,
    },
    /// Time spent computing in one frame.
    #[error("computing time of {time:?}")]
    ComputeTime {
        /// The bound.
        time: Duration,
    },
    /// The call stack.
    #[error("call stack of {bytes} bytes")]
    Stack {
        /// The bound.
        bytes: u64,
    },
    /// A request that the guest makes, in bytes.
    #[error("guest request of {bytes} bytes")]
    GuestRequest {
        /// The bound.
        bytes: u64,
    },
    /// A response that the guest asks for, in bytes.
    #[error("response to a guest of {bytes} bytes")]
    Response {
        /// The bound.
        bytes: u64,
    },
    /// A module, in bytes.
    #[error("module of {found} bytes, where {bytes} are allowed")]
    Module {
        /// The bound.
        bytes: u64,
        /// What it has; where it is a tree, as far as that was read.
        found: u64,
    },
    /// The call stack of the transpiler, which the nesting of a module's code uses up.
    #[error("call stack of {bytes} bytes for transpiling")]
    TranspilerStack {
        /// The bound.
        bytes: u64,
    },
    /// The memory of the transpiler.
    #[error("memory of {bytes} bytes for transpiling")]
    TranspilerMemory {
        /// The bound.
        bytes: u64,
    },
    /// The time that transpiling a file takes.
    #[error("time of {time:?} for transpiling")]
    TranspilerTime {
        /// The bound.
        time: Duration,
    },
    /// What one frame computes, in its runtime's units.
    #[error("fuel of {units} units")]
    Fuel {
        /// The bound.
        units: u64,
    },
    /// What all frames of a call from outside compute together, in their runtimes' units.
    #[error("fuel of {units} units for the whole call")]
    TotalFuel {
        /// The bound.
        units: u64,
    },
    /// Memory that the frames of a call from outside hold together, in bytes.
    #[error("memory of {bytes} bytes for the whole call")]
    TotalMemory {
        /// The bound.
        bytes: u64,
    },
    /// How deep runs are nested.
    #[error("nesting of {levels} levels")]
    Depth {
        /// The bound.
        levels: u32,
    },
    /// How often a call from outside has something run.
    #[error("{count} runs for the whole call")]
    Runs {
        /// The bound.
        count: u64,
    },
    /// What the guests of a call from outside store together, in bytes.
    #[error("stored objects of {bytes} bytes for the whole call")]
    WrittenBytes {
        /// The bound.
        bytes: u64,
    },
    /// Time from the beginning of a call from outside.
    #[error("deadline of {time:?} for the whole call")]
    Deadline {
        /// The bound.
        time: Duration,
    },
}

impl Limit {
    /// Whether it bounds a whole call from outside, and not each frame for itself.
    pub const fn is_of_call(&self) -> bool {
        matches!(
            self,
            Self::TotalFuel { .. }
                | Self::TotalMemory { .. }
                | Self::Depth { .. }
                | Self::Runs { .. }
                | Self::WrittenBytes { .. }
                | Self::Deadline { .. }
        )
    }
}

/// What went wrong, without where. One line each; a program matches on it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The guest ended its job with these words.
    #[error("{message}")]
    GuestFailed {
        /// The guest's own words, cut to a bounded length.
        message: String,
    },
    /// The guest's code stopped in a way that it cannot catch.
    #[error("the guest trapped: {trap}")]
    Trapped {
        /// The engine's description.
        trap: String,
    },
    /// The guest ended itself with a status that stands for a failure.
    #[error("the guest exited with status {status}")]
    Exited {
        /// The status.
        status: i64,
    },
    /// The guest returned without naming an outcome.
    #[error("the guest returned without calling `out`")]
    NoOutcome,
    /// The guest named an outcome a second time.
    #[error("the guest called `out` twice")]
    OutcomeTwice,
    /// The guest broke the ABI.
    #[error("the guest broke the ABI: {problem}")]
    AbiViolation {
        /// What it did.
        problem: Cow<'static, str>,
    },
    /// A module that the runtime cannot load.
    #[error("module {module} cannot be loaded: {problem}")]
    BadModule {
        /// The module's id.
        module: ObjectId,
        /// What is wrong with it.
        problem: String,
    },
    /// An image reference that cannot be resolved.
    #[error("image {reference:?}: {problem}")]
    BadImage {
        /// The reference, as given.
        reference: String,
        /// What is wrong with it.
        #[source]
        problem: ImageProblem,
    },
    /// A tree that git refuses.
    #[error("{} is refused: {problem}", id.map_or("a tree".to_owned(), |id| format!("tree {id}")))]
    BadTree {
        /// The tree's id, where it has one.
        id: Option<ObjectId>,
        /// Why.
        problem: TreeError,
    },
    /// An object that was expected to be a blob, or a tree, is not.
    #[error("object {id} is a {found}, not a {expected}")]
    WrongKind {
        /// The object.
        id: ObjectId,
        /// What it was taken for.
        expected: ObjectKind,
        /// What it is.
        found: &'static str,
    },
    /// The run would wait for itself.
    #[error("a cycle of requests: {}", Chain(chain))]
    Cycle {
        /// The requests, each waiting for the next one, from the wanted request to the one that wanted it.
        chain: Vec<ObjectId>,
    },
    /// A limit was breached.
    #[error("limit breached: {0}")]
    LimitBreached(Limit),
    /// The runtime failed through no fault of the guest.
    #[error("the runtime failed: {problem}")]
    RuntimeFailed {
        /// What happened.
        problem: String,
        /// Whether trying again may help.
        status: Status,
    },
    /// No object of that id is in the store.
    #[error("object {id} is not in the store")]
    MissingObject {
        /// The object.
        id: ObjectId,
    },
    /// The store failed.
    #[error("the store failed: {problem}")]
    StoreFailed {
        /// What happened.
        problem: String,
        /// Whether trying again may help.
        status: Status,
    },
    /// The work was cancelled before it finished.
    #[error("the run was cancelled")]
    Cancelled,
    /// The code that ran the request panicked.
    #[error("the run panicked: {message}")]
    Panicked {
        /// The panic's message where it is a text.
        message: String,
    },
    /// A run that this one needed failed.
    #[error("a nested run failed")]
    NestedRunFailed,
}

impl Reason {
    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::GuestFailed { .. }
            | Self::Trapped { .. }
            | Self::Exited { .. }
            | Self::NoOutcome
            | Self::OutcomeTwice
            | Self::AbiViolation { .. }
            | Self::BadModule { .. }
            | Self::NestedRunFailed => ErrorKind::Guest,
            Self::BadImage { .. }
            | Self::BadTree { .. }
            | Self::WrongKind { .. }
            | Self::Cycle { .. } => ErrorKind::Request,
            Self::LimitBreached(_) => ErrorKind::Limit,
            Self::RuntimeFailed { .. } => ErrorKind::Runtime,
            Self::MissingObject { .. } | Self::StoreFailed { .. } => ErrorKind::Store,
            Self::Cancelled | Self::Panicked { .. } => ErrorKind::Cancelled,
        }
    }

    /// Whether trying again may help, as far as this reason alone tells.
    pub fn status(&self) -> Status {
        match self {
            Self::RuntimeFailed { status, .. } | Self::StoreFailed { status, .. } => *status,
            Self::Cancelled
            | Self::Panicked { .. }
            | Self::LimitBreached(
                Limit::ComputeTime { .. }
                | Limit::Deadline { .. }
                | Limit::TotalMemory { .. }
                | Limit::TranspilerTime { .. },
            ) => Status::Transient,
            _ => Status::Permanent,
        }
    }

    /// Whether the request alone decides this failure, so that it comes again wherever the request is run.
    pub(crate) fn is_function_of_request(&self) -> bool {
        match self {
            Self::Cycle { .. } => false,
            Self::BadImage { problem, .. } => problem.is_function_of_reference(),
            _ => matches!(self.kind(), ErrorKind::Guest | ErrorKind::Request),
        }
    }
}

struct Chain<'a>(&'a [ObjectId]);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ENDS: usize = 8;
        let skipped = self.0.len().saturating_sub(2 * ENDS);
        for (index, id) in self.0.iter().enumerate() {
            if skipped > 0 && index == ENDS {
                write!(f, " → … {skipped} more …")?;
            }
            if skipped > 0 && (ENDS..ENDS + skipped).contains(&index) {
                continue;
            }
            if index > 0 {
                f.write_str(" → ")?;
            }
            write!(f, "{id}")?;
        }
        Ok(())
    }
}
