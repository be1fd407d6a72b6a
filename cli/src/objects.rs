//! Objects that the user names: an id, or an id and a path below it.

use std::collections::BTreeSet;
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
    let id = self::id(dispatcher, id)?;
    let object = dispatcher.read(id);
    let mode = match object.map(|object| object.kind) {
        Ok(ObjectKind::Tree) => EntryMode::Tree,
        Ok(ObjectKind::Blob) => EntryMode::Blob,
        Err(error) => {
            // The tree of a request that a guest has made is only a record.
            let Some(record) = dispatcher.provenance(id)? else { return Err(error.into()) };
            dispatcher.put_node(record.request_node()?)?;
            EntryMode::Tree
        }
    };
    below(dispatcher, Named { id, mode }, path)
}

/// Returns the id that `text` is: all of its digits, or the first ones of an object or request that the
/// store remembers.
pub(crate) fn id(dispatcher: &Dispatcher, text: &str) -> Result<ObjectId, CliError> {
    match ObjectId::from_hex(text) {
        Ok(id) => Ok(id),
        Err(source) => {
            let prefix = text.to_ascii_lowercase();
            let is_prefix = prefix.len() >= SHORTEST_PREFIX
                && prefix.bytes().all(|digit| digit.is_ascii_hexdigit());
            if !is_prefix {
                return Err(CliError::InvalidId { id: text.to_owned(), source });
            }
            let mut found = BTreeSet::new();
            for (request, outcome) in dispatcher.memo()? {
                found.extend([request, outcome.id]);
            }
            for pin in dispatcher.pins()? {
                found.extend([pin.request, pin.outcome.id]);
            }
            for record in dispatcher.provenances()? {
                found.insert(record.id);
            }
            let mut matches = found.into_iter().filter(|id| id.to_string().starts_with(&prefix));
            match (matches.next(), matches.next()) {
                (Some(id), None) => Ok(id),
                (Some(_), Some(_)) => Err(CliError::AmbiguousId { id: text.to_owned() }),
                (None, _) => Err(CliError::UnknownId { id: text.to_owned() }),
            }
        }
    }
}

/// The least number of digits that stand for an id.
const SHORTEST_PREFIX: usize = 4;

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
