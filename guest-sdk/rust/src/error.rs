use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::{fmt, slice};

/// The result of a guest's functions and of the operations.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// The error of an operation that failed, or of a guest that fails its job.
///
/// To report the failure of a nested run, pass its error on with `?`: the host keeps the causes and
/// frames of that run and includes them in the error chain.
// Boxed, because every function of a guest returns it: a larger `Result` means more code.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    message: String,
    kind: ErrorKind,
    /// The lines from the host. Empty if the guest created the error.
    chain: Vec<String>,
}

/// Which party caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A guest failed, trapped, or violated the ABI. Also the kind of every error that this guest
    /// creates.
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
    /// The host reported a kind that this version of the SDK does not know.
    Unknown,
}

impl ErrorKind {
    const REPORTED: [Self; 6] =
        [Self::Guest, Self::Request, Self::Limit, Self::Runtime, Self::Store, Self::Cancelled];

    /// Returns the kind as one lower-case word, the one that the guest ABI transmits.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Request => "request",
            Self::Limit => "limit",
            Self::Runtime => "runtime",
            Self::Store => "store",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) fn parse(word: &[u8]) -> Self {
        Self::REPORTED
            .into_iter()
            .find(|kind| kind.as_str().as_bytes() == word)
            .unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Error {
    /// Creates an error with a message. Its kind is [`ErrorKind::Guest`].
    pub fn new(message: impl Into<String>) -> Self {
        Self::from_host(message.into(), ErrorKind::Guest, Vec::new())
    }

    /// Creates the error that the host reported.
    pub(crate) fn from_host(message: String, kind: ErrorKind, chain: Vec<String>) -> Self {
        Self(Box::new(Inner { message, kind, chain }))
    }

    /// Returns the message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns which party caused the error. For a nested run this is the kind of the root cause.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the messages of the error and its causes, from the nearest frame to the root cause.
    ///
    /// The host sends at most the first 16 and the root cause. The chain of an error that this
    /// guest created is its message.
    pub fn chain(&self) -> &[String] {
        match &*self.0.chain {
            [] => slice::from_ref(&self.0.message),
            chain => chain,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("message", &self.message())
            .field("kind", &self.kind())
            .field("chain", &self.chain())
            .finish()
    }
}

impl core::error::Error for Error {}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// Returns the error for a response that cannot be decoded.
pub(crate) fn malformed() -> Error {
    let message = "the host's response does not conform to the guest ABI";
    Error::from_host(message.into(), ErrorKind::Runtime, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reported_kind_is_parsed_from_its_word() {
        for kind in ErrorKind::REPORTED {
            assert_eq!(ErrorKind::parse(kind.as_str().as_bytes()), kind);
        }
        assert_eq!(ErrorKind::parse(b"new in a later host"), ErrorKind::Unknown);
    }

    #[test]
    fn the_chain_of_a_guests_own_error_is_its_message() {
        let error = Error::new("oops");
        assert_eq!((error.kind(), error.chain()), (ErrorKind::Guest, &["oops".into()][..]));
    }
}
