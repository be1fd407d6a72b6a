//! Notes: texts that a store keeps with requests.
//!
//! A note is a blob that is found like the outcome of a request, so that collection, verification and
//! damage need little of their own for it. Its key is the id of the request with some bits inverted.

use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef, Result};

use crate::core::Core;
use crate::dispatcher::Dispatcher;

/// A note begins with this, and the id of its request in hexadecimal.
const MAGIC: &str = "manifold note 1\n";

/// Returns the key of the note on a request, and the request for a key.
pub(crate) fn key(request: ObjectId) -> ObjectId {
    let bytes: Vec<u8> = request.as_bytes().iter().map(|byte| byte ^ 0x55).collect();
    ObjectId::from_bytes(&bytes).unwrap_or(request)
}

/// Returns whether an object is a note on a request, which is kept like an outcome but is none. What
/// copies a memo elsewhere leaves notes out, because they name paths.
pub fn is_note(object: &Object) -> bool {
    object.kind == ObjectKind::Blob && object.content.starts_with(MAGIC.as_bytes())
}

fn head(request: ObjectId) -> String {
    format!("{MAGIC}{request}\n")
}

impl Core {
    /// Returns the note that the memo entry of `key` with the outcome `note` is, if it is one.
    pub(crate) fn note_at(&self, key: ObjectId, note: ObjectRef) -> Result<Option<String>> {
        if note.kind != ObjectKind::Blob {
            return Ok(None);
        }
        let object = self.objects.find(note.id)?;
        let text = object.and_then(|object| String::from_utf8(object.content.to_vec()).ok());
        let head = head(self::key(key));
        Ok(text.and_then(|text| text.strip_prefix(&head).map(str::to_owned)))
    }
}

impl Dispatcher {
    /// Keeps `text` with a request: for people, for example where its arguments come from. Replaces
    /// an earlier note of the request. A collection keeps the note of a pinned request, and others as
    /// long as their requests.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn set_note(&self, request: ObjectId, text: &str) -> Result<()> {
        if self.note(request)?.as_deref() == Some(text) {
            return Ok(());
        }
        let store = &self.core.objects.store;
        let blob = store.write(Object::blob(head(request) + text))?;
        store.record(key(request), ObjectRef::blob(blob))
    }

    /// Returns the note that is kept with a request.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn note(&self, request: ObjectId) -> Result<Option<String>> {
        let key = key(request);
        match self.core.objects.store.look_up(key)? {
            Some(note) => self.core.note_at(key, note),
            None => Ok(None),
        }
    }
}
