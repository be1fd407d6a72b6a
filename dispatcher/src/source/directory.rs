//! [`DirectoryObjects`]: a directory of the file system as git objects.
//!
//! The directory is walked and hashed once. Trees stay in memory, files are read again when their
//! objects are wanted.

mod error;
mod files;
mod nested;
mod scan;
mod trees;
mod walk;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use manifold_runtime_api::{
    Error, Limit, Object, ObjectId, ObjectKind, ObjectRef, Reason, Result, Status,
};

use crate::source::ObjectSource;
pub use error::DirectoryError;
pub use scan::ScanOptions;
use trees::Stored;

/// A directory as git would store it. It is hashed once; the content of files stays on disk and is
/// read on demand.
///
/// The tree is that of a commit of all files: symbolic links are stored as links, the owner's
/// executable bit is kept, and `.git`, empty directories, sockets, pipes and devices are left out.
/// A nested repository, whether it is a submodule or not, is stored as the commit that is checked
/// out there. Ignore rules and filters are not applied.
///
/// # Behavior
/// - Reading a file that changed since it was hashed is an error. Its new content is never returned
///   under the old id. Of a file that has only grown, the content that was hashed is returned.
/// - Files and directories that are removed during the scan are left out.
pub struct DirectoryObjects {
    root: ObjectRef,
    objects: HashMap<ObjectId, Stored>,
    nested: Vec<PathBuf>,
    largest_read: u64,
}

impl fmt::Debug for DirectoryObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryObjects")
            .field("root", &self.root)
            .field("objects", &self.objects.len())
            .finish_non_exhaustive()
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

    /// Returns the paths of nested repositories. The tree contains their commits, but none of their
    /// files.
    pub fn nested_repositories(&self) -> &[PathBuf] {
        &self.nested
    }
}

impl ObjectSource for DirectoryObjects {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        match self.objects.get(&id) {
            None => Ok(None),
            Some(Stored::Memory(object)) => Ok(Some(object.clone())),
            Some(Stored::File(path, length)) => {
                if *length > self.largest_read {
                    let (path, bytes) = (path.display(), self.largest_read);
                    let problem = format!(
                        "the file {path} has {length} bytes, over the limit of {bytes} bytes for \
                         an object that is read"
                    );
                    return Err(
                        Error::from(Limit::Response { bytes }).caused_by(Error::store(problem))
                    );
                }
                let content = files::read(path, *length)
                    .map_err(|error| changed(path, &error.to_string()))?;
                let object = Object::blob(content);
                if object.id() != id {
                    return Err(changed(path, "its content has another id"));
                }
                Ok(Some(object))
            }
        }
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        Ok(self.objects.get(&id).map(|stored| match stored {
            Stored::Memory(object) => object.kind,
            Stored::File(..) => ObjectKind::Blob,
        }))
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        Ok(self.objects.get(&id).map(|stored| match stored {
            Stored::Memory(object) => object.content.len() as u64,
            Stored::File(_, length) => *length,
        }))
    }
}

fn changed(path: &Path, problem: &str) -> Error {
    let problem = format!("{} changed since it was hashed: {problem}", path.display());
    Error::new(Reason::StoreFailed { problem, status: Status::Transient })
}
