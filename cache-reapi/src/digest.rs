//! [`Digest`]: how the Remote Execution API names blobs.

use std::fmt;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use sha2::{Digest as _, Sha256};

/// The name of a blob: the SHA-256 of its content, and its length.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    hash: String,
    length: u64,
}

impl Digest {
    /// Returns the digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        let hash = Sha256::digest(content);
        let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { hash, length: content.len() as u64 }
    }

    /// Returns the length of the blob in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the SHA-256 in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Returns the digest with this SHA-256, in lower-case hexadecimal, and the length of the blob in
    /// bytes. `None` if `hash` is none.
    pub fn new(hash: &str, length: u64) -> Option<Self> {
        let is_hash = hash.len() == 64
            && hash.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        is_hash.then(|| Self { hash: hash.to_owned(), length })
    }

    /// Returns `None` if it is no digest of SHA-256.
    pub(crate) fn from_reapi(digest: &reapi::Digest) -> Option<Self> {
        Self::new(&digest.hash, u64::try_from(digest.size_bytes).ok()?)
    }

    pub(crate) fn to_reapi(&self) -> reapi::Digest {
        let size_bytes = i64::try_from(self.length).unwrap_or(i64::MAX);
        reapi::Digest { hash: self.hash.clone(), size_bytes }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hash, self.length)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
