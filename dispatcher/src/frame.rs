//! One frame's view of the dispatcher.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use manifold_runtime_api::{Call, Error, Host, Limit, Object, ObjectId, Outcome, Reason, Result, Tree, async_trait};
use parking_lot::Mutex;

use crate::claim::{Flight, Settled, Wait};
use crate::core::{Core, Keyed, Want};
use crate::observe::Event;
use crate::permits::Queued;
use crate::scope::Scope;

pub(crate) struct FrameHost {
    core: Arc<Core>,
    scope: Arc<Scope>,
    request: ObjectId,
    /// How nested runs are wanted.
    nested: Want,
    flight: Arc<Flight>,
    seen: Mutex<Seen>,
    /// The place in the queue for a permit of whichever of the frame's futures resumes.
    place: Mutex<Option<Queued>>,
}

/// What a frame was told beside answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Something that its request does not decide, such as that a clock ran out.
    pub(crate) impure: bool,
    /// The breach of a limit.
    pub(crate) limit: Option<Limit>,
    /// That an object is not there.
    pub(crate) lost: Option<ObjectId>,
}

/// A nested run: answered already, or to be waited for.
enum Nested {
    Answered(Outcome),
    Pending(Wait),
}

/// How often a nested run is tried that others' limits ended.
const TRIES: u32 = 4;

impl FrameHost {
    pub(crate) fn new(core: Arc<Core>, scope: Arc<Scope>, keyed: &Keyed, want: Want, flight: Arc<Flight>) -> Self {
        let nested = Want { complete: want.complete, ..Want::default() };
        Self { core, scope, request: keyed.request, nested, flight, seen: Mutex::default(), place: Mutex::default() }
    }

    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    fn begin(&self, keyed: &Keyed) -> Result<Nested> {
        let mut want = self.nested;
        if let Some(outcome) = self.core.look_up_wanted(keyed.request, want, &self.scope)? {
            return Ok(Nested::Answered(outcome));
        }
        want.fresh = self.scope.is_stale(keyed.request);
        self.core.demand(&self.scope, keyed.clone(), want, Some(&self.flight)).map(Nested::Pending)
    }

    /// Whether a nested run should be begun again: what ended it is not this call's.
    fn tries_again(&self, settled: &Settled, tries: u32) -> bool {
        tries < TRIES && settled.may_differ_for(&self.scope, self.flight.depth.saturating_add(1))
    }

    fn take(&self, settled: Settled) -> Result<Outcome> {
        if !settled.pure {
            let error = settled.result.as_ref().err();
            let limit = settled.limited.as_deref().map(|limited| limited.limit);
            self.note(limit, error.and_then(|error| error.missing_object()));
        }
        settled.result
    }

    /// Passes an answer on, and notes an error that the request does not decide.
    fn tell<T>(&self, answer: Result<T>) -> Result<T> {
        if let Err(error) = &answer
            && !error.is_function_of_request()
        {
            self.note(error.breached_limit(), error.missing_object());
        }
        answer
    }

    fn note(&self, limit: Option<Limit>, lost: Option<ObjectId>) {
        let mut seen = self.seen.lock();
        seen.impure = true;
        seen.limit = seen.limit.or(limit);
        seen.lost = seen.lost.or(lost);
    }

    fn count_written(&self, length: usize) -> Result<()> {
        self.scope.count_written(length).inspect_err(|error| {
            self.scope.stop(error.clone());
        })
    }

    /// Waits for nested runs. Whenever there is still something to wait for, the permit is given away: also one that came
    /// from another nested run, or from the queue for another future of this frame, which the guest does not poll just now.
    async fn suspended<T>(&self, nested: impl Future<Output = T>) -> T {
        let mut nested = pin!(nested);
        poll_fn(|context| {
            let polled = nested.as_mut().poll(context);
            if polled.is_pending() {
                let place = self.place.lock().take();
                drop((self.flight.take_permit(), place));
            }
            polled
        })
        .await
    }

    /// Gets a permit: from the queue, or from another nested run that settles in the meantime.
    pub(crate) async fn resume(&self) {
        if self.flight.has_permit() {
            return;
        }
        let _queueing = self.scope.clock.queues();
        poll_fn(|context| {
            let place = self.place.lock().take();
            if self.flight.has_permit() {
                drop(place);
                return Poll::Ready(());
            }
            match place.unwrap_or_else(|| self.core.permits.queue(self.scope.root)).poll(context) {
                Ok(permit) => {
                    self.flight.keep_permit(permit);
                    Poll::Ready(())
                }
                Err(place) => {
                    *self.place.lock() = Some(place);
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

#[async_trait]
impl Host for FrameHost {
    async fn tree(&self, id: ObjectId) -> Result<Arc<Tree>> {
        self.tell(self.core.objects.tree(id).map(Arc::new))
    }

    async fn get(&self, id: ObjectId) -> Result<Bytes> {
        self.tell(self.core.objects.blob(id))
    }

    async fn put_blob(&self, content: Bytes) -> Result<ObjectId> {
        self.tell(self.count_written(content.len()))?;
        self.tell(self.core.objects.store.write(Object::blob(content)))
    }

    async fn put_tree(&self, tree: Tree) -> Result<ObjectId> {
        let object = tree.to_object();
        self.tell(self.count_written(object.content.len()))?;
        self.tell(self.core.objects.write_tree(&tree, object))
    }

    async fn run(&self, call: Call) -> Result<Outcome> {
        let keyed = self.tell(self.core.key(&self.scope, &call))?;
        let mut tries = 0;
        let result = loop {
            match self.tell(self.begin(&keyed)) {
                Err(error) => break Err(error),
                Ok(Nested::Answered(outcome)) => break Ok(outcome),
                Ok(Nested::Pending(wait)) => {
                    tries += 1;
                    let settled = self.suspended(wait.settled()).await;
                    if !self.tries_again(&settled, tries) {
                        break self.take(settled);
                    }
                }
            }
        };
        if tries > 0 {
            self.resume().await;
        }
        result
    }

    async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<Outcome>> {
        let mut answers: Vec<Result<Outcome>> = Vec::with_capacity(calls.len());
        let mut first_of: HashMap<ObjectId, usize> = HashMap::new();
        let mut copies = Vec::new();
        let mut under_way = FuturesUnordered::new();
        let mut rest = calls.into_iter();
        loop {
            while under_way.len() < self.core.width
                && let Some(call) = rest.next()
            {
                let index = answers.len();
                // Replaced when the run under way settles, or by the answer of the call that this one repeats.
                let mut answer = Err(Error::new(Reason::Cancelled));
                match self.tell(self.core.key(&self.scope, &call)) {
                    Err(error) => answer = Err(error),
                    Ok(keyed) => match first_of.entry(keyed.request) {
                        Entry::Occupied(first) => copies.push((index, *first.get())),
                        Entry::Vacant(vacant) => {
                            vacant.insert(index);
                            match self.tell(self.begin(&keyed)) {
                                Err(error) => answer = Err(error),
                                Ok(Nested::Answered(outcome)) => answer = Ok(outcome),
                                Ok(Nested::Pending(wait)) => under_way.push(settle(index, keyed, 1, wait)),
                            }
                        }
                    },
                }
                answers.push(answer);
            }
            if under_way.is_empty() {
                break;
            }
            let Some((index, keyed, tries, settled)) = self.suspended(under_way.next()).await else { continue };
            if !self.tries_again(&settled, tries) {
                answers[index] = self.take(settled);
                continue;
            }
            match self.tell(self.begin(&keyed)) {
                Err(error) => answers[index] = Err(error),
                Ok(Nested::Answered(outcome)) => answers[index] = Ok(outcome),
                Ok(Nested::Pending(wait)) => under_way.push(settle(index, keyed, tries + 1, wait)),
            }
        }
        self.resume().await;
        for (copy, first) in copies {
            answers[copy] = answers[first].clone();
        }
        answers
    }

    fn log(&self, message: &str) {
        tracing::debug!(request = %self.request, "{message}");
        self.core.tell(&Event::Logged { request: self.request, message });
    }
}

/// Waits for the run of the call at `index`, which is the `tries`th.
async fn settle(index: usize, keyed: Keyed, tries: u32, wait: Wait) -> (usize, Keyed, u32, Settled) {
    (index, keyed, tries, wait.settled().await)
}
