//! The error of every operation: what went wrong, in which frame, and because of what.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::image::ImageProblem;
use crate::object::{ObjectId, ObjectKind};
use crate::tree::TreeError;

/// The result of Manifold's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is, for programs that decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The guest failed, trapped, or broke the ABI.
    Guest,
    /// The request makes no sense: a bad image, a bad tree, a cycle.
    Request,
    /// A limit was breached.
    Limit,
    /// The runtime, or what it depends on, failed.
    Runtime,
    /// The store failed, or does not have an object.
    Store,
    /// The work was cancelled, or died in a panic.
    Cancelled,
}

impl ErrorKind {
    /// The kind as one lower-case word, as the guest ABI transmits it.
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

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The same request fails again.
    Permanent,
    /// The same request may succeed later.
    Transient,
}

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
    /// What a guest logs, in bytes over one job.
    #[error("log of {bytes} bytes")]
    Log {
        /// The bound.
        bytes: u64,
    },
    /// A module, in bytes.
    #[error("module of {bytes} bytes")]
    Module {
        /// The bound.
        bytes: u64,
    },
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
    #[error("a tree is refused: {0}")]
    BadTree(TreeError),
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
            | Self::NoOutcome
            | Self::OutcomeTwice
            | Self::AbiViolation { .. }
            | Self::BadModule { .. }
            | Self::NestedRunFailed => ErrorKind::Guest,
            Self::BadImage { .. } | Self::BadTree(_) | Self::WrongKind { .. } | Self::Cycle { .. } => {
                ErrorKind::Request
            }
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
            Self::Cancelled | Self::Panicked { .. } | Self::LimitBreached(Limit::ComputeTime { .. }) => {
                Status::Transient
            }
            _ => Status::Permanent,
        }
    }

    /// Whether the request alone decides this failure, so that it comes again wherever the request is run.
    fn is_function_of_request(&self) -> bool {
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

/// Where an error happened: the run of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The request's id.
    pub request: ObjectId,
    /// The image that was run, as it stands in the request.
    pub image: String,
    /// The name of the runtime that ran it.
    pub runtime: String,
}

impl Frame {
    /// The frame of `request`, run by `runtime` for `image`.
    pub fn new(request: ObjectId, image: impl Into<String>, runtime: impl Into<String>) -> Self {
        Self { request, image: image.into(), runtime: runtime.into() }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in request {} (image {}, runtime {})", self.request, self.image, self.runtime)
    }
}

/// An error with its whole chain, from the failing guest's own words through every frame above it.
///
/// # Behavior
/// - `Display` is one line without the causes; [`Error::chain`] and [`std::error::Error::source`] walk them;
///   `Debug` tells the whole story.
/// - Cloning is cheap, for one failure has many waiters.
/// - A chain of any length is dropped without recursion.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    reason: Reason,
    frame: Option<Frame>,
    cause: Option<Error>,
    function_of_request: bool,
}

impl Error {
    /// An error without a frame or a cause.
    pub fn new(reason: Reason) -> Self {
        Self::assemble(reason, None, None)
    }

    /// A guest's failure in its own words. Words beyond 4 KiB are cut, for every frame above may repeat them.
    pub fn guest_failed(message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_GUEST_WORDS {
            message.truncate(message.floor_char_boundary(MAX_GUEST_WORDS));
            message.push('…');
        }
        Self::new(Reason::GuestFailed { message })
    }

    /// A breach of the ABI by the guest.
    pub fn abi_violation(problem: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::AbiViolation { problem: problem.into() })
    }

    /// A failure of the runtime that trying again will not mend.
    pub fn runtime(problem: impl fmt::Display) -> Self {
        Self::new(Reason::RuntimeFailed { problem: problem.to_string(), status: Status::Permanent })
    }

    /// A failure of the store that trying again will not mend.
    pub fn store(problem: impl fmt::Display) -> Self {
        Self::new(Reason::StoreFailed { problem: problem.to_string(), status: Status::Permanent })
    }

    /// No object `id` is in the store.
    pub fn missing(id: ObjectId) -> Self {
        Self::new(Reason::MissingObject { id })
    }

    /// The same error, because of `cause`. An error that has a cause already keeps it.
    #[must_use]
    pub fn caused_by(self, cause: Self) -> Self {
        match self.0.cause {
            Some(_) => self,
            None => Self::assemble(self.0.reason.clone(), self.0.frame.clone(), Some(cause)),
        }
    }

    /// The same error, known to have happened in `frame`. An error of another frame becomes the cause of one in `frame`.
    #[must_use]
    pub fn in_frame(self, frame: Frame) -> Self {
        match &self.0.frame {
            Some(_) => Self::assemble(Reason::NestedRunFailed, Some(frame), Some(self)),
            None => Self::assemble(self.0.reason.clone(), Some(frame), self.0.cause.clone()),
        }
    }

    fn assemble(reason: Reason, frame: Option<Frame>, cause: Option<Self>) -> Self {
        let function_of_request =
            reason.is_function_of_request() && cause.as_ref().is_none_or(Self::is_function_of_request);
        Self(Arc::new(Inner { reason, frame, cause, function_of_request }))
    }

    /// What went wrong, at this end of the chain.
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// The frame it happened in, where it is known.
    pub fn frame(&self) -> Option<&Frame> {
        self.0.frame.as_ref()
    }

    /// The error that led to this one.
    pub fn cause(&self) -> Option<&Self> {
        self.0.cause.as_ref()
    }

    /// This error, its cause, the cause of that, and so on.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |error| error.cause())
    }

    /// The last error of the chain: where it all began.
    pub fn root_cause(&self) -> &Self {
        self.chain().last().unwrap_or(self)
    }

    /// Whose fault it is: the kind of the root cause.
    pub fn kind(&self) -> ErrorKind {
        self.root_cause().reason().kind()
    }

    /// Whether trying again may help: it may if anything in the chain is transient.
    pub fn status(&self) -> Status {
        let transient = self.chain().any(|error| error.reason().status() == Status::Transient);
        if transient { Status::Transient } else { Status::Permanent }
    }

    /// Whether the request alone decides this failure. A guest that saw any other failure and went on may have an outcome
    /// that is no function of its request, so that outcome is shared and not memoized.
    pub fn is_function_of_request(&self) -> bool {
        self.0.function_of_request
    }
}

/// How many bytes of a guest's words an error keeps.
const MAX_GUEST_WORDS: usize = 4096;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.reason, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.chain().enumerate() {
            if index > 0 {
                f.write_str("\n  because: ")?;
            }
            write!(f, "[{}] {error}", error.reason().kind())?;
            if let Some(frame) = error.frame() {
                write!(f, " {frame}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| cause as _)
    }
}

impl From<TreeError> for Error {
    fn from(error: TreeError) -> Self {
        Self::new(Reason::BadTree(error))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut next = self.cause.take();
        while let Some(Error(shared)) = next {
            next = Arc::into_inner(shared).and_then(|mut inner| inner.cause.take());
        }
    }
}
