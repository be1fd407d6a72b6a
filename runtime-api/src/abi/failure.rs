//! [`Failure`]: an error in the form in which both encodings send it to a guest.

use serde::Serialize;

use crate::error::Error;
use crate::reason::Reason;

/// An error as a guest receives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// The message of the first error in the chain that is not just "a nested run failed".
    pub error: String,
    /// The error's kind, as [`ErrorKind::as_str`](crate::ErrorKind::as_str) returns it.
    pub kind: &'static str,
    /// The messages of the error and its causes: at most the first 16 and the root cause.
    pub chain: Vec<String>,
}

/// How many errors of a chain a guest receives, in addition to the root cause. The chain of a deep
/// recursion has thousands of errors.
const MAX_CHAIN_SENT: usize = 16;

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let mut chain: Vec<String> = error.chain().take(MAX_CHAIN_SENT).map(line).collect();
        if error.chain().nth(MAX_CHAIN_SENT).is_some() {
            chain.push("…".to_owned());
            chain.push(line(error.root_cause()));
        }
        // A frame that only passes a failure on has no message of its own.
        Self { error: first_informative(error).to_string(), kind: error.kind().as_str(), chain }
    }
}

fn first_informative(error: &Error) -> &Error {
    error.chain().find(|error| !matches!(error.reason(), Reason::NestedRunFailed)).unwrap_or(error)
}

fn line(error: &Error) -> String {
    match error.frame() {
        Some(frame) => format!("{error} ({frame})"),
        None => error.to_string(),
    }
}
