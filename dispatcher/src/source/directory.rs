//! [`DirectoryObjects`]: a directory of the file system as git objects.
//!
//! A scan ([`scan`]) lists every directory and hashes the files that the index ([`index`]) of the last
//! scan does not know. What it finds ([`visit`]) is kept as it is written to the index: as records
//! ([`record`]), in which objects are looked up ([`places`]). Files are read again when their objects
//! are wanted.

mod error;
mod files;
#[cfg(all(feature = "git", unix))]
mod git_index;
#[cfg(not(all(feature = "git", unix)))]
#[path = "directory/no_git_index.rs"]
mod git_index;
mod ignored;
mod index;
mod list;
mod names;
mod nested;
mod places;
mod progress;
mod record;
mod rules;
mod scan;
mod stat;
mod visit;
mod workers;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use manifold_runtime_api::{
    Error, Limit, Object, ObjectId, ObjectKind, ObjectRef, Reason, Result, Status,
};

use crate::source::ObjectSource;
pub use error::DirectoryError;
use index::Records;
use places::{Found, Places};
pub use progress::ScanProgress;
use record::Record;
pub use scan::ScanOptions;

/// A directory as git would store it. It is hashed once, also for later scans if there is an index
/// ([`ScanOptions::index_in`]). The content of files stays on disk and is read on demand.
///
/// The tree is that of a commit of all files: symbolic links are stored as links, the owner's
/// executable bit is kept, and `.git`, empty directories, sockets, pipes and devices are left out.
/// A nested repository, whether it is a submodule or not, is stored as the commit that is checked
/// out there. Filters are not applied, and ignore rules only if they are asked for
/// ([`ScanOptions::gitignore`]).
///
/// # Behavior
/// - Reading a file that changed since it was hashed is an error. Its new content is never returned
///   under the old id. Of a file that has only grown, the content that was hashed is returned.
/// - Files and directories that are removed during the scan are left out.
pub struct DirectoryObjects {
    root: ObjectRef,
    content: Content,
    nested: Vec<PathBuf>,
    hashed: u64,
    largest_read: u64,
}

/// What was scanned.
enum Content {
    File {
        path: PathBuf,
        id: ObjectId,
        length: u64,
    },
    Directory {
        path: PathBuf,
        records: Records,
        /// Made when an object is looked up. If the result of a computation is memoized, none is.
        places: OnceLock<Places>,
    },
}

impl Content {
    fn new(path: &Path, records: Records) -> Self {
        Self::Directory { path: path.to_owned(), records, places: OnceLock::new() }
    }

    /// Returns whether the objects are listed, so that they are found at once.
    fn is_listed(&self) -> bool {
        match self {
            Self::File { .. } => true,
            Self::Directory { places, .. } => places.get().is_some(),
        }
    }

    /// Finds an object.
    fn find(&self, id: ObjectId) -> Option<Found<'_>> {
        match self {
            Self::File { id: found, length, .. } => {
                (id == *found).then_some(Found::File { place: 0, length: *length })
            }
            Self::Directory { records, places, .. } => {
                let root = Record::at(&records.body, records.root)?;
                if root.head.tree == Some(id) {
                    return Some(Found::Tree(root));
                }
                places.get_or_init(|| Places::of(records)).find(&records.body, id)
            }
        }
    }

    /// Returns the complete path of a file that was found at `place`.
    fn path(&self, place: usize) -> Option<PathBuf> {
        match self {
            Self::File { path, .. } => Some(path.clone()),
            Self::Directory { path, records, places } => {
                Some(path.join(places.get()?.path(&records.body, place)?))
            }
        }
    }
}

impl fmt::Debug for DirectoryObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryObjects").field("root", &self.root).finish_non_exhaustive()
    }
}

impl DirectoryObjects {
    /// Scans a directory or file with default options.
    ///
    /// # Errors
    /// The errors of [`ScanOptions::scan`].
    pub fn scan(path: &Path) -> Result<Self, DirectoryError> {
        Self::options().scan(path)
    }

    /// Returns options for scanning with other settings.
    pub fn options() -> ScanOptions {
        ScanOptions::default()
    }

    /// Returns the tree of the directory, or the blob of the file.
    pub fn root(&self) -> ObjectRef {
        self.root
    }

    /// Returns the number of nodes: the files and directories of the tree with the directory itself,
    /// without empty directories and nested repositories. 1 for a file.
    pub fn nodes(&self) -> u64 {
        match &self.content {
            Content::File { .. } => 1,
            Content::Directory { records, .. } => {
                Record::at(&records.body, records.root).map_or(0, |record| record.head.nodes)
            }
        }
    }

    /// Returns how many files the scan hashed. The others were known from an index.
    pub fn hashed_files(&self) -> u64 {
        self.hashed
    }

    /// Returns the paths of nested repositories. The tree contains their commits, but none of their
    /// files.
    pub fn nested_repositories(&self) -> &[PathBuf] {
        &self.nested
    }
}

impl ObjectSource for DirectoryObjects {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        let Some(found) = self.content.find(id) else { return Ok(None) };
        let object = match found {
            Found::Tree(record) => Object::encoded_tree(record.encode_tree()),
            Found::Link(target) => Object::blob(target.to_vec()),
            Found::File { place, length } => {
                let Some(path) = self.content.path(place) else { return Ok(None) };
                if length > self.largest_read {
                    return Err(self.too_large(&path, length));
                }
                let content = files::read(&path, length)
                    .map_err(|error| changed(&path, &error.to_string()))?;
                let object = Object::blob(content);
                if object.id() != id {
                    return Err(changed(&path, "its content has another id"));
                }
                object
            }
        };
        Ok(Some(object))
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        Ok(self.content.find(id).map(|found| found.kind()))
    }

    fn kind_in_memory(&self, id: ObjectId) -> Option<ObjectKind> {
        if !self.content.is_listed() {
            return None;
        }
        self.content.find(id).map(|found| found.kind())
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        Ok(self.content.find(id).map(|found| match found {
            Found::Tree(record) => record.encode_tree().len() as u64,
            Found::Link(target) => target.len() as u64,
            Found::File { length, .. } => length,
        }))
    }
}

impl DirectoryObjects {
    fn too_large(&self, path: &Path, length: u64) -> Error {
        let (path, bytes) = (path.display(), self.largest_read);
        let problem = format!(
            "the file {path} has {length} bytes, over the limit of {bytes} bytes for an object that \
             is read"
        );
        Error::from(Limit::Response { bytes }).caused_by(Error::store(problem))
    }
}

fn changed(path: &Path, problem: &str) -> Error {
    let problem = format!("{} changed since it was hashed: {problem}", path.display());
    Error::new(Reason::StoreFailed { problem, status: Status::Transient })
}
