//! A directory of the file system as git objects.

mod files;
mod nested;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use manifold_runtime_api::bstr::BString;
use manifold_runtime_api::{
    EntryMode, Error, Limit, Object, ObjectId, ObjectKind, Outcome, Reason, Result, Status, Tree,
    TreeEntry, TreeError,
};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use walkdir::WalkDir;

use crate::store::{ObjectSource, STORE_FILE};
use nested::OuterRepository;

/// A directory as git would store it, hashed once; the content of files stays on disk and is read when it is wanted.
///
/// Symbolic links are links, the owner's executable bit counts, and neither `.git`, empty directories, nor sockets, pipes
/// and devices are there, as in a commit of everything. Another repository inside, a submodule or not, is the commit that is checked
/// out there. Ignore rules and filters are not looked at.
///
/// # Behavior
/// - A file that changed since it was hashed is an error when it is read, and never served under the old id. One that has only grown
///   is served as it was.
/// - What goes away while the directory is read counts as gone before.
pub struct DirectoryObjects {
    root: Outcome,
    objects: HashMap<ObjectId, Stored>,
    nested: Vec<PathBuf>,
    largest_read: u64,
}

enum Stored {
    /// A tree, or the target of a symbolic link.
    Memory(Object),
    /// The first bytes of a file.
    File(PathBuf, u64),
}

/// How a directory is read.
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
    /// Leaves the files of the [`crate::DurableStore`] in `directory` out, should they be below what is read: they change whenever
    /// something is remembered.
    pub fn without_store(mut self, directory: impl Into<PathBuf>) -> Self {
        self.stores.push(directory.into());
        self
    }

    /// How many bytes a file may have, for all of them are hashed. Default: 16 GiB, which take some 20 seconds.
    pub fn largest_file(mut self, bytes: u64) -> Self {
        self.largest_file = bytes;
        self
    }

    /// How many bytes a file may have that is read as an object, for then it is in memory. Larger ones are there, and have
    /// an id. Default: no bound.
    pub fn largest_read(mut self, bytes: u64) -> Self {
        self.largest_read = bytes;
        self
    }

    /// Walks `path` and hashes what it finds, on all cores. A file is a single blob; a symbolic link is followed if `path`
    /// itself is one.
    ///
    /// # Errors
    /// [`DirectoryError`] for the first thing that cannot be read or stored.
    pub fn scan(&self, path: &Path) -> Result<DirectoryObjects, DirectoryError> {
        let canonical = path.canonicalize().map_err(io_error(path))?;
        let metadata = fs::metadata(&canonical).map_err(io_error(path))?;
        if metadata.is_file() {
            let changing = || DirectoryError::Changing { path: path.to_owned() };
            // Only here a link is followed.
            let place = if path.is_symlink() { canonical } else { path.to_owned() };
            let (id, length) = files::hash(&place, self.largest_file)?.ok_or_else(changing)?;
            let objects = HashMap::from([(id, Stored::File(place, length))]);
            let (root, nested) = (Outcome::blob(id), Vec::new());
            return Ok(DirectoryObjects { root, objects, nested, largest_read: self.largest_read });
        }
        if !metadata.is_dir() {
            return Err(DirectoryError::Special { path: path.to_owned() });
        }
        let stores: Vec<_> =
            self.stores.iter().filter_map(|store| store.canonicalize().ok()).collect();
        let found = walk(path, &canonical, &stores)?;
        let nested = found.iter().filter(|found| matches!(found.what, What::Nested(_)));
        let nested = nested.map(|found| found.path.clone()).collect();
        let hash = |found: Found| hash(found, self.largest_file).transpose();
        let hashed: Result<Vec<_>, _> = match pool() {
            Some(pool) => pool.install(|| found.into_par_iter().filter_map(hash).collect()),
            None => found.into_iter().filter_map(hash).collect(),
        };
        build(path, hashed?, nested, self.largest_read)
    }
}

/// Threads that hash; `None` where this process gets none.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let name = |number| format!("manifold-hash-{number}");
    POOL.get_or_init(|| ThreadPoolBuilder::new().thread_name(name).build().ok()).as_ref()
}

/// Why a directory cannot be read as git objects.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The operating system refuses.
    #[error("{} cannot be read", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Git would refuse a name in it.
    #[error("{} cannot be stored as git would store it", path.display())]
    Refused {
        /// The directory with that name in it.
        path: PathBuf,
        /// What git would refuse.
        source: TreeError,
    },
    /// A file has more bytes than it may.
    #[error("{} has {length} bytes, and a file may have {bound}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The bound.
        bound: u64,
    },
    /// A file became shorter again and again while it was read.
    #[error("{} changes while it is read", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// Another repository inside has no commit that could stand for it, or cannot tell which.
    #[error("the git repository {} inside cannot be stored as git would store it: {problem}", path.display())]
    Nested {
        /// The other repository.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The path is neither a directory nor a file.
    #[error("{} is neither a directory nor a file", path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
}

impl DirectoryObjects {
    /// Reads a directory or file with default options.
    ///
    /// # Errors
    /// As [`ScanOptions::scan`].
    pub fn scan(path: &Path) -> Result<Self, DirectoryError> {
        Self::options().scan(path)
    }

    /// Starts to read with other options.
    pub fn options() -> ScanOptions {
        ScanOptions::default()
    }

    /// The directory's tree, or the file's blob.
    pub fn root(&self) -> Outcome {
        self.root
    }

    /// Other repositories inside. What is in them is not in the tree, which has their commits instead.
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
                        "the file {path} has {length} bytes, and at most {bytes} are read at once"
                    );
                    return Err(
                        Error::from(Limit::Response { bytes }).caused_by(Error::store(problem))
                    );
                }
                let content = files::read(path, *length)
                    .map_err(|error| changed(path, &error.to_string()))?;
                let object = Object::blob(content);
                if object.id() != id {
                    return Err(changed(path, "it is not what it was"));
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
}

fn changed(path: &Path, problem: &str) -> Error {
    let problem = format!("{} changed since it was hashed: {problem}", path.display());
    Error::new(Reason::StoreFailed { problem, status: Status::Transient })
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path = path.to_owned();
    |source| DirectoryError::Io { path, source }
}

/// Something found on the walk.
struct Found {
    depth: usize,
    path: PathBuf,
    what: What,
}

enum What {
    Directory,
    File {
        executable: bool,
    },
    Link,
    /// Another repository, and the commit that stands for it.
    Nested(ObjectId),
}

/// Lists everything below `path`, each directory before what is in it. Files of stores in the directories `stores` are left out.
fn walk(path: &Path, canonical: &Path, stores: &[PathBuf]) -> Result<Vec<Found>, DirectoryError> {
    let mut entries = WalkDir::new(path).min_depth(1).into_iter();
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.depth() > 0 && is_gone(error.io_error()) => continue,
            Err(error) => {
                let path = error.path().unwrap_or(path).to_owned();
                let source =
                    error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links"));
                return Err(DirectoryError::Io { path, source });
            }
        };
        let kind = entry.file_type();
        if entry.file_name() == OsStr::new(".git") {
            if kind.is_dir() {
                entries.skip_current_dir();
            }
            continue;
        }
        let what = if kind.is_dir() {
            match nested::commit_of(entry.path()) {
                Ok(None) => What::Directory,
                Ok(Some(commit)) => {
                    entries.skip_current_dir();
                    What::Nested(commit)
                }
                Err(problem) => {
                    return Err(DirectoryError::Nested { path: entry.into_path(), problem });
                }
            }
        } else if kind.is_symlink() {
            What::Link
        } else if kind.is_file() {
            if is_of_a_store(entry.path(), stores) {
                continue;
            }
            match entry.metadata() {
                Ok(metadata) => What::File { executable: is_executable(&metadata) },
                Err(error) if is_gone(error.io_error()) => continue,
                Err(error) => return Err(io_error(entry.path())(error.into())),
            }
        } else {
            continue;
        };
        found.push(Found { depth: entry.depth(), path: entry.into_path(), what });
    }
    // A submodule that was never filled is an empty directory.
    let mut outer = OuterRepository::around(canonical);
    for place in 0..found.len() {
        let is_empty = found.get(place + 1).is_none_or(|next| next.depth <= found[place].depth);
        if is_empty
            && matches!(found[place].what, What::Directory)
            && let Ok(below) = found[place].path.strip_prefix(path)
            && let Some(commit) = outer.submodule_at(&canonical.join(below))
        {
            found[place].what = What::Nested(commit);
        }
    }
    Ok(found)
}

fn is_gone(error: Option<&io::Error>) -> bool {
    error.is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    })
}

/// Whether the file at `path` is one of a store in one of these directories.
fn is_of_a_store(path: &Path, stores: &[PathBuf]) -> bool {
    let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
    name.starts_with(STORE_FILE.as_bytes())
        && path
            .parent()
            .and_then(|parent| parent.canonicalize().ok())
            .is_some_and(|parent| stores.contains(&parent))
}

struct Hashed {
    depth: usize,
    path: PathBuf,
    /// `None` for a directory.
    entry: Option<(EntryMode, ObjectId)>,
    stored: Option<Stored>,
}

/// Hashes what was found; nothing if it has gone since.
fn hash(found: Found, largest: u64) -> Result<Option<Hashed>, DirectoryError> {
    let Found { depth, path, what } = found;
    let (entry, stored) = match what {
        What::Directory => (None, None),
        What::Nested(commit) => (Some((EntryMode::Commit, commit)), None),
        What::Link => {
            let target = match fs::read_link(&path) {
                Ok(target) => target,
                // It is gone, or no link any more.
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
            let blob = Object::blob(Bytes::from(bytes(target.as_os_str())));
            (Some((EntryMode::Symlink, blob.id())), Some(Stored::Memory(blob)))
        }
        What::File { executable } => {
            let Some((id, length)) = files::hash(&path, largest)? else { return Ok(None) };
            let mode = if executable { EntryMode::Executable } else { EntryMode::Blob };
            (Some((mode, id)), Some(Stored::File(path.clone(), length)))
        }
    };
    Ok(Some(Hashed { depth, path, entry, stored }))
}

/// Makes trees from the leaves up.
fn build(
    path: &Path,
    hashed: Vec<Hashed>,
    nested: Vec<PathBuf>,
    largest_read: u64,
) -> Result<DirectoryObjects, DirectoryError> {
    let mut objects = HashMap::with_capacity(hashed.len());
    // The entries of the directories that are not complete yet, by depth: those of `path` itself at 0.
    let mut open: Vec<Vec<TreeEntry>> = vec![Vec::new()];
    // Backwards, so that everything in a directory comes before the directory itself.
    for Hashed { depth, path, entry, stored } in hashed.into_iter().rev() {
        open.resize_with(open.len().max(depth), Vec::new);
        let (mode, id, stored) = match entry {
            Some((mode, id)) => (mode, id, stored),
            None => {
                // What is deeper than this directory is what was in it.
                let entries =
                    if open.len() > depth { open.pop().unwrap_or_default() } else { Vec::new() };
                if entries.is_empty() {
                    continue;
                }
                let tree = tree(&path, entries)?;
                (EntryMode::Tree, tree.id(), Some(Stored::Memory(tree)))
            }
        };
        if let Some(stored) = stored {
            objects.entry(id).or_insert(stored);
        }
        let name: BString = path.file_name().map(bytes).unwrap_or_default().into();
        if let Some(parent) = open.get_mut(depth - 1) {
            parent.push(TreeEntry::new(name, mode, id));
        }
    }
    let tree = tree(path, open.into_iter().next().unwrap_or_default())?;
    let root = Outcome::of(&tree);
    objects.insert(root.id, Stored::Memory(tree));
    Ok(DirectoryObjects { root, objects, nested, largest_read })
}

fn tree(path: &Path, entries: Vec<TreeEntry>) -> Result<Object, DirectoryError> {
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

fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_encoded_bytes().to_vec()
}
