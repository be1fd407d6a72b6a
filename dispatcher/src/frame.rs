//! [`FrameHost`]: the host of one frame's guest.

use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use manifold_runtime_api::{
    Call, Error, Host, Limit, Object, ObjectId, ObjectRef, Reason, Result, Tree, async_trait,
};
use parking_lot::Mutex;

use crate::by_id::ById;
use crate::claim::Wait;
use crate::core::{Core, Keyed, Want};
use crate::flight::Flight;
use crate::observe::Event;
use crate::scope::Scope;
use crate::settled::Settled;
use crate::suspension::Suspension;

/// The host of one frame's guest.
pub(crate) struct FrameHost {
    core: Arc<Core>,
    scope: Arc<Scope>,
    keyed: Keyed,
    /// How this frame wants its nested runs to be executed.
    nested: Want,
    seen: Mutex<Seen>,
    /// When the frame holds a permit.
    suspension: Suspension,
}

/// The failures that a frame has seen and that its request does not decide.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Whether the frame has seen one, such as a passed deadline.
    pub(crate) impure: bool,
    /// The first limit that was breached.
    pub(crate) limit: Option<Limit>,
    /// The first object that was missing.
    pub(crate) lost: Option<ObjectId>,
}

/// A nested run: its outcome from the memo, or a place among its waiters.
enum Nested {
    Memoized(ObjectRef),
    Pending(Wait),
}

/// The maximum number of attempts at a nested run that limits of other calls end.
const MAX_TRIES: u32 = 16;

impl FrameHost {
    pub(crate) fn new(
        core: Arc<Core>,
        scope: Arc<Scope>,
        keyed: &Keyed,
        want: Want,
        flight: Arc<Flight>,
    ) -> Self {
        let nested = Want { complete: want.complete, ..Want::default() };
        let suspension = Suspension::new(
            flight,
            Arc::clone(&core.permits),
            Arc::clone(&scope.clock),
            scope.root,
            keyed.image.runtime.capabilities().computes_only_when_polled,
        );
        Self { core, scope, keyed: keyed.clone(), nested, seen: Mutex::default(), suspension }
    }

    /// When the frame holds a permit. Polls the guest.
    pub(crate) fn suspension(&self) -> &Suspension {
        &self.suspension
    }

    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    /// Looks a nested run up in the memo, and joins or starts its execution on a miss.
    fn begin(&self, keyed: &Keyed) -> Result<Nested> {
        if self.suspension.has_ended() {
            return Err(Error::new(Reason::Cancelled));
        }
        let settlements = self.core.claims.settlements(keyed.request);
        if let Some(outcome) = self.core.look_up_wanted(keyed.request, self.nested, &self.scope)? {
            return Ok(Nested::Memoized(outcome));
        }
        let waiter = Some(self.suspension.flight());
        self.core
            .join_or_start(&self.scope, keyed.clone(), self.nested, waiter, settlements)
            .map(Nested::Pending)
    }

    /// Returns whether to attempt a nested run again, because the way it ended need not apply to
    /// this call.
    fn should_retry(&self, settled: &Settled, tries: u32) -> bool {
        tries < MAX_TRIES
            && settled.may_differ_for(&self.scope, self.suspension.flight().depth.saturating_add(1))
    }

    /// Returns the result of a nested run. Notes a failure that the request does not decide.
    fn result_of(&self, settled: Settled) -> Result<ObjectRef> {
        if !settled.pure {
            let error = settled.result.as_ref().err();
            let limit = settled.limited.as_deref().map(|limited| limited.limit);
            self.note(limit, error.and_then(|error| error.missing_object()));
        }
        settled.result
    }

    /// Returns `result`. Notes a failure that the request does not decide.
    fn noting_failure<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && !error.is_function_of_request()
        {
            self.note(error.breached_limit(), error.missing_object());
        }
        result
    }

    fn note(&self, limit: Option<Limit>, lost: Option<ObjectId>) {
        let mut seen = self.seen.lock();
        seen.impure = true;
        seen.limit = seen.limit.or(limit);
        seen.lost = seen.lost.or(lost);
    }

    fn count_written(&self, length: usize) -> Result<()> {
        self.scope.count_written(length).inspect_err(|error| {
            self.scope.stop(error.clone().in_frame(self.core.frame(&self.keyed)));
        })
    }
}

#[async_trait]
impl Host for FrameHost {
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>> {
        self.noting_failure(self.core.objects.tree(id).map(Arc::new))
    }

    async fn get(&self, id: ObjectId) -> Result<Bytes> {
        self.noting_failure(self.core.objects.blob(id))
    }

    async fn get_range(&self, id: ObjectId, range: Range<u64>) -> Result<Bytes> {
        self.noting_failure(self.core.objects.blob_range(id, range))
    }

    async fn size(&self, id: ObjectId) -> Result<u64> {
        self.noting_failure(self.core.objects.blob_size(id))
    }

    async fn put_blob(&self, content: Bytes) -> Result<ObjectId> {
        self.noting_failure(self.count_written(content.len()))?;
        self.noting_failure(self.core.objects.store.write(Object::blob(content)))
    }

    async fn put_tree(&self, tree: Tree) -> Result<ObjectId> {
        let object = tree.to_object();
        self.noting_failure(self.count_written(object.content.len()))?;
        self.noting_failure(self.core.objects.write_tree(&tree, object))
    }

    async fn run(&self, call: Call) -> Result<ObjectRef> {
        let keyed = self.noting_failure(self.core.key(&self.scope, &call))?;
        let mut tries = 0;
        let result = loop {
            match self.noting_failure(self.begin(&keyed)) {
                Err(error) => break Err(error),
                Ok(Nested::Memoized(outcome)) => break Ok(outcome),
                Ok(Nested::Pending(wait)) => {
                    tries += 1;
                    let settled = self.suspension.suspended(wait.settled()).await;
                    if !self.should_retry(&settled, tries) {
                        break self.result_of(settled);
                    }
                }
            }
        };
        if tries > 0 {
            self.suspension.resume().await;
        }
        result
    }

    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<ObjectRef>> {
        // A result is missing until the run settles or, for a duplicate, until all have.
        let mut results: Vec<Option<Result<ObjectRef>>> = Vec::with_capacity(calls.len());
        let mut first_of: ById<usize> = ById::default();
        let mut duplicates = Vec::new();
        let mut in_progress = FuturesUnordered::new();
        let mut rest = calls.into_iter();
        loop {
            while in_progress.len() < self.core.width
                && let Some(call) = rest.next()
            {
                let index = results.len();
                let mut result = None;
                match self.noting_failure(self.core.key(&self.scope, &call)) {
                    Err(error) => result = Some(Err(error)),
                    Ok(keyed) => match first_of.entry(keyed.request) {
                        Entry::Occupied(first) => duplicates.push((index, *first.get())),
                        Entry::Vacant(vacant) => {
                            vacant.insert(index);
                            match self.noting_failure(self.begin(&keyed)) {
                                Err(error) => result = Some(Err(error)),
                                Ok(Nested::Memoized(outcome)) => result = Some(Ok(outcome)),
                                Ok(Nested::Pending(wait)) => {
                                    in_progress.push(wait_for_run(index, keyed, 1, wait))
                                }
                            }
                        }
                    },
                }
                results.push(result);
            }
            if in_progress.is_empty() {
                break;
            }
            let Some((index, keyed, tries, settled)) =
                self.suspension.suspended(in_progress.next()).await
            else {
                continue;
            };
            if !self.should_retry(&settled, tries) {
                results[index] = Some(self.result_of(settled));
                continue;
            }
            match self.noting_failure(self.begin(&keyed)) {
                Err(error) => results[index] = Some(Err(error)),
                Ok(Nested::Memoized(outcome)) => results[index] = Some(Ok(outcome)),
                Ok(Nested::Pending(wait)) => {
                    in_progress.push(wait_for_run(index, keyed, tries + 1, wait))
                }
            }
        }
        self.suspension.resume().await;
        for (copy, first) in duplicates {
            results[copy] = results[first].clone();
        }
        let lost = || Err(Error::new(Reason::Cancelled));
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    fn log(&self, message: &str) {
        let request = self.keyed.request;
        tracing::debug!(%request, "{message}");
        self.core.emit(&Event::Logged { request, message });
    }
}

/// Waits for the run of the call at `index`, at attempt number `tries`.
async fn wait_for_run(
    index: usize,
    keyed: Keyed,
    tries: u32,
    wait: Wait,
) -> (usize, Keyed, u32, Settled) {
    (index, keyed, tries, wait.settled().await)
}
