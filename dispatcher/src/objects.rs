use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::{
    EncodedNode, Error, Object, ObjectId, ObjectKind, Reason, Result, Tree,
};

use crate::held::HeldObjects;
use crate::store::{ObjectSource, Store};

/// The store, and the read-only sources under it.
pub(crate) struct Objects {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sources: Vec<Arc<dyn ObjectSource>>,
    /// What is kept for calls that are under way, should the store lose it.
    pub(crate) held: HeldObjects,
}

impl Objects {
    pub(crate) fn find(&self, id: ObjectId) -> Result<Option<Object>> {
        let found = self.first(|layer| layer.read(id))?.or_else(|| self.held.get(id));
        // Git, too, knows the empty tree without having it.
        Ok(found
            .or_else(|| (id == ObjectId::empty_tree()).then(|| Object::encoded_tree(Bytes::new()))))
    }

    pub(crate) fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        match self.first(|layer| layer.kind(id))? {
            None => Ok(self.kind_of_what_no_layer_has(id)),
            found => Ok(found),
        }
    }

    #[cold]
    fn kind_of_what_no_layer_has(&self, id: ObjectId) -> Option<ObjectKind> {
        self.held.kind(id).or_else(|| (id == ObjectId::empty_tree()).then_some(ObjectKind::Tree))
    }

    /// Asks the store, then the sources in their order, until one knows.
    fn first<T>(&self, ask: impl Fn(&dyn ObjectSource) -> Result<Option<T>>) -> Result<Option<T>> {
        let mut answer = ask(&*self.store)?;
        let mut sources = self.sources.iter();
        while answer.is_none()
            && let Some(source) = sources.next()
        {
            answer = ask(&**source)?;
        }
        Ok(answer)
    }

    pub(crate) fn blob(&self, id: ObjectId) -> Result<Bytes> {
        self.of_kind(id, ObjectKind::Blob)
    }

    pub(crate) fn tree(&self, id: ObjectId) -> Result<Tree> {
        Tree::decode_as_git_reads(&self.of_kind(id, ObjectKind::Tree)?)
            .map_err(|problem| Error::bad_tree(id, problem))
    }

    /// Fails unless `id` is there and is of `expected` kind.
    pub(crate) fn check(&self, id: ObjectId, expected: ObjectKind) -> Result<()> {
        let found = self.kind(id)?.ok_or_else(|| Error::missing(id))?;
        same_kind(id, expected, found)
    }

    /// Stores a tree, which is `object` as an object, after checking that it does not dangle.
    pub(crate) fn write_tree(&self, tree: &Tree, object: Object) -> Result<ObjectId> {
        for held in tree.objects() {
            self.check(held.id, held.kind)?;
        }
        self.store.write(object)
    }

    /// Stores a node and its blobs.
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
    Err(Error::new(Reason::WrongKind { id, expected, found: found.as_str() }))
}
