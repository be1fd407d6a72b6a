//! Hashes what the walk found, and builds the trees.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use manifold_runtime_api::bstr::BString;
use manifold_runtime_api::{EntryMode, Object, ObjectId, ObjectRef, Tree, TreeEntry};

use super::error::{DirectoryError, io_error};
use super::files;
use super::walk::{Found, FoundKind};

/// Where the content of an object is.
pub(super) enum Stored {
    /// A tree, or the target of a symbolic link.
    Memory(Object),
    /// The path of a file and how many of its bytes were hashed.
    File(PathBuf, u64),
}

/// An entry of a tree that is to be built.
pub(super) struct Hashed {
    depth: usize,
    path: PathBuf,
    /// `None` for a directory.
    entry: Option<(EntryMode, ObjectId)>,
    /// `None` for a directory and for a nested repository.
    stored: Option<Stored>,
}

/// Hashes a file or link. Returns `None` if it was removed since the walk.
pub(super) fn hash(found: Found, largest: u64) -> Result<Option<Hashed>, DirectoryError> {
    let Found { depth, path, kind } = found;
    let (entry, stored) = match kind {
        FoundKind::Directory => (None, None),
        FoundKind::Nested(commit) => (Some((EntryMode::Commit, commit)), None),
        FoundKind::Link => {
            let target = match fs::read_link(&path) {
                Ok(target) => target,
                // It was removed, or is not a link any more.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(io_error(&path)(error)),
            };
            let blob = Object::blob(Bytes::from(name_bytes(target.as_os_str())));
            (Some((EntryMode::Symlink, blob.id())), Some(Stored::Memory(blob)))
        }
        FoundKind::File { executable } => {
            let Some((id, length)) = files::hash(&path, largest)? else { return Ok(None) };
            let mode = if executable { EntryMode::Executable } else { EntryMode::Blob };
            (Some((mode, id)), Some(Stored::File(path.clone(), length)))
        }
    };
    Ok(Some(Hashed { depth, path, entry, stored }))
}

/// Builds the trees from the leaves up. Returns the tree of `path` and all objects below it.
pub(super) fn build(
    path: &Path,
    hashed: Vec<Hashed>,
) -> Result<(ObjectRef, HashMap<ObjectId, Stored>), DirectoryError> {
    let mut objects = HashMap::with_capacity(hashed.len());
    // The entries of the directories that are not complete yet, by depth. Index 0 is `path` itself.
    let mut open: Vec<Vec<TreeEntry>> = vec![Vec::new()];
    // In reverse order, so that the content of a directory comes before the directory itself.
    for Hashed { depth, path, entry, stored } in hashed.into_iter().rev() {
        open.resize_with(open.len().max(depth), Vec::new);
        let (mode, id, stored) = match entry {
            Some((mode, id)) => (mode, id, stored),
            None => {
                // The entries one level deeper are the content of this directory.
                let entries =
                    if open.len() > depth { open.pop().unwrap_or_default() } else { Vec::new() };
                if entries.is_empty() {
                    continue;
                }
                let tree = tree_object(&path, entries)?;
                (EntryMode::Tree, tree.id(), Some(Stored::Memory(tree)))
            }
        };
        if let Some(stored) = stored {
            objects.entry(id).or_insert(stored);
        }
        let name: BString = path.file_name().map(name_bytes).unwrap_or_default().into();
        if let Some(parent) = open.get_mut(depth - 1) {
            parent.push(TreeEntry::new(name, mode, id));
        }
    }
    let tree = tree_object(path, open.into_iter().next().unwrap_or_default())?;
    let root = ObjectRef::of(&tree);
    objects.insert(root.id, Stored::Memory(tree));
    Ok((root, objects))
}

fn tree_object(path: &Path, entries: Vec<TreeEntry>) -> Result<Object, DirectoryError> {
    let tree = Tree::new(entries)
        .map_err(|source| DirectoryError::Refused { path: path.to_owned(), source })?;
    Ok(tree.to_object())
}

fn name_bytes(name: &OsStr) -> Vec<u8> {
    name.as_encoded_bytes().to_vec()
}
