//! The thread that commits: everything that gathered in the meantime goes to disk in one transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_runtime_api::{Error, Object, ObjectId, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::batch::Batch;
use super::disk::Disk;
use super::format::{Book, Entry};
use super::open::StoreOptions;
use crate::panic_message::panic_message;

/// Writes on their way to disk. They are found here until reads from disk find them.
pub(super) struct Committer {
    state: Mutex<State>,
    /// Something came to be committed, or has to be committed soon.
    work: Condvar,
    /// A commit ended, or there is room for more.
    ended: Condvar,
    group_time: Duration,
    group_bytes: usize,
    pending_bytes: usize,
}

#[derive(Default)]
struct State {
    gathering: Batch,
    /// When the first write of `gathering` came, or when a failed commit was.
    since: Option<Instant>,
    committing: Option<Arc<Batch>>,
    /// How many writes came so far, and how many of them are on disk.
    added: u64,
    done: u64,
    /// Why the last commit failed, and how many did.
    failure: Option<Error>,
    failures: u64,
    /// A pin that could not be set, until somebody is told.
    not_pinned: Option<Error>,
    hurry: bool,
    closing: bool,
    /// The thread is gone.
    dead: bool,
}

/// Something was added, though lately nothing could be committed if there is an error.
#[must_use]
pub(super) struct Added(Option<Error>);

impl Added {
    /// # Errors
    /// Why nothing could be committed lately. What was added stays and is tried again.
    pub(super) fn result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// How long after a failed commit the next one is tried, unless somebody asks for it.
const RETRY: Duration = Duration::from_secs(1);
/// How often a thread without work looks after the disk's snapshot.
const IDLE: Duration = Duration::from_secs(2);

impl Committer {
    pub(super) fn new(options: &StoreOptions) -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            group_time: options.group_time,
            group_bytes: options.group_bytes.min(options.pending_bytes),
            pending_bytes: options.pending_bytes,
        }
    }

    /// Adds to what is committed next. Waits while there is too much.
    ///
    /// # Errors
    /// Nothing was added, because there is too much already, and why it cannot be committed.
    pub(super) fn add(&self, add: impl FnOnce(&mut Batch)) -> Result<Added> {
        let mut state = self.state.lock();
        while state.dead || state.is_full(self.pending_bytes) {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if state.dead {
                return Err(Error::store("the store is closed"));
            }
            self.ended.wait(&mut state);
        }
        let was_empty = state.gathering.is_empty();
        add(&mut state.gathering);
        state.added += 1;
        if was_empty {
            state.since = Some(Instant::now());
        }
        if was_empty || state.gathering.bytes >= self.group_bytes {
            self.work.notify_one();
        }
        Ok(Added(state.failure.clone()))
    }

    /// Waits until everything added so far is on disk.
    ///
    /// # Errors
    /// Why it is not. It stays, and is tried again.
    pub(super) fn flush(&self) -> Result<()> {
        let mut state = self.state.lock();
        let (target, failures) = (state.added, state.failures);
        while state.done < target {
            if let Some(failure) = state.failure.clone()
                && (state.dead || state.failures != failures)
            {
                return Err(failure);
            }
            state.hurry = true;
            self.work.notify_one();
            self.ended.wait(&mut state);
        }
        state.not_pinned.take().map_or(Ok(()), Err)
    }

    pub(super) fn object(&self, id: ObjectId) -> Option<Object> {
        self.find(|batch| batch.objects.get(&id).cloned())
    }

    /// `Some(None)` is a pin that is being taken away.
    pub(super) fn entry(&self, book: Book, request: ObjectId) -> Option<Option<Entry>> {
        self.find(|batch| match book {
            Book::Memo => batch.memo.get(&request).copied().map(Some),
            Book::Pins => batch.pins.get(&request).copied(),
        })
    }

    fn find<T>(&self, look: impl Fn(&Batch) -> Option<T>) -> Option<T> {
        let state = self.state.lock();
        look(&state.gathering).or_else(|| state.committing.as_deref().and_then(look))
    }

    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_one();
    }

    /// Commits until the store is closed and nothing is left. What another process collected comes from `rescue`.
    pub(super) fn run(&self, disk: &Disk, rescue: impl Fn(ObjectId) -> Option<Object>) {
        let work = || {
            while let Some((batch, added)) = self.next(disk) {
                let result = disk.commit(&batch, &rescue);
                if !self.ended(&batch, added, result) {
                    return;
                }
            }
        };
        let panicked = catch_unwind(AssertUnwindSafe(work)).err();
        let mut state = self.state.lock();
        state.dead = true;
        if let Some(panic) = panicked {
            let problem = format!(
                "the thread that writes {} panicked: {}",
                disk.file().display(),
                panic_message(&*panic)
            );
            tracing::error!("{problem}");
            state.failure = Some(Error::store(problem));
            state.failures += 1;
        }
        self.ended.notify_all();
    }

    /// Notes how a commit ended. False when there is no use in another one.
    fn ended(&self, batch: &Batch, added: u64, result: Result<Vec<ObjectId>>) -> bool {
        let mut state = self.state.lock();
        state.committing = None;
        let goes_on = match result {
            Ok(not_pinned) => {
                state.done = added;
                state.failure = None;
                if let Some(request) = not_pinned.first() {
                    let problem = format!(
                        "request {request} is not pinned: its outcome was collected before it could be"
                    );
                    tracing::error!("{problem}");
                    state.not_pinned = Some(Error::store(problem));
                }
                true
            }
            Err(error) => {
                tracing::error!("{error}");
                state.gathering.put_back(batch);
                state.since = Some(Instant::now() + RETRY);
                state.failure = Some(error);
                state.failures += 1;
                !state.closing
            }
        };
        self.ended.notify_all();
        goes_on
    }

    /// Waits for the next batch, and answers it with the number of writes that came until now.
    fn next(&self, disk: &Disk) -> Option<(Arc<Batch>, u64)> {
        let mut state = self.state.lock();
        loop {
            let full = state.failure.is_none() && state.gathering.bytes >= self.group_bytes;
            let hurried = state.closing || state.hurry || full;
            match state.since {
                None if state.closing => return None,
                None => {
                    state.hurry = false;
                    if self.work.wait_for(&mut state, IDLE).timed_out() {
                        MutexGuard::unlocked(&mut state, || disk.drop_old_snapshot());
                    }
                }
                Some(_) if hurried => break,
                Some(since) => match since.checked_add(self.group_time) {
                    Some(due) if self.work.wait_until(&mut state, due).timed_out() => break,
                    Some(_) => {}
                    None => self.work.wait(&mut state),
                },
            }
        }
        state.hurry = false;
        state.since = None;
        let batch = Arc::new(std::mem::take(&mut state.gathering));
        state.committing = Some(Arc::clone(&batch));
        self.ended.notify_all();
        Some((batch, state.added))
    }
}

impl State {
    fn is_full(&self, bytes: usize) -> bool {
        !self.gathering.is_empty() && self.gathering.bytes >= bytes
    }
}
