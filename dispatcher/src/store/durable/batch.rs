//! What waits to be committed.

use std::collections::HashMap;

use manifold_runtime_api::{Object, ObjectId};

use super::format::Entry;

/// Writes that go to disk in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) objects: HashMap<ObjectId, Object>,
    pub(super) memo: HashMap<ObjectId, Entry>,
    /// `None` takes a pin away.
    pub(super) pins: HashMap<ObjectId, Option<Entry>>,
    /// The objects' lengths and something for everything else, in bytes.
    pub(super) bytes: usize,
}

/// What an entry of any table costs beside an object's content, roughly, in bytes.
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

    pub(super) fn add_pin(&mut self, request: ObjectId, entry: Option<Entry>) {
        if self.pins.insert(request, entry).is_none() {
            self.bytes += OVERHEAD;
        }
    }

    /// Puts what `earlier` holds back under what came since.
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
        for (request, entry) in &earlier.pins {
            if !self.pins.contains_key(request) {
                self.add_pin(*request, *entry);
            }
        }
    }
}
