//! Waiting for other processes on the store's file, and saying so.

use std::collections::Bound;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Another process holds a store, and this one has waited for it for half a second.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreWait {
    /// The store's file.
    pub file: PathBuf,
    /// Who holds it; `None` where the system does not say, as for processes of other users.
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

type Tell = dyn Fn(&StoreWait) + Send + Sync;

/// Whom to tell of waiting.
#[derive(Clone, Default)]
pub(super) struct Listener(pub(super) Option<Arc<Tell>>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Listener" } else { "None" })
    }
}

/// How long a wait is nothing to talk about.
const PATIENCE: Duration = Duration::from_millis(500);

/// A file whose locks say when they are waited for.
#[derive(Debug)]
pub(super) struct TalkingFile {
    file: FileBackend,
    path: PathBuf,
    listener: Listener,
}

impl TalkingFile {
    pub(super) fn open(path: &Path, new: bool, listener: Listener) -> Result<Self, redb::Error> {
        let file = File::options().read(true).write(true).create(new).truncate(false).open(path)?;
        Ok(Self { file: FileBackend::new(file)?, path: path.to_owned(), listener })
    }

    fn wait(
        &self,
        start: Bound<u64>,
        attempt: impl Fn() -> Result<bool, BackendError>,
        wait: impl FnOnce() -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let since = Instant::now();
        let mut pause = Duration::from_micros(50);
        while since.elapsed() < PATIENCE {
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
        let waits = StoreWait { file: self.path.clone(), holder: holder(&self.path, byte) };
        tracing::warn!("{waits}");
        if let Some(listener) = &self.listener.0 {
            listener(&waits);
        }
        wait()
    }
}

impl StorageBackend for TalkingFile {
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

/// The process that has locked `byte` of `file` for writing. Linux tells of the locks that belong to open files nowhere but with those files:
/// in `/proc/<process>/fdinfo/<number>` (`proc_pid_fdinfo(5)`).
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
            info.lines().any(|line| is_lock_of(line, byte))
                && identity(&process.join("fd").join(&number)) == Some(wanted)
        })
    })
}

#[cfg(not(target_os = "linux"))]
fn holder(_: &Path, _: u64) -> Option<u32> {
    None
}

/// Whether `line` is a lock for writing that covers `byte`, such as `lock: 1: OFDLCK ADVISORY WRITE -1 fe:00:1234 0 319`.
#[cfg(target_os = "linux")]
fn is_lock_of(line: &str, byte: u64) -> bool {
    let fields: Vec<_> = line.split_whitespace().collect();
    let ["lock:", _, "OFDLCK", _, "WRITE", _, _, start, end] = fields[..] else { return false };
    let end = if end == "EOF" { Ok(u64::MAX) } else { end.parse() };
    matches!((start.parse(), end), (Ok(start), Ok(end)) if (start..=end).contains(&byte))
}
