//! [`ScanOptions`]: walks a directory, hashes its files on all cores, and builds its trees.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use manifold_runtime_api::ObjectRef;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::error::{DirectoryError, io_error};
use super::trees::{self, Stored};
use super::walk::{self, Found, FoundKind};
use super::{DirectoryObjects, files};

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
        let found = walk::walk(path, &canonical, &stores)?;
        let nested = found.iter().filter(|found| matches!(found.kind, FoundKind::Nested(_)));
        let nested = nested.map(|found| found.path.clone()).collect();
        let hash = |found: Found| trees::hash(found, self.largest_file).transpose();
        let hashed: Result<Vec<_>, _> = match hash_pool() {
            Some(pool) => pool.install(|| found.into_par_iter().filter_map(hash).collect()),
            None => found.into_iter().filter_map(hash).collect(),
        };
        let (root, objects) = trees::build(path, hashed?)?;
        Ok(DirectoryObjects { root, objects, nested, largest_read: self.largest_read })
    }
}

/// Returns the threads that hash files, or `None` if they cannot be started.
fn hash_pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let name = |number| format!("manifold-hash-{number}");
    POOL.get_or_init(|| ThreadPoolBuilder::new().thread_name(name).build().ok()).as_ref()
}
