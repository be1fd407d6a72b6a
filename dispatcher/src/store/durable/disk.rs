//! The store's file: transactions, and what can be wrong with them.

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
use super::locks::TalkingFile;
use super::open::{OpenError, StoreOptions};
use super::tables::{ReadTables, Tables, WriteTables};
use crate::panic_message::panic_message;
use crate::store::STORE_FILE;

pub(super) struct Disk {
    file: PathBuf,
    options: StoreOptions,
    /// Taken for writing by what needs the file for itself. `None` after a failure, until it is opened again.
    database: RwLock<Option<Opened>>,
    snapshot: RwLock<Option<Snapshot>>,
    /// What happened after which the database refuses further work.
    failed: AtomicU8,
    /// How often somebody took something away, as of the last snapshot.
    removals: AtomicU64,
    /// Which file was opened last, and how often one was opened again.
    identity: Mutex<Option<(u64, u64)>>,
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

/// A state of the tables that does not change.
struct Snapshot {
    taken: Instant,
    tables: ReadTables,
}

/// Nothing happened.
const SOUND: u8 = 0;
/// The operating system answered an error.
const REFUSED: u8 = 1;
/// The file is damaged, or the database panicked, which it does on damaged files. What it says must not be believed unchecked.
const DAMAGED: u8 = 2;

/// How old a snapshot may be before what other processes committed is looked for.
const SNAPSHOT_AGE: Duration = Duration::from_secs(1);

/// What went wrong in the file, before it has the file's name.
pub(super) enum Trouble {
    /// The file's structure is not what was written.
    Damaged(String),
    /// A value is not what was written.
    Value(&'static str, ObjectId),
    /// A key is none.
    Key(usize),
    /// The database or the operating system refuses.
    Database(redb::Error),
}

impl Trouble {
    pub(super) fn is_damage(&self) -> bool {
        !matches!(self, Self::Database(_))
    }
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Corrupted(problem) => Self::Damaged(problem),
            redb::Error::Io(error) if is_cut(&error) => Self::Damaged("it is cut short".to_owned()),
            // A store has all of its tables, and always had them in this form.
            error @ (redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => Self::Damaged(error.to_string()),
            other => Self::Database(other),
        }
    }
}

fn is_cut(error: &io::Error) -> bool {
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

    /// Looks at a recent state of the tables.
    pub(super) fn read<T>(&self, look: impl Fn(&ReadTables) -> Result<T, Trouble>) -> Result<T> {
        self.guard(|| {
            if let Some(snapshot) =
                self.snapshot.read().as_ref().filter(|snapshot| snapshot.is_recent())
            {
                return look(&snapshot.tables);
            }
            let database = self.database.read();
            let mut slot = self.snapshot.write();
            if let Some(snapshot) = slot.as_ref().filter(|snapshot| snapshot.is_recent()) {
                return look(&snapshot.tables);
            }
            let transaction = opened(&database)?.begin_read()?;
            self.removals.store(removals(&transaction)?, Ordering::Release);
            look(
                &slot
                    .insert(Snapshot { taken: Instant::now(), tables: Tables::read(&transaction)? })
                    .tables,
            )
        })
    }

    /// Looks at one state of the tables for as long as it takes. Others read and write meanwhile.
    pub(super) fn examine<T>(
        &self,
        look: impl FnOnce(&ReadTables) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        self.guarded(|| {
            // Kept until the end: who needs the file for itself waits.
            let database = self.database.read();
            let tables = Tables::read(&opened(&database)?.begin_read()?)?;
            look(&tables)
        })
    }

    /// Commits what `fill` did in one transaction, if it answers that there is something. Other writers wait.
    pub(super) fn write<T>(
        &self,
        fill: impl FnOnce(&mut WriteTables<'_>) -> Result<Done<T>, Trouble>,
    ) -> Result<T> {
        let done = self.guard(|| {
            let database = self.database.read();
            let transaction = writable(&database)?.begin_write()?;
            let done = fill(&mut Tables::write(&transaction)?)?;
            if done.took_something_away {
                count_removal(&transaction)?;
            }
            match done.changed {
                true => transaction.commit()?,
                false => transaction.abort()?,
            }
            Ok(done.answer)
        })?;
        self.refresh();
        Ok(done)
    }

    /// Commits `batch` in one transaction: objects, memo and pins come together or not at all. What another process has
    /// collected in the meantime comes from `rescue`. Answers the requests whose pins could not be set, because not even that
    /// has all of their outcomes.
    pub(super) fn commit(
        &self,
        batch: &Batch,
        rescue: impl Fn(ObjectId) -> Option<Object>,
    ) -> Result<Vec<ObjectId>> {
        let now = Stamp::now();
        self.write(|tables| {
            let mut done = Done::nothing(Vec::new());
            // In the order of their keys, neighbours come into one page while it is at hand.
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
                    None => {
                        done.took_something_away |=
                            tables.pins.remove(request.as_bytes())?.is_some()
                    }
                    Some(entry) if tables.keep_all_of(entry.outcome.id, now, &rescue)? => {
                        tables.pins.insert(request.as_bytes(), &*entry.encode(*request))?;
                    }
                    Some(_) => done.answer.push(*request),
                }
            }
            Ok(done)
        })
    }

    /// Gives the file's free space back to the operating system. False when another process is reading or writing just now.
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

    /// Checks the checksum of every page, and mends what can be mended. A file that is open for reading alone stays unchecked.
    pub(super) fn check_pages(&self) -> Result<(), Trouble> {
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

    /// Has later reads see what is committed by now.
    pub(super) fn refresh(&self) {
        *self.snapshot.write() = None;
    }

    /// Gives up a snapshot that is not recent: it keeps the space of what was deleted since.
    pub(super) fn drop_old_snapshot(&self) {
        let mut slot = self.snapshot.write();
        if slot.as_ref().is_some_and(|snapshot| !snapshot.is_recent()) {
            *slot = None;
        }
    }

    /// A number that changes when somebody, in this process or another, took something away, or the file itself: what is in
    /// memory may be gone from disk then.
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

    fn guard<T>(&self, work: impl FnOnce() -> Result<T, Trouble>) -> Result<T> {
        self.guarded(work).map_err(|trouble| self.error(trouble))
    }

    /// Runs code of the database, which panics on some damaged files and refuses all work after some errors. After either it
    /// is opened again.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
        if self.failed.load(Ordering::Acquire) != SOUND {
            self.reopen()?;
        }
        let result = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(Trouble::Damaged(panic_message(&*panic))));
        let failed = match &result {
            Ok(_) | Err(Trouble::Value(..) | Trouble::Key(_)) => SOUND,
            // Somebody else is at work, and that is all.
            Err(Trouble::Database(redb::Error::TransactionInProgress)) => SOUND,
            Err(Trouble::Database(_)) => REFUSED,
            Err(Trouble::Damaged(_)) => DAMAGED,
        };
        self.failed.fetch_max(failed, Ordering::AcqRel);
        result
    }

    fn reopen(&self) -> Result<(), Trouble> {
        let mut slot = self.database.write();
        let failed = self.failed.load(Ordering::Acquire);
        if failed == SOUND {
            return Ok(());
        }
        *self.snapshot.write() = None;
        close(slot.take());
        let database = self.open_again(failed == DAMAGED).map_err(|error| match error {
            OpenError::Damaged { problem, .. } => Trouble::Damaged(problem),
            OpenError::Io { source, .. } => Trouble::Database(redb::Error::Io(source)),
            other => Trouble::Database(redb::Error::Io(io::Error::other(other))),
        })?;
        *slot = Some(database);
        *self.identity.lock() = identity(&self.file);
        self.reopened.fetch_add(1, Ordering::AcqRel);
        self.failed.store(SOUND, Ordering::Release);
        Ok(())
    }

    /// Opens the file, or makes a new one if somebody deleted it.
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

    pub(super) fn error(&self, trouble: Trouble) -> Error {
        let file = self.file.display();
        let (problem, status) = match trouble {
            Trouble::Damaged(problem) => (
                format!(
                    "{file} is damaged ({problem}); delete it, and what it remembered is computed again"
                ),
                Status::Permanent,
            ),
            Trouble::Value(what, id) => (
                format!(
                    "{file} is damaged: {what} {id} is not what was written; `manifold verify --repair` drops what is \
                     damaged, and it is computed again"
                ),
                Status::Permanent,
            ),
            Trouble::Key(length) => (
                format!(
                    "{file} is damaged: it has a key of {length} bytes; delete it, and all is computed again"
                ),
                Status::Permanent,
            ),
            Trouble::Database(error) => {
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

/// What a transaction did.
pub(super) struct Done<T> {
    pub(super) answer: T,
    /// Whether there is something to commit.
    pub(super) changed: bool,
    /// Whether something that others may have in memory is gone.
    pub(super) took_something_away: bool,
}

impl<T> Done<T> {
    pub(super) fn nothing(answer: T) -> Self {
        Self { answer, changed: false, took_something_away: false }
    }

    pub(super) fn removed(answer: T) -> Self {
        Self { answer, changed: true, took_something_away: true }
    }
}

fn opened(database: &Option<Opened>) -> Result<&Opened, Trouble> {
    database.as_ref().ok_or_else(|| redb::Error::DatabaseClosed.into())
}

fn writable(database: &Option<Opened>) -> Result<&Database, Trouble> {
    match database {
        Some(Opened::Writable(database)) => Ok(database),
        Some(Opened::ReadOnly(_)) => Err(read_only()),
        None => Err(redb::Error::DatabaseClosed.into()),
    }
}

fn writable_mut(database: &mut Option<Opened>) -> Result<&mut Database, Trouble> {
    match database {
        Some(Opened::Writable(database)) => Ok(database),
        Some(Opened::ReadOnly(_)) => Err(read_only()),
        None => Err(redb::Error::DatabaseClosed.into()),
    }
}

fn read_only() -> Trouble {
    Trouble::Database(redb::Error::Io(io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "it is open for reading alone",
    )))
}

/// What tells a file from another one that took its place.
#[cfg(unix)]
fn identity(file: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(file).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    None
}

/// Closing a damaged file may panic, too.
fn close(database: Option<Opened>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

/// Makes a new store beside its place and links it there, so that nobody ever sees half of one.
fn create(directory: &Path, file: &Path, options: &StoreOptions) -> Result<(), OpenError> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let nanoseconds =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let beside =
        directory.join(format!("{STORE_FILE}.{}-{number}-{nanoseconds}.new", std::process::id()));
    let made = open_for_writing(&beside, options, false, true).and_then(|database| {
        create_tables(&database).map_err(|error| open_error(&beside, error))?;
        drop(database);
        match fs::hard_link(&beside, file) {
            Ok(()) => Ok(()),
            // Somebody else was faster.
            Err(_) if file.exists() => Ok(()),
            // A file system without links.
            Err(_) => fs::rename(&beside, file)
                .map_err(|source| OpenError::Io { path: file.to_owned(), source }),
        }
    });
    let _ = fs::remove_file(&beside);
    made
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
    unless_it_panics(file, || builder(options).open_read_only(file)).map(Opened::ReadOnly)
}

fn open_for_writing(
    file: &Path,
    options: &StoreOptions,
    check: bool,
    new: bool,
) -> Result<Database, OpenError> {
    if !new && fs::metadata(file).is_ok_and(|metadata| metadata.len() == 0) {
        // The database would begin a new one in it, which has none of a store's tables.
        return Err(OpenError::Damaged {
            path: file.to_owned(),
            problem: "it is empty".to_owned(),
        });
    }
    let talking = TalkingFile::open(file, new, options.listener.clone())
        .map_err(|error| open_error(file, error))?;
    unless_it_panics(file, || {
        let mut builder = builder(options);
        builder.set_check_integrity_on_open(check);
        builder.create_with_backend(talking)
    })
}

fn builder(options: &StoreOptions) -> Builder {
    let mut builder = Builder::new();
    builder
        .set_concurrency_mode(ConcurrencyMode::MultiWriter)
        .set_cache_size(options.page_cache_bytes);
    builder
}

/// The database panics on some damaged files.
fn unless_it_panics<T>(
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

fn removals(transaction: &ReadTransaction) -> Result<u64, Trouble> {
    Ok(transaction.open_table(NUMBERS)?.get(REMOVALS)?.map_or(0, |number| number.value()))
}

fn count_removal(transaction: &WriteTransaction) -> Result<(), Trouble> {
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
        redb::Error::Io(source) if is_cut(&source) => {
            OpenError::Damaged { path, problem: "it is cut short".to_owned() }
        }
        redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            OpenError::Damaged { path, problem: "it is no database".to_owned() }
        }
        redb::Error::Io(source) => OpenError::Io { path, source },
        redb::Error::RepairAborted => OpenError::Unfinished { path },
        redb::Error::UpgradeRequired(version) => {
            OpenError::Format { path, found: format!("redb {version}") }
        }
        other => OpenError::Refused { path, problem: other.to_string() },
    }
}
