//! [`GitObjects`]: the objects of a git repository, read with the fallbacks that git has.
//!
//! `gix-odb` gives up at the first place that lists an id, even if it is a stale multi-pack-index
//! or a broken pack, so the lookup over packs, loose objects and alternates is implemented here.

mod alternates;
mod deltas;
mod history;
mod packs;

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix_object::Kind;
use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, ObjectRef, Reason, Result};

use crate::source::ObjectSource;
use deltas::BaseCache;
pub use history::{Commit, History};
use packs::Packs;

/// The loose and packed objects of an existing git repository and its alternates. Read-only.
///
/// # Behavior
/// - Objects that are added to the repository later are found.
/// - An object that is read by an id has that id: replacement refs are not followed, and the
///   content is hashed.
/// - As with git, a copy that cannot be read is skipped while there is a sound one. This covers
///   truncated packs, missing packs that a stale multi-pack-index lists (multi-pack-indexes are not
///   used), and alternates that are missing, listed twice or form a cycle.
pub struct GitObjects {
    /// The object directory itself first, then its alternates.
    directories: Vec<ObjectDirectory>,
    bases: Arc<BaseCache>,
}

struct ObjectDirectory {
    path: PathBuf,
    loose: gix_odb::loose::Store,
    packs: Packs,
}

/// Why a copy of an object cannot be read.
type Problem = Box<dyn std::error::Error + Send + Sync>;

impl fmt::Debug for GitObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitObjects").field("directory", &self.directory()).finish_non_exhaustive()
    }
}

impl GitObjects {
    /// Opens an object directory and its alternates, or that of the repository at `directory`: a
    /// bare repository, or one with a work tree. A linked work tree or a submodule has its objects
    /// elsewhere, and `git rev-parse --git-path objects` prints the path.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`] if `directory` cannot be read, or is a linked work tree.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(directory, &[])
    }

    /// Opens an object directory, its alternates, and the additional alternates `more`, as git does
    /// with `GIT_ALTERNATE_OBJECT_DIRECTORIES`. Skips alternates that do not exist.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`] if `directory` cannot be read.
    pub fn open_with(directory: impl Into<PathBuf>, more: &[PathBuf]) -> Result<Self> {
        let directory = directory.into();
        let shown = directory.display().to_string();
        let failed = |error: &dyn Display| {
            Error::store(format!("cannot open {shown} as a git object directory: {error}"))
        };
        std::fs::read_dir(&directory).map_err(|error| failed(&error))?;
        if directory.join(".git").is_file() {
            let advice = "its objects are elsewhere; open the path that `git rev-parse --git-path \
                          objects` prints";
            return Err(failed(&advice));
        }
        // An object directory has neither of these.
        let candidates = [".git/objects", "objects"].map(|name| directory.join(name));
        let directory = candidates.into_iter().find(|path| path.is_dir()).unwrap_or(directory);
        let directories =
            alternates::resolve(&directory, more).into_iter().map(|path| ObjectDirectory {
                loose: gix_odb::loose::Store::at(path.clone(), gix_hash::Kind::Sha1),
                packs: Packs::of(&path),
                path,
            });
        Ok(Self { directories: directories.collect(), bases: Arc::default() })
    }

    /// Returns the path of the object directory.
    pub fn directory(&self) -> &Path {
        self.directories.first().map_or(Path::new(""), |directory| &directory.path)
    }

    /// Returns whether the repository has packs of a partial clone. A partial clone lacks objects
    /// of the repository from which it was cloned.
    pub fn is_partial(&self) -> bool {
        self.directories.iter().any(|directory| directory.packs.has_promisor_packs())
    }

    /// Resolves `id` to a tree or blob: a commit to its tree, a tag to its target, and a tree or
    /// blob to itself. Returns `None` if an object on the way is missing.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`] if an object on the way cannot be read.
    pub fn peel(&self, id: ObjectId) -> Result<Option<ObjectRef>> {
        let mut id = as_gix(id);
        loop {
            let Some((kind, content)) = self.find(&id)? else { return Ok(None) };
            let next = match kind {
                Kind::Blob => return from_gix(&id).map(|id| Some(ObjectRef::blob(id))),
                Kind::Tree => return from_gix(&id).map(|id| Some(ObjectRef::tree(id))),
                Kind::Commit => {
                    gix_object::CommitRefIter::from_bytes(&content, gix_hash::Kind::Sha1).tree_id()
                }
                Kind::Tag => {
                    gix_object::TagRefIter::from_bytes(&content, gix_hash::Kind::Sha1).target_id()
                }
            };
            id = next.map_err(|error| self.read_error(&id, error))?;
        }
    }

    /// Reads an object of any kind and verifies its id.
    fn find(&self, id: &gix_hash::oid) -> Result<Option<(Kind, Vec<u8>)>> {
        self.first_sound(id, &|copy| {
            let (kind, content) = match copy {
                ObjectCopy::Packed(packed) => {
                    packed.read(&self.bases, &|base| self.other_copy(base, packed))?
                }
                ObjectCopy::Loose(loose) => {
                    let mut buffer = Vec::new();
                    let Some(found) = loose.try_find(id, &mut buffer)? else { return Ok(None) };
                    (found.kind, found.data.to_vec())
                }
            };
            gix_object::Data::new(&content, kind, gix_hash::Kind::Sha1).verify_checksum(id)?;
            Ok(Some((kind, content)))
        })
    }

    /// Reads a copy of the object `id` from somewhere else than the pack of `broken`.
    fn other_copy(&self, id: &gix_hash::oid, broken: &packs::Packed) -> Option<(Kind, Vec<u8>)> {
        let read = |copy: ObjectCopy<'_>| match copy {
            ObjectCopy::Packed(packed) if packed.is_in_same_pack(broken) => Ok(None),
            // One step only: two broken packs could refer to each other without end.
            ObjectCopy::Packed(packed) => packed.read(&self.bases, &|_| None).map(Some),
            ObjectCopy::Loose(loose) => {
                let mut buffer = Vec::new();
                Ok(loose.try_find(id, &mut buffer)?.map(|found| (found.kind, found.data.to_vec())))
            }
        };
        self.first_sound(id, &read).ok().flatten()
    }

    /// Tries the copies of the object `id` one after the other until one can be read. If there is
    /// none, lists the packs again and repeats the search in object directories that have new
    /// packs.
    fn first_sound<T>(
        &self,
        id: &gix_hash::oid,
        read: &dyn Fn(ObjectCopy<'_>) -> Result<Option<T>, Problem>,
    ) -> Result<Option<T>> {
        let mut broken = None;
        let mut attempt = |copy: ObjectCopy<'_>, place: &dyn Display| match read(copy) {
            Ok(found) => found,
            Err(problem) => {
                tracing::warn!(%id, "cannot read a copy of the object in {place}: {problem}");
                broken.get_or_insert(problem);
                None
            }
        };
        for relist in [false, true] {
            for directory in &self.directories {
                if relist && !directory.packs.relist() {
                    continue;
                }
                for packed in directory.packs.copies_of(id) {
                    if let Some(found) =
                        attempt(ObjectCopy::Packed(&packed), &packed.path().display())
                    {
                        return Ok(Some(found));
                    }
                }
                if let Some(found) =
                    attempt(ObjectCopy::Loose(&directory.loose), &directory.path.display())
                {
                    return Ok(Some(found));
                }
            }
        }
        broken.map_or(Ok(None), |problem| Err(self.read_error(id, problem)))
    }

    fn read_error(&self, id: &gix_hash::oid, error: impl Display) -> Error {
        Error::store(format!(
            "cannot read object {id} from {}: {error}",
            self.directory().display()
        ))
    }
}

/// A place that may have a copy of an object.
#[derive(Clone, Copy)]
enum ObjectCopy<'a> {
    Packed(&'a packs::Packed),
    Loose(&'a gix_odb::loose::Store),
}

impl ObjectSource for GitObjects {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        let Some((kind, content)) = self.find(&as_gix(id))? else { return Ok(None) };
        Ok(Some(Object { kind: object_kind(id, kind)?, content: content.into() }))
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        let oid = as_gix(id);
        let kind = self.first_sound(&oid, &|copy| match copy {
            ObjectCopy::Packed(packed) => packed.kind(&self.bases).map(Some),
            ObjectCopy::Loose(loose) => Ok(loose.try_header(&oid)?.map(|(_, kind)| kind)),
        })?;
        kind.map(|kind| object_kind(id, kind)).transpose()
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        if self.kind(id)?.is_none() {
            return Ok(None);
        }
        let oid = as_gix(id);
        self.first_sound(&oid, &|copy| match copy {
            ObjectCopy::Packed(packed) => packed.size().map(Some),
            ObjectCopy::Loose(loose) => Ok(loose.try_header(&oid)?.map(|(size, _)| size)),
        })
    }
}

fn as_gix(id: ObjectId) -> gix_hash::ObjectId {
    gix_hash::ObjectId::from_bytes_or_panic(id.as_bytes())
}

fn from_gix(id: &gix_hash::oid) -> Result<ObjectId> {
    ObjectId::from_bytes(id.as_bytes()).map_err(Error::store)
}

fn object_kind(id: ObjectId, kind: Kind) -> Result<ObjectKind> {
    match kind {
        Kind::Blob => Ok(ObjectKind::Blob),
        Kind::Tree => Ok(ObjectKind::Tree),
        Kind::Commit | Kind::Tag => Err(wrong_kind(id, "tree", kind)),
    }
}

fn wrong_kind(id: ObjectId, expected: &'static str, found: Kind) -> Error {
    let found = match found {
        Kind::Blob => "blob",
        Kind::Tree => "tree",
        Kind::Commit => "commit",
        Kind::Tag => "tag",
    };
    Error::new(Reason::WrongKind { id, expected, found })
}
