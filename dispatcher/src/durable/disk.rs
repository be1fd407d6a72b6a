//! The store's file: tables, transactions, and what can be wrong with them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use manifold_runtime_api::{Error, Object, ObjectId, Reason, Result, Status};
use parking_lot::RwLock;
use redb::{
    Builder, ConcurrencyMode, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    WriteTransaction,
};

use super::batch::Batch;
use super::format::{self, CONTENTS, Entry, FORMAT, FORMAT_KEY, Head, MEMO, META, OBJECTS, PINS, Place, Stamp};
use super::open::{OpenError, StoreOptions};
use crate::panic_message::panic_message;

type Table = ReadOnlyTable<format::Bytes, format::Bytes>;

pub(super) struct Disk {
    file: PathBuf,
    /// Taken for writing by what needs the file for itself.
    database: RwLock<Database>,
    snapshot: RwLock<Option<Snapshot>>,
    /// Set when the database code panicked, which it does on a damaged file.
    broken: AtomicBool,
}

/// A state of the tables that does not change.
struct Snapshot {
    taken: Instant,
    objects: Table,
    contents: Table,
    memo: Table,
    pins: Table,
}

/// How old a snapshot may be before what other processes committed is looked for.
const SNAPSHOT_AGE: Duration = Duration::from_secs(1);

impl Disk {
    pub(super) fn open(directory: &Path, options: &StoreOptions) -> Result<Self, OpenError> {
        fs::create_dir_all(directory).map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
        let file = directory.join(FILE);
        let check = fs::metadata(&file).is_ok_and(|metadata| metadata.len() <= options.check_up_to);
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = Builder::new()
                .set_concurrency_mode(ConcurrencyMode::MultiWriter)
                .set_cache_size(options.page_cache_bytes)
                .set_check_integrity_on_open(check)
                .create(&file)
                .map_err(|error| open_error(&file, error))?;
            set_up(&file, &database)?;
            Ok(database)
        }));
        let database = match opened {
            Ok(opened) => opened?,
            Err(panic) => return Err(OpenError::Damaged { path: file, problem: panic_message(&*panic) }),
        };
        Ok(Self { file, database: RwLock::new(database), snapshot: RwLock::new(None), broken: AtomicBool::new(false) })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn head(&self, id: ObjectId) -> Result<Option<Head>> {
        self.read(|snapshot| {
            let Some(value) = snapshot.objects.get(id.as_bytes())? else { return Ok(None) };
            let (head, _) = Head::decode(value.value()).ok_or(Trouble::Entry("object", id))?;
            Ok(Some(head))
        })
    }

    /// Reads an object and checks that it has its id.
    pub(super) fn object(&self, id: ObjectId) -> Result<Option<(Object, Stamp)>> {
        let found = self.read(|snapshot| {
            let Some(value) = snapshot.objects.get(id.as_bytes())? else { return Ok(None) };
            let (head, place) = Head::decode(value.value()).ok_or(Trouble::Entry("object", id))?;
            let content = match place {
                Place::Here(content) => Bytes::copy_from_slice(content),
                Place::Apart => {
                    let content = snapshot.contents.get(id.as_bytes())?.ok_or(Trouble::Entry("object", id))?;
                    Bytes::copy_from_slice(content.value())
                }
            };
            Ok(Some((Object { kind: head.kind, content }, head.stamp)))
        })?;
        if found.as_ref().is_some_and(|(object, _)| object.id() != id) {
            return Err(self.trouble(Trouble::Entry("object", id)));
        }
        Ok(found)
    }

    pub(super) fn memo(&self, request: ObjectId) -> Result<Option<Entry>> {
        self.read(|snapshot| entry(&snapshot.memo, "memo entry", request))
    }

    pub(super) fn pin(&self, request: ObjectId) -> Result<Option<Entry>> {
        self.read(|snapshot| entry(&snapshot.pins, "pin", request))
    }

    /// Visits every object, by id. One whose head makes no sense comes as `None`.
    pub(super) fn each_object(&self, mut visit: impl FnMut(ObjectId, Option<Head>)) -> Result<()> {
        self.each(OBJECTS, |id, value| visit(id, Head::decode(value).map(|(head, _)| head)))
    }

    /// Visits every memo entry, by request. A damaged one comes as `None`.
    pub(super) fn each_memo(&self, mut visit: impl FnMut(ObjectId, Option<Entry>)) -> Result<()> {
        self.each(MEMO, |request, value| visit(request, Entry::decode(request, value)))
    }

    /// Visits every pin, by request. A damaged one comes as `None`.
    pub(super) fn each_pin(&self, mut visit: impl FnMut(ObjectId, Option<Entry>)) -> Result<()> {
        self.each(PINS, |request, value| visit(request, Entry::decode(request, value)))
    }

    fn each(
        &self,
        table: redb::TableDefinition<'_, format::Bytes, format::Bytes>,
        mut visit: impl FnMut(ObjectId, &[u8]),
    ) -> Result<()> {
        self.guard(|| {
            let database = self.database.read();
            let table = database.begin_read()?.open_table(table)?;
            for item in table.iter()? {
                let (key, value) = item?;
                let id = ObjectId::from_bytes(key.value()).map_err(|_| Trouble::Key(key.value().to_vec()))?;
                visit(id, value.value());
            }
            Ok(())
        })
    }

    /// Commits `batch` in one transaction: objects, memo and pins come together or not at all.
    pub(super) fn commit(&self, batch: &Batch) -> Result<()> {
        let now = Stamp::now();
        let mut changed = !batch.memo.is_empty() || !batch.pins.is_empty();
        self.write(|transaction| {
            let mut objects = transaction.open_table(OBJECTS)?;
            let mut contents = transaction.open_table(CONTENTS)?;
            // In the order of their keys, neighbours come into one page while it is at hand.
            let mut sorted: Vec<_> = batch.objects.iter().collect();
            sorted.sort_unstable_by_key(|(id, _)| **id);
            for (id, object) in sorted {
                let restamped = match objects.get(id.as_bytes())? {
                    None => None,
                    Some(value) => match Head::decode(value.value()) {
                        Some((head, _)) if head.stamp.is_fresh(now) => continue,
                        Some(_) => Some(Head::restamp(value.value(), now)),
                        None => None,
                    },
                };
                changed = true;
                if let Some(value) = restamped {
                    objects.insert(id.as_bytes(), &*value)?;
                    continue;
                }
                let content = &*object.content;
                let head = Head { kind: object.kind, stamp: now, length: content.len() as u64 };
                objects.insert(id.as_bytes(), &*head.encode(content))?;
                if content.len() > format::SHORT {
                    contents.insert(id.as_bytes(), content)?;
                }
            }
            let mut memo = transaction.open_table(MEMO)?;
            let mut sorted: Vec<_> = batch.memo.iter().collect();
            sorted.sort_unstable_by_key(|(request, _)| **request);
            for (request, entry) in sorted {
                memo.insert(request.as_bytes(), &*entry.encode(*request))?;
            }
            let mut pins = transaction.open_table(PINS)?;
            for (request, pin) in &batch.pins {
                match pin {
                    Some(entry) => drop(pins.insert(request.as_bytes(), &*entry.encode(*request))?),
                    None => drop(pins.remove(request.as_bytes())?),
                }
            }
            Ok(changed)
        })
    }

    /// Deletes memo entries and objects in one transaction. What was used or written since it got its stamp stays.
    pub(super) fn delete(
        &self,
        memo: &[(ObjectId, Option<Stamp>)],
        objects: &[(ObjectId, Option<Stamp>)],
    ) -> Result<()> {
        self.write(|transaction| {
            let mut table = transaction.open_table(MEMO)?;
            for (request, stamp) in memo {
                let found = table.get(request.as_bytes())?.map(|value| Entry::decode(*request, value.value()));
                if found.is_some_and(|entry| entry.map(|entry| entry.stamp) == *stamp) {
                    table.remove(request.as_bytes())?;
                }
            }
            let mut table = transaction.open_table(OBJECTS)?;
            let mut contents = transaction.open_table(CONTENTS)?;
            for (id, stamp) in objects {
                let found = table.get(id.as_bytes())?.map(|value| Head::decode(value.value()).map(|(head, _)| head));
                if found.is_some_and(|head| head.map(|head| head.stamp) == *stamp) {
                    table.remove(id.as_bytes())?;
                    contents.remove(id.as_bytes())?;
                }
            }
            Ok(true)
        })
    }

    /// Deletes pins.
    pub(super) fn delete_pins(&self, requests: &[ObjectId]) -> Result<()> {
        self.write(|transaction| {
            let mut table = transaction.open_table(PINS)?;
            for request in requests {
                table.remove(request.as_bytes())?;
            }
            Ok(true)
        })
    }

    /// Gives the file's free space back to the operating system. False when another process is reading or writing just now.
    pub(super) fn compact(&self) -> Result<bool> {
        self.guard(|| {
            let mut database = self.database.write();
            *self.snapshot.write() = None;
            match database.compact() {
                Ok(_) => Ok(true),
                Err(redb::CompactionError::TransactionInProgress) => Ok(false),
                Err(error) => Err(redb::Error::from(error).into()),
            }
        })
    }

    /// Checks the checksum of every page.
    pub(super) fn check_pages(&self) -> Result<()> {
        self.guard(|| {
            let mut database = self.database.write();
            *self.snapshot.write() = None;
            match database.check_integrity() {
                Ok(true) => Ok(()),
                Ok(false) => Err(Trouble::Damaged("pages did not have their checksums".to_owned())),
                Err(error) => Err(redb::Error::from(error).into()),
            }
        })
    }

    /// Has later reads see what is committed by now.
    pub(super) fn refresh(&self) {
        *self.snapshot.write() = None;
    }

    /// Commits what `fill` did, if it says that there is something.
    fn write(&self, fill: impl FnOnce(&WriteTransaction) -> Result<bool, Trouble>) -> Result<()> {
        self.guard(|| {
            let database = self.database.read();
            let transaction = database.begin_write()?;
            match fill(&transaction)? {
                true => transaction.commit()?,
                false => transaction.abort()?,
            }
            Ok(())
        })?;
        self.refresh();
        Ok(())
    }

    fn read<T>(&self, look: impl Fn(&Snapshot) -> Result<T, Trouble>) -> Result<T> {
        self.guard(|| {
            if let Some(snapshot) = &*self.snapshot.read()
                && snapshot.taken.elapsed() < SNAPSHOT_AGE
            {
                return look(snapshot);
            }
            let database = self.database.read();
            let mut slot = self.snapshot.write();
            let snapshot = Snapshot::take(&database.begin_read()?)?;
            look(slot.insert(snapshot))
        })
    }

    /// Runs code of the database, which may panic where the file is damaged.
    fn guard<T>(&self, work: impl FnOnce() -> Result<T, Trouble>) -> Result<T> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(self.trouble(Trouble::Damaged("it failed before".to_owned())));
        }
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result.map_err(|trouble| self.trouble(trouble)),
            Err(panic) => {
                self.broken.store(true, Ordering::Relaxed);
                Err(self.trouble(Trouble::Damaged(panic_message(&*panic))))
            }
        }
    }

    fn trouble(&self, trouble: Trouble) -> Error {
        let file = self.file.display();
        let advice = "`manifold verify` tells how much of it, and what is deleted is computed again";
        let (problem, status) = match trouble {
            Trouble::Damaged(problem) => (format!("{file} is damaged ({problem}); {advice}"), Status::Permanent),
            Trouble::Entry(what, id) => {
                (format!("{file} is damaged: {what} {id} is not what was written; {advice}"), Status::Permanent)
            }
            Trouble::Key(key) => {
                (format!("{file} is damaged: it has a key of {} bytes; {advice}", key.len()), Status::Permanent)
            }
            Trouble::Database(error) => (format!("{file} cannot be used: {error}"), Status::Transient),
        };
        Error::new(Reason::StoreFailed { problem, status })
    }
}

/// The file in the store's directory.
const FILE: &str = "manifold.redb";

/// What went wrong in the file, before it has the file's name.
enum Trouble {
    Damaged(String),
    Entry(&'static str, ObjectId),
    Key(Vec<u8>),
    Database(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Corrupted(problem) => Self::Damaged(problem),
            other => Self::Database(other),
        }
    }
}

impl Snapshot {
    fn take(transaction: &ReadTransaction) -> Result<Self, Trouble> {
        Ok(Self {
            taken: Instant::now(),
            objects: transaction.open_table(OBJECTS)?,
            contents: transaction.open_table(CONTENTS)?,
            memo: transaction.open_table(MEMO)?,
            pins: transaction.open_table(PINS)?,
        })
    }
}

fn entry(table: &Table, what: &'static str, request: ObjectId) -> Result<Option<Entry>, Trouble> {
    let Some(value) = table.get(request.as_bytes())? else { return Ok(None) };
    Entry::decode(request, value.value()).map(Some).ok_or(Trouble::Entry(what, request))
}

/// Creates the tables of a new file, and checks the format of an old one.
fn set_up(file: &Path, database: &Database) -> Result<(), OpenError> {
    let failed = |error: redb::Error| open_error(file, error);
    let format = |transaction: &ReadTransaction| match transaction.open_table(META) {
        Ok(meta) => Ok(meta.get(FORMAT_KEY)?.map(|value| value.value().to_owned())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(redb::Error::from(error)),
    };
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let found = format(&transaction).map_err(failed)?;
    drop(transaction);
    match found {
        Some(found) if found == FORMAT => Ok(()),
        Some(found) => Err(OpenError::Format { path: file.to_owned(), found }),
        None => create_tables(database).map_err(|error| failed(error)),
    }
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
    for table in [OBJECTS, CONTENTS, MEMO, PINS] {
        transaction.open_table(table)?;
    }
    transaction.commit()?;
    Ok(())
}

fn open_error(file: &Path, error: impl Into<redb::Error>) -> OpenError {
    let path = file.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => OpenError::InUse { path },
        redb::Error::Corrupted(problem) => OpenError::Damaged { path, problem },
        redb::Error::Io(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            OpenError::Damaged { path, problem: "it is cut short".to_owned() }
        }
        redb::Error::Io(source) => match source.kind() {
            std::io::ErrorKind::InvalidData => OpenError::Damaged { path, problem: source.to_string() },
            _ => OpenError::Io { path, source },
        },
        other => OpenError::Damaged { path, problem: other.to_string() },
    }
}
