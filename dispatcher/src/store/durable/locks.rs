//! [`ReportingFile`]: a database backend that reports when it waits for another process's lock on
//! the store's file, and which process holds it.
//!
//! The database's own way to open a file has no hook for this, so it is given this backend.

use std::collections::Bound;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Reports that this process has waited for half a second for another process's lock on a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreWait {
    /// The path of the store's file.
    pub file: PathBuf,
    /// The id of the process that holds the store. `None` if the operating system does not report
    /// it, as for processes of other users.
    pub holder: Option<u32>,
}

impl fmt::Display for StoreWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holder {
            Some(process) => write!(
                f,
                "waiting for process {process}, which holds the store {}",
                self.file.display()
            ),
            None => write!(
                f,
                "waiting for another process, which holds the store {}",
                self.file.display()
            ),
        }
    }
}

type WaitCallback = dyn Fn(&StoreWait) + Send + Sync;

/// The callback that a wait is reported to, if there is one.
#[derive(Clone, Default)]
pub(super) struct Listener(pub(super) Option<Arc<WaitCallback>>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Listener" } else { "None" })
    }
}

/// How long a wait lasts before it is reported.
const REPORT_AFTER: Duration = Duration::from_millis(500);

/// A file whose locks report when they are waited for.
#[derive(Debug)]
pub(super) struct ReportingFile {
    file: FileBackend,
    path: PathBuf,
    listener: Listener,
}

impl ReportingFile {
    pub(super) fn open(path: &Path, new: bool, listener: Listener) -> Result<Self, redb::Error> {
        let file = File::options().read(true).write(true).create(new).truncate(false).open(path)?;
        Ok(Self { file: FileBackend::new(file)?, path: path.to_owned(), listener })
    }

    /// Retries `attempt` for [`REPORT_AFTER`]. Then reports the wait and blocks in `wait`. `start`
    /// is the beginning of the range to be locked.
    fn wait(
        &self,
        start: Bound<u64>,
        attempt: impl Fn() -> Result<bool, BackendError>,
        wait: impl FnOnce() -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let since = Instant::now();
        let mut pause = Duration::from_micros(50);
        while since.elapsed() < REPORT_AFTER {
            if attempt()? {
                return Ok(());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        let byte = match start {
            Bound::Included(byte) => byte,
            Bound::Excluded(byte) => byte.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let report = StoreWait { file: self.path.clone(), holder: holder(&self.path, byte) };
        tracing::warn!("{report}");
        if let Some(listener) = &self.listener.0 {
            listener(&report);
        }
        wait()
    }
}

impl StorageBackend for ReportingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.wait(
            start,
            || self.file.try_lock_range(start, end),
            || self.file.lock_range(start, end),
        )
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.wait(
            start,
            || self.file.try_lock_shared_range(start, end),
            || self.file.lock_shared_range(start, end),
        )
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// Returns the process that holds a write lock on `byte` of `file`. Linux lists the locks that
/// belong to an open file only with that file, in `/proc/<process>/fdinfo/<number>`
/// (`proc_pid_fdinfo(5)`).
#[cfg(target_os = "linux")]
fn holder(file: &Path, byte: u64) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let identity =
        |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let wanted = identity(file)?;
    let numbers = |directory: PathBuf| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
    };
    numbers("/proc".into()).find(|process| {
        let process = Path::new("/proc").join(process.to_string());
        numbers(process.join("fdinfo")).any(|number| {
            let number = number.to_string();
            let info = fs::read_to_string(process.join("fdinfo").join(&number)).unwrap_or_default();
            info.lines().any(|line| is_write_lock_on(line, byte))
                && identity(&process.join("fd").join(&number)) == Some(wanted)
        })
    })
}

#[cfg(not(target_os = "linux"))]
fn holder(_: &Path, _: u64) -> Option<u32> {
    None
}

/// Returns whether `line` describes a write lock that covers `byte`, such as
/// `lock: 1: OFDLCK ADVISORY WRITE -1 fe:00:1234 0 319`.
#[cfg(target_os = "linux")]
fn is_write_lock_on(line: &str, byte: u64) -> bool {
    let fields: Vec<_> = line.split_whitespace().collect();
    let ["lock:", _, "OFDLCK", _, "WRITE", _, _, start, end] = fields[..] else { return false };
    let end = if end == "EOF" { Ok(u64::MAX) } else { end.parse() };
    matches!((start.parse(), end), (Ok(start), Ok(end)) if (start..=end).contains(&byte))
}
