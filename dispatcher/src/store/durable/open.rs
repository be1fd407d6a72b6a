//! [`StoreOptions`] and [`OpenError`]: how a durable store is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::DurableStore;
use super::locks::{Listener, StoreWait};

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operating system reported an error.
    #[error("the store at {} cannot be opened", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Another process has the file open exclusively. Processes that use this version of Manifold
    /// share the file.
    #[error(
        "the store {} is in use by another process that does not share it; wait until it ends, or \
         use another directory",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was truncated or overwritten, or is not a store.
    #[error(
        "the store {} is damaged: {problem}; delete it, and its memoized outcomes are computed \
         again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
    /// The database cannot use the file, for example because the file system does not support
    /// locks.
    #[error("the store {} cannot be used: {problem}; try another directory", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The database's error message.
        problem: String,
    },
    /// The process that last wrote the file was killed. The file has to be repaired, which a
    /// read-only store cannot do.
    #[error(
        "the store {} must be opened for writing once before it can be opened read-only, because \
         the last process that wrote it was killed",
        path.display()
    )]
    Unfinished {
        /// The file.
        path: PathBuf,
    },
    /// The file is a store in a format that this version does not support.
    #[error(
        "the store {} has the format {found:?}, which this version cannot read; delete it, and its \
         memoized outcomes are computed again, or use another directory",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The name of the file's format.
        found: String,
    },
}

impl From<OpenError> for manifold_runtime_api::Error {
    fn from(error: OpenError) -> Self {
        let source = std::error::Error::source(&error)
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        Self::store(format!("{error}{source}"))
    }
}

/// Options for opening a [`DurableStore`].
#[derive(Debug, Clone)]
#[must_use]
pub struct StoreOptions {
    pub(super) group_time: Duration,
    pub(super) group_bytes: usize,
    pub(super) pending_bytes: usize,
    pub(super) hot_bytes: u64,
    pub(super) hot_entries: usize,
    pub(super) page_cache_bytes: usize,
    pub(super) check_up_to: u64,
    pub(super) read_only: bool,
    pub(super) until_exit: bool,
    pub(super) listener: Listener,
    pub(super) on_commit: OnCommit,
}

/// A commit of a [`DurableStore`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct StoreCommit {
    /// How long it took to write and to make durable.
    pub time: Duration,
    /// The size of the file afterwards in bytes.
    pub file_bytes: u64,
}

/// What is told of each commit.
#[derive(Clone, Default)]
pub(super) struct OnCommit(Option<Arc<CommitCallback>>);

type CommitCallback = dyn Fn(&StoreCommit) + Send + Sync;

impl OnCommit {
    /// Reports a commit that took `time`, if anything listens.
    pub(super) fn tell(&self, time: Duration, file: &Path) {
        if let Some(listener) = &self.0 {
            let file_bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
            listener(&StoreCommit { time, file_bytes });
        }
    }
}

impl std::fmt::Debug for OnCommit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnCommit").field(&self.0.is_some()).finish()
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            group_time: Duration::from_millis(200),
            group_bytes: 16 * MIB,
            pending_bytes: 64 * MIB,
            hot_bytes: 64 << 20,
            hot_entries: 100_000,
            page_cache_bytes: 64 * MIB,
            check_up_to: 4 << 20,
            read_only: false,
            until_exit: false,
            listener: Listener::default(),
            on_commit: OnCommit::default(),
        }
    }
}

impl StoreOptions {
    /// Sets how long writes are collected before they are committed together. A crash may lose the
    /// writes of this time. Default: 200 ms.
    pub fn group_time(mut self, time: Duration) -> Self {
        self.group_time = time;
        self
    }

    /// Sets how many bytes of writes are committed without waiting for the group time to pass. At
    /// most [`StoreOptions::pending_bytes()`]. Default: 16 MiB.
    pub fn group_bytes(mut self, bytes: usize) -> Self {
        self.group_bytes = bytes;
        self
    }

    /// Sets how many bytes of writes may wait to be committed. Beyond it writers block, or return
    /// an error while commits fail. Default: 64 MiB.
    pub fn pending_bytes(mut self, bytes: usize) -> Self {
        self.pending_bytes = bytes;
        self
    }

    /// Sets how many bytes of objects the memory tier keeps. Default: 64 MiB.
    pub fn hot_bytes(mut self, bytes: u64) -> Self {
        self.hot_bytes = bytes;
        self
    }

    /// Sets how many memo entries, and how many pins, the memory tier keeps. Default: 100,000, of
    /// about 100 bytes each.
    pub fn hot_entries(mut self, entries: usize) -> Self {
        self.hot_entries = entries;
        self
    }

    /// Sets how many bytes of the file's pages are cached in memory. Default: 64 MiB.
    pub fn page_cache_bytes(mut self, bytes: usize) -> Self {
        self.page_cache_bytes = bytes;
        self
    }

    /// Sets up to which size, in bytes, every page of the file is checked when it is opened. The
    /// check takes about a millisecond for 2.5 MB. Damage to a larger file is found when the
    /// damaged data is read, or by [`DurableStore::verify`]. Default: 4 MiB.
    pub fn check_up_to(mut self, bytes: u64) -> Self {
        self.check_up_to = bytes;
        self
    }

    /// Sets whether the store is opened read-only, as is necessary on a read-only file system or in
    /// another user's directory. Later commits of other processes are visible. Writes return an
    /// error, and lookups do not renew stamps. Default: `false`.
    ///
    /// After the last process that wrote the store was killed, the store must be opened for writing
    /// once before it can be opened read-only.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets whether the process ends soon after the store is dropped. The memory tier is then not freed,
    /// which can take some ten milliseconds. The file is closed as ever. Default: `false`.
    pub fn until_exit(mut self, until_exit: bool) -> Self {
        self.until_exit = until_exit;
        self
    }

    /// Sets a callback that is called once for each wait when this process has waited for another
    /// one for half a second. It may be called on any thread that uses the store. Default: no
    /// callback; the wait is only reported as a `tracing` event.
    pub fn on_wait(mut self, listener: impl Fn(&StoreWait) + Send + Sync + 'static) -> Self {
        self.listener = Listener(Some(Arc::new(listener)));
        self
    }

    /// Sets a callback that is called after each commit that succeeds, on the thread that commits.
    /// Default: no callback.
    pub fn on_commit(mut self, listener: impl Fn(&StoreCommit) + Send + Sync + 'static) -> Self {
        self.on_commit = OnCommit(Some(Arc::new(listener)));
        self
    }

    /// Opens the store in `directory`. Creates the directory and the file if they do not exist,
    /// unless the store is opened read-only.
    ///
    /// # Errors
    /// Returns an [`OpenError`] if the store cannot be opened or created.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<DurableStore, OpenError> {
        DurableStore::start(directory.as_ref(), &self)
    }
}
