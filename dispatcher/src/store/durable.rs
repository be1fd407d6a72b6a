//! A store in one file that outlives the process.

mod batch;
mod collect;
mod committer;
mod disk;
mod format;
mod locks;
mod open;
mod tables;
mod verify;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, Outcome, Result};
use parking_lot::RwLock;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::store::{ObjectSource, Pin, Store, id_to_store};
use batch::OVERHEAD;
pub use collect::{Collected, Keep};
use committer::Committer;
use disk::{Disk, Trouble};
use format::{Book, Entry, Stamp};
pub use locks::StoreWait;
pub use open::{OpenError, StoreOptions};
pub use verify::{Damage, Verified};

/// Objects, memo and pins in one file, with a memory tier in front.
///
/// # Behavior
/// - Writes are gathered and committed together, every 200 ms unless told otherwise, so that a fold costs a few syncs and not
///   thousands. [`Store::flush`] commits now and says if it cannot; dropping the store commits, too, and only logs. A process
///   that is killed loses at most the last group, and an entry is never on disk without the objects that were written before.
/// - Several processes may have one store open. They take turns at committing, and find what others committed within a
///   second or two. [`DurableStore::collect`] and [`DurableStore::verify`] make the others wait for part of their time.
/// - An object is hashed when it is read from disk and an entry is checked, so that what is damaged is an error, and is never
///   served.
/// - While the disk is full, or fails, writes answer an error; what was accepted is kept and tried again.
/// - Who waits for another process on the file says so after half a second ([`StoreOptions::on_wait`]).
/// - An object may have up to 3 GiB.
pub struct DurableStore {
    disk: Arc<Disk>,
    committer: Arc<Committer>,
    thread: Option<JoinHandle<()>>,
    hot: Arc<Hot>,
}

/// What is in memory.
struct Hot {
    /// Objects that were read or written lately, with their stamps.
    objects: Cache<ObjectId, (Object, Stamp), ByLength>,
    memo: Cache<ObjectId, Entry>,
    pins: Cache<ObjectId, Entry>,
    /// Taken for reading by who copies an entry from disk, and for writing by who changes one, so that no copy outlives the
    /// change.
    filling: RwLock<()>,
    /// The number of removals that this is up to date with.
    removals: AtomicU64,
    /// When that was looked up last, in milliseconds since `started`.
    looked: AtomicU64,
    started: Instant,
}

/// How long others may have taken something away before it is noticed, in milliseconds.
const LOOK_EVERY: u64 = 1000;
/// What the database takes as one value.
const MOST_BYTES: usize = 3 << 30;

#[derive(Clone)]
struct ByLength;

impl Weighter<ObjectId, (Object, Stamp)> for ByLength {
    fn weight(&self, _: &ObjectId, (object, _): &(Object, Stamp)) -> u64 {
        (object.content.len() + OVERHEAD) as u64
    }
}

impl DurableStore {
    /// Opens the store in `directory` with default settings. The directory and the file are made if they are not there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options().open(directory)
    }

    /// Starts a store with other settings.
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
            filling: RwLock::new(()),
            removals: AtomicU64::new(disk.removals().unwrap_or_default()),
            looked: AtomicU64::new(0),
            started: Instant::now(),
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
        Ok(Self { disk, committer, thread: Some(thread), hot })
    }

    /// The file.
    pub fn file(&self) -> &Path {
        self.disk.file()
    }

    /// Whether it was opened for reading alone.
    pub fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    /// Forgets what is in memory if somebody took something away.
    fn look_around(&self) -> Result<()> {
        let now = u64::try_from(self.hot.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let looked = self.hot.looked.load(Ordering::Relaxed);
        if now.saturating_sub(looked) < LOOK_EVERY {
            return Ok(());
        }
        self.hot.looked.store(now, Ordering::Relaxed);
        let removals = self.disk.removals()?;
        if self.hot.removals.swap(removals, Ordering::AcqRel) != removals {
            self.forget();
        }
        Ok(())
    }

    fn forget(&self) {
        let _filling = self.hot.filling.write();
        self.hot.objects.clear();
        self.hot.memo.clear();
        self.hot.pins.clear();
    }

    fn entry(&self, book: Book, request: ObjectId) -> Result<Option<Entry>> {
        let hot = self.hot.entries(book);
        if let Some(entry) = hot.get(&request) {
            return Ok(Some(entry));
        }
        let _filling = self.hot.filling.read();
        if let Some(pending) = self.committer.entry(book, request) {
            return Ok(pending);
        }
        let entry = self.disk.read(|tables| tables.entry(book, request))?;
        if let Some(entry) = entry {
            hot.insert(request, entry);
        }
        Ok(entry)
    }

    /// The outcome that stands in `book` under `request`. That it was asked for counts as use.
    fn outcome(&self, book: Book, request: ObjectId) -> Result<Option<Outcome>> {
        self.look_around()?;
        let entry = self.entry(book, request)?;
        if let Some(entry) = entry
            && !entry.stamp.is_fresh(Stamp::now())
            && !self.disk.is_read_only()
        {
            // If it cannot be committed, the next write says so.
            let _ = self.enter(book, request, entry.outcome);
        }
        Ok(entry.map(|entry| entry.outcome))
    }

    fn check_writable(&self) -> Result<()> {
        if self.disk.is_read_only() {
            return Err(Error::store(format!(
                "{} is open for reading alone",
                self.file().display()
            )));
        }
        Ok(())
    }

    fn enter(&self, book: Book, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.check_writable()?;
        let entry = Entry { outcome, stamp: Stamp::now() };
        let added = self.committer.add(|batch| match book {
            Book::Memo => batch.add_memo(request, entry),
            Book::Pins => batch.add_pin(request, Some(entry)),
        })?;
        let _filling = self.hot.filling.write();
        self.hot.entries(book).insert(request, entry);
        added.result()
    }
}

impl Hot {
    fn entries(&self, book: Book) -> &Cache<ObjectId, Entry> {
        match book {
            Book::Memo => &self.memo,
            Book::Pins => &self.pins,
        }
    }
}

impl ObjectSource for DurableStore {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        self.look_around()?;
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

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        self.look_around()?;
        if let Some((object, _)) = self.hot.objects.get(&id) {
            return Ok(Some(object.kind));
        }
        if let Some(object) = self.committer.object(id) {
            return Ok(Some(object.kind));
        }
        Ok(self.disk.read(|tables| tables.head(id))?.map(|head| head.kind))
    }
}

impl Store for DurableStore {
    fn write(&self, object: Object) -> Result<ObjectId> {
        self.check_writable()?;
        let length = object.content.len();
        if length > MOST_BYTES {
            return Err(Error::store(format!(
                "an object has {length} bytes, and this store takes {MOST_BYTES}"
            )));
        }
        let id = id_to_store(&object)?;
        self.look_around()?;
        let now = Stamp::now();
        if self.hot.objects.get(&id).is_some_and(|(_, stamp)| stamp.is_fresh(now)) {
            return Ok(id);
        }
        let added = self.committer.add(|batch| batch.add_object(id, object.clone()))?;
        self.hot.objects.insert(id, (object, now));
        added.result().map(|()| id)
    }

    fn recall(&self, request: ObjectId) -> Result<Option<Outcome>> {
        self.outcome(Book::Memo, request)
    }

    fn remember(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.enter(Book::Memo, request, outcome)
    }

    fn pin(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.enter(Book::Pins, request, outcome)
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.check_writable()?;
        let pinned = self.entry(Book::Pins, request)?.is_some();
        let added = self.committer.add(|batch| batch.add_pin(request, None))?;
        let _filling = self.hot.filling.write();
        self.hot.pins.remove(&request);
        added.result().map(|()| pinned)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<Outcome>> {
        self.outcome(Book::Pins, request)
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        self.flush()?;
        let pins = self.disk.examine(|tables| {
            let pins = tables.all_pins()?.into_iter();
            pins.map(|(request, entry)| match entry {
                Some(entry) => Ok(Pin { request, outcome: entry.outcome }),
                None => Err(Trouble::Value("the pin of request", request)),
            })
            .collect()
        });
        pins.map_err(|trouble| self.disk.error(trouble))
    }

    fn flush(&self) -> Result<()> {
        self.committer.flush()
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        self.committer.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told when it happened; there is nobody to tell now.
            let _ = thread.join();
        }
    }
}
