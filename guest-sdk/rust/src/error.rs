use alloc::string::String;
use core::fmt;

/// What a guest's functions return.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why an operation failed, or why the guest gives up, in words.
///
/// Passing on the error of a nested run with `?` is enough: the host keeps its causes and frames, and shows them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error in the guest's own words.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// The words.
    pub fn message(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Error {}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

/// A response that is not understood.
pub(crate) fn malformed() -> Error {
    Error::new("the host's response is not what the ABI promises")
}
