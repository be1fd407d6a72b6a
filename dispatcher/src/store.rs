//! [`Store`]: where objects, the memo and pins live, and the stores of this crate.

#[cfg(feature = "durable")]
mod durable;
mod memory;
mod reach;

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use bytes::Bytes;
use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, ObjectRef, Result};

use crate::source::ObjectSource;
use crate::through::store_through;

#[cfg(feature = "durable")]
pub use durable::{
    Collected, Damage, DurableStore, Keep, OpenError, StoreCommit, StoreOptions, StoreWait,
    VerifyReport,
};
pub use memory::MemoryStore;
#[cfg(feature = "durable")]
pub(crate) use reach::MAX_REFERENCE_BYTES;
pub(crate) use reach::named_node;

/// The name of a durable store's file in its directory. Every file in that directory whose name
/// starts with this one belongs to the store.
#[cfg(any(feature = "durable", feature = "directory"))]
pub(crate) const STORE_FILE: &str = "manifold.redb";

/// A mark that keeps an object from collection: the outcome of a request, an object that was pinned
/// itself ([`Dispatcher::pin`](crate::Dispatcher::pin)), or the tree of named images
/// ([`Dispatcher::set_named_images`](crate::Dispatcher::set_named_images)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The id of the pinned request. For an object that was pinned itself, its own id.
    pub request: ObjectId,
    /// The object that is kept.
    pub outcome: ObjectRef,
}

impl Pin {
    /// Returns whether this pin keeps the outcome of a request, and not an image or another object
    /// that was pinned itself, or the tree of named images.
    pub fn is_of_request(&self) -> bool {
        self.request != self.outcome.id && !self.is_of_named_images()
    }

    /// Returns whether this pin keeps the tree of named images.
    pub fn is_of_named_images(&self) -> bool {
        self.request == named_images_key()
    }
}

/// The id under which the tree of named images is pinned. It is the id of a blob and so of no
/// request.
pub(crate) fn named_images_key() -> ObjectId {
    static KEY: LazyLock<ObjectId> =
        LazyLock::new(|| ObjectId::of(ObjectKind::Blob, b"manifold: named images\n"));
    *KEY
}

/// What the dispatcher wants a store to keep of a run
/// ([`DispatcherBuilder::provenance`](crate::DispatcherBuilder::provenance)). Only the dispatcher knows
/// what the bytes mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunRecord {
    /// The whole record.
    pub bytes: Bytes,
    /// How many bytes at the beginning the record has in common with those of many other runs, so that a
    /// store may keep them once for all of these. At most the length of the record.
    pub common: usize,
}

/// Stores objects, the memo (a map from requests to outcomes), and pins.
///
/// # Behavior
/// - After `write` returns an id, `read` finds the object under that id.
/// - When `record` or `pin` returns, all objects written before are at least as durable as the
///   entry or pin.
/// - No eviction or collection removes an object that a pin reaches.
pub trait Store: ObjectSource {
    /// Stores an object and returns its id. Has no effect if the object is already there.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the object cannot be
    /// stored.
    fn write(&self, object: Object) -> Result<ObjectId>;

    /// Looks up the memoized outcome of `request`.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the memo cannot be read.
    fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>>;

    /// Like [`Store::look_up`], and whether this store certainly has the outcome's object, of the
    /// stated kind. If it may not have it, the dispatcher looks for it. Default: it may not.
    ///
    /// # Errors
    /// As [`Store::look_up`].
    fn look_up_with_object(&self, request: ObjectId) -> Result<Option<(ObjectRef, bool)>> {
        Ok(self.look_up(request)?.map(|outcome| (outcome, false)))
    }

    /// Records the outcome of `request` in the memo. Replaces an earlier entry.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the entry cannot be
    /// recorded.
    fn record(&self, request: ObjectId, outcome: ObjectRef) -> Result<()>;

    /// Records a run of `request`: its outcome as [`Store::record`] if there is one to memoize, and `run`.
    /// Replaces an earlier record of a run of this request. A store that keeps no records of runs only
    /// records the outcome, which is the default.
    ///
    /// # Errors
    /// As [`Store::record`].
    fn record_run(
        &self,
        request: ObjectId,
        outcome: Option<ObjectRef>,
        run: RunRecord,
    ) -> Result<()> {
        let _ = run;
        outcome.map_or(Ok(()), |outcome| self.record(request, outcome))
    }

    /// Returns the record of the last run of `request`. The store keeps it as long as the memo entry of
    /// the request, or as long as it would keep one. [`Store::record`] does not change it. Default: none.
    ///
    /// # Errors
    /// As [`Store::look_up`].
    fn run_record(&self, request: ObjectId) -> Result<Option<RunRecord>> {
        let _ = request;
        Ok(None)
    }

    /// Returns the records of all runs with their requests, in no particular order. Default: none.
    ///
    /// # Errors
    /// As [`Store::look_up`].
    fn run_records(&self) -> Result<Vec<(ObjectId, RunRecord)>> {
        Ok(Vec::new())
    }

    /// Pins the outcome of `request`. Replaces an earlier pin of the request.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the pin cannot be set.
    fn pin(&self, request: ObjectId, outcome: ObjectRef) -> Result<()>;

    /// Removes a pin. Returns whether the request was pinned.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the pin cannot be removed.
    fn unpin(&self, request: ObjectId) -> Result<bool>;

    /// Returns the pinned outcome of `request`, or `None` if the request is not pinned.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the pins cannot be read.
    fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>>;

    /// Returns when the pin of `request` was last set or used, as far as the store knows. Default:
    /// it does not.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the pins cannot be read.
    fn pinned_at(&self, request: ObjectId) -> Result<Option<SystemTime>> {
        let _ = request;
        Ok(None)
    }

    /// Returns all pins, in no particular order.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the pins cannot be read.
    fn pins(&self) -> Result<Vec<Pin>>;

    /// Returns all entries of the memo, in no particular order. A store that cannot list them returns
    /// none, which is the default.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the memo cannot be read.
    fn entries(&self) -> Result<Vec<(ObjectId, ObjectRef)>> {
        Ok(Vec::new())
    }

    /// Returns whether only the embedder removes objects from this store, and no other process or
    /// collection does. A root call then does not hold copies of its inputs in memory.
    /// Default: `false`.
    fn keeps_everything(&self) -> bool {
        false
    }

    /// Makes everything that was written so far durable, as far as the store supports it.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if something could not be made
    /// durable.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Returns the id under which an object is to be stored.
///
/// # Errors
/// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the object has no id.
pub(crate) fn id_to_store(object: &Object) -> Result<ObjectId> {
    let id = object.id();
    if id.is_null() {
        return Err(Error::store(
            "the content is one half of a SHA-1 collision and has no object id",
        ));
    }
    Ok(id)
}

impl<T: Store + ?Sized> Store for Arc<T> {
    store_through!(self => (**self));

    fn look_up_with_object(&self, request: ObjectId) -> Result<Option<(ObjectRef, bool)>> {
        (**self).look_up_with_object(request)
    }
}
