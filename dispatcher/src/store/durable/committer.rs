//! Group commit: writes collect in a [`Batch`], and one thread commits each batch in one
//! transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_runtime_api::{Error, Object, ObjectId, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::batch::{Batch, Change};
use super::disk::Disk;
use super::format::{Entry, EntryTable};
use super::open::{OnCommit, StoreOptions};
use crate::panic_message::panic_message;
use crate::store::RunRecord;

/// Writes that are not on disk yet. Reads find them here until a snapshot of the disk has them.
pub(super) struct Committer {
    state: Mutex<State>,
    /// Wakes the thread: there is something to commit, or it has to be committed now.
    work: Condvar,
    /// Wakes writers and `flush`: a commit ended, or there is room for more writes.
    changed: Condvar,
    group_time: Duration,
    group_bytes: usize,
    pending_bytes: usize,
    on_commit: OnCommit,
}

#[derive(Default)]
struct State {
    /// The writes of the next commit.
    gathering: Batch,
    /// The start of the group time: when the first write of `gathering` was added, or, after a
    /// failed commit, [`RETRY`] after the failure.
    since: Option<Instant>,
    /// The writes that are being committed.
    committing: Option<Arc<Batch>>,
    /// An empty batch for the writes after those.
    spare: Option<Batch>,
    /// The number of writes that were added so far.
    added: u64,
    /// The number of writes that are on disk.
    done: u64,
    /// Why the last commit failed, if it did.
    failure: Option<Error>,
    /// The number of commits that failed.
    failures: u64,
    /// Why a pin could not be set, until a call of `flush` returns it.
    pin_failure: Option<Error>,
    /// Whether to commit without waiting for the group time to pass.
    commit_now: bool,
    /// Whether the store is being closed or dropped.
    closing: bool,
    /// Whether the committing thread has ended.
    thread_ended: bool,
}

/// A write that was added. Holds the error of the last commit, if it failed.
#[must_use]
pub(super) struct Added(Option<Error>);

impl Added {
    /// # Errors
    /// Returns the error of the last commit, if it failed. The write stays queued and is retried.
    pub(super) fn result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// The pause before a failed commit is retried, unless `flush` is called.
const RETRY: Duration = Duration::from_secs(1);
/// How often the idle thread drops an old snapshot of the disk.
const IDLE: Duration = Duration::from_secs(2);

impl Committer {
    pub(super) fn new(options: &StoreOptions) -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            changed: Condvar::new(),
            group_time: options.group_time,
            group_bytes: options.group_bytes.min(options.pending_bytes),
            pending_bytes: options.pending_bytes,
            on_commit: options.on_commit.clone(),
        }
    }

    /// Adds writes to the next batch. Blocks while the pending limit is reached.
    ///
    /// # Errors
    /// Returns the last commit error if the pending limit is reached while commits fail, or if the
    /// thread has ended. Nothing is added then.
    pub(super) fn add(&self, add: impl FnOnce(&mut Batch)) -> Result<Added> {
        let mut state = self.state.lock();
        while state.has_closed() || state.is_full(self.pending_bytes) {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if state.has_closed() {
                return Err(closed());
            }
            self.changed.wait(&mut state);
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

    /// Waits until everything that was added so far is on disk.
    ///
    /// # Errors
    /// Returns the error of the commit if it fails. The writes stay queued and are retried. Also
    /// returns an error if a pin could not be set.
    pub(super) fn flush(&self) -> Result<()> {
        let mut state = self.state.lock();
        let (target, failures) = (state.added, state.failures);
        while state.done < target {
            if state.thread_ended || state.failures != failures {
                return Err(state.failure.clone().unwrap_or_else(closed));
            }
            state.commit_now = true;
            self.work.notify_one();
            self.changed.wait(&mut state);
        }
        state.pin_failure.take().map_or(Ok(()), Err)
    }

    /// Returns an object that is not on disk yet.
    pub(super) fn object(&self, id: ObjectId) -> Option<Object> {
        self.find(|batch| batch.objects.get(&id).cloned())
    }

    /// Returns the entry as it will be after a pending change, or `None` if the entry on disk is
    /// current, but for its stamp.
    pub(super) fn change(&self, table: EntryTable, request: ObjectId) -> Option<Option<Entry>> {
        self.find(|batch| match table {
            EntryTable::Memo => {
                batch.memo.get(&request).filter(|memo| !memo.is_renewal)?.entry.map(Some)
            }
            EntryTable::Pins => match batch.pins.get(&request)? {
                Change::Set(entry) => Some(Some(*entry)),
                Change::Remove => Some(None),
                Change::Renew(_) => None,
            },
        })
    }

    /// Returns the record of a run that is not on disk yet.
    pub(super) fn run_record(&self, request: ObjectId) -> Option<RunRecord> {
        self.find(|batch| batch.memo.get(&request)?.run.clone())
    }

    fn find<T>(&self, look: impl Fn(&Batch) -> Option<T>) -> Option<T> {
        let state = self.state.lock();
        look(&state.gathering).or_else(|| state.committing.as_deref().and_then(look))
    }

    /// Makes the thread commit what is pending, and end. Nothing can be added from now on.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_one();
        self.changed.notify_all();
    }

    /// Runs the committing thread: commits until the store is closed and nothing is pending.
    /// Objects that another process has collected are supplied by `rescue`.
    pub(super) fn run(&self, disk: &Disk, rescue: impl Fn(ObjectId) -> Option<Object>) {
        let work = || {
            while let Some((batch, added)) = self.next_batch(disk) {
                let start = Instant::now();
                let result = disk.commit(&batch, &rescue);
                if result.is_ok() {
                    self.on_commit.tell(start.elapsed(), disk.file());
                }
                if !self.finish_commit(&batch, added, result) {
                    return;
                }
                let spare = Arc::into_inner(batch).and_then(Batch::emptied);
                self.state.lock().spare = spare;
            }
        };
        let panicked = catch_unwind(AssertUnwindSafe(work)).err();
        let mut state = self.state.lock();
        state.thread_ended = true;
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
        self.changed.notify_all();
    }

    /// Records the result of a commit. Returns `false` if the thread is to end.
    fn finish_commit(&self, batch: &Batch, added: u64, result: Result<Vec<ObjectId>>) -> bool {
        let mut state = self.state.lock();
        state.committing = None;
        let continues = match result {
            Ok(not_pinned) => {
                state.done = added;
                state.failure = None;
                for request in not_pinned {
                    let problem = format!(
                        "request {request} is not pinned: its outcome was collected before the \
                         pin could be set"
                    );
                    tracing::error!("{problem}");
                    // The first one stays until somebody is told.
                    state.pin_failure.get_or_insert_with(|| Error::store(problem));
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
        self.changed.notify_all();
        continues
    }

    /// Waits for the next batch. Returns it with the number of writes that were added so far, or
    /// `None` if the store is closed and nothing is pending.
    fn next_batch(&self, disk: &Disk) -> Option<(Arc<Batch>, u64)> {
        let mut state = self.state.lock();
        loop {
            let full = state.failure.is_none() && state.gathering.bytes >= self.group_bytes;
            let due_now = state.closing || state.commit_now || full;
            match state.since {
                None if state.closing => return None,
                None => {
                    state.commit_now = false;
                    if self.work.wait_for(&mut state, IDLE).timed_out() {
                        state.spare = None;
                        MutexGuard::unlocked(&mut state, || disk.drop_old_snapshot());
                    }
                }
                Some(_) if due_now => break,
                Some(since) => match since.checked_add(self.group_time) {
                    Some(due) if self.work.wait_until(&mut state, due).timed_out() => break,
                    Some(_) => {}
                    None => self.work.wait(&mut state),
                },
            }
        }
        state.commit_now = false;
        state.since = None;
        let next = state.spare.take().unwrap_or_default();
        let batch = Arc::new(std::mem::replace(&mut state.gathering, next));
        state.committing = Some(Arc::clone(&batch));
        self.changed.notify_all();
        Some((batch, state.added))
    }
}

fn closed() -> Error {
    Error::store("the store is closed")
}

impl State {
    fn has_closed(&self) -> bool {
        self.closing || self.thread_ended
    }

    fn is_full(&self, bytes: usize) -> bool {
        !self.gathering.is_empty() && self.gathering.bytes >= bytes
    }
}
