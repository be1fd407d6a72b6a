//! Walks over everything that an object reaches: the object itself and, for a tree, all objects
//! below it. Submodules are not followed.

use std::collections::HashSet;

use manifold_runtime_api::{ImageRef, ObjectId, ObjectKind, Result};

use crate::objects::Objects;

/// The maximum size in bytes of a blob that may be an image reference, which is then followed.
pub(crate) const MAX_REFERENCE_BYTES: usize = 256;

/// Returns the image node that the content of a blob names, if it is a reference to one.
pub(crate) fn named_node(content: &[u8]) -> Option<ObjectId> {
    if content.len() > MAX_REFERENCE_BYTES {
        return None;
    }
    match ImageRef::parse(std::str::from_utf8(content).ok()?) {
        Ok(ImageRef::Node(node)) => Some(node),
        _ => None,
    }
}

impl Objects {
    /// Returns the first object that `root` reaches and that neither the store, a source nor a
    /// running call has. Returns `None` if all of them are available.
    pub(crate) fn missing_below(&self, root: ObjectId) -> Result<Option<ObjectId>> {
        self.walk(root, |_, _| Ok(None))
    }

    /// Copies every object that `root` reaches into the store, unless it is already there. Stops at
    /// the first object that is not available anywhere and returns its id.
    pub(crate) fn adopt(&self, root: ObjectId) -> Result<Option<ObjectId>> {
        self.walk(root, |id, _| self.adopt_one(id).map(|()| None))
    }

    /// Like [`Objects::adopt`], and also copies the images that short blobs name, as far as they are
    /// available.
    pub(crate) fn adopt_with_images(&self, root: ObjectId) -> Result<Option<ObjectId>> {
        self.walk(root, |id, kind| {
            self.adopt_one(id)?;
            if kind == ObjectKind::Tree || self.blob_size(id)? > MAX_REFERENCE_BYTES as u64 {
                return Ok(None);
            }
            match named_node(&self.blob(id)?) {
                Some(node) if self.kind(node)?.is_some() => Ok(Some(node)),
                _ => Ok(None),
            }
        })
    }

    fn adopt_one(&self, id: ObjectId) -> Result<()> {
        if self.store.kind(id)?.is_none()
            && let Some(object) = self.find(id)?
        {
            self.store.write(object)?;
        }
        Ok(())
    }

    /// Calls `visit` for every object that `root` reaches, and for those that `visit` returns. Stops
    /// at the first object that is not available anywhere and returns its id.
    fn walk(
        &self,
        root: ObjectId,
        mut visit: impl FnMut(ObjectId, ObjectKind) -> Result<Option<ObjectId>>,
    ) -> Result<Option<ObjectId>> {
        let mut seen = HashSet::new();
        let mut pending = vec![root];
        while let Some(id) = pending.pop() {
            let Some(kind) = self.kind(id)? else { return Ok(Some(id)) };
            pending.extend(visit(id, kind)?.filter(|id| seen.insert(*id)));
            if kind == ObjectKind::Tree {
                pending.extend(
                    self.tree(id)?.objects().map(|held| held.id).filter(|id| seen.insert(*id)),
                );
            }
        }
        Ok(None)
    }
}
