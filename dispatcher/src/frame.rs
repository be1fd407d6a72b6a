//! [`FrameHost`]: the host of one frame's guest.

use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use manifold_runtime_api::{
    Call, Error, Host, Object, ObjectId, ObjectRef, Reason, Report, Result, Tree, async_trait,
};
use parking_lot::Mutex;

use crate::by_id::ById;
use crate::claim::Wait;
use crate::core::{Core, Keyed, Want};
use crate::flight::Flight;
use crate::lookup::LookedUp;
use crate::observe::Event;
use crate::scope::Scope;
use crate::settled::{Breached, Settled};
use crate::span::{FrameSpan, OpenSpan, Wanted};
use crate::suspension::Suspension;

/// The host of one frame's guest.
pub(crate) struct FrameHost {
    core: Arc<Core>,
    scope: Arc<Scope>,
    keyed: Keyed,
    /// How this frame wants its nested runs to be executed.
    nested: Want,
    seen: Mutex<Seen>,
    /// The requests that the guest has wanted, if provenance is recorded.
    wanted: Mutex<Vec<ObjectId>>,
    /// When the frame holds a permit.
    suspension: Suspension,
}

/// The failures that a frame has seen and that its request does not decide.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Whether the frame has seen one, such as a passed deadline.
    pub(crate) impure: bool,
    /// The limits that were breached.
    pub(crate) breached: Breached,
    /// The first object that was missing.
    pub(crate) lost: Option<ObjectId>,
}

/// A nested run: its outcome from the memo, or a place among its waiters.
enum Nested {
    Memoized(ObjectRef),
    Pending(Wait),
}

/// The time for which a frame begins nested runs without letting other tasks run. Those that are not
/// pending, such as hits, could be many and expensive.
struct Turn {
    began: Instant,
}

impl Turn {
    const LENGTH: Duration = Duration::from_millis(5);

    fn begin() -> Self {
        Self { began: Instant::now() }
    }

    /// Waits for `future`. The turn ends if that lets other tasks run.
    async fn end_with<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut waits = false;
        let output = poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            waits |= polled.is_pending();
            polled
        });
        let output = output.await;
        if waits {
            *self = Self::begin();
        }
        output
    }

    /// Lets other tasks run if the turn was long. `index` is the number of the nested run.
    async fn yield_if_long(&mut self, index: usize) {
        if index % 4 == 3 && self.began.elapsed() > Self::LENGTH {
            tokio::task::yield_now().await;
            *self = Self::begin();
        }
    }
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
        span: Option<Arc<FrameSpan>>,
    ) -> Self {
        let nested = Want { complete: want.complete, ..Want::default() };
        let suspension = Suspension::new(
            flight,
            Arc::clone(&core.permits),
            Arc::clone(&scope.clock),
            scope.root,
            keyed.image.runtime.capabilities().computes_only_when_polled,
            span,
        );
        Self {
            core,
            scope,
            keyed: keyed.clone(),
            nested,
            seen: Mutex::default(),
            wanted: Mutex::default(),
            suspension,
        }
    }

    /// When the frame holds a permit. Polls the guest.
    pub(crate) fn suspension(&self) -> &Suspension {
        &self.suspension
    }

    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    /// Takes the requests that the guest has wanted so far.
    pub(crate) fn take_wanted(&self) -> Vec<ObjectId> {
        std::mem::take(&mut self.wanted.lock())
    }

    /// Returns the current time if spans are observed.
    fn now(&self) -> Option<u64> {
        self.core.spans.as_ref().map(|spans| spans.own().now())
    }

    /// Resolves the image of `call` and computes the id of the request. Returns also when that was,
    /// if spans are observed.
    fn key(&self, call: &Call) -> Result<(Keyed, Option<Wanted>)> {
        let began = self.now();
        let charge = |length| self.count_written(length);
        let keyed = self.noting_failure(self.core.key(&self.scope, call, charge))?;
        if self.core.provenance {
            self.wanted.lock().push(keyed.request);
        }
        let wanted = began.zip(self.now()).map(|(began, keyed)| Wanted { began, keyed });
        Ok((keyed, wanted))
    }

    /// Returns that a request whose id is known is wanted now, if spans are observed.
    fn wanted_again(&self) -> Option<Wanted> {
        self.now().map(|now| Wanted { began: now, keyed: now })
    }

    /// Looks a nested run up in the memo, and joins or starts its execution on a miss.
    fn begin(&self, keyed: &Keyed, wanted: Option<Wanted>) -> Result<Nested> {
        let begun = self.noting_failure(self.try_to_begin(keyed, wanted));
        if begun.is_err() && self.scope.bounds_fuel_in_vain(keyed) {
            // Another call, without the bound, must not get the failure that follows from it.
            self.note(Breached::bound_of_the_call(), None);
        }
        begun
    }

    fn try_to_begin(&self, keyed: &Keyed, wanted: Option<Wanted>) -> Result<Nested> {
        if self.suspension.has_ended() {
            return Err(Error::new(Reason::Cancelled));
        }
        let waiter = self.suspension.flight();
        let depth = waiter.depth.saturating_add(1);
        let span = self.core.spans.as_ref().zip(self.suspension.span()).zip(wanted);
        let span = span.map(|((spans, frame), wanted)| {
            OpenSpan::of_request(spans, frame, keyed, depth, wanted)
        });
        let settlements = self.core.claims.settlements(keyed.request);
        let (scope, want) = (&self.scope, self.nested);
        match self.core.look_up_or_end(keyed.request, want, scope, span)? {
            LookedUp::Found(outcome) => Ok(Nested::Memoized(outcome)),
            LookedUp::Nothing(span) => self
                .core
                .join_or_start(scope, keyed.clone(), want, Some(waiter), settlements, span)
                .map(Nested::Pending),
        }
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
            let breached = settled.limited.as_deref().map(|limited| limited.breached);
            self.note(breached.unwrap_or_default(), error.and_then(|error| error.missing_object()));
        }
        settled.result
    }

    /// Performs a host call that reads or stores an object. `size` returns how many bytes it has
    /// read and stored.
    fn host_call<T>(
        &self,
        call: impl FnOnce() -> Result<T>,
        size: impl FnOnce(&T) -> (usize, usize),
    ) -> Result<T> {
        let start = self.now();
        let result = self.noting_failure(call());
        if let Some((span, start)) = self.suspension.span().zip(start) {
            let (read, written) = result.as_ref().map_or((0, 0), size);
            span.host_call(start, read, written);
        }
        result
    }

    /// Returns `result`. Notes a failure that the request does not decide.
    fn noting_failure<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && !error.is_function_of_request()
        {
            let breached = Breached::default().and(error.breached_limit());
            self.note(breached, error.missing_object());
        }
        result
    }

    fn note(&self, breached: Breached, lost: Option<ObjectId>) {
        let mut seen = self.seen.lock();
        seen.impure = true;
        seen.breached = seen.breached.and_all(breached);
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
        let read = || self.core.objects.tree(id).map(Arc::new);
        self.host_call(read, |tree| (tree.encoded_len(), 0))
    }

    async fn get(&self, id: ObjectId) -> Result<Bytes> {
        self.host_call(|| self.core.objects.blob(id), |content| (content.len(), 0))
    }

    async fn get_range(&self, id: ObjectId, range: Range<u64>) -> Result<Bytes> {
        let read = || self.core.objects.blob_range(id, range);
        self.host_call(read, |content| (content.len(), 0))
    }

    async fn size(&self, id: ObjectId) -> Result<u64> {
        self.host_call(|| self.core.objects.blob_size(id), |_| (0, 0))
    }

    async fn put_blob(&self, content: Bytes) -> Result<ObjectId> {
        let length = content.len();
        let store = || {
            self.count_written(length)?;
            self.core.objects.store.write(Object::blob(content))
        };
        self.host_call(store, |_| (0, length))
    }

    async fn put_tree(&self, tree: Tree) -> Result<ObjectId> {
        let object = tree.to_object();
        let length = object.content.len();
        let store = || {
            self.count_written(length)?;
            self.core.objects.write_tree(&tree, object)
        };
        self.host_call(store, |_| (0, length))
    }

    async fn run(&self, call: Call) -> Result<ObjectRef> {
        let nested = self.suspension.span().map(|span| span.nested());
        let (keyed, mut wanted) = self.key(&call)?;
        let mut tries = 0;
        let result = loop {
            match self.begin(&keyed, wanted) {
                Err(error) => break Err(error),
                Ok(Nested::Memoized(outcome)) => break Ok(outcome),
                Ok(Nested::Pending(wait)) => {
                    tries += 1;
                    let settled = self.suspension.suspended(wait.settled()).await;
                    if !self.should_retry(&settled, tries) {
                        break self.result_of(settled);
                    }
                    wanted = self.wanted_again();
                }
            }
        };
        drop(nested);
        if tries > 0 {
            self.suspension.resume().await;
        }
        result
    }

    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<ObjectRef>> {
        let nested = self.suspension.span().map(|span| span.nested());
        // A result is missing until the run settles or, for a duplicate, until all have.
        let mut results: Vec<Option<Result<ObjectRef>>> = Vec::with_capacity(calls.len());
        let mut first_of: ById<usize> = ById::default();
        let mut duplicates = Vec::new();
        let mut in_progress = FuturesUnordered::new();
        let mut rest = calls.into_iter();
        let mut turn = Turn::begin();
        loop {
            while in_progress.len() < self.core.width()
                && let Some(call) = rest.next()
            {
                let index = results.len();
                turn.yield_if_long(index).await;
                let mut result = None;
                match self.key(&call) {
                    Err(error) => result = Some(Err(error)),
                    Ok((keyed, wanted)) => match first_of.entry(keyed.request) {
                        Entry::Occupied(first) => duplicates.push((index, *first.get())),
                        Entry::Vacant(vacant) => {
                            vacant.insert(index);
                            match self.begin(&keyed, wanted) {
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
            let (count, has_more) = (in_progress.len(), rest.len() > 0);
            let next = self.core.next_or_more(in_progress.next(), count, has_more);
            let next = turn.end_with(self.suspension.suspended(next)).await;
            let Some(Some((index, keyed, tries, settled))) = next else { continue };
            if !self.should_retry(&settled, tries) {
                results[index] = Some(self.result_of(settled));
                continue;
            }
            match self.begin(&keyed, self.wanted_again()) {
                Err(error) => results[index] = Some(Err(error)),
                Ok(Nested::Memoized(outcome)) => results[index] = Some(Ok(outcome)),
                Ok(Nested::Pending(wait)) => {
                    in_progress.push(wait_for_run(index, keyed, tries + 1, wait))
                }
            }
        }
        drop(nested);
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

    fn report(&self, report: Report) {
        if let Some(span) = self.suspension.span() {
            span.report(report);
        }
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
