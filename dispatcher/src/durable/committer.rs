//! The thread that commits: everything that gathered in the meantime goes to disk in one transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_runtime_api::{Error, Object, ObjectId, Result};
use parking_lot::{Condvar, Mutex};

use super::batch::Batch;
use super::disk::Disk;
use super::format::Entry;
use super::open::StoreOptions;

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
    /// When the first write of `gathering` came.
    since: Option<Instant>,
    committing: Option<Arc<Batch>>,
    /// How often a batch was begun, and the last one that is on disk.
    begun: u64,
    done: u64,
    /// Why the last commit failed.
    failure: Option<Error>,
    hurry: bool,
    closing: bool,
}

/// How long after a failed commit the next one is tried, unless somebody asks for it.
const RETRY: Duration = Duration::from_secs(1);

impl Committer {
    pub(super) fn new(options: &StoreOptions) -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            group_time: options.group_time,
            group_bytes: options.group_bytes,
            pending_bytes: options.pending_bytes,
        }
    }

    /// Adds to what is committed next. Waits while there is too much.
    ///
    /// # Errors
    /// Why nothing could be committed lately. What was added stays, and is tried again.
    pub(super) fn add(&self, add: impl FnOnce(&mut Batch)) -> Result<()> {
        let mut state = self.state.lock();
        while state.failure.is_none() && !state.gathering.is_empty() && state.gathering.bytes >= self.pending_bytes {
            self.ended.wait(&mut state);
        }
        let was_empty = state.gathering.is_empty();
        add(&mut state.gathering);
        if was_empty {
            state.since = Some(Instant::now());
        }
        if was_empty || state.gathering.bytes >= self.group_bytes {
            self.work.notify_one();
        }
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Waits until everything added so far is on disk.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn flush(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.gathering.is_empty() && state.committing.is_none() {
            return Ok(());
        }
        let target = state.begun + u64::from(!state.gathering.is_empty());
        state.failure = None;
        state.hurry = true;
        self.work.notify_one();
        while state.done < target {
            self.ended.wait(&mut state);
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
        }
        Ok(())
    }

    pub(super) fn object(&self, id: ObjectId) -> Option<Object> {
        self.find(|batch| batch.objects.get(&id).cloned())
    }

    pub(super) fn memo(&self, request: ObjectId) -> Option<Entry> {
        self.find(|batch| batch.memo.get(&request).copied())
    }

    /// `Some(None)` is a pin that is being taken away.
    pub(super) fn pin(&self, request: ObjectId) -> Option<Option<Entry>> {
        self.find(|batch| batch.pins.get(&request).copied())
    }

    fn find<T>(&self, look: impl Fn(&Batch) -> Option<T>) -> Option<T> {
        let state = self.state.lock();
        look(&state.gathering).or_else(|| state.committing.as_deref().and_then(look))
    }

    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_one();
    }

    /// Commits until the store is closed and nothing is left.
    pub(super) fn run(&self, disk: &Disk) {
        while let Some(batch) = self.next() {
            let result = disk.commit(&batch);
            let mut state = self.state.lock();
            state.committing = None;
            match result {
                Ok(()) => {
                    state.done = state.begun;
                    state.failure = None;
                }
                Err(error) => {
                    tracing::error!("{error}");
                    state.gathering.put_back(&batch);
                    state.since = Some(Instant::now() + RETRY);
                    state.begun = state.done;
                    state.failure = Some(error);
                    if state.closing {
                        self.ended.notify_all();
                        return;
                    }
                }
            }
            self.ended.notify_all();
        }
    }

    fn next(&self) -> Option<Arc<Batch>> {
        let mut state = self.state.lock();
        loop {
            let full = state.failure.is_none() && state.gathering.bytes >= self.group_bytes;
            let hurried = state.closing || state.hurry || full;
            match state.since {
                None if state.closing => return None,
                None => {
                    state.hurry = false;
                    self.work.wait(&mut state);
                }
                Some(_) if hurried => break,
                Some(since) => {
                    if self.work.wait_until(&mut state, since + self.group_time).timed_out() {
                        break;
                    }
                }
            }
        }
        state.hurry = false;
        state.since = None;
        state.begun += 1;
        let batch = Arc::new(std::mem::take(&mut state.gathering));
        state.committing = Some(Arc::clone(&batch));
        self.ended.notify_all();
        Some(batch)
    }
}
