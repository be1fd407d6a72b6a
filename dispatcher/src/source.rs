//! [`ObjectSource`]: a read-only supplier of objects, and the sources of this crate.

#[cfg(feature = "directory")]
mod directory;
#[cfg(feature = "git")]
mod git;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, Result};

use crate::through::source_through;

#[cfg(feature = "directory")]
pub use directory::{DirectoryError, DirectoryObjects, ScanOptions, ScanProgress};
#[cfg(feature = "git")]
pub use git::{Commit, GitObjects, History};

/// A supplier of objects.
///
/// # Behavior
/// - An object that is read by an id always has that id.
/// - Methods may block for as long as a disk access takes, and may be called from any thread.
pub trait ObjectSource: Send + Sync + 'static {
    /// Reads an object. Returns `None` if the source does not have it.
    ///
    /// # Errors
    /// - [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the source cannot be read.
    /// - [`Reason::WrongKind`](crate::api::Reason::WrongKind) if `id` names an object that is
    ///   neither a blob nor a tree.
    fn read(&self, id: ObjectId) -> Result<Option<Object>>;

    /// Returns the kind of an object, or `None` if the source does not have the object.
    ///
    /// # Errors
    /// The errors of [`ObjectSource::read`].
    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        Ok(self.read(id)?.map(|object| object.kind))
    }

    /// Returns the kind of an object if the source knows it without a look at a disk or at another
    /// machine. The dispatcher asks the store and all sources for it before it calls
    /// [`ObjectSource::kind`]. Default: it does not.
    fn kind_in_memory(&self, id: ObjectId) -> Option<ObjectKind> {
        let _ = id;
        None
    }

    /// Returns the length of an object's content in bytes, or `None` if the source does not have
    /// the object. The default implementation reads the object.
    ///
    /// # Errors
    /// The errors of [`ObjectSource::read`].
    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        Ok(self.read(id)?.map(|object| object.content.len() as u64))
    }

    /// Reads the bytes in `range` of an object's content. The part of `range` beyond the end is
    /// ignored. Returns `None` if the source does not have the object. The default implementation
    /// reads the object.
    ///
    /// # Errors
    /// The errors of [`ObjectSource::read`].
    fn read_range(&self, id: ObjectId, range: Range<u64>) -> Result<Option<Bytes>> {
        Ok(self.read(id)?.map(|object| object.range(range)))
    }
}

impl<T: ObjectSource + ?Sized> ObjectSource for Arc<T> {
    source_through!(self => (**self));

    fn kind_in_memory(&self, id: ObjectId) -> Option<ObjectKind> {
        (**self).kind_in_memory(id)
    }
}
