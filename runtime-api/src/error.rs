//! The error of every operation: what went wrong, in which frame, and because of what.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::object::ObjectId;
use crate::reason::{Limit, Reason};
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
    breached: Option<Limit>,
    lost: Option<ObjectId>,
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

    /// The tree `id` is one that git refuses.
    pub fn bad_tree(id: ObjectId, problem: TreeError) -> Self {
        Self::new(Reason::BadTree { id: Some(id), problem })
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
        let function_of_request = reason.is_function_of_request()
            && cause.as_ref().is_none_or(Self::is_function_of_request);
        let breached = match &reason {
            Reason::LimitBreached(limit) => Some(*limit),
            _ => cause.as_ref().and_then(Self::breached_limit),
        };
        let lost = match &reason {
            Reason::MissingObject { id } => Some(*id),
            _ => cause.as_ref().and_then(Self::missing_object),
        };
        Self(Arc::new(Inner { reason, frame, cause, function_of_request, breached, lost }))
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

    /// The limit whose breach is nearest in the chain.
    pub fn breached_limit(&self) -> Option<Limit> {
        self.0.breached
    }

    /// The object whose absence is nearest in the chain.
    pub fn missing_object(&self) -> Option<ObjectId> {
        self.0.lost
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
        Self::new(Reason::BadTree { id: None, problem: error })
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
