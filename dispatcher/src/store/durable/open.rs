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
    /// The operating system refuses.
    #[error("the store at {} cannot be opened", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the file for itself. Processes with this version of Manifold share it.
    #[error(
        "the store {} is in use by another process that does not share it; wait for it, or use another directory",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was cut short, overwritten, or is no store at all.
    #[error(
        "the store {} is damaged: {problem}; delete it, and what it remembered is computed again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// The database refuses for a reason of its own: a file system without locks, for instance.
    #[error("the store {} cannot be used: {problem}; another directory may do", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The database's words.
        problem: String,
    },
    /// The process that wrote the file last was killed, and whoever only reads cannot finish what it began.
    #[error("the store {} has to be opened for writing once, because its last process was killed", path.display())]
    Unfinished {
        /// The file.
        path: PathBuf,
    },
    /// The file is a store in another format.
    #[error("the store {} has the format {found:?}, which this version does not read; use another directory", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format's name.
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

/// A [`DurableStore`] whose settings are still being chosen.
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
    pub(super) listener: Listener,
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
            check_up_to: 32 << 20,
            read_only: false,
            listener: Listener::default(),
        }
    }
}

impl StoreOptions {
    /// How long writes are gathered before they are committed together: what a crash may lose. Default: 200 ms.
    pub fn group_time(mut self, time: Duration) -> Self {
        self.group_time = time;
        self
    }

    /// How many bytes of writes are committed at once, however recent, if no more may wait. Default: 16 MiB.
    pub fn group_bytes(mut self, bytes: usize) -> Self {
        self.group_bytes = bytes;
        self
    }

    /// How many bytes may wait to be committed before writers have to wait, too, or are refused while commits fail. Default:
    /// 64 MiB.
    pub fn pending_bytes(mut self, bytes: usize) -> Self {
        self.pending_bytes = bytes;
        self
    }

    /// How many bytes of objects are kept in memory in front of the file. Default: 64 MiB.
    pub fn hot_bytes(mut self, bytes: u64) -> Self {
        self.hot_bytes = bytes;
        self
    }

    /// How many memo entries are kept in memory in front of the file. Default: 100,000, of some 100 bytes each.
    pub fn hot_entries(mut self, entries: usize) -> Self {
        self.hot_entries = entries;
        self
    }

    /// How many bytes of the file's pages are kept in memory. Default: 64 MiB.
    pub fn page_cache_bytes(mut self, bytes: usize) -> Self {
        self.page_cache_bytes = bytes;
        self
    }

    /// Checks every page of a file up to this size when it is opened, some 2.5 MB in a millisecond. Damage to a larger one is
    /// found when it is met, or by [`DurableStore::verify`]. Default: 32 MiB.
    pub fn check_up_to(mut self, bytes: u64) -> Self {
        self.check_up_to = bytes;
        self
    }

    /// Opens the store for reading alone, as it has to be on a file system that is read-only or in somebody else's directory. What
    /// others commit later is found. Writing is an error, and that something was used is not noted. Default: no.
    ///
    /// A store whose last process was killed cannot be opened so until it was opened for writing once.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Tells `listener` when this process has waited for another one for half a second, once for each wait. It may be called on any
    /// thread that uses the store. Default: only a `tracing` event tells.
    pub fn on_wait(mut self, listener: impl Fn(&StoreWait) + Send + Sync + 'static) -> Self {
        self.listener = Listener(Some(Arc::new(listener)));
        self
    }

    /// Opens the store in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(self, directory: impl AsRef<Path>) -> Result<DurableStore, OpenError> {
        DurableStore::start(directory.as_ref(), &self)
    }
}
