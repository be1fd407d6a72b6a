//! A store in one file that outlives the process.

mod batch;
mod collect;
mod committer;
mod disk;
mod format;
mod open;
mod verify;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, Outcome, Result};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::store::{ObjectSource, Pin, Store};
use batch::OVERHEAD;
pub use collect::{Collected, Keep};
use committer::Committer;
use disk::Disk;
use format::{Entry, Stamp};
pub use open::{OpenError, StoreOptions};
pub use verify::{Damage, Verified};

/// Objects, memo and pins in one file, with a memory tier in front.
///
/// # Behavior
/// - Writes are gathered and committed together, every 200 ms unless told otherwise, so that a fold costs a few syncs and not
///   thousands. [`Store::flush`] commits now; so does dropping the store. A process that is killed loses at most the last
///   group, and an entry is never on disk without the objects that were written before it.
/// - Several processes may have one store open. They take turns at committing, and find what others committed within a
///   second.
/// - An object is hashed when it is read from disk and an entry is checked, so that what is damaged is an error, and is never
///   served.
pub struct DurableStore {
    disk: Arc<Disk>,
    committer: Arc<Committer>,
    thread: Option<JoinHandle<()>>,
    /// Objects that were read or written lately, with their stamps.
    objects: Cache<ObjectId, (Object, Stamp), ByLength>,
    memo: Cache<ObjectId, Entry>,
    pins: Cache<ObjectId, Entry>,
}

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
        let thread = {
            let (disk, committer) = (Arc::clone(&disk), Arc::clone(&committer));
            let run = move || committer.run(&disk);
            let failed = |source| OpenError::Io { path: directory.to_owned(), source };
            std::thread::Builder::new().name("manifold-store".to_owned()).spawn(run).map_err(failed)?
        };
        const AVERAGE_OBJECT: u64 = 512;
        let expected = usize::try_from(options.hot_bytes / AVERAGE_OBJECT).unwrap_or(usize::MAX);
        Ok(Self {
            disk,
            committer,
            thread: Some(thread),
            objects: Cache::with_weighter(expected, options.hot_bytes, ByLength),
            memo: Cache::new(options.hot_entries),
            pins: Cache::new(options.hot_entries),
        })
    }

    /// The file.
    pub fn file(&self) -> &Path {
        self.disk.file()
    }

    /// Remembers that `entry` was used, if that is news.
    fn touch(&self, request: ObjectId, entry: Entry) {
        let stamp = Stamp::now();
        if entry.stamp.is_fresh(stamp) {
            return;
        }
        let touched = Entry { stamp, ..entry };
        self.memo.insert(request, touched);
        // If it cannot be committed, the next write says so.
        let _ = self.committer.add(|batch| batch.add_memo(request, touched));
    }
}

impl ObjectSource for DurableStore {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        if let Some((object, _)) = self.objects.get(&id) {
            return Ok(Some(object));
        }
        if let Some(object) = self.committer.object(id) {
            return Ok(Some(object));
        }
        let Some((object, stamp)) = self.disk.object(id)? else { return Ok(None) };
        self.objects.insert(id, (object.clone(), stamp));
        Ok(Some(object))
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        if let Some((object, _)) = self.objects.get(&id) {
            return Ok(Some(object.kind));
        }
        if let Some(object) = self.committer.object(id) {
            return Ok(Some(object.kind));
        }
        Ok(self.disk.head(id)?.map(|head| head.kind))
    }
}

impl Store for DurableStore {
    fn write(&self, object: Object) -> Result<ObjectId> {
        let id = object.id();
        if id.is_null() {
            return Err(Error::store("the content is one half of a SHA-1 collision and has no id"));
        }
        let now = Stamp::now();
        if self.objects.get(&id).is_some_and(|(_, stamp)| stamp.is_fresh(now)) {
            return Ok(id);
        }
        self.committer.add(|batch| batch.add_object(id, object.clone()))?;
        self.objects.insert(id, (object, now));
        Ok(id)
    }

    fn recall(&self, request: ObjectId) -> Result<Option<Outcome>> {
        if let Some(entry) = self.memo.get(&request) {
            self.touch(request, entry);
            return Ok(Some(entry.outcome));
        }
        if let Some(entry) = self.committer.memo(request) {
            return Ok(Some(entry.outcome));
        }
        let Some(entry) = self.disk.memo(request)? else { return Ok(None) };
        self.memo.insert(request, entry);
        self.touch(request, entry);
        Ok(Some(entry.outcome))
    }

    fn remember(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        let entry = Entry { outcome, stamp: Stamp::now() };
        self.committer.add(|batch| batch.add_memo(request, entry))?;
        self.memo.insert(request, entry);
        Ok(())
    }

    fn pin(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        let entry = Entry { outcome, stamp: Stamp::now() };
        self.committer.add(|batch| batch.add_pin(request, Some(entry)))?;
        self.pins.insert(request, entry);
        Ok(())
    }

    fn unpin(&self, request: ObjectId) -> Result<bool> {
        let pinned = self.pinned(request)?.is_some();
        self.pins.remove(&request);
        self.committer.add(|batch| batch.add_pin(request, None))?;
        Ok(pinned)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<Outcome>> {
        if let Some(entry) = self.pins.get(&request) {
            return Ok(Some(entry.outcome));
        }
        if let Some(pending) = self.committer.pin(request) {
            return Ok(pending.map(|entry| entry.outcome));
        }
        let Some(entry) = self.disk.pin(request)? else { return Ok(None) };
        self.pins.insert(request, entry);
        Ok(Some(entry.outcome))
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        self.flush()?;
        let mut pins = Vec::new();
        self.disk.each_pin(|request, entry| pins.extend(entry.map(|entry| Pin { request, outcome: entry.outcome })))?;
        Ok(pins)
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
