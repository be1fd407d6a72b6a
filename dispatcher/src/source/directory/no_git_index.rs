//! In place of `git_index`, without git or without the metadata that its index has.

use std::convert::Infallible;
use std::fs::Metadata;
use std::path::Path;

use manifold_runtime_api::ObjectId;

/// The index of a repository, which is never opened.
pub(super) struct GitIndex(Infallible);

impl GitIndex {
    pub(super) fn around(_: &Path) -> Option<Self> {
        None
    }

    pub(super) fn id_of(&self, _: &Path, _: &Metadata) -> Option<ObjectId> {
        match self.0 {}
    }
}
