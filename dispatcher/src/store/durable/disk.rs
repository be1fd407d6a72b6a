//! [`Disk`]: the store's file, its transactions and snapshots, and recovery from errors.
//!
//! The database may panic on damaged files, and refuses all work after an I/O error. Both are
//! caught, and the file is opened again before the next operation.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use manifold_runtime_api::{Error, Object, ObjectId, Reason, Result, Status};
use parking_lot::{Mutex, RwLock};
use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction,
    ReadableDatabase, ReadableTable, WriteTransaction,
};

use super::batch::Batch;
use super::format::{
    CONTENTS, FORMAT, FORMAT_KEY, MEMO, META, NUMBERS, OBJECTS, PINS, REMOVALS, Stamp,
};
use super::locks::ReportingFile;
use super::open::{OpenError, StoreOptions};
use super::tables::{ReadTables, Tables, WriteTables};
use crate::panic_message::panic_message;
use crate::store::STORE_FILE;

pub(super) struct Disk {
    file: PathBuf,
    options: StoreOptions,
    /// Write-locked by operations that need the file exclusively. `None` after a failed attempt to
    /// reopen the file.
    database: RwLock<Option<Opened>>,
    snapshot: RwLock<Option<Snapshot>>,
    /// [`SOUND`], [`REFUSED`] or [`DAMAGED`]: whether the file has to be opened again, and why.
    failed: AtomicU8,
    /// The file's number of removals, as of the last snapshot.
    removals: AtomicU64,
    /// The device and inode of the file that is open.
    identity: Mutex<Option<(u64, u64)>>,
    /// How often the file was opened again.
    reopened: AtomicU64,
}

enum Opened {
    Writable(Database),
    ReadOnly(ReadOnlyDatabase),
}

impl Opened {
    fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        Ok(match self {
            Self::Writable(database) => database.begin_read()?,
            Self::ReadOnly(database) => database.begin_read()?,
        })
    }
}

/// A consistent read-only view of the tables.
struct Snapshot {
    taken: Instant,
    tables: ReadTables,
}

/// The database can be used.
const SOUND: u8 = 0;
/// The database or the operating system reported an error.
const REFUSED: u8 = 1;
/// The file is damaged, or the database panicked, which it does on damaged files. The whole file
/// has to be checked when it is opened again.
const DAMAGED: u8 = 2;

/// How old a snapshot may be before it is replaced, so that other processes' commits become
/// visible.
const SNAPSHOT_AGE: Duration = Duration::from_secs(1);

/// A failure of the store's file. [`Disk::error`] turns it into an error that names the file.
pub(super) enum StoreFault {
    /// The structure of the file is damaged.
    Damaged(String),
    /// The value of an entry or object is damaged. Holds what it is and its key.
    Value(&'static str, ObjectId),
    /// A key is not an object id. Holds its length in bytes.
    Key(usize),
    /// The database or the operating system reported an error.
    Database(redb::Error),
}

impl StoreFault {
    pub(super) fn is_damage(&self) -> bool {
        !matches!(self, Self::Database(_))
    }
}

impl<E: Into<redb::Error>> From<E> for StoreFault {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Corrupted(problem) => Self::Damaged(problem),
            redb::Error::Io(error) if is_truncated(&error) => {
                Self::Damaged("it is truncated".to_owned())
            }
            // Every store has all of these tables with these types.
            error @ (redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => Self::Damaged(error.to_string()),
            other => Self::Database(other),
        }
    }
}

fn is_truncated(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

impl Disk {
    pub(super) fn open(directory: &Path, options: &StoreOptions) -> Result<Self, OpenError> {
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        if !options.read_only {
            fs::create_dir_all(directory).map_err(io_error(directory))?;
        }
        let file = directory.join(STORE_FILE);
        let length = match fs::metadata(&file) {
            Ok(metadata) if metadata.len() == 0 => {
                return Err(OpenError::Damaged { path: file, problem: "it is empty".to_owned() });
            }
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !options.read_only => {
                create(directory, &file, options)?;
                0
            }
            Err(error) => return Err(io_error(&file)(error)),
        };
        let database = open(&file, options, length <= options.check_up_to)?;
        check_format(&file, &database)?;
        let identity = identity(&file);
        Ok(Self {
            file,
            options: options.clone(),
            database: RwLock::new(Some(database)),
            snapshot: RwLock::new(None),
            failed: AtomicU8::new(SOUND),
            removals: AtomicU64::new(0),
            identity: Mutex::new(identity),
            reopened: AtomicU64::new(0),
        })
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Runs `query` on a snapshot that is at most [`SNAPSHOT_AGE`] old.
    pub(super) fn read<T>(
        &self,
        query: impl Fn(&ReadTables) -> Result<T, StoreFault>,
    ) -> Result<T> {
        self.guard(|| {
            if let Some(snapshot) =
                self.snapshot.read().as_ref().filter(|snapshot| snapshot.is_recent())
            {
                return query(&snapshot.tables);
            }
            let database = self.database.read();
            let mut slot = self.snapshot.write();
            if let Some(snapshot) = slot.as_ref().filter(|snapshot| snapshot.is_recent()) {
                return query(&snapshot.tables);
            }
            let transaction = opened(&database)?.begin_read()?;
            self.removals.store(removals(&transaction)?, Ordering::Release);
            query(
                &slot
                    .insert(Snapshot { taken: Instant::now(), tables: Tables::read(&transaction)? })
                    .tables,
            )
        })
    }

    /// Runs a long `query` on a new snapshot of its own. Other readers and writers are not blocked.
    /// Operations that need the file exclusively wait until the query ends.
    pub(super) fn examine<T>(
        &self,
        query: impl FnOnce(&ReadTables) -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        self.guarded(|| {
            // Held until the end, so that operations that need the file exclusively wait.
            let database = self.database.read();
            let tables = Tables::read(&opened(&database)?.begin_read()?)?;
            query(&tables)
        })
    }

    /// Runs `fill` in a write transaction. Commits the transaction if `fill` reports changes, and
    /// aborts it otherwise. Other writers wait.
    pub(super) fn write<T>(
        &self,
        fill: impl FnOnce(&mut WriteTables<'_>) -> Result<Done<T>, StoreFault>,
    ) -> Result<T> {
        let done = self.guard(|| {
            let database = self.database.read();
            let transaction = writable(&database)?.begin_write()?;
            let done = fill(&mut Tables::write(&transaction)?)?;
            if done.removes_data {
                count_removal(&transaction)?;
            }
            match done.changed {
                true => transaction.commit()?,
                false => transaction.abort()?,
            }
            Ok(done.value)
        })?;
        self.refresh();
        Ok(done)
    }

    /// Commits the objects, memo entries and pins of `batch` in one transaction. Objects that
    /// another process has collected in the meantime are supplied by `rescue`. Returns the requests
    /// whose pins could not be set, because an object of their outcomes is missing from `rescue`
    /// too.
    pub(super) fn commit(
        &self,
        batch: &Batch,
        rescue: impl Fn(ObjectId) -> Option<Object>,
    ) -> Result<Vec<ObjectId>> {
        let now = Stamp::now();
        self.write(|tables| {
            let mut done = Done::unchanged(Vec::new());
            // In key order, so that neighbors are written to a page while it is cached.
            let mut objects: Vec<_> = batch.objects.iter().collect();
            objects.sort_unstable_by_key(|(id, _)| **id);
            for (id, object) in objects {
                done.changed |= tables.put(*id, object, now)?;
            }
            let mut memo: Vec<_> = batch.memo.iter().collect();
            memo.sort_unstable_by_key(|(request, _)| **request);
            for (request, entry) in memo {
                let outcome = entry.outcome.id;
                if !batch.objects.contains_key(&outcome)
                    && tables.head(outcome)?.is_none()
                    && let Some(object) = rescue(outcome)
                {
                    tables.put(outcome, &object, now)?;
                }
                tables.memo.insert(request.as_bytes(), &*entry.encode(*request))?;
                done.changed = true;
            }
            for (request, pin) in &batch.pins {
                done.changed = true;
                match pin {
                    None => done.removes_data |= tables.pins.remove(request.as_bytes())?.is_some(),
                    Some(entry) if tables.restamp_reachable(entry.outcome.id, now, &rescue)? => {
                        tables.pins.insert(request.as_bytes(), &*entry.encode(*request))?;
                    }
                    Some(_) => done.value.push(*request),
                }
            }
            Ok(done)
        })
    }

    /// Compacts the file and returns free space to the operating system. Returns `false`, without
    /// compacting, if another process has a transaction in progress.
    pub(super) fn compact(&self) -> Result<bool> {
        self.guard(|| {
            let mut database = self.database.write();
            *self.snapshot.write() = None;
            match writable_mut(&mut database)?.compact() {
                Ok(_) => Ok(true),
                Err(redb::CompactionError::TransactionInProgress) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Verifies the checksum of every page and repairs what can be repaired. Does nothing if the
    /// file is open read-only.
    pub(super) fn check_pages(&self) -> Result<(), StoreFault> {
        if self.options.read_only {
            return Ok(());
        }
        self.guarded(|| {
            let mut database = self.database.write();
            *self.snapshot.write() = None;
            writable_mut(&mut database)?.check_integrity()?;
            Ok(())
        })
    }

    /// Drops the snapshot, so that later reads see everything that is committed now.
    pub(super) fn refresh(&self) {
        *self.snapshot.write() = None;
    }

    /// Drops the snapshot if it is old. A snapshot prevents the space of data that was deleted
    /// since from being reused.
    pub(super) fn drop_old_snapshot(&self) {
        let mut slot = self.snapshot.write();
        if slot.as_ref().is_some_and(|snapshot| !snapshot.is_recent()) {
            *slot = None;
        }
    }

    /// Returns a number that changes when any process removes data, and when the file is replaced
    /// or opened again. After a change, cached data may no longer be on disk.
    ///
    /// The lower half counts the removals, the upper half how often the file was opened again.
    pub(super) fn removals(&self) -> Result<u64> {
        if identity(&self.file) != *self.identity.lock() {
            self.failed.fetch_max(REFUSED, Ordering::AcqRel);
        }
        self.read(|_| Ok(()))?;
        Ok(self
            .removals
            .load(Ordering::Acquire)
            .wrapping_add(self.reopened.load(Ordering::Acquire) << 32))
    }

    /// Like `guarded`, with an error that names the file.
    fn guard<T>(&self, work: impl FnOnce() -> Result<T, StoreFault>) -> Result<T> {
        self.guarded(work).map_err(|fault| self.error(fault))
    }

    /// Runs code that calls the database. The database panics on some damaged files and refuses all
    /// work after some errors. After either, the next call opens the file again.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        if self.failed.load(Ordering::Acquire) != SOUND {
            self.reopen()?;
        }
        let result = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(StoreFault::Damaged(panic_message(&*panic))));
        let failed = match &result {
            Ok(_) | Err(StoreFault::Value(..) | StoreFault::Key(_)) => SOUND,
            // Another transaction is in progress. The database can still be used.
            Err(StoreFault::Database(redb::Error::TransactionInProgress)) => SOUND,
            Err(StoreFault::Database(_)) => REFUSED,
            Err(StoreFault::Damaged(_)) => DAMAGED,
        };
        self.failed.fetch_max(failed, Ordering::AcqRel);
        result
    }

    /// Closes the file and opens it again, unless another thread has done so.
    fn reopen(&self) -> Result<(), StoreFault> {
        let mut slot = self.database.write();
        let failed = self.failed.load(Ordering::Acquire);
        if failed == SOUND {
            return Ok(());
        }
        *self.snapshot.write() = None;
        close(slot.take());
        let database = self.open_again(failed == DAMAGED).map_err(|error| match error {
            OpenError::Damaged { problem, .. } => StoreFault::Damaged(problem),
            OpenError::Io { source, .. } => StoreFault::Database(redb::Error::Io(source)),
            other => StoreFault::Database(redb::Error::Io(io::Error::other(other))),
        })?;
        *slot = Some(database);
        *self.identity.lock() = identity(&self.file);
        self.reopened.fetch_add(1, Ordering::AcqRel);
        self.failed.store(SOUND, Ordering::Release);
        Ok(())
    }

    /// Opens the file, or creates a new one if it was deleted.
    fn open_again(&self, check: bool) -> Result<Opened, OpenError> {
        if !self.options.read_only
            && !self.file.exists()
            && let Some(directory) = self.file.parent()
        {
            create(directory, &self.file, &self.options)?;
        }
        let database = open(&self.file, &self.options, check)?;
        check_format(&self.file, &database)?;
        Ok(database)
    }

    /// Turns a fault into an error that names the file.
    pub(super) fn error(&self, fault: StoreFault) -> Error {
        let file = self.file.display();
        let (problem, status) = match fault {
            StoreFault::Damaged(problem) => (
                format!(
                    "{file} is damaged ({problem}); delete it, and its memoized outcomes are \
                     computed again"
                ),
                Status::Permanent,
            ),
            StoreFault::Value(what, id) => (
                format!(
                    "{file} is damaged: {what} {id} is corrupt; `manifold verify --repair` removes \
                     damaged data, so that it is computed again"
                ),
                Status::Permanent,
            ),
            StoreFault::Key(length) => (
                format!(
                    "{file} is damaged: it has a key of {length} bytes; delete it, and its \
                     memoized outcomes are computed again"
                ),
                Status::Permanent,
            ),
            StoreFault::Database(error) => {
                (format!("{file} cannot be used: {error}"), Status::Transient)
            }
        };
        Error::new(Reason::StoreFailed { problem, status })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        *self.snapshot.write() = None;
        close(self.database.write().take());
    }
}

impl Snapshot {
    fn is_recent(&self) -> bool {
        self.taken.elapsed() < SNAPSHOT_AGE
    }
}

/// The result of a write transaction.
pub(super) struct Done<T> {
    /// The value to return to the caller.
    pub(super) value: T,
    /// Whether there is something to commit.
    pub(super) changed: bool,
    /// Whether data was removed that other processes may have cached.
    pub(super) removes_data: bool,
}

impl<T> Done<T> {
    pub(super) fn unchanged(value: T) -> Self {
        Self { value, changed: false, removes_data: false }
    }

    pub(super) fn removed(value: T) -> Self {
        Self { value, changed: true, removes_data: true }
    }
}

fn opened(database: &Option<Opened>) -> Result<&Opened, StoreFault> {
    database.as_ref().ok_or_else(|| redb::Error::DatabaseClosed.into())
}

fn writable(database: &Option<Opened>) -> Result<&Database, StoreFault> {
    match database {
        Some(Opened::Writable(database)) => Ok(database),
        Some(Opened::ReadOnly(_)) => Err(read_only()),
        None => Err(redb::Error::DatabaseClosed.into()),
    }
}

fn writable_mut(database: &mut Option<Opened>) -> Result<&mut Database, StoreFault> {
    match database {
        Some(Opened::Writable(database)) => Ok(database),
        Some(Opened::ReadOnly(_)) => Err(read_only()),
        None => Err(redb::Error::DatabaseClosed.into()),
    }
}

fn read_only() -> StoreFault {
    StoreFault::Database(redb::Error::Io(io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "the store is open read-only",
    )))
}

/// Returns the device and inode of a file, which distinguish it from a file that replaced it.
#[cfg(unix)]
fn identity(file: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(file).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    None
}

/// Closes the database. Closing a damaged file may panic, which is ignored.
fn close(database: Option<Opened>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

/// Creates a new store under a temporary name and links it into place, so that no process ever sees
/// an incomplete file.
fn create(directory: &Path, file: &Path, options: &StoreOptions) -> Result<(), OpenError> {
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
            Err(_) => fs::rename(&temporary, file)
                .map_err(|source| OpenError::Io { path: file.to_owned(), source }),
        }
    });
    let _ = fs::remove_file(&temporary);
    created
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
    transaction.open_table(NUMBERS)?.insert(REMOVALS, 0)?;
    for table in [OBJECTS, CONTENTS, MEMO, PINS] {
        transaction.open_table(table)?;
    }
    transaction.commit()?;
    Ok(())
}

fn open(file: &Path, options: &StoreOptions, check: bool) -> Result<Opened, OpenError> {
    if !options.read_only {
        return open_for_writing(file, options, check, false).map(Opened::Writable);
    }
    catching_panics(file, || builder(options).open_read_only(file)).map(Opened::ReadOnly)
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
fn check_format(file: &Path, database: &Opened) -> Result<(), OpenError> {
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

/// Returns how often data was removed from the file.
fn removals(transaction: &ReadTransaction) -> Result<u64, StoreFault> {
    Ok(transaction.open_table(NUMBERS)?.get(REMOVALS)?.map_or(0, |number| number.value()))
}

fn count_removal(transaction: &WriteTransaction) -> Result<(), StoreFault> {
    let mut numbers = transaction.open_table(NUMBERS)?;
    let before = numbers.get(REMOVALS)?.map_or(0, |number| number.value());
    numbers.insert(REMOVALS, before.wrapping_add(1))?;
    Ok(())
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
