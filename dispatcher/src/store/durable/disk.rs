//! [`Disk`]: the transactions and snapshots of the store's file, and recovery from errors.
//!
//! The database may panic on damaged files, and refuses all work after an I/O error. Both are
//! caught, and the file is opened again before the next operation.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use manifold_runtime_api::{Error, Object, ObjectId, Result};
use parking_lot::{Mutex, RwLock};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::batch::{Batch, Change};
use super::coarse_ms;
use super::fault::StoreFault;
use super::file::{self, FileIdentity, OpenFile};
use super::format::{NUMBERS, REMOVALS, Stamp};
use super::known_runs::KnownRuns;
use super::open::{OpenError, StoreOptions};
use super::tables::ReadTables;
use super::write::{WriteTables, sound};
use crate::panic_message::panic_message;
use crate::store::STORE_FILE;

pub(super) struct Disk {
    file: PathBuf,
    options: StoreOptions,
    /// Write-locked by operations that need the file exclusively. `None` after a failed attempt to
    /// reopen the file.
    database: RwLock<Option<OpenFile>>,
    snapshot: RwLock<Option<Snapshot>>,
    /// [`SOUND`], [`REFUSED`] or [`DAMAGED`]: whether the file has to be opened again, and why.
    failed: AtomicU8,
    /// Whether the store was closed, so that the file is not opened again.
    closed: AtomicBool,
    /// The file's number of removals, as of the last snapshot.
    removals: AtomicU64,
    /// The identity of the file that is open, if the platform has one.
    identity: Mutex<Option<FileIdentity>>,
    /// How often the file was opened again.
    reopened: AtomicU64,
    known: KnownRuns,
}

/// A generation of the data on disk. A new one begins when any process removes data, and when the
/// file is replaced or opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Generation {
    /// How often data was removed from the file, by any process.
    removals: u64,
    /// How often this process opened the file again.
    reopened: u64,
}

/// A consistent read-only view of the tables.
struct Snapshot {
    /// When it was taken ([`coarse_ms`]).
    taken: u64,
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
const SNAPSHOT_AGE_MS: u64 = 1000;

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
                file::create(directory, &file, options)?;
                0
            }
            Err(error) => return Err(io_error(&file)(error)),
        };
        let database = file::open(&file, options, length <= options.check_up_to)?;
        let identity = file::identity(&file);
        Ok(Self {
            file,
            options: options.clone(),
            database: RwLock::new(Some(database)),
            snapshot: RwLock::new(None),
            failed: AtomicU8::new(SOUND),
            closed: AtomicBool::new(false),
            removals: AtomicU64::new(0),
            identity: Mutex::new(identity),
            reopened: AtomicU64::new(0),
            known: KnownRuns::default(),
        })
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Runs `query` on a snapshot that is at most [`SNAPSHOT_AGE_MS`] old.
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
            let transaction = file::opened(&database)?.begin_read()?;
            self.removals.store(removals(&transaction)?, Ordering::Release);
            query(
                &slot
                    .insert(Snapshot {
                        taken: coarse_ms(),
                        tables: ReadTables::read(&transaction, &self.known)?,
                    })
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
            let transaction = file::opened(&database)?.begin_read()?;
            let tables = ReadTables::read(&transaction, &self.known)?;
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
            let transaction = file::writable(&database)?.begin_write()?;
            let mut tables = WriteTables::open(&transaction, &self.known)?;
            let done = fill(&mut tables)?;
            if done.changed {
                let runs = tables.finish()?;
                if done.removes_data {
                    count_removal(&transaction)?;
                }
                transaction.commit()?;
                runs.into_iter().for_each(|run| self.known.insert_new(run));
            } else {
                drop(tables);
                transaction.abort()?;
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
            tables.expect(batch.objects.len(), batch.memo.len());
            for (id, object) in &batch.objects {
                done.changed |= tables.put(*id, object, now)?;
            }
            for (request, recorded) in &batch.memo {
                if let Some(outcome) = recorded.entry.map(|entry| entry.outcome.id)
                    && !batch.objects.contains_key(&outcome)
                    && sound(tables.head(outcome))?.is_none()
                    && let Some(object) = rescue(outcome)
                {
                    tables.put_once(outcome, &object, now)?;
                }
                // Other processes must not go on with what is replaced.
                done.removes_data |= tables.put_memo(*request, recorded, now)?;
                done.changed = true;
            }
            // The memory tier may not have what is in the batch.
            let rescue = |id: ObjectId| batch.objects.get(&id).cloned().or_else(|| rescue(id));
            if !batch.pins.is_empty() {
                tables.have_put(batch.objects.keys());
            }
            for (request, change) in &batch.pins {
                match change {
                    Change::Remove => {
                        done.removes_data |= tables.remove_pin(*request)?;
                        done.changed = true;
                    }
                    Change::Set(entry)
                        if tables.restamp_reachable(entry.outcome.id, now, rescue)? =>
                    {
                        let before = tables.pinned(*request)?;
                        done.removes_data |= before.is_some_and(|before| before != entry.outcome);
                        done.changed |= tables.set_pin(*request, entry)?;
                    }
                    Change::Set(_) => done.value.push(*request),
                    Change::Renew(entry) => {
                        if tables.pinned(*request)? == Some(entry.outcome)
                            && tables.restamp_reachable(entry.outcome.id, now, rescue)?
                        {
                            done.changed |= tables.set_pin(*request, entry)?;
                        }
                    }
                }
            }
            done.changed |= tables.have_additions();
            Ok(done)
        })
    }

    /// Compacts the file and returns free space to the operating system. Returns `false`, without
    /// compacting, if another process has a transaction in progress.
    pub(super) fn compact(&self) -> Result<bool> {
        self.guard(|| {
            let mut database = self.database.write();
            *self.snapshot.write() = None;
            match file::writable_mut(&mut database)?.compact() {
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
            file::writable_mut(&mut database)?.check_integrity()?;
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

    /// Returns the current generation of the data on disk. Data that was cached in another one may
    /// no longer be on disk.
    pub(super) fn generation(&self) -> Result<Generation> {
        if file::identity(&self.file) != *self.identity.lock() {
            self.failed.fetch_max(REFUSED, Ordering::AcqRel);
        }
        self.read(|_| Ok(()))?;
        Ok(Generation {
            removals: self.removals.load(Ordering::Acquire),
            reopened: self.reopened.load(Ordering::Acquire),
        })
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
            Ok(_) | Err(StoreFault::Value(..) | StoreFault::Chunk(_) | StoreFault::Key(_)) => SOUND,
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
        if self.closed.load(Ordering::Acquire) {
            return Err(redb::Error::DatabaseClosed.into());
        }
        *self.snapshot.write() = None;
        file::close(slot.take());
        let database = self.open_again(failed == DAMAGED).map_err(|error| match error {
            OpenError::Damaged { problem, .. } => StoreFault::Damaged(problem),
            OpenError::Io { source, .. } => StoreFault::Database(redb::Error::Io(source)),
            other => StoreFault::Database(redb::Error::Io(io::Error::other(other))),
        })?;
        *slot = Some(database);
        self.known.clear();
        *self.identity.lock() = file::identity(&self.file);
        self.reopened.fetch_add(1, Ordering::AcqRel);
        self.failed.store(SOUND, Ordering::Release);
        Ok(())
    }

    /// Opens the file, or creates a new one if it was deleted.
    fn open_again(&self, check: bool) -> Result<OpenFile, OpenError> {
        if !self.options.read_only
            && !self.file.exists()
            && let Some(directory) = self.file.parent()
        {
            file::create(directory, &self.file, &self.options)?;
        }
        file::open(&self.file, &self.options, check)
    }

    /// Turns a fault into an error that names the file.
    pub(super) fn error(&self, fault: StoreFault) -> Error {
        fault.into_error(&self.file)
    }

    /// Closes the file. Operations fail from now on.
    pub(super) fn close(&self) {
        let mut database = self.database.write();
        self.closed.store(true, Ordering::Release);
        *self.snapshot.write() = None;
        file::close(database.take());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

impl Snapshot {
    fn is_recent(&self) -> bool {
        coarse_ms().saturating_sub(self.taken) < SNAPSHOT_AGE_MS
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
