use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, Reason, Result, Tree};

use crate::store::{ObjectSource, Store};

/// The store, and the read-only sources under it.
pub(crate) struct Objects {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sources: Vec<Arc<dyn ObjectSource>>,
}

impl Objects {
    pub(crate) fn find(&self, id: ObjectId) -> Result<Option<Object>> {
        if let Some(object) = self.store.read(id)? {
            return Ok(Some(object));
        }
        for source in &self.sources {
            if let Some(object) = source.read(id)? {
                return Ok(Some(object));
            }
        }
        // Git, too, knows the empty tree without having it.
        Ok((id == ObjectId::empty_tree()).then(|| Object::encoded_tree(Bytes::new())))
    }

    pub(crate) fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        if let Some(kind) = self.store.kind(id)? {
            return Ok(Some(kind));
        }
        for source in &self.sources {
            if let Some(kind) = source.kind(id)? {
                return Ok(Some(kind));
            }
        }
        Ok((id == ObjectId::empty_tree()).then_some(ObjectKind::Tree))
    }

    pub(crate) fn blob(&self, id: ObjectId) -> Result<Bytes> {
        self.of_kind(id, ObjectKind::Blob)
    }

    pub(crate) fn tree(&self, id: ObjectId) -> Result<Tree> {
        Ok(Tree::decode(&self.of_kind(id, ObjectKind::Tree)?)?)
    }

    /// Fails unless `id` is there and is of `expected` kind.
    pub(crate) fn check(&self, id: ObjectId, expected: ObjectKind) -> Result<()> {
        let found = self.kind(id)?.ok_or_else(|| Error::missing(id))?;
        same_kind(id, expected, found)
    }

    /// Stores a tree after checking that it does not dangle.
    pub(crate) fn write_tree(&self, tree: &Tree) -> Result<ObjectId> {
        for entry in tree.entries() {
            if let Some(kind) = entry.mode.object_kind() {
                self.check(entry.id, kind)?;
            }
        }
        self.store.write(tree.to_object())
    }

    fn of_kind(&self, id: ObjectId, expected: ObjectKind) -> Result<Bytes> {
        let object = self.find(id)?.ok_or_else(|| Error::missing(id))?;
        same_kind(id, expected, object.kind)?;
        Ok(object.content)
    }
}

fn same_kind(id: ObjectId, expected: ObjectKind, found: ObjectKind) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::new(Reason::WrongKind { id, expected, found: found.as_str() }))
}
