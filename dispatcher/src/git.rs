use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix_odb::find::Header;
use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, Reason, Result};
use parking_lot::Mutex;

use crate::store::ObjectSource;

/// The objects of an existing git repository: loose, packed, and those of its alternates. Nothing is written.
///
/// Objects that come into the repository later are found. Replacement refs are not followed: what is read under an id has
/// that id.
pub struct GitObjects {
    directory: PathBuf,
    store: Arc<gix_odb::Store>,
    /// A handle serves one thread at a time, and keeps packs and indices open between reads.
    idle: Mutex<Vec<gix_odb::HandleArc>>,
}

impl GitObjects {
    /// Opens an object directory: what `git rev-parse --git-path objects` prints.
    ///
    /// # Errors
    /// `StoreFailed` when `directory` cannot be read as one.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        let failed = |error: &dyn Display| {
            Error::store(format!("{} cannot be opened as a git object directory: {error}", directory.display()))
        };
        std::fs::read_dir(&directory).map_err(|error| failed(&error))?;
        let hash = gix_hash::Kind::Sha1;
        let store = gix_odb::Store::at_opts(directory.clone(), hash, &mut std::iter::empty(), Default::default())
            .map_err(|error| failed(&error))?;
        Ok(Self { store: Arc::new(store), directory, idle: Mutex::default() })
    }

    /// The object directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn with_handle<T>(&self, use_handle: impl FnOnce(&gix_odb::HandleArc) -> T) -> T {
        let idle = self.idle.lock().pop();
        let handle = idle.unwrap_or_else(|| self.store.to_cache_arc());
        let answer = use_handle(&handle);
        self.idle.lock().push(handle);
        answer
    }

    fn failed(&self, id: ObjectId, error: impl Display) -> Error {
        Error::store(format!("object {id} cannot be read from {}: {error}", self.directory.display()))
    }
}

impl ObjectSource for GitObjects {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        let mut content = Vec::new();
        let found = self.with_handle(|handle| {
            let found = gix_object::Find::try_find(handle, &as_gix(id), &mut content);
            found.map(|data| data.map(|data| data.kind)).map_err(|error| self.failed(id, error))
        })?;
        let Some(kind) = found else { return Ok(None) };
        Ok(Some(Object { kind: object_kind(id, kind)?, content: content.into() }))
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        let header = self
            .with_handle(|handle| gix_odb::Header::try_header(handle, &as_gix(id)))
            .map_err(|error| self.failed(id, error))?;
        header.map(|header: Header| object_kind(id, header.kind())).transpose()
    }
}

fn as_gix(id: ObjectId) -> gix_hash::ObjectId {
    gix_hash::ObjectId::from_bytes_or_panic(id.as_bytes())
}

fn object_kind(id: ObjectId, kind: gix_object::Kind) -> Result<ObjectKind> {
    match kind {
        gix_object::Kind::Blob => Ok(ObjectKind::Blob),
        gix_object::Kind::Tree => Ok(ObjectKind::Tree),
        gix_object::Kind::Commit => Err(neither(id, "commit")),
        gix_object::Kind::Tag => Err(neither(id, "tag")),
    }
}

fn neither(id: ObjectId, found: &'static str) -> Error {
    Error::new(Reason::WrongKind { id, expected: ObjectKind::Tree, found })
}
