//! The input of a fold: a directory, or a revision of a git repository.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::{DirectoryObjects, ObjectSource, ScanOptions};
use manifold_runtime_api::ObjectRef;

use crate::args::{LeaveOutArgs, StoreArgs, UseArgs};
use crate::error::CliError;
use crate::progress::{Hashing, can_draw};
use crate::repository::Repository;
use crate::say::say;

/// The root object of an input, and the source that has it and everything below it.
#[derive(Clone)]
pub(crate) struct Input {
    pub(crate) root: ObjectRef,
    /// The number of nodes, if the scan has counted them.
    pub(crate) nodes: Option<u64>,
    pub(crate) source: Arc<dyn ObjectSource>,
    /// Whether the source is a partial clone, which lacks some objects.
    pub(crate) is_partial: bool,
}

impl UseArgs {
    /// Returns the options for reading directories.
    pub(crate) fn reading(&self) -> Result<ScanOptions, CliError> {
        let options = match self.store.reading() {
            Ok(options) if !self.no_store => options,
            // A command without a store leaves no files behind.
            _ => DirectoryObjects::options(),
        };
        Ok(options
            .largest_file(self.limits.largest_file())
            .largest_read(self.limits.limits().response_bytes)
            .rehash(self.rehash))
    }
}

impl LeaveOutArgs {
    /// Adds what is left out to the options for reading directories.
    pub(crate) fn apply(&self, reading: ScanOptions) -> ScanOptions {
        let reading = reading.gitignore(self.gitignore);
        self.exclude.iter().fold(reading, |reading, pattern| reading.exclude(pattern))
    }
}

impl StoreArgs {
    /// Returns the options for reading directories beside this store, where their indexes are. The
    /// store changes at every run. As a part of the input it would change every request.
    pub(crate) fn reading(&self) -> Result<ScanOptions, CliError> {
        let directory = self.directory()?;
        Ok(DirectoryObjects::options().without_store(&directory).index_in(directory))
    }
}

/// Hashes the directory or file at `path`, and shows how far that is.
pub(crate) fn directory(path: &Path, reading: &ScanOptions) -> Result<Input, CliError> {
    check_path(path)?;
    let bar = Hashing::new();
    let reading = reading.clone();
    let reading = if can_draw() { reading.on_progress(bar.listener()) } else { reading };
    let objects = reading.scan(path)?;
    drop(bar);
    if let [first, others @ ..] = objects.nested_repositories() {
        let others = match others.len() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        say(&format!(
            "note: files of nested git repositories are left out: {}{others}",
            first.display()
        ));
    }
    let (root, nodes) = (objects.root(), Some(objects.nodes()));
    let source = Arc::new(objects);
    // The process ends when the command does, and to free all records takes a while.
    std::mem::forget(Arc::clone(&source));
    Ok(Input { root, nodes, source, is_partial: false })
}

/// Returns the metadata of `path`. Distinguishes a missing path from one that cannot be accessed.
pub(crate) fn check_path(path: &Path) -> Result<fs::Metadata, CliError> {
    fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CliError::NoSuchPath { path: path.to_owned() },
        _ => CliError::Unreadable { path: path.to_owned(), source },
    })
}

/// Resolves `rev` in the repository around `path`.
pub(crate) fn revision(path: &Path, rev: &str) -> Result<Input, CliError> {
    let repository = Repository::for_reading(path)?;
    let objects = repository.objects()?;
    let root = repository.resolve(rev, &objects)?;
    let is_partial = objects.is_partial();
    Ok(Input { root, nodes: None, source: Arc::new(objects), is_partial })
}
