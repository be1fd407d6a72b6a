#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// How the names of all files of a [`CachedFiles`] begin. Who reads a directory that contains some
/// can leave them out by it.
pub const PREFIX: &str = "manifold-cached-";

/// The files of one kind in a directory.
///
/// Several processes may use the same directory at the same time.
#[derive(Debug, Clone)]
pub struct CachedFiles {
    directory: PathBuf,
    kind: &'static str,
    max_bytes: u64,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How the temporary names of files that are being written end.
const UNFINISHED: &str = ".new";

impl CachedFiles {
    /// The files of `kind`, whose name also has the version of their format, in `directory`. When
    /// they take more than `max_bytes` bytes, those that were not used for the longest time are
    /// removed.
    pub fn new(directory: impl Into<PathBuf>, kind: &'static str, max_bytes: u64) -> Self {
        Self { directory: directory.into(), kind, max_bytes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{PREFIX}{}-{name}", self.kind))
    }

    /// Reads the file `name`. Returns `None` if there is none, or if it is damaged, may be another
    /// user's, or cannot be read.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        match self.try_read(name, &path) {
            Ok(content) => Some(content),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!("{} is not used: {error}", path.display());
                }
                None
            }
        }
    }

    fn try_read(&self, name: &str, path: &Path) -> io::Result<Vec<u8>> {
        let mut file = to_read().open(path)?;
        let metadata = file.metadata()?;
        if !is_private(&metadata) {
            return Err(io::Error::other("it is not a file that only this user can read"));
        }
        let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.read_to_end(&mut content)?;
        let end = content.len().checked_sub(SUM_BYTES);
        let sum = end.map(|end| content.split_off(end)).unwrap_or_default();
        if self.sum(name, &[&content]) != sum[..] {
            return Err(io::Error::other("it is damaged"));
        }
        // So that it counts as used. Not at each use, which would write to the disk.
        if metadata.modified()?.elapsed().is_ok_and(|age| age > DAY) {
            let _ = file.set_modified(SystemTime::now());
        }
        Ok(content)
    }

    /// Returns the CRC-32 of the kind, the name and the content, so that a file with another one's
    /// name counts as damaged.
    fn sum(&self, name: &str, content: &[&[u8]]) -> [u8; SUM_BYTES] {
        let mut sum = crc32fast::Hasher::new();
        for part in [self.kind.as_bytes(), b"-", name.as_bytes(), b"\0"].iter().chain(content) {
            sum.update(part);
        }
        sum.finalize().to_le_bytes()
    }

    /// Writes the file `name` with the given parts, or replaces it. Creates the directory if it is
    /// missing. An error is logged: what is missing is made again.
    pub fn write(&self, name: &str, parts: &[&[u8]]) {
        let path = self.path(name);
        if let Err(error) = self.try_write(name, &path, parts) {
            tracing::debug!("{} cannot be written: {error}", path.display());
        }
    }

    fn try_write(&self, name: &str, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        create_private(&self.directory)?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path(&format!("{}-{number}{UNFINISHED}", std::process::id()));
        // Left by a process with the same id that was killed.
        let _ = fs::remove_file(&temporary);
        let written = (|| {
            let mut file = to_write().open(&temporary)?;
            parts.iter().try_for_each(|part| file.write_all(part))?;
            file.write_all(&self.sum(name, parts))?;
            fs::rename(&temporary, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        self.remove_old(path)
    }

    /// Removes files that were not used for the longest time, but not `newest`, until the others are
    /// small enough.
    fn remove_old(&self, newest: &Path) -> io::Result<()> {
        let prefix = format!("{PREFIX}{}-", self.kind);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes())
                && let Ok(metadata) = entry.metadata()
            {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort_unstable_by(|one, other| other.cmp(one));
        let mut kept = 0u64;
        for (modified, length, path) in files {
            kept = kept.saturating_add(length);
            let is_unfinished =
                path.as_os_str().as_encoded_bytes().ends_with(UNFINISHED.as_bytes());
            // An unfinished one that is old was left by a process that was killed.
            let is_left = is_unfinished && modified.elapsed().is_ok_and(|age| age > DAY);
            if is_left || kept > self.max_bytes && path != newest && !is_unfinished {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The length of the checksum at the end of a file, in bytes.
const SUM_BYTES: usize = 4;

/// Creates a directory that only this user can enter, unless it exists.
fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// For a new file that only this user can read.
fn to_write() -> OpenOptions {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// For a file that may be something else: a link is not followed, and a pipe not waited for.
fn to_read() -> OpenOptions {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits().cast_signed());
    }
    options
}

/// Returns whether this is a regular file of this user that no other user can read or write.
#[cfg(unix)]
fn is_private(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owner = rustix::process::geteuid().as_raw();
    metadata.is_file() && metadata.uid() == owner && metadata.mode() & 0o077 == 0
}

#[cfg(not(unix))]
fn is_private(metadata: &Metadata) -> bool {
    metadata.is_file()
}
