//! Walks over everything that an object reaches: the object itself and, for a tree, all objects
//! below it. Submodules are not followed.

use std::collections::HashSet;

use manifold_runtime_api::{ObjectId, ObjectKind, Result};

use crate::objects::Objects;

impl Objects {
    /// Returns the first object that `root` reaches and that neither the store, a source nor a
    /// running call has. Returns `None` if all of them are available.
    pub(crate) fn missing_below(&self, root: ObjectId) -> Result<Option<ObjectId>> {
        self.walk(root, |_| Ok(()))
    }

    /// Copies every object that `root` reaches into the store, unless it is already there. Stops at
    /// the first object that is not available anywhere and returns its id.
    pub(crate) fn adopt(&self, root: ObjectId) -> Result<Option<ObjectId>> {
        self.walk(root, |id| {
            if self.store.kind(id)?.is_none()
                && let Some(object) = self.find(id)?
            {
                self.store.write(object)?;
            }
            Ok(())
        })
    }

    /// Calls `visit` for every object that `root` reaches. Stops at the first object that is not
    /// available anywhere and returns its id.
    fn walk(
        &self,
        root: ObjectId,
        mut visit: impl FnMut(ObjectId) -> Result<()>,
    ) -> Result<Option<ObjectId>> {
        let mut seen = HashSet::new();
        let mut pending = vec![root];
        while let Some(id) = pending.pop() {
            let Some(kind) = self.kind(id)? else { return Ok(Some(id)) };
            visit(id)?;
            if kind == ObjectKind::Tree {
                pending.extend(
                    self.tree(id)?.objects().map(|held| held.id).filter(|id| seen.insert(*id)),
                );
            }
        }
        Ok(None)
    }
}
