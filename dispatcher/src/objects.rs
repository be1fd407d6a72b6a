//! [`Objects`]: the store and the sources, read as one.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::{
    EncodedNode, Error, Object, ObjectId, ObjectKind, Reason, Result, Tree,
};
use parking_lot::RwLock;

use crate::held::HeldObjects;
use crate::source::ObjectSource;
use crate::store::Store;

/// The store, the read-only sources, and the objects held for calls.
pub(crate) struct Objects {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sources: RwLock<Vec<Arc<dyn ObjectSource>>>,
    /// Objects that are kept for calls in progress in case the store loses them.
    pub(crate) held: HeldObjects,
}

impl Objects {
    pub(crate) fn find(&self, id: ObjectId) -> Result<Option<Object>> {
        let found = self.first(|layer| layer.read(id))?.or_else(|| self.held.get(id));
        // As in git, the empty tree exists even if it is not stored.
        Ok(found
            .or_else(|| (id == ObjectId::empty_tree()).then(|| Object::encoded_tree(Bytes::new()))))
    }

    pub(crate) fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        if let Some(kind) = self.kind_in_memory(id) {
            return Ok(Some(kind));
        }
        match self.first(|layer| layer.kind(id))? {
            None => Ok(self.kind_without_layers(id)),
            found => Ok(found),
        }
    }

    fn kind_in_memory(&self, id: ObjectId) -> Option<ObjectKind> {
        self.store.kind_in_memory(id).or_else(|| {
            let sources = self.sources.read_recursive();
            sources.iter().find_map(|source| source.kind_in_memory(id))
        })
    }

    #[cold]
    fn kind_without_layers(&self, id: ObjectId) -> Option<ObjectKind> {
        self.held.kind(id).or_else(|| (id == ObjectId::empty_tree()).then_some(ObjectKind::Tree))
    }

    /// Queries the store, then the sources in their order, until one returns a value.
    fn first<T>(
        &self,
        query: impl Fn(&dyn ObjectSource) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut found = query(&*self.store)?;
        if found.is_none() {
            // A source may take long. Whoever wants to add one must not stop other readers meanwhile.
            let sources = self.sources.read_recursive();
            let mut sources = sources.iter();
            while found.is_none()
                && let Some(source) = sources.next()
            {
                found = query(&**source)?;
            }
        }
        Ok(found)
    }

    pub(crate) fn blob(&self, id: ObjectId) -> Result<Bytes> {
        self.of_kind(id, ObjectKind::Blob)
    }

    /// Reads a part of a blob.
    pub(crate) fn blob_range(&self, id: ObjectId, range: Range<u64>) -> Result<Bytes> {
        self.check(id, ObjectKind::Blob)?;
        match self.first(|layer| layer.read_range(id, range.clone()))? {
            Some(content) => Ok(content),
            None => Ok(Object::blob(self.blob(id)?).range(range)),
        }
    }

    /// Returns the size of a blob in bytes.
    pub(crate) fn blob_size(&self, id: ObjectId) -> Result<u64> {
        self.check(id, ObjectKind::Blob)?;
        match self.first(|layer| layer.size(id))? {
            Some(bytes) => Ok(bytes),
            None => Ok(self.blob(id)?.len() as u64),
        }
    }

    pub(crate) fn tree(&self, id: ObjectId) -> Result<Tree> {
        Tree::decode_as_git_reads(&self.of_kind(id, ObjectKind::Tree)?)
            .map_err(|problem| Error::bad_tree(id, problem))
    }

    /// Returns an error unless `id` is available and has the kind `expected`.
    pub(crate) fn check(&self, id: ObjectId, expected: ObjectKind) -> Result<()> {
        let found = self.kind(id)?.ok_or_else(|| Error::missing(id))?;
        same_kind(id, expected, found)
    }

    /// Stores `tree`, which `object` encodes, after checking that each entry names an available
    /// object of the kind that its mode requires.
    pub(crate) fn write_tree(&self, tree: &Tree, object: Object) -> Result<ObjectId> {
        for held in tree.objects() {
            self.check(held.id, held.kind)?;
        }
        self.store.write(object)
    }

    /// Stores a node and its blobs, and returns the id of the node.
    pub(crate) fn write_node(&self, node: EncodedNode) -> Result<ObjectId> {
        let id = node.id();
        for object in node.into_objects() {
            self.store.write(object)?;
        }
        Ok(id)
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
    Err(Error::new(Reason::WrongKind { id, expected: expected.as_str(), found: found.as_str() }))
}
