//! What is folded: a directory, or a revision of a repository.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::{DirectoryObjects, ObjectSource, ScanOptions};
use manifold_runtime_api::Outcome;

use crate::args::UseArgs;
use crate::error::CliError;
use crate::repository::Repository;
use crate::say::say;

/// An object, and where it and all below it can be read.
pub(crate) struct Input {
    pub(crate) root: Outcome,
    pub(crate) source: Arc<dyn ObjectSource>,
    /// Whether it comes from a clone that has not all of its objects.
    pub(crate) is_partial: bool,
}

impl UseArgs {
    /// How directories are read.
    pub(crate) fn reading(&self) -> Result<ScanOptions, CliError> {
        let options = DirectoryObjects::options()
            .largest_file(self.limits.largest_file())
            .largest_read(self.limits.limits().response_bytes);
        // The store is no part of the input.
        Ok(match self.store.directory() {
            Ok(directory) if !self.no_store => options.without_store(directory),
            _ => options,
        })
    }
}

pub(crate) fn directory(path: &Path, reading: &ScanOptions) -> Result<Input, CliError> {
    check_path(path)?;
    let objects = reading.scan(path)?;
    if let [first, others @ ..] = objects.nested_repositories() {
        let others = match others.len() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        say(&format!(
            "note: files of other git repositories inside are left out: {}{others}",
            first.display()
        ));
    }
    Ok(Input { root: objects.root(), source: Arc::new(objects), is_partial: false })
}

/// Tells a path that is not there from one that cannot be reached.
pub(crate) fn check_path(path: &Path) -> Result<fs::Metadata, CliError> {
    fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => CliError::NoSuchPath { path: path.to_owned() },
        _ => CliError::Unreadable { path: path.to_owned(), source },
    })
}

pub(crate) fn revision(path: &Path, rev: &str) -> Result<Input, CliError> {
    let repository = Repository::for_reading(path)?;
    let objects = repository.objects()?;
    let root = repository.resolve(rev, &objects)?;
    let is_partial = objects.is_partial();
    Ok(Input { root, source: Arc::new(objects), is_partial })
}
