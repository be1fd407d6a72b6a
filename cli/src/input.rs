//! What is folded: a directory, or a revision of a repository.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::{DirectoryObjects, GitObjects, ObjectSource};
use manifold_runtime_api::{IdError, ObjectId, Outcome};

use crate::error::CliError;

/// An object, and where it and all below it can be read.
pub(crate) struct Input {
    pub(crate) root: Outcome,
    pub(crate) source: Arc<dyn ObjectSource>,
}

pub(crate) fn directory(path: &Path) -> Result<Input, CliError> {
    check_path(path)?;
    let objects = DirectoryObjects::scan(path)?;
    Ok(Input { root: objects.root(), source: Arc::new(objects) })
}

/// Tells a path that is not there from one that cannot be reached.
fn check_path(path: &Path) -> Result<fs::Metadata, CliError> {
    fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CliError::NoSuchPath { path: path.to_owned() },
        _ => CliError::Unreadable { path: path.to_owned(), source },
    })
}

pub(crate) fn revision(path: &Path, rev: &str) -> Result<Input, CliError> {
    let repository = open(path)?;
    let no_such = |source: Box<dyn std::error::Error + Send + Sync>| CliError::NoSuchRevision {
        rev: rev.to_owned(),
        path: path.to_owned(),
        source,
    };
    let object = repository
        .rev_parse_single(rev)
        .map_err(|error| no_such(error.into()))?
        .object()
        .map_err(|error| no_such(error.into()))?;
    let object = object.peel_tags_to_end().map_err(|error| no_such(error.into()))?;
    let (id, is_blob) = match object.kind {
        gix::object::Kind::Blob => (object.id, true),
        _ => (object.peel_to_tree().map_err(|error| no_such(error.into()))?.id, false),
    };
    let id = ObjectId::from_bytes(id.as_slice()).map_err(|error: IdError| no_such(error.into()))?;
    let root = if is_blob { Outcome::blob(id) } else { Outcome::tree(id) };
    Ok(Input { root, source: Arc::new(objects(&repository)?) })
}

/// The objects of the repository at `path`.
pub(crate) fn repository(path: &Path) -> Result<GitObjects, CliError> {
    objects(&open(path)?)
}

/// Opens the repository around `path`, which may be a file in it.
pub(crate) fn open(path: &Path) -> Result<gix::Repository, CliError> {
    let is_dir = check_path(path)?.is_dir();
    let absolute = path.canonicalize().map_err(|source| CliError::Unreadable { path: path.to_owned(), source })?;
    let directory = if is_dir { &absolute } else { absolute.parent().unwrap_or(&absolute) };
    gix::discover::upwards(directory)
        .map_err(|error| CliError::NotARepository { path: path.to_owned(), source: error.into() })?;
    gix::discover(directory).map_err(|error| CliError::Repository { path: path.to_owned(), source: error.into() })
}

fn objects(repository: &gix::Repository) -> Result<GitObjects, CliError> {
    Ok(GitObjects::open(repository.objects.store_ref().path())?)
}
