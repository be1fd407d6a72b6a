//! [`DirectoryObjects`]: a directory of the file system as git objects.
//!
//! The directory is walked and hashed once. Trees stay in memory, files are read again when their
//! objects are wanted.

mod files;
mod nested;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use manifold_runtime_api::bstr::BString;
use manifold_runtime_api::{
    EntryMode, Error, Limit, Object, ObjectId, ObjectKind, ObjectRef, Reason, Result, Status, Tree,
    TreeEntry, TreeError,
};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use walkdir::WalkDir;

use crate::source::ObjectSource;
use crate::store::STORE_FILE;
use nested::OuterRepository;

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

enum Stored {
    /// A tree, or the target of a symbolic link.
    Memory(Object),
    /// The path of a file and how many of its bytes were hashed.
    File(PathBuf, u64),
}

/// Options for scanning a directory.
#[derive(Debug, Clone)]
#[must_use]
pub struct ScanOptions {
    stores: Vec<PathBuf>,
    largest_file: u64,
    largest_read: u64,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { stores: Vec::new(), largest_file: 16 << 30, largest_read: u64::MAX }
    }
}

impl ScanOptions {
    /// Leaves out the files of the [`crate::DurableStore`] in `directory`, if they are below the
    /// scanned directory. They change whenever an outcome is memoized.
    pub fn without_store(mut self, directory: impl Into<PathBuf>) -> Self {
        self.stores.push(directory.into());
        self
    }

    /// Sets the largest length of a file, in bytes. A longer file is an error, because every file
    /// is hashed completely. Default: 16 GiB, which take about 20 seconds.
    pub fn largest_file(mut self, bytes: u64) -> Self {
        self.largest_file = bytes;
        self
    }

    /// Sets the largest length of a file that can be read as an object, in bytes. Such a file is
    /// loaded into memory. Larger files are in the tree, but reading them is an error. Default: no
    /// bound.
    pub fn largest_read(mut self, bytes: u64) -> Self {
        self.largest_read = bytes;
        self
    }

    /// Walks the directory `path` and hashes its files on all cores. If `path` is a file, the
    /// result is a single blob. If `path` itself is a symbolic link, it is followed.
    ///
    /// # Errors
    /// Returns a [`DirectoryError`] for the first file or directory that cannot be read or stored.
    pub fn scan(&self, path: &Path) -> Result<DirectoryObjects, DirectoryError> {
        let canonical = path.canonicalize().map_err(io_error(path))?;
        let metadata = fs::metadata(&canonical).map_err(io_error(path))?;
        if metadata.is_file() {
            let changing = || DirectoryError::Changing { path: path.to_owned() };
            // Files are opened without following links, so the link is resolved here.
            let place = if path.is_symlink() { canonical } else { path.to_owned() };
            let (id, length) = files::hash(&place, self.largest_file)?.ok_or_else(changing)?;
            let objects = HashMap::from([(id, Stored::File(place, length))]);
            let (root, nested) = (ObjectRef::blob(id), Vec::new());
            return Ok(DirectoryObjects { root, objects, nested, largest_read: self.largest_read });
        }
        if !metadata.is_dir() {
            return Err(DirectoryError::Special { path: path.to_owned() });
        }
        let stores: Vec<_> =
            self.stores.iter().filter_map(|store| store.canonicalize().ok()).collect();
        let found = walk(path, &canonical, &stores)?;
        let nested = found.iter().filter(|found| matches!(found.kind, FoundKind::Nested(_)));
        let nested = nested.map(|found| found.path.clone()).collect();
        let hash = |found: Found| hash(found, self.largest_file).transpose();
        let hashed: Result<Vec<_>, _> = match hash_pool() {
            Some(pool) => pool.install(|| found.into_par_iter().filter_map(hash).collect()),
            None => found.into_iter().filter_map(hash).collect(),
        };
        build(path, hashed?, nested, self.largest_read)
    }
}

/// Returns the threads that hash files, or `None` if they cannot be started.
fn hash_pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let name = |number| format!("manifold-hash-{number}");
    POOL.get_or_init(|| ThreadPoolBuilder::new().thread_name(name).build().ok()).as_ref()
}

/// Why a directory cannot be scanned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The operating system reported an error.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A directory contains a name that git refuses.
    #[error("{} cannot be stored as a git tree", path.display())]
    Refused {
        /// The directory that contains the name.
        path: PathBuf,
        /// Why git refuses the tree.
        source: TreeError,
    },
    /// A file is longer than [`ScanOptions::largest_file()`].
    #[error("{} has {length} bytes, over the limit of {bound} bytes for a file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        bound: u64,
    },
    /// A file kept becoming shorter while it was hashed.
    #[error("{} keeps changing while it is read", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// A nested repository has no commit checked out, or the commit cannot be determined.
    #[error("the nested git repository {} cannot be stored as a commit: {problem}", path.display())]
    Nested {
        /// The nested repository.
        path: PathBuf,
        /// Why the commit cannot be determined.
        problem: String,
    },
    /// The path is neither a directory nor a file.
    #[error("{} is neither a directory nor a file", path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
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

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path = path.to_owned();
    |source| DirectoryError::Io { path, source }
}

/// A file, link or directory found by the walk.
struct Found {
    depth: usize,
    path: PathBuf,
    kind: FoundKind,
}

enum FoundKind {
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
fn walk(path: &Path, canonical: &Path, stores: &[PathBuf]) -> Result<Vec<Found>, DirectoryError> {
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
            match nested::commit_of(entry.path()) {
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

/// An entry of a tree that is to be built.
struct Hashed {
    depth: usize,
    path: PathBuf,
    /// `None` for a directory.
    entry: Option<(EntryMode, ObjectId)>,
    /// `None` for a directory and for a nested repository.
    stored: Option<Stored>,
}

/// Hashes a file or link. Returns `None` if it was removed since the walk.
fn hash(found: Found, largest: u64) -> Result<Option<Hashed>, DirectoryError> {
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

/// Builds the trees from the leaves up.
fn build(
    path: &Path,
    hashed: Vec<Hashed>,
    nested: Vec<PathBuf>,
    largest_read: u64,
) -> Result<DirectoryObjects, DirectoryError> {
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
    Ok(DirectoryObjects { root, objects, nested, largest_read })
}

fn tree_object(path: &Path, entries: Vec<TreeEntry>) -> Result<Object, DirectoryError> {
    let tree = Tree::new(entries)
        .map_err(|source| DirectoryError::Refused { path: path.to_owned(), source })?;
    Ok(tree.to_object())
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

fn name_bytes(name: &OsStr) -> Vec<u8> {
    name.as_encoded_bytes().to_vec()
}
