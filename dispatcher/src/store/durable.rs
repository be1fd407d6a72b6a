//! [`DurableStore`]: a store in one file on disk.
//!
//! Writes collect in memory and a thread commits them in groups ([`committer`]). Reads are served
//! from a memory tier, from the pending writes, and from a snapshot of the file ([`disk`]).

mod batch;
mod chunks;
mod collect;
mod committer;
mod disk;
mod fault;
mod file;
mod filter;
mod format;
mod index;
mod kept;
mod known_runs;
mod locks;
mod memo_value;
mod open;
mod tables;
mod verify;
mod write;

use std::fmt;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, ObjectRef, Result};
use parking_lot::{Mutex, RwLock};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::source::ObjectSource;
use crate::store::{Pin, RunRecord, Store, id_to_store, named_images_key};
use batch::{Change, OVERHEAD, Recorded};
pub use collect::{Collected, Keep};
use committer::Committer;
use disk::{Disk, Generation};
use fault::StoreFault;
use format::{Entry, EntryTable, Stamp};
pub use locks::StoreWait;
pub use open::{OpenError, StoreCommit, StoreOptions};
use tables::{Index, ReadTables, Value};
pub use verify::{Damage, VerifyReport};

/// A store that keeps objects, memo and pins in one file, with a memory tier in front.
///
/// # Behavior
/// - Writes are committed in groups, by default every 200 ms, so that a fold costs a few syncs
///   instead of thousands. [`Store::flush`] commits immediately and returns an error if the commit
///   fails. Dropping the store also commits, but only logs an error. A process that is killed loses
///   at most the last group. An entry is never on disk without the objects that were written before
///   it.
/// - Several processes may have one store open. They take turns committing, and see each other's
///   commits within about two seconds. [`DurableStore::collect`] and [`DurableStore::verify`] block
///   the other processes for part of their time.
/// - An object is hashed and an entry is checked when it is read from disk, so that damaged data
///   causes an error and is never returned.
/// - While the disk is full or fails, writes return an error. Writes that were accepted are kept
///   and retried.
/// - A process that waits for another process's lock on the file reports it after half a second
///   ([`StoreOptions::on_wait`]).
/// - An object may have up to 3 GiB.
pub struct DurableStore {
    disk: Arc<Disk>,
    committer: Arc<Committer>,
    thread: Mutex<Option<JoinHandle<()>>>,
    hot: Arc<Hot>,
}

/// The memory tier.
struct Hot {
    /// Objects that were read or written recently, with their stamps.
    objects: Cache<ObjectId, (Object, Stamp), ByLength>,
    memo: Cache<ObjectId, Entry>,
    pins: Cache<ObjectId, Entry>,
    /// Read-locked while an entry is cached from disk, write-locked while one is changed, so that
    /// an outdated entry never stays in the cache.
    fill_lock: RwLock<()>,
    /// The generation of the disk for which the cached data is valid.
    generation: Mutex<Generation>,
    /// When `generation` was last compared with the disk ([`coarse_ms`]).
    checked_ms: AtomicU64,
    /// Whether the memory is not freed ([`StoreOptions::until_exit`]).
    outlives_the_store: bool,
}

/// How often the memory tier is checked against removals by other processes, in milliseconds.
const REMOVALS_CHECK_MS: u64 = 1000;
/// The largest object that the database accepts as one value, in bytes.
const MAX_OBJECT_BYTES: usize = 3 << 30;

/// Returns the time since some point in the past, in milliseconds, give or take ten. This clock takes
/// a fraction of the time that `Instant` takes, which a lookup would notice.
#[cfg(target_os = "linux")]
fn coarse_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let milliseconds = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
    u64::try_from(milliseconds).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn coarse_ms() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let elapsed = START.get_or_init(std::time::Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Clone)]
struct ByLength;

impl Weighter<ObjectId, (Object, Stamp)> for ByLength {
    fn weight(&self, _: &ObjectId, (object, _): &(Object, Stamp)) -> u64 {
        (object.content.len() + OVERHEAD) as u64
    }
}

impl fmt::Debug for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableStore").field("file", &self.file()).finish_non_exhaustive()
    }
}

impl DurableStore {
    /// Writes what is pending and closes the file, as dropping the store does. After that, nothing can be
    /// written, and only what is in memory can be read.
    ///
    /// Call it before a process ends in which something else may still hold the store, such as a guest
    /// on another thread. The next process that opens a file which was not closed has to check it.
    pub fn close(&self) {
        self.end_thread();
        self.disk.close();
    }

    fn end_thread(&self) {
        self.committer.close();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread was logged when it happened, and there is no one to tell.
            let _ = thread.join();
        }
    }

    /// Opens the store in `directory` with default settings. Creates the directory and the file if
    /// they do not exist.
    ///
    /// # Errors
    /// Returns an [`OpenError`] if the store cannot be opened or created.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options().open(directory)
    }

    /// Returns options for opening a store with other settings.
    pub fn options() -> StoreOptions {
        StoreOptions::default()
    }

    fn start(directory: &Path, options: &StoreOptions) -> Result<Self, OpenError> {
        let disk = Arc::new(Disk::open(directory, options)?);
        let committer = Arc::new(Committer::new(options));
        const AVERAGE_OBJECT: u64 = 512;
        let expected = usize::try_from(options.hot_bytes / AVERAGE_OBJECT).unwrap_or(usize::MAX);
        let hot = Arc::new(Hot {
            objects: Cache::with_weighter(expected, options.hot_bytes, ByLength),
            memo: Cache::new(options.hot_entries),
            pins: Cache::new(options.hot_entries),
            fill_lock: RwLock::new(()),
            generation: Mutex::new(disk.generation().unwrap_or_default()),
            checked_ms: AtomicU64::new(coarse_ms()),
            outlives_the_store: options.until_exit,
        });
        let thread = {
            let (disk, committer, hot) =
                (Arc::clone(&disk), Arc::clone(&committer), Arc::clone(&hot));
            let run =
                move || committer.run(&disk, |id| hot.objects.get(&id).map(|(object, _)| object));
            let failed = |source| OpenError::Io { path: directory.to_owned(), source };
            std::thread::Builder::new()
                .name("manifold-store".to_owned())
                .spawn(run)
                .map_err(failed)?
        };
        Ok(Self { disk, committer, thread: Mutex::new(Some(thread)), hot })
    }

    /// Returns the path of the store's file.
    pub fn file(&self) -> &Path {
        self.disk.file()
    }

    /// Returns whether the store was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    /// Clears the memory tier if data was removed from the file since the last check. Checks at
    /// most once per [`REMOVALS_CHECK_MS`].
    fn check_removals(&self) -> Result<()> {
        let now = coarse_ms();
        let checked_ms = self.hot.checked_ms.load(Ordering::Relaxed);
        if now.saturating_sub(checked_ms) < REMOVALS_CHECK_MS {
            return Ok(());
        }
        self.hot.checked_ms.store(now, Ordering::Relaxed);
        let generation = self.disk.generation()?;
        let before = mem::replace(&mut *self.hot.generation.lock(), generation);
        if before != generation {
            self.clear_memory_tier();
        }
        Ok(())
    }

    fn clear_memory_tier(&self) {
        let _guard = self.hot.fill_lock.write();
        self.hot.objects.clear();
        self.hot.memo.clear();
        self.hot.pins.clear();
    }

    fn entry(&self, table: EntryTable, request: ObjectId) -> Result<Option<Entry>> {
        let hot = self.hot.entries(table);
        if let Some(entry) = hot.get(&request) {
            return Ok(Some(entry));
        }
        let _guard = self.hot.fill_lock.read();
        let entry = match self.committer.change(table, request) {
            Some(entry) if table == EntryTable::Pins => return Ok(entry),
            Some(entry) => entry,
            None => self.disk.read(|tables| tables.entry(table, request))?,
        };
        if let Some(entry) = entry {
            hot.insert(request, entry);
        }
        Ok(entry)
    }

    /// Returns the outcome of `request` in `table`. The lookup counts as a use: an old stamp is
    /// renewed.
    fn outcome(&self, table: EntryTable, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.check_removals()?;
        let entry = self.entry(table, request)?;
        if let Some(entry) = entry
            && !entry.stamp.is_fresh(Stamp::now())
            && !self.disk.is_read_only()
        {
            // If this cannot be committed, the next write returns the error.
            let _ = self.renew(table, request, Entry { stamp: Stamp::now(), ..entry });
        }
        Ok(entry.map(|entry| entry.outcome))
    }

    /// Gives an entry a newer stamp, unless it was changed meanwhile, by this process or another.
    fn renew(&self, table: EntryTable, request: ObjectId, renewed: Entry) -> Result<()> {
        let added = self.committer.add(|batch| match table {
            EntryTable::Memo => {
                let recorded = Recorded { entry: Some(renewed), run: None, is_renewal: true };
                batch.add_memo(request, recorded);
            }
            EntryTable::Pins => batch.add_pin(request, Change::Renew(renewed)),
        })?;
        let _guard = self.hot.fill_lock.write();
        let hot = self.hot.entries(table);
        if hot.peek(&request).is_some_and(|entry| entry.outcome == renewed.outcome) {
            // The error is that it is not cached any more.
            let _ = hot.replace(request, renewed, true);
        }
        added.result()
    }

    fn check_writable(&self) -> Result<()> {
        if self.disk.is_read_only() {
            return Err(Error::store(format!(
                "the store {} is open read-only",
                self.file().display()
            )));
        }
        Ok(())
    }

    /// Records what is stated of an entry and the run of a request. An entry of the memo that is cached is
    /// replaced. A new one is cached when it is first used, because most entries of a fold are not.
    fn record_memo(
        &self,
        request: ObjectId,
        entry: Option<Entry>,
        run: Option<RunRecord>,
    ) -> Result<()> {
        self.check_writable()?;
        let recorded = Recorded { entry, run, is_renewal: false };
        let added = self.committer.add(|batch| batch.add_memo(request, recorded))?;
        if let Some(entry) = entry {
            let _guard = self.hot.fill_lock.write();
            // The error is that it is not cached.
            let _ = self.hot.memo.replace(request, entry, true);
        }
        added.result()
    }

    /// Sets or removes a pin. It is not cached before the commit, which may refuse it.
    fn change_pin(&self, request: ObjectId, change: Change) -> Result<()> {
        self.check_writable()?;
        let added = self.committer.add(|batch| batch.add_pin(request, change))?;
        let _guard = self.hot.fill_lock.write();
        self.hot.pins.remove(&request);
        added.result()
    }

    /// Runs a query that lists what was written, also by this process.
    fn list_all<T>(&self, query: impl FnOnce(&ReadTables) -> Result<T, StoreFault>) -> Result<T> {
        if !self.disk.is_read_only() {
            self.flush()?;
        }
        self.disk.examine(query).map_err(|fault| self.disk.error(fault))
    }
}

impl Hot {
    fn entries(&self, table: EntryTable) -> &Cache<ObjectId, Entry> {
        match table {
            EntryTable::Memo => &self.memo,
            EntryTable::Pins => &self.pins,
        }
    }
}

impl ObjectSource for DurableStore {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        self.check_removals()?;
        if let Some((object, _)) = self.hot.objects.get(&id) {
            return Ok(Some(object));
        }
        if let Some(object) = self.committer.object(id) {
            return Ok(Some(object));
        }
        let Some((object, stamp)) = self.disk.read(|tables| tables.object(id))? else {
            return Ok(None);
        };
        self.hot.objects.insert(id, (object.clone(), stamp));
        Ok(Some(object))
    }

    fn kind_in_memory(&self, id: ObjectId) -> Option<ObjectKind> {
        // A later check returns the error, too.
        self.check_removals().ok()?;
        self.hot.objects.get(&id).map(|(object, _)| object.kind)
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        self.check_removals()?;
        if let Some((object, _)) = self.hot.objects.get(&id) {
            return Ok(Some(object.kind));
        }
        if let Some(object) = self.committer.object(id) {
            return Ok(Some(object.kind));
        }
        Ok(self.disk.read(|tables| tables.head(id))?.map(|head| head.kind))
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        self.check_removals()?;
        if let Some((object, _)) = self.hot.objects.get(&id) {
            return Ok(Some(object.content.len() as u64));
        }
        if let Some(object) = self.committer.object(id) {
            return Ok(Some(object.content.len() as u64));
        }
        Ok(self.disk.read(|tables| tables.head(id))?.map(|head| head.length))
    }
}

impl Store for DurableStore {
    fn write(&self, object: Object) -> Result<ObjectId> {
        self.check_writable()?;
        let length = object.content.len();
        if length > MAX_OBJECT_BYTES {
            return Err(Error::store(format!(
                "the object is {length} bytes long, over the store's limit of {MAX_OBJECT_BYTES} \
                 bytes"
            )));
        }
        let id = id_to_store(&object)?;
        self.check_removals()?;
        let now = Stamp::now();
        if self.hot.objects.get(&id).is_some_and(|(_, stamp)| stamp.is_fresh(now)) {
            return Ok(id);
        }
        let added = self.committer.add(|batch| batch.add_object(id, object.clone()))?;
        self.hot.objects.insert(id, (object, now));
        added.result().map(|()| id)
    }

    fn look_up(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        self.outcome(EntryTable::Memo, request)
    }

    fn record(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.record_memo(request, Some(Entry { outcome, stamp: Stamp::now() }), None)
    }

    fn record_run(
        &self,
        request: ObjectId,
        outcome: Option<ObjectRef>,
        run: RunRecord,
    ) -> Result<()> {
        let entry = outcome.map(|outcome| Entry { outcome, stamp: Stamp::now() });
        let run = RunRecord { common: run.common.min(run.bytes.len()), ..run };
        self.record_memo(request, entry, Some(run))
    }

    fn run_record(&self, request: ObjectId) -> Result<Option<RunRecord>> {
        match self.committer.run_record(request) {
            Some(run) => Ok(Some(run)),
            None => self.disk.read(|tables| tables.run_record(request)),
        }
    }

    fn run_records(&self) -> Result<Vec<(ObjectId, RunRecord)>> {
        self.list_all(|tables| tables.run_records())
    }

    fn entries(&self) -> Result<Vec<(ObjectId, ObjectRef)>> {
        let listing = self.list_all(|tables| tables.list(Index::Memo))?;
        let entries = listing.values.into_iter().filter_map(|(_, value)| match value {
            Value::Memo { request, entry: Some(entry), .. } => Some((request, entry.outcome?)),
            _ => None,
        });
        Ok(entries.collect())
    }

    fn pin(&self, request: ObjectId, outcome: ObjectRef) -> Result<()> {
        self.change_pin(request, Change::Set(Entry { outcome, stamp: Stamp::now() }))
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.check_writable()?;
        let pinned = self.entry(EntryTable::Pins, request)?.is_some();
        self.change_pin(request, Change::Remove).map(|()| pinned)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<ObjectRef>> {
        if request == named_images_key() {
            // This one changes, also by other processes.
            self.hot.pins.remove(&request);
        }
        self.outcome(EntryTable::Pins, request)
    }

    /// To the hour, because an older time is renewed on use.
    fn pinned_at(&self, request: ObjectId) -> Result<Option<SystemTime>> {
        let entry = self.entry(EntryTable::Pins, request)?;
        Ok(entry.map(|entry| UNIX_EPOCH + Duration::from_secs(u64::from(entry.stamp.0) * 60)))
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        self.flush()?;
        let pins = self.disk.examine(|tables| {
            let pins = tables.all_pins()?.into_iter();
            pins.map(|(request, entry)| match entry {
                Some(entry) => Ok(Pin { request, outcome: entry.outcome }),
                None => Err(StoreFault::Value("the pin of request", request)),
            })
            .collect()
        });
        pins.map_err(|fault| self.disk.error(fault))
    }

    fn flush(&self) -> Result<()> {
        self.committer.flush()
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        if self.hot.outlives_the_store {
            mem::forget(Arc::clone(&self.hot));
        }
        self.end_thread();
    }
}
