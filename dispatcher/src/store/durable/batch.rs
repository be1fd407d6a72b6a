//! [`Batch`]: writes that wait to be committed.

use manifold_runtime_api::{Object, ObjectId};

use super::format::Entry;
use crate::by_id::ById;

/// Writes that are committed in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) objects: ById<Object>,
    pub(super) memo: ById<Entry>,
    pub(super) pins: ById<Change>,
    /// The size of the batch in bytes: the lengths of the objects' contents, plus [`OVERHEAD`] for
    /// each entry of any table.
    pub(super) bytes: usize,
}

/// A change of a memo entry or pin that is not on disk yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The entry is written.
    Set(Entry),
    /// The entry is removed.
    Remove,
}

impl Change {
    /// Returns the entry as it will be after the change, or `None` if there will be none.
    pub(super) fn entry(self) -> Option<Entry> {
        match self {
            Self::Set(entry) => Some(entry),
            Self::Remove => None,
        }
    }
}

/// The approximate cost of one entry of any table, not counting an object's content, in bytes.
pub(super) const OVERHEAD: usize = 128;

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.memo.is_empty() && self.pins.is_empty()
    }

    pub(super) fn add_object(&mut self, id: ObjectId, object: Object) {
        let length = object.content.len() + OVERHEAD;
        if self.objects.insert(id, object).is_none() {
            self.bytes += length;
        }
    }

    pub(super) fn add_memo(&mut self, request: ObjectId, entry: Entry) {
        if self.memo.insert(request, entry).is_none() {
            self.bytes += OVERHEAD;
        }
    }

    pub(super) fn add_pin(&mut self, request: ObjectId, change: Change) {
        if self.pins.insert(request, change).is_none() {
            self.bytes += OVERHEAD;
        }
    }

    /// Adds the writes of `earlier` again, after its commit failed. Newer writes take precedence.
    pub(super) fn put_back(&mut self, earlier: &Self) {
        for (id, object) in &earlier.objects {
            if !self.objects.contains_key(id) {
                self.add_object(*id, object.clone());
            }
        }
        for (request, entry) in &earlier.memo {
            if !self.memo.contains_key(request) {
                self.add_memo(*request, *entry);
            }
        }
        for (request, change) in &earlier.pins {
            if !self.pins.contains_key(request) {
                self.add_pin(*request, *change);
            }
        }
    }
}
