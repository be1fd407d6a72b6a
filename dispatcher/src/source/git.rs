//! The objects of git repositories, read as git reads them.

mod alternates;
mod deltas;
mod packs;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix_object::Kind;
use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, Outcome, Reason, Result};

use crate::store::ObjectSource;
use deltas::Bases;
use packs::Packs;

/// The objects of an existing git repository: loose, packed, and those of its alternates. Nothing is written.
///
/// # Behavior
/// - Objects that come into the repository later are found.
/// - What is read under an id has that id: replacement refs are not followed, and content is hashed.
/// - As with git, a copy that cannot be read does no harm while there is a sound one: truncated packs, packs that a stale
///   multi-pack-index names (which is not looked at), alternates that are gone, that repeat themselves or form a cycle.
pub struct GitObjects {
    /// The object directory itself, then its alternates.
    directories: Vec<ObjectDirectory>,
    bases: Arc<Bases>,
}

struct ObjectDirectory {
    path: PathBuf,
    loose: gix_odb::loose::Store,
    packs: Packs,
}

/// Why a copy of an object cannot be read.
type Problem = Box<dyn std::error::Error + Send + Sync>;

impl GitObjects {
    /// Opens an object directory, which `git rev-parse --git-path objects` prints, and its alternates.
    ///
    /// # Errors
    /// `StoreFailed` when `directory` cannot be read as one.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(directory, &[])
    }

    /// Opens an object directory, its alternates and `more` of those, as git does with `GIT_ALTERNATE_OBJECT_DIRECTORIES`.
    ///
    /// # Errors
    /// `StoreFailed` when `directory` cannot be read as one. Alternates that are not there are passed over.
    pub fn open_with(directory: impl Into<PathBuf>, more: &[PathBuf]) -> Result<Self> {
        let directory = directory.into();
        let failed = |error: &dyn Display| {
            Error::store(format!(
                "{} cannot be opened as a git object directory: {error}",
                directory.display()
            ))
        };
        std::fs::read_dir(&directory).map_err(|error| failed(&error))?;
        let directories =
            alternates::all(&directory, more).into_iter().map(|path| ObjectDirectory {
                loose: gix_odb::loose::Store::at(path.clone(), gix_hash::Kind::Sha1),
                packs: Packs::of(&path),
                path,
            });
        Ok(Self { directories: directories.collect(), bases: Arc::default() })
    }

    /// The object directory.
    pub fn directory(&self) -> &Path {
        self.directories.first().map_or(Path::new(""), |directory| &directory.path)
    }

    /// Whether some of its packs are those of a partial clone, which lacks objects that the repository it was cloned from has.
    pub fn is_partial(&self) -> bool {
        self.directories.iter().any(|directory| directory.packs.is_any_promised())
    }

    /// The tree or blob that the object `id` stands for: the tree of a commit, what a tag names, or the object itself. `None` when
    /// one on the way is not here.
    ///
    /// # Errors
    /// `StoreFailed` when one on the way cannot be read.
    pub fn peel(&self, id: ObjectId) -> Result<Option<Outcome>> {
        let mut id = as_gix(id);
        loop {
            let Some((kind, content)) = self.find(&id)? else { return Ok(None) };
            let next = match kind {
                Kind::Blob => return from_gix(&id).map(|id| Some(Outcome::blob(id))),
                Kind::Tree => return from_gix(&id).map(|id| Some(Outcome::tree(id))),
                Kind::Commit => {
                    gix_object::CommitRefIter::from_bytes(&content, gix_hash::Kind::Sha1).tree_id()
                }
                Kind::Tag => {
                    gix_object::TagRefIter::from_bytes(&content, gix_hash::Kind::Sha1).target_id()
                }
            };
            id = next.map_err(|error| self.failed(&id, error))?;
        }
    }

    /// Reads an object of any kind.
    fn find(&self, id: &gix_hash::oid) -> Result<Option<(Kind, Vec<u8>)>> {
        self.first_sound(id, &|copy| {
            let (kind, content) = match copy {
                Copy::Packed(packed) => {
                    packed.read(&self.bases, &|base| self.elsewhere(base, packed))?
                }
                Copy::Loose(loose) => {
                    let mut buffer = Vec::new();
                    let Some(found) = loose.try_find(id, &mut buffer)? else { return Ok(None) };
                    (found.kind, found.data.to_vec())
                }
            };
            gix_object::Data::new(&content, kind, gix_hash::Kind::Sha1).verify_checksum(id)?;
            Ok(Some((kind, content)))
        })
    }

    /// Another copy of an object than the one that stands in a pack.
    fn elsewhere(&self, id: &gix_hash::oid, broken: &packs::Packed) -> Option<(Kind, Vec<u8>)> {
        let read = |copy: Copy<'_>| match copy {
            Copy::Packed(packed) if packed.is_of_the_pack_of(broken) => Ok(None),
            // No more than one step: two broken packs could send each other round in circles.
            Copy::Packed(packed) => packed.read(&self.bases, &|_| None).map(Some),
            Copy::Loose(loose) => {
                let mut buffer = Vec::new();
                Ok(loose.try_find(id, &mut buffer)?.map(|found| (found.kind, found.data.to_vec())))
            }
        };
        self.first_sound(id, &read).ok().flatten()
    }

    /// Tries one copy of the object `id` after the other, until one can be read.
    fn first_sound<T>(
        &self,
        id: &gix_hash::oid,
        read: &dyn Fn(Copy<'_>) -> Result<Option<T>, Problem>,
    ) -> Result<Option<T>> {
        let mut broken = None;
        let mut attempt = |copy: Copy<'_>, place: &dyn Display| match read(copy) {
            Ok(found) => found,
            Err(problem) => {
                tracing::warn!(%id, "a copy of the object in {place} cannot be read: {problem}");
                broken.get_or_insert(problem);
                None
            }
        };
        for looks_again in [false, true] {
            for directory in &self.directories {
                if looks_again && !directory.packs.look_again() {
                    continue;
                }
                for packed in directory.packs.copies_of(id) {
                    if let Some(found) = attempt(Copy::Packed(&packed), &packed.path().display()) {
                        return Ok(Some(found));
                    }
                }
                if let Some(found) =
                    attempt(Copy::Loose(&directory.loose), &directory.path.display())
                {
                    return Ok(Some(found));
                }
            }
        }
        broken.map_or(Ok(None), |problem| Err(self.failed(id, problem)))
    }

    fn failed(&self, id: &gix_hash::oid, error: impl Display) -> Error {
        Error::store(format!(
            "object {id} cannot be read from {}: {error}",
            self.directory().display()
        ))
    }
}

/// Where an object may be.
#[derive(Clone, Copy)]
enum Copy<'a> {
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
            Copy::Packed(packed) => packed.kind(&self.bases).map(Some),
            Copy::Loose(loose) => Ok(loose.try_header(&oid)?.map(|(_, kind)| kind)),
        })?;
        kind.map(|kind| object_kind(id, kind)).transpose()
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
        Kind::Commit => Err(neither(id, "commit")),
        Kind::Tag => Err(neither(id, "tag")),
    }
}

fn neither(id: ObjectId, found: &'static str) -> Error {
    Error::new(Reason::WrongKind { id, expected: ObjectKind::Tree, found })
}
