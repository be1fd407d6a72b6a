//! [`Backend`]: what a cache has to offer.

use std::fmt;

use futures_util::future::BoxFuture;
use manifold_runtime_api::ObjectId;

use crate::CacheError;
use crate::digest::Digest;

/// What a cache has a [`Value`] for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A request, by its id.
    Request(ObjectId),
    /// A name.
    Ref(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(id) => write!(f, "request {id}"),
            Self::Ref(name) => write!(f, "ref {name}"),
        }
    }
}

/// What a cache has for a [`Key`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Value {
    /// The digests of its packs.
    pub packs: Vec<Digest>,
    /// Says to people what the value is. Nothing reads it.
    pub text: String,
}

/// A result of a cache, later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, CacheError>>;

/// A place for blobs and values, which [`SharedCache`](crate::SharedCache) uses. Implement it to share
/// outcomes through a cache that does not speak the Remote Execution API.
///
/// It may lose anything at any time. What it returns is checked. Every method should return within
/// seconds, with [`CacheError::Failed`] if it cannot do its work, and have no effect if it is cancelled,
/// other than that a part of what it was given may be there.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Returns the address of the cache, for messages, without secrets.
    fn address(&self) -> &str;

    /// Returns whether values can be set, as far as that is known.
    fn accepts_results(&self) -> bool;

    /// Returns whether blobs are compressed on their way and where they are kept. Packs are not
    /// compressed then. Default: they are not.
    fn compresses(&self) -> bool {
        false
    }

    /// Returns the value of a key. `None` if there is none.
    fn value<'a>(&'a self, key: &'a Key) -> Answer<'a, Option<Value>>;

    /// Sets the values of keys. The blobs of their packs were added before.
    fn set_values(&self, values: Vec<(Key, Value)>) -> Answer<'_, ()>;

    /// Returns the content of a blob, whose digest has a length of at most some hundred MiB. `None` if it
    /// is not there.
    fn blob<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Vec<u8>>>;

    /// Adds blobs, as far as they are not there.
    fn add_blobs(&self, blobs: Vec<Vec<u8>>) -> Answer<'_, ()>;
}
