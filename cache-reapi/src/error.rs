//! [`CacheError`]: why a shared cache could not be used.

use std::time::Duration;

use manifold_runtime_api::Error;
use tonic::Code;

use crate::digest::Digest;
use manifold_pack::PackError;

/// Why a shared cache could not be used. No error makes a result wrong: what a cache does not give is
/// computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The address of the server is malformed.
    #[error(
        "{address} is not the address of a cache: {problem}; expected grpc://HOST:PORT[/INSTANCE]"
    )]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The name of a ref is malformed.
    #[error(
        "{name:?} cannot name results in a cache: expected 1 to 200 bytes without control characters"
    )]
    RefName {
        /// The name.
        name: String,
    },
    /// A header, or a file with a certificate or key, cannot be used.
    #[error("the {what} for the cache cannot be used: {problem}")]
    Credentials {
        /// Which header or file. Never its content.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The server cannot be reached.
    #[error("the cache {address} cannot be reached: {problem}")]
    Unreachable {
        /// The server's address.
        address: String,
        /// Why.
        problem: String,
    },
    /// The server refused an operation.
    #[error("the cache {address} refused to {operation}: {message} ({code:?})")]
    Refused {
        /// The server's address.
        address: String,
        /// What was asked for.
        operation: &'static str,
        /// The status that the server returned.
        code: Code,
        /// The server's message.
        message: String,
    },
    /// A [`Backend`](crate::Backend) could not do its work.
    #[error("the cache {address} failed to {operation}")]
    Failed {
        /// The address of the cache.
        address: String,
        /// What was asked for.
        operation: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cache takes longer than a call waits for it.
    #[error("the cache {address} takes longer than {time:?} to {operation}")]
    TooSlow {
        /// The address of the cache.
        address: String,
        /// What was asked for.
        operation: &'static str,
        /// How long was waited.
        time: Duration,
    },
    /// The server lacks something.
    #[error("the cache {address} {problem}")]
    Unsupported {
        /// The server's address.
        address: String,
        /// What it lacks.
        problem: String,
    },
    /// The server returned other content than what was asked for.
    #[error("the cache returned for the blob {digest} content that is another blob: {found}")]
    WrongContent {
        /// The digest of what was asked for.
        digest: Digest,
        /// The digest of what was returned.
        found: Digest,
    },
    /// The server returned compressed content that is damaged.
    #[error("the cache returned for the blob {digest} compressed content that is damaged")]
    BadTransit {
        /// The digest of what was asked for.
        digest: Digest,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// A blob is too large to be read.
    #[error("the blob {digest} of the cache is over the limit of {bound} bytes")]
    TooLarge {
        /// The digest of the blob, with its length.
        digest: Digest,
        /// The limit in bytes.
        bound: u64,
    },
    /// A blob that should be a pack is none.
    #[error("the blob {digest} of the cache is no sound pack")]
    BadPack {
        /// The digest of the blob.
        digest: Digest,
        /// What is wrong with it.
        source: PackError,
    },
    /// What the server has for a request is malformed.
    #[error("what the cache has for {what} is malformed: {problem}")]
    BadResult {
        /// The request, or the name of the ref.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// The local store failed.
    #[error("the local store failed")]
    Store(#[from] Error),
}

impl CacheError {
    /// Returns whether something that the cache has is wrong, and not the cache as a whole.
    pub fn is_about_content(&self) -> bool {
        matches!(
            self,
            Self::WrongContent { .. }
                | Self::BadTransit { .. }
                | Self::TooLarge { .. }
                | Self::BadPack { .. }
                | Self::BadResult { .. }
        )
    }

    /// Formats the error with its causes in a line.
    pub fn in_a_line(&self) -> String {
        chain(self)
    }
}

/// Formats an error with its causes in a line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
