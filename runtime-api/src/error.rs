//! [`Error`]: the reason of a failure, the frame in which it happened, and its chain of causes.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::error_kind::{ErrorKind, Status};
use crate::object::ObjectId;
use crate::reason::{Limit, Reason};
use crate::tree::TreeError;

/// The result type of Manifold's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The run of a request in which an error happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The request's id.
    pub request: ObjectId,
    /// The image reference in the request.
    pub image: String,
    /// The name of the runtime that ran the request.
    pub runtime: String,
    /// The id of the tree of arguments, if it is known.
    pub args: Option<ObjectId>,
}

impl Frame {
    /// Creates the frame of `request`, which `runtime` ran for `image`.
    pub fn new(request: ObjectId, image: impl Into<String>, runtime: impl Into<String>) -> Self {
        Self { request, image: image.into(), runtime: runtime.into(), args: None }
    }

    /// Sets the id of the tree of arguments.
    #[must_use]
    pub fn with_args(mut self, args: ObjectId) -> Self {
        self.args = Some(args);
        self
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in request {} (image {}, runtime {})", self.request, self.image, self.runtime)
    }
}

/// An error with its chain of causes, from the failing guest's own message through every frame
/// above it.
///
/// # Behavior
/// - `Display` shows this error without its causes. `Debug` shows the whole chain with its frames.
/// - [`Error::chain`] and [`std::error::Error::source`] walk the causes.
/// - Cloning is cheap, because all waiters of a run share its failure.
/// - A chain of any length is dropped without recursion.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    reason: Reason,
    frame: Option<Frame>,
    cause: Option<Error>,
    value: Option<Arc<dyn Any + Send + Sync>>,
    function_of_request: bool,
    breached: Option<Limit>,
    missing_id: Option<ObjectId>,
}

impl Error {
    /// Creates an error without a frame or a cause.
    pub fn new(reason: Reason) -> Self {
        Self::assemble(reason, None, None, None)
    }

    /// Creates a guest's failure with the guest's own message. A message longer than 4 KiB is
    /// truncated, because every frame above may repeat it.
    pub fn guest_failed(message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_GUEST_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_GUEST_MESSAGE_BYTES));
            message.push('…');
        }
        Self::new(Reason::GuestFailed { message })
    }

    /// Creates an error for a guest that violated the ABI.
    pub fn abi_violation(problem: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::AbiViolation { problem: problem.into() })
    }

    /// Creates a permanent failure of the runtime.
    pub fn runtime(problem: impl fmt::Display) -> Self {
        Self::new(Reason::RuntimeFailed { problem: problem.to_string(), status: Status::Permanent })
    }

    /// Creates a permanent failure of the store.
    pub fn store(problem: impl fmt::Display) -> Self {
        Self::new(Reason::StoreFailed { problem: problem.to_string(), status: Status::Permanent })
    }

    /// Creates an error for the missing object `id`.
    pub fn missing(id: ObjectId) -> Self {
        Self::new(Reason::MissingObject { id })
    }

    /// Creates an error for the invalid tree `id`.
    pub fn bad_tree(id: ObjectId, problem: TreeError) -> Self {
        Self::new(Reason::BadTree { id: Some(id), problem })
    }

    /// Returns this error with `cause` as its cause. An error that already has a cause keeps it.
    #[must_use]
    pub fn caused_by(self, cause: Self) -> Self {
        match self.0.cause {
            Some(_) => self,
            None => {
                let Inner { reason, frame, value, .. } = &*self.0;
                Self::assemble(reason.clone(), frame.clone(), Some(cause), value.clone())
            }
        }
    }

    /// Returns this error with `frame` as the frame in which it happened.
    ///
    /// If the error already has a frame, it becomes the cause of a new error with the reason
    /// [`Reason::NestedRunFailed`] in `frame`.
    #[must_use]
    pub fn in_frame(self, frame: Frame) -> Self {
        match &self.0.frame {
            Some(_) => Self::assemble(Reason::NestedRunFailed, Some(frame), Some(self), None),
            None => {
                let Inner { reason, cause, value, .. } = &*self.0;
                Self::assemble(reason.clone(), Some(frame), cause.clone(), value.clone())
            }
        }
    }

    /// Returns this error with a value of the program that failed, for callers in the same process.
    /// [`Error::value`] returns it. It is not part of any message, and does not reach guests.
    #[must_use]
    pub fn with_value(self, value: Arc<dyn Any + Send + Sync>) -> Self {
        let Inner { reason, frame, cause, .. } = &*self.0;
        Self::assemble(reason.clone(), frame.clone(), cause.clone(), Some(value))
    }

    fn assemble(
        reason: Reason,
        frame: Option<Frame>,
        cause: Option<Self>,
        value: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        let function_of_request = reason.is_function_of_request()
            && cause.as_ref().is_none_or(Self::is_function_of_request);
        let breached = match &reason {
            Reason::LimitBreached(limit) => Some(*limit),
            _ => cause.as_ref().and_then(Self::breached_limit),
        };
        let missing_id = match &reason {
            Reason::MissingObject { id } => Some(*id),
            _ => cause.as_ref().and_then(Self::missing_object),
        };
        Self(Arc::new(Inner {
            reason,
            frame,
            cause,
            value,
            function_of_request,
            breached,
            missing_id,
        }))
    }

    /// Returns the value that [`Error::with_value`] attached to this error itself, if it is a `T`.
    /// Values of its causes are not searched.
    pub fn value<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(self.0.value.as_ref()?).downcast().ok()
    }

    /// Returns the reason of this error, the outermost one of the chain.
    pub fn reason(&self) -> &Reason {
        &self.0.reason
    }

    /// Returns the frame in which this error happened, if known.
    pub fn frame(&self) -> Option<&Frame> {
        self.0.frame.as_ref()
    }

    /// Returns the direct cause of this error, if any.
    pub fn cause(&self) -> Option<&Self> {
        self.0.cause.as_ref()
    }

    /// Iterates over this error, its cause, the cause of its cause, and so on.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |error| error.cause())
    }

    /// Returns the last error of the chain.
    pub fn root_cause(&self) -> &Self {
        self.chain().last().unwrap_or(self)
    }

    /// Returns the kind of the root cause.
    pub fn kind(&self) -> ErrorKind {
        self.root_cause().reason().kind()
    }

    /// Returns [`Status::Transient`] if any error in the chain is transient, since a retry may then
    /// succeed.
    pub fn status(&self) -> Status {
        let transient = self.chain().any(|error| error.reason().status() == Status::Transient);
        if transient { Status::Transient } else { Status::Permanent }
    }

    /// Returns the first breached limit in the chain, starting at this error.
    pub fn breached_limit(&self) -> Option<Limit> {
        self.0.breached
    }

    /// Returns the first missing object in the chain, starting at this error.
    pub fn missing_object(&self) -> Option<ObjectId> {
        self.0.missing_id
    }

    /// Returns whether this failure depends on the request alone.
    ///
    /// If a guest catches any other failure and continues, its outcome may not be a function of its
    /// request. Such an outcome is shared with the waiters but not memoized.
    pub fn is_function_of_request(&self) -> bool {
        self.0.function_of_request
    }
}

/// The maximum length of a guest's message in an error, in bytes.
const MAX_GUEST_MESSAGE_BYTES: usize = 4096;

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
