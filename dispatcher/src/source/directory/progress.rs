//! [`ScanProgress`]: how far a scan is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How far a scan is. The numbers of files that are to be hashed grow until all directories are
/// listed, which is done first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ScanProgress {
    /// The number of files that were found and have to be hashed. Files that are known from an index
    /// need not.
    pub files: u64,
    /// How many of them are hashed.
    pub hashed_files: u64,
    /// The length of the files that have to be hashed, in bytes.
    pub bytes: u64,
    /// The length of those that are hashed, in bytes.
    pub hashed_bytes: u64,
}

/// A function that is told how far a scan is.
#[derive(Clone)]
pub(super) struct Listener(pub(super) Arc<dyn Fn(ScanProgress) + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// Counts, and tells the listener now and then.
pub(super) struct Reporter {
    listener: Option<Listener>,
    told: Mutex<Instant>,
    files: AtomicU64,
    hashed_files: AtomicU64,
    bytes: AtomicU64,
    hashed_bytes: AtomicU64,
}

impl Reporter {
    pub(super) fn new(listener: Option<Listener>) -> Self {
        Self {
            listener,
            told: Mutex::new(Instant::now()),
            files: AtomicU64::new(0),
            hashed_files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            hashed_bytes: AtomicU64::new(0),
        }
    }

    /// Returns whether there is a listener.
    pub(super) fn is_heard(&self) -> bool {
        self.listener.is_some()
    }

    pub(super) fn found(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn hashed(&self, bytes: u64) {
        self.hashed_files.fetch_add(1, Ordering::Relaxed);
        self.hashed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tells the listener, unless that was done a moment ago.
    pub(super) fn report(&self) {
        const INTERVAL: Duration = Duration::from_millis(50);
        let Some(Listener(listener)) = &self.listener else { return };
        let Some(mut told) = self.told.try_lock() else { return };
        if told.elapsed() >= INTERVAL {
            *told = Instant::now();
            listener(self.progress());
        }
    }

    pub(super) fn progress(&self) -> ScanProgress {
        ScanProgress {
            hashed_files: self.hashed_files.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
            hashed_bytes: self.hashed_bytes.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
