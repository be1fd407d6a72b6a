//! The walk over a directory: lists its files, links, directories and nested repositories.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use manifold_runtime_api::ObjectId;
use walkdir::WalkDir;

use super::error::{DirectoryError, io_error};
use super::nested::{OuterRepository, commit_of};
use crate::store::STORE_FILE;

/// A file, link or directory found by the walk.
pub(super) struct Found {
    /// The level below the scanned directory. Its own entries have level 1.
    pub(super) depth: usize,
    pub(super) path: PathBuf,
    pub(super) kind: FoundKind,
}

pub(super) enum FoundKind {
    Directory,
    File {
        executable: bool,
    },
    Link,
    /// A nested repository, with the commit that is checked out there.
    Nested(ObjectId),
}

/// Lists everything below `path`, each directory before its content. Leaves out the files of stores
/// in the directories `stores`.
pub(super) fn walk(
    path: &Path,
    canonical: &Path,
    stores: &[PathBuf],
) -> Result<Vec<Found>, DirectoryError> {
    let mut entries = WalkDir::new(path).min_depth(1).into_iter();
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.depth() > 0 && is_not_found(error.io_error()) => continue,
            Err(error) => {
                let path = error.path().unwrap_or(path).to_owned();
                let source = error
                    .into_io_error()
                    .unwrap_or_else(|| io::Error::other("a loop of symbolic links"));
                return Err(DirectoryError::Io { path, source });
            }
        };
        let file_type = entry.file_type();
        if entry.file_name() == OsStr::new(".git") {
            if file_type.is_dir() {
                entries.skip_current_dir();
            }
            continue;
        }
        let kind = if file_type.is_dir() {
            match commit_of(entry.path()) {
                Ok(None) => FoundKind::Directory,
                Ok(Some(commit)) => {
                    entries.skip_current_dir();
                    FoundKind::Nested(commit)
                }
                Err(problem) => {
                    return Err(DirectoryError::Nested { path: entry.into_path(), problem });
                }
            }
        } else if file_type.is_symlink() {
            FoundKind::Link
        } else if file_type.is_file() {
            if is_store_file(entry.path(), stores) {
                continue;
            }
            match entry.metadata() {
                Ok(metadata) => FoundKind::File { executable: is_executable(&metadata) },
                Err(error) if is_not_found(error.io_error()) => continue,
                Err(error) => return Err(io_error(entry.path())(error.into())),
            }
        } else {
            continue;
        };
        found.push(Found { depth: entry.depth(), path: entry.into_path(), kind });
    }
    // A submodule that is not checked out is an empty directory.
    let mut outer = OuterRepository::around(canonical);
    for place in 0..found.len() {
        let is_empty = found.get(place + 1).is_none_or(|next| next.depth <= found[place].depth);
        if is_empty
            && matches!(found[place].kind, FoundKind::Directory)
            && let Ok(below) = found[place].path.strip_prefix(path)
            && let Some(commit) = outer.submodule_at(&canonical.join(below))
        {
            found[place].kind = FoundKind::Nested(commit);
        }
    }
    Ok(found)
}

fn is_not_found(error: Option<&io::Error>) -> bool {
    error.is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    })
}

/// Returns whether the file at `path` belongs to a store in one of the directories `stores`.
fn is_store_file(path: &Path, stores: &[PathBuf]) -> bool {
    let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    name.starts_with(STORE_FILE.as_bytes())
        && path
            .parent()
            .and_then(|parent| parent.canonicalize().ok())
            .is_some_and(|parent| stores.contains(&parent))
}

#[cfg(unix)]
fn is_executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const OWNER_EXECUTES: u32 = 0o100;
    metadata.permissions().mode() & OWNER_EXECUTES != 0
}

#[cfg(not(unix))]
fn is_executable(_: &Metadata) -> bool {
    false
}
