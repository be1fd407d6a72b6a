//! The reasons of failures, which a program can match on: [`Reason`] and [`Limit`].

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::error_kind::{ErrorKind, Status};
use crate::image_problem::ImageProblem;
use crate::object::ObjectId;
use crate::tree::TreeError;

/// A limit or a budget that a guest exceeded, with its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// The linear memory or heap of one frame.
    #[error("memory of {bytes} bytes")]
    Memory {
        /// The maximum, in bytes.
        bytes: u64,
    },
    /// The elements of one frame's tables.
    #[error("table of {elements} elements")]
    Table {
        /// The maximum number of elements.
        elements: u64,
    },
    /// The computing time of one frame.
    #[error("computing time of {time:?}")]
    ComputeTime {
        /// The maximum time.
        time: Duration,
    },
    /// The call stack of one frame.
    #[error("call stack of {bytes} bytes")]
    Stack {
        /// The maximum, in bytes.
        bytes: u64,
    },
    /// The size of one request from the guest.
    #[error("guest request of {bytes} bytes")]
    GuestRequest {
        /// The maximum, in bytes.
        bytes: u64,
    },
    /// The size of one response to the guest.
    #[error("response to a guest of {bytes} bytes")]
    Response {
        /// The maximum, in bytes.
        bytes: u64,
    },
    /// The size of a module.
    #[error("module of {found} bytes, where {bytes} are allowed")]
    Module {
        /// The maximum, in bytes.
        bytes: u64,
        /// The module's size in bytes. For a tree, the size of the part that was read before the
        /// limit was exceeded.
        found: u64,
    },
    /// The call stack of the transpiler. Deeply nested code in a module uses it up.
    #[error("call stack of {bytes} bytes for transpiling")]
    TranspilerStack {
        /// The maximum, in bytes.
        bytes: u64,
    },
    /// The memory of the transpiler.
    #[error("memory of {bytes} bytes for transpiling")]
    TranspilerMemory {
        /// The maximum, in bytes.
        bytes: u64,
    },
    /// The time that transpiling one file takes.
    #[error("time of {time:?} for transpiling")]
    TranspilerTime {
        /// The maximum time.
        time: Duration,
    },
    /// The fuel that one frame uses.
    #[error("fuel of {units} units")]
    Fuel {
        /// The maximum, in units of the frame's runtime.
        units: u64,
    },
    /// The fuel that all frames of a root call use together.
    #[error("fuel of {units} units for the whole call")]
    TotalFuel {
        /// The maximum, in units of the frames' runtimes.
        units: u64,
    },
    /// The memory that all frames of a root call hold together.
    #[error("memory of {bytes} bytes for the whole call")]
    TotalMemory {
        /// The maximum, in bytes.
        bytes: u64,
    },
    /// The depth to which runs are nested below a root call.
    #[error("nesting of {levels} levels")]
    Depth {
        /// The maximum number of levels.
        levels: u32,
    },
    /// The number of runs that a root call leads to.
    #[error("{count} runs for the whole call")]
    Runs {
        /// The maximum number of runs.
        count: u64,
    },
    /// The size of the objects that all guests of a root call store together.
    #[error("stored objects of {bytes} bytes for the whole call")]
    WrittenBytes {
        /// The maximum, in bytes.
        bytes: u64,
    },
    /// The time since a root call began.
    #[error("deadline of {time:?} for the whole call")]
    Deadline {
        /// The maximum time.
        time: Duration,
    },
}

impl Limit {
    /// Returns whether this bounds a whole root call, as opposed to a single frame.
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

/// Why an operation failed, without the frame in which it failed.
///
/// `Display` shows the reason without its causes. Programs match on the variants.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The guest ended its job with an error message.
    #[error("{message}")]
    GuestFailed {
        /// The guest's message, truncated to 4 KiB.
        message: String,
    },
    /// A memoized function of this process returned an error. [`Error::value`](crate::Error::value)
    /// is that error.
    #[error("{message}")]
    FunctionFailed {
        /// The error's message.
        message: String,
    },
    /// The guest's code stopped in a way that the guest cannot catch.
    #[error("the guest trapped: {trap}")]
    Trapped {
        /// The runtime's description of the trap.
        trap: String,
    },
    /// The guest exited with a status that means failure.
    #[error("the guest exited with status {status}")]
    Exited {
        /// The exit status.
        status: i64,
    },
    /// The guest returned without naming an outcome.
    #[error("the guest returned without naming an outcome")]
    NoOutcome,
    /// The guest named an outcome twice.
    #[error("the guest named an outcome twice")]
    OutcomeTwice,
    /// The guest violated the guest ABI.
    #[error("the guest violated the ABI: {problem}")]
    AbiViolation {
        /// How the guest violated the ABI.
        problem: Cow<'static, str>,
    },
    /// The runtime cannot load a module.
    #[error("module {module} cannot be loaded: {problem}")]
    BadModule {
        /// The module's id.
        module: ObjectId,
        /// Why the module cannot be loaded.
        problem: String,
    },
    /// An image reference cannot be resolved.
    #[error("image {reference:?}: {problem}")]
    BadImage {
        /// The reference as the caller wrote it.
        reference: String,
        /// Why the reference cannot be resolved.
        #[source]
        problem: ImageProblem,
    },
    /// A tree is invalid: git would refuse it.
    #[error("invalid tree{}: {problem}", id.map(|id| format!(" {id}")).unwrap_or_default())]
    BadTree {
        /// The tree's id, or `None` for a tree that was never stored.
        id: Option<ObjectId>,
        /// Why the tree is invalid.
        problem: TreeError,
    },
    /// An object has another kind than expected.
    #[error("object {id} is a {found}, not a {expected}")]
    WrongKind {
        /// The object's id.
        id: ObjectId,
        /// The expected kind in git's words, for example `tree`.
        expected: &'static str,
        /// The actual kind in git's words, for example `commit`.
        found: &'static str,
    },
    /// The run would wait for itself.
    #[error("a cycle of requests: {}", Chain(chain))]
    Cycle {
        /// The requests of the cycle. Each one waits for the next. The first one appears again at
        /// the end.
        chain: Vec<ObjectId>,
    },
    /// A guest exceeded a limit or a budget.
    #[error("limit breached: {0}")]
    LimitBreached(Limit),
    /// The runtime failed, and the guest did not cause it.
    #[error("the runtime failed: {problem}")]
    RuntimeFailed {
        /// What happened.
        problem: String,
        /// Whether a retry may succeed.
        status: Status,
    },
    /// An object exists in neither the store nor a source.
    #[error("object {id} is not in the store")]
    MissingObject {
        /// The id of the missing object.
        id: ObjectId,
    },
    /// The store failed.
    #[error("the store failed: {problem}")]
    StoreFailed {
        /// What happened.
        problem: String,
        /// Whether a retry may succeed.
        status: Status,
    },
    /// The run was cancelled before it finished.
    #[error("the run was cancelled")]
    Cancelled,
    /// The code that ran the request panicked.
    #[error("the run panicked: {message}")]
    Panicked {
        /// The panic's message, if it is a string.
        message: String,
    },
    /// A nested run failed and the guest passed the failure on. The cause in the chain says why.
    #[error("a nested run failed")]
    NestedRunFailed,
}

impl Reason {
    /// Returns which party caused the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::GuestFailed { .. }
            | Self::FunctionFailed { .. }
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

    /// Returns whether a retry may succeed, judged by this reason alone.
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

    /// Returns whether the failure depends on the request alone, so that it recurs wherever the
    /// request is run.
    pub(crate) fn is_function_of_request(&self) -> bool {
        match self {
            Self::Cycle { .. } | Self::FunctionFailed { .. } => false,
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
