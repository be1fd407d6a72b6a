//! Objects that the user names: an id, or an id and a path below it.

use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::{Dispatcher, ObjectSource};
use manifold_runtime_api::{EntryMode, Error, ObjectId, ObjectKind, ObjectRef, Tree};

use crate::args::ReadArgs;
use crate::error::CliError;
use crate::repository::Repository;
use crate::session::{Options, Session};

/// An object that the user named, and its mode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    pub(crate) id: ObjectId,
    /// The mode of the entry at the path. For an id alone, that of a plain file or a directory.
    pub(crate) mode: EntryMode,
}

impl Named {
    /// Returns the object, or `None` for a submodule, whose commit is in another repository.
    pub(crate) fn object(self) -> Option<ObjectRef> {
        self.mode.object_kind().map(|kind| ObjectRef { kind, id: self.id })
    }
}

impl ReadArgs {
    /// Opens the store, and the repository around, to read objects from.
    pub(crate) fn session(&self) -> Result<Session, CliError> {
        let around = self.repo.as_deref().unwrap_or(Path::new("."));
        let sources: Vec<Arc<dyn ObjectSource>> = match Repository::for_reading(around) {
            Ok(repository) => vec![Arc::new(repository.objects()?)],
            // Without a repository, the store and the standard images are still there to read.
            Err(CliError::NotARepository { .. }) if self.repo.is_none() => Vec::new(),
            Err(error) => return Err(error),
        };
        Session::new(self.store.open_to_look()?, sources, &Options::default())
    }
}

/// Finds the object that `text` names: `ID`, or `ID:PATH` for what is at a path below a tree.
pub(crate) fn find(dispatcher: &Dispatcher, text: &str) -> Result<Named, CliError> {
    let (id, path) = text.split_once(':').unwrap_or((text, ""));
    let id = ObjectId::from_hex(id)
        .map_err(|source| CliError::InvalidId { id: id.to_owned(), source })?;
    let mode = match dispatcher.read(id)?.kind {
        ObjectKind::Tree => EntryMode::Tree,
        ObjectKind::Blob => EntryMode::Blob,
    };
    below(dispatcher, Named { id, mode }, path)
}

/// Finds what is at `path` below `root`.
pub(crate) fn below(dispatcher: &Dispatcher, root: Named, path: &str) -> Result<Named, CliError> {
    let mut found = root;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let missing = || CliError::NoSuchEntry {
            id: root.id.to_string(),
            path: path.trim_matches('/').to_owned(),
        };
        if found.mode != EntryMode::Tree {
            return Err(missing());
        }
        let tree = dispatcher.read_tree(found.id)?;
        let entry = tree.get(part).ok_or_else(missing)?;
        found = Named { id: entry.id, mode: entry.mode };
    }
    Ok(found)
}

/// Reads a tree whose names are safe as names of files.
pub(crate) fn safe_tree(dispatcher: &Dispatcher, id: ObjectId) -> Result<Tree, CliError> {
    let content = dispatcher.read(id)?.content;
    Tree::decode(&content).map_err(|problem| Error::bad_tree(id, problem).into())
}
