//! [`ScanOptions`]: scans a directory, with the index of the last scan.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use manifold_runtime_api::{ObjectId, ObjectRef};
use parking_lot::Mutex;

use super::error::{DirectoryError, io_error};
use super::git_index::GitIndex;
use super::index::{IndexFile, Records};
use super::nested::OuterRepository;
use super::progress::{Listener, Reporter, ScanProgress};
use super::record::Record;
use super::rules::ScanRules;
use super::stat::Young;
use super::visit::{Directory, Job, Outcome, Scan};
use super::{Content, DirectoryObjects, files, workers};

/// Options for scanning a directory.
#[derive(Debug, Clone)]
#[must_use]
pub struct ScanOptions {
    stores: Vec<PathBuf>,
    largest_file: u64,
    largest_read: u64,
    excluded: Vec<String>,
    ignores: bool,
    index: Option<PathBuf>,
    rehash: bool,
    tick: Duration,
    listener: Option<Listener>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            stores: Vec::new(),
            largest_file: 16 << 30,
            largest_read: u64::MAX,
            excluded: Vec::new(),
            ignores: false,
            index: None,
            rehash: false,
            tick: Young::TICK,
            listener: None,
        }
    }
}

impl ScanOptions {
    /// Leaves out the files of the [`crate::DurableStore`] in `directory` and what is cached beside
    /// it (indexes, compiled modules), if they are below the scanned directory. They change whenever
    /// an outcome is memoized.
    pub fn without_store(mut self, directory: impl Into<PathBuf>) -> Self {
        self.stores.push(directory.into());
        self
    }

    /// Leaves out what matches `pattern`, a line of a `.gitignore` file in the scanned directory
    /// (`*.log`, `/target/`, `docs/**/*.pdf`). Of several patterns that match, the last one counts,
    /// and `!` before a pattern keeps what matches. What is left out is no part of the tree, and so
    /// of its id.
    ///
    /// A text that is no pattern, such as a comment, is an error of [`Self::scan`].
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.excluded.push(pattern.into());
        self
    }

    /// Sets whether files are left out that git ignores: those that match a pattern of a `.gitignore`
    /// file, of `info/exclude` in the repository, or of the user's file of patterns
    /// (`core.excludesFile`), unless they are tracked. The tree is that of a commit after
    /// `git add --all`. Default: no file is ignored.
    ///
    /// The scanned directory itself counts as not ignored. Without a repository around it, the
    /// `.gitignore` files in it count, and the user's. [`Self::exclude`] counts before all of them, but
    /// as in git, what is in a directory that is left out cannot be kept. Without the feature `git`, tracked files
    /// are not known.
    pub fn gitignore(mut self, ignores: bool) -> Self {
        self.ignores = ignores;
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

    /// Keeps an index file for each scanned directory in `place`. A later scan of the directory
    /// reads only the files that have changed since, judged by length, mode, inode, device, and the
    /// times of the last modification and change. Default: no index.
    ///
    /// A first scan uses the index of the git repository around the directory, as far as its files
    /// have not changed since git hashed them, and unless git may convert files (attributes,
    /// `core.autocrlf`).
    ///
    /// A file that changed less than two seconds before a scan is read again by the next one,
    /// because its times may not tell whether it changed once more. Changes that leave the times of
    /// a file as they are, which needs a changed clock, can go unnoticed; see [`Self::rehash`].
    ///
    /// The files belong to the user, and only the user can read them. Damaged ones and those of other
    /// users are ignored. They are left out of directories that are scanned with the same option.
    /// When they take more than a gibibyte, those that were not used for the longest time are
    /// removed. If one cannot be written, the next scan hashes everything. Where the platform does
    /// not tell when a file was changed, all files are read.
    pub fn index_in(mut self, place: impl Into<PathBuf>) -> Self {
        self.index = Some(place.into());
        self
    }

    /// Sets whether every file is hashed, whatever the index says. The index is written anew.
    pub fn rehash(mut self, rehash: bool) -> Self {
        self.rehash = rehash;
        self
    }

    /// Sets the tick of the file system's clock. For tests, which cannot wait for files to be old.
    #[doc(hidden)]
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// Calls `listener` about twenty times a second while files are hashed, from a thread of the
    /// scan.
    pub fn on_progress(mut self, listener: impl Fn(ScanProgress) + Send + Sync + 'static) -> Self {
        self.listener = Some(Listener(Arc::new(listener)));
        self
    }

    /// Scans the directory `path` and hashes its files on all cores. If `path` is a file, the result
    /// is a single blob. If `path` itself is a symbolic link, it is followed.
    ///
    /// # Errors
    /// Returns a [`DirectoryError`] for a file or directory that cannot be read or stored.
    pub fn scan(&self, path: &Path) -> Result<DirectoryObjects, DirectoryError> {
        let canonical = path.canonicalize().map_err(io_error(path))?;
        let metadata = fs::metadata(&canonical).map_err(io_error(path))?;
        if metadata.is_file() {
            return self.scan_file(path, canonical);
        }
        if !metadata.is_dir() {
            return Err(DirectoryError::Special { path: path.to_owned() });
        }
        let rules = ScanRules::new(&canonical, &self.excluded, self.ignores)?;
        let left_out = self.left_out();
        let file = self.index.as_ref().map(|place| IndexFile::new(place, &canonical, &left_out));
        let old = match &file {
            Some(file) if !self.rehash => file.load(),
            _ => None,
        };
        let Scanned { outcome, nested, hashed } =
            self.scan_directory(path, &canonical, rules, old.as_ref())?;
        let records = match (outcome, old) {
            (Some(Outcome::Unchanged(_)), Some(old)) => old,
            (Some(Outcome::Changed(records)), _) => {
                if let Some(file) = file {
                    file.save(&records);
                }
                records
            }
            _ => return Err(DirectoryError::Changing { path: path.to_owned() }),
        };
        let tree = Record::at(&records.body, records.root).and_then(|record| record.head.tree);
        let root = ObjectRef::tree(tree.unwrap_or_else(ObjectId::empty_tree));
        let content = Content::new(path, records);
        Ok(DirectoryObjects { root, content, nested, hashed, largest_read: self.largest_read })
    }

    /// Returns what distinguishes the scans of a directory that leave out different things. Empty
    /// for a scan that leaves out nothing.
    fn left_out(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.ignores {
            bytes.push(0);
        }
        for pattern in &self.excluded {
            bytes.push(b'\n');
            bytes.extend_from_slice(pattern.as_bytes());
        }
        bytes
    }

    fn scan_directory(
        &self,
        path: &Path,
        canonical: &Path,
        rules: Option<ScanRules>,
        old: Option<&Records>,
    ) -> Result<Scanned, DirectoryError> {
        let canonical_of = |path: &PathBuf| path.canonicalize().ok();
        let scan = Scan {
            root: path,
            canonical,
            stores: self.stores.iter().filter_map(canonical_of).collect(),
            indexes: self.index.as_ref().and_then(canonical_of),
            rules,
            largest_file: self.largest_file,
            old,
            git_index: if old.is_none() && self.index.is_some() && !self.rehash {
                GitIndex::around(canonical)
            } else {
                None
            },
            young: Young::now(self.tick),
            reporter: Reporter::new(self.listener.clone()),
            outer: Mutex::new(OuterRepository::around(canonical)),
            nested: Mutex::default(),
            error: Mutex::default(),
            has_failed: AtomicBool::new(false),
            outcome: Mutex::default(),
        };
        let root = Directory::root(path, old.map(|old| old.root), scan.rules.as_ref());
        workers::run(Job::List(root), |job, jobs| scan.work(job, jobs));
        if let Some(error) = scan.error.into_inner() {
            return Err(error);
        }
        let mut nested = scan.nested.into_inner();
        nested.sort_unstable();
        let hashed = scan.reporter.progress().hashed_files;
        Ok(Scanned { outcome: scan.outcome.into_inner(), nested, hashed })
    }

    fn scan_file(
        &self,
        path: &Path,
        canonical: PathBuf,
    ) -> Result<DirectoryObjects, DirectoryError> {
        let changing = || DirectoryError::Changing { path: path.to_owned() };
        // Files are opened without following links, so the link is resolved here.
        let path = if path.is_symlink() { canonical } else { path.to_owned() };
        let hashed =
            files::hash(&path, self.largest_file, &mut Vec::new())?.ok_or_else(changing)?;
        let (root, length) = (ObjectRef::blob(hashed.id), hashed.length);
        let content = Content::File { path, id: hashed.id, length };
        let largest_read = self.largest_read;
        Ok(DirectoryObjects { root, content, nested: Vec::new(), hashed: 1, largest_read })
    }
}

/// What a scan found.
struct Scanned {
    outcome: Option<Outcome>,
    nested: Vec<PathBuf>,
    /// The number of files that were hashed.
    hashed: u64,
}
