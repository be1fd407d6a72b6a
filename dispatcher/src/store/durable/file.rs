//! Creates, opens and closes the store's file.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction,
    ReadableDatabase,
};

use super::fault::{StoreFault, is_truncated};
use super::format::{
    CHUNKS, CONTENTS, FORMAT, FORMAT_KEY, META, NUMBERS, PAGES, PINS, REMOVALS, RUNS,
};
use super::locks::ReportingFile;
use super::open::{OpenError, StoreOptions};
use crate::panic_message::panic_message;
use crate::store::STORE_FILE;

/// The open file of a store.
pub(super) enum OpenFile {
    Writable(Database),
    ReadOnly(ReadOnlyDatabase),
}

impl OpenFile {
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        Ok(match self {
            Self::Writable(database) => database.begin_read()?,
            Self::ReadOnly(database) => database.begin_read()?,
        })
    }
}

pub(super) fn opened(database: &Option<OpenFile>) -> Result<&OpenFile, StoreFault> {
    database.as_ref().ok_or_else(|| redb::Error::DatabaseClosed.into())
}

pub(super) fn writable(database: &Option<OpenFile>) -> Result<&Database, StoreFault> {
    match database {
        Some(OpenFile::Writable(database)) => Ok(database),
        Some(OpenFile::ReadOnly(_)) => Err(read_only()),
        None => Err(redb::Error::DatabaseClosed.into()),
    }
}

pub(super) fn writable_mut(database: &mut Option<OpenFile>) -> Result<&mut Database, StoreFault> {
    match database {
        Some(OpenFile::Writable(database)) => Ok(database),
        Some(OpenFile::ReadOnly(_)) => Err(read_only()),
        None => Err(redb::Error::DatabaseClosed.into()),
    }
}

fn read_only() -> StoreFault {
    StoreFault::Database(redb::Error::Io(io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "the store is open read-only",
    )))
}

/// The device and inode of a file. They distinguish it from a file that replaced it.
pub(super) type FileIdentity = (u64, u64);

/// Returns the identity of the file at this path, or `None` if there is no file or the platform has
/// no inodes.
#[cfg(unix)]
pub(super) fn identity(file: &Path) -> Option<FileIdentity> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(file).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
pub(super) fn identity(_: &Path) -> Option<FileIdentity> {
    None
}

/// Closes the database. Closing a damaged file may panic, which is ignored.
pub(super) fn close(database: Option<OpenFile>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

/// Creates a new store under a temporary name and links it into place, so that no process ever sees
/// an incomplete file.
pub(super) fn create(
    directory: &Path,
    file: &Path,
    options: &StoreOptions,
) -> Result<(), OpenError> {
    static CREATED: AtomicU64 = AtomicU64::new(0);
    let number = CREATED.fetch_add(1, Ordering::Relaxed);
    let nanoseconds =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let temporary =
        directory.join(format!("{STORE_FILE}.{}-{number}-{nanoseconds}.new", std::process::id()));
    let created = open_for_writing(&temporary, options, false, true).and_then(|database| {
        create_tables(&database).map_err(|error| open_error(&temporary, error))?;
        drop(database);
        match fs::hard_link(&temporary, file) {
            Ok(()) => Ok(()),
            // Another process created it first.
            Err(_) if file.exists() => Ok(()),
            // The file system does not support hard links.
            Err(_) => rename_to_new(&temporary, file)
                .map_err(|source| OpenError::Io { path: file.to_owned(), source }),
        }
    });
    let _ = fs::remove_file(&temporary);
    created
}

/// Renames a file, unless there is one of the new name.
#[cfg(target_os = "linux")]
fn rename_to_new(file: &Path, new: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, file, CWD, new, RenameFlags::NOREPLACE) {
        // Another process created it first.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // The file system cannot do that.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(file, new),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_to_new(file: &Path, new: &Path) -> io::Result<()> {
    fs::rename(file, new)
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
    transaction.open_table(NUMBERS)?.insert(REMOVALS, 0)?;
    for table in [CHUNKS, CONTENTS, RUNS, PAGES, PINS] {
        transaction.open_table(table)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Opens the file, for writing unless the store is read-only. With `check`, the checksum of every
/// page is verified.
///
/// # Errors
/// Returns an [`OpenError`] if the file cannot be opened, or if it is not a store in the format
/// [`FORMAT`].
pub(super) fn open(
    file: &Path,
    options: &StoreOptions,
    check: bool,
) -> Result<OpenFile, OpenError> {
    let database = if options.read_only {
        OpenFile::ReadOnly(catching_panics(file, || builder(options).open_read_only(file))?)
    } else {
        OpenFile::Writable(open_for_writing(file, options, check, false)?)
    };
    check_format(file, &database)?;
    Ok(database)
}

fn open_for_writing(
    file: &Path,
    options: &StoreOptions,
    check: bool,
    new: bool,
) -> Result<Database, OpenError> {
    if !new && fs::metadata(file).is_ok_and(|metadata| metadata.len() == 0) {
        // The database would initialize the empty file without the store's tables.
        return Err(OpenError::Damaged {
            path: file.to_owned(),
            problem: "it is empty".to_owned(),
        });
    }
    let backend = ReportingFile::open(file, new, options.listener.clone())
        .map_err(|error| open_error(file, error))?;
    catching_panics(file, || {
        let mut builder = builder(options);
        builder.set_check_integrity_on_open(check);
        builder.create_with_backend(backend)
    })
}

fn builder(options: &StoreOptions) -> Builder {
    let mut builder = Builder::new();
    builder
        .set_concurrency_mode(ConcurrencyMode::MultiWriter)
        .set_cache_size(options.page_cache_bytes);
    builder
}

/// Calls `open` and turns a panic into an error. The database panics on some damaged files.
fn catching_panics<T>(
    file: &Path,
    open: impl FnOnce() -> Result<T, DatabaseError>,
) -> Result<T, OpenError> {
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|error| open_error(file, error)),
        Err(panic) => {
            Err(OpenError::Damaged { path: file.to_owned(), problem: panic_message(&*panic) })
        }
    }
}

/// Errors unless the file is a store in the format [`FORMAT`].
fn check_format(file: &Path, database: &OpenFile) -> Result<(), OpenError> {
    let read = || {
        let transaction = database.begin_read()?;
        let format = match transaction.open_table(META) {
            Ok(meta) => meta.get(FORMAT_KEY)?.map(|value| value.value().to_owned()),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(format)
    };
    let found = catch_unwind(AssertUnwindSafe(read))
        .map_err(|panic| OpenError::Damaged {
            path: file.to_owned(),
            problem: panic_message(&*panic),
        })?
        .map_err(|error: redb::Error| open_error(file, error))?;
    match found {
        Some(found) if found == FORMAT => Ok(()),
        found => Err(OpenError::Format { path: file.to_owned(), found: found.unwrap_or_default() }),
    }
}

fn open_error(file: &Path, error: impl Into<redb::Error>) -> OpenError {
    let path = file.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            OpenError::InUse { path }
        }
        redb::Error::Corrupted(problem) => OpenError::Damaged { path, problem },
        redb::Error::Io(source) if is_truncated(&source) => {
            OpenError::Damaged { path, problem: "it is truncated".to_owned() }
        }
        redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            OpenError::Damaged { path, problem: "it is not a database".to_owned() }
        }
        redb::Error::Io(source) => OpenError::Io { path, source },
        redb::Error::RepairAborted => OpenError::Unfinished { path },
        redb::Error::UpgradeRequired(version) => {
            OpenError::Format { path, found: format!("redb {version}") }
        }
        other => OpenError::Refused { path, problem: other.to_string() },
    }
}
