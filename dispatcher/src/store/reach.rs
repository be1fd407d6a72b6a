//! What an object reaches: itself, and for a tree all that it holds, submodules aside.

use std::collections::HashSet;

use manifold_runtime_api::{ObjectId, ObjectKind, Result};

use crate::objects::Objects;

impl Objects {
    /// The first object that `root` reaches and that is nowhere; `None` when all is there.
    pub(crate) fn missing_below(&self, root: ObjectId) -> Result<Option<ObjectId>> {
        self.walk(root, |_| Ok(()))
    }

    /// Copies what `root` reaches from the sources into the store. Answers the first object that is nowhere.
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

    fn walk(
        &self,
        root: ObjectId,
        mut visit: impl FnMut(ObjectId) -> Result<()>,
    ) -> Result<Option<ObjectId>> {
        let mut met = HashSet::new();
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            let Some(kind) = self.kind(id)? else { return Ok(Some(id)) };
            visit(id)?;
            if kind == ObjectKind::Tree {
                open.extend(
                    self.tree(id)?.objects().map(|held| held.id).filter(|id| met.insert(*id)),
                );
            }
        }
        Ok(None)
    }
}
