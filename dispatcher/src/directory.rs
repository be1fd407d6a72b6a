//! A directory of the file system as git objects.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use manifold_runtime_api::bstr::BString;
use manifold_runtime_api::{
    EntryMode, Error, Object, ObjectId, ObjectKind, Outcome, Reason, Result, Status, Tree, TreeEntry, TreeError,
};
use rayon::prelude::*;
use walkdir::WalkDir;

use crate::store::ObjectSource;

/// A directory as git would store it, hashed once; the content of files stays on disk and is read when it is wanted.
///
/// Symbolic links are links, the owner's executable bit counts, and neither `.git`, empty directories, nor sockets, pipes
/// and devices are there, as in a commit of everything. Ignore rules, filters and submodules are not looked at.
///
/// # Behavior
/// - A file that changed since it was hashed is an error when it is read, and never served under the old id.
pub struct DirectoryObjects {
    root: Outcome,
    objects: HashMap<ObjectId, Stored>,
}

enum Stored {
    /// A tree, or the target of a symbolic link.
    Memory(Object),
    /// A file's content.
    File(PathBuf),
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
    /// The path is neither a directory nor a file.
    #[error("{} is neither a directory nor a file", path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
}

impl DirectoryObjects {
    /// Walks `path` and hashes what it finds, on all cores. A file is a single blob; a symbolic link is followed if `path`
    /// itself is one.
    ///
    /// # Errors
    /// [`DirectoryError`] for the first thing that cannot be read or stored.
    pub fn scan(path: &Path) -> Result<Self, DirectoryError> {
        let metadata = fs::metadata(path).map_err(io_error(path))?;
        if metadata.is_file() {
            let id = hash_file(path)?;
            let objects = HashMap::from([(id, Stored::File(path.to_owned()))]);
            return Ok(Self { root: Outcome::blob(id), objects });
        }
        if !metadata.is_dir() {
            return Err(DirectoryError::Special { path: path.to_owned() });
        }
        let found = walk(path)?;
        let hashed: Vec<_> = found.into_par_iter().map(hash).collect::<Result<_, _>>()?;
        build(path, hashed)
    }

    /// The directory's tree, or the file's blob.
    pub fn root(&self) -> Outcome {
        self.root
    }
}

impl ObjectSource for DirectoryObjects {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        match self.objects.get(&id) {
            None => Ok(None),
            Some(Stored::Memory(object)) => Ok(Some(object.clone())),
            Some(Stored::File(path)) => {
                let content = fs::read(path).map_err(|error| changed(path, &error.to_string()))?;
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
            Stored::File(_) => ObjectKind::Blob,
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
    File { executable: bool },
    Link,
}

/// Lists everything below `path`, each directory before what is in it.
fn walk(path: &Path) -> Result<Vec<Found>, DirectoryError> {
    let entries = WalkDir::new(path)
        .min_depth(1)
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != OsStr::new(".git"));
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(path).to_owned();
            let source = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links"));
            DirectoryError::Io { path, source }
        })?;
        let kind = entry.file_type();
        let what = if kind.is_dir() {
            What::Directory
        } else if kind.is_symlink() {
            What::Link
        } else if kind.is_file() {
            let metadata = entry.metadata().map_err(|error| io_error(entry.path())(error.into()))?;
            What::File { executable: is_executable(&metadata) }
        } else {
            continue;
        };
        found.push(Found { depth: entry.depth(), path: entry.into_path(), what });
    }
    Ok(found)
}

struct Hashed {
    depth: usize,
    path: PathBuf,
    /// `None` for a directory.
    object: Option<(EntryMode, ObjectId, Stored)>,
}

fn hash(found: Found) -> Result<Hashed, DirectoryError> {
    let Found { depth, path, what } = found;
    let object = match what {
        What::Directory => None,
        What::Link => {
            let target = fs::read_link(&path).map_err(io_error(&path))?;
            let blob = Object::blob(Bytes::from(bytes(target.as_os_str())));
            Some((EntryMode::Symlink, blob.id(), Stored::Memory(blob)))
        }
        What::File { executable } => {
            let mode = if executable { EntryMode::Executable } else { EntryMode::Blob };
            Some((mode, hash_file(&path)?, Stored::File(path.clone())))
        }
    };
    Ok(Hashed { depth, path, object })
}

/// Files up to this size are read in one go.
const READ_WHOLE: u64 = 4 << 20;

fn hash_file(path: &Path) -> Result<ObjectId, DirectoryError> {
    let hash = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length > READ_WHOLE {
            return ObjectId::of_blob_from(&mut file, length);
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(ObjectId::of(ObjectKind::Blob, &content))
    };
    hash().map_err(io_error(path))
}

/// Makes trees from the leaves up.
fn build(path: &Path, hashed: Vec<Hashed>) -> Result<DirectoryObjects, DirectoryError> {
    let mut objects = HashMap::with_capacity(hashed.len());
    // The entries of the directories that are not complete yet, by depth: those of `path` itself at 0.
    let mut open: Vec<Vec<TreeEntry>> = vec![Vec::new()];
    // Backwards, so that everything in a directory comes before the directory itself.
    for Hashed { depth, path, object } in hashed.into_iter().rev() {
        open.resize_with(open.len().max(depth), Vec::new);
        let (mode, id, stored) = match object {
            Some(leaf) => leaf,
            None => {
                // What is deeper than this directory is what was in it.
                let entries = if open.len() > depth { open.pop().unwrap_or_default() } else { Vec::new() };
                if entries.is_empty() {
                    continue;
                }
                let tree = tree(&path, entries)?;
                (EntryMode::Tree, tree.id(), Stored::Memory(tree))
            }
        };
        objects.entry(id).or_insert(stored);
        let name: BString = path.file_name().map(bytes).unwrap_or_default().into();
        if let Some(parent) = open.get_mut(depth - 1) {
            parent.push(TreeEntry::new(name, mode, id));
        }
    }
    let tree = tree(path, open.into_iter().next().unwrap_or_default())?;
    let root = Outcome::of(&tree);
    objects.insert(root.id, Stored::Memory(tree));
    Ok(DirectoryObjects { root, objects })
}

fn tree(path: &Path, entries: Vec<TreeEntry>) -> Result<Object, DirectoryError> {
    let tree = Tree::new(entries).map_err(|source| DirectoryError::Refused { path: path.to_owned(), source })?;
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
