//! One frame's view of the dispatcher.

use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::mem::take;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use manifold_runtime_api::{
    Call, Error, Host, Limit, Object, ObjectId, Outcome, Reason, Result, Tree, async_trait,
};
use parking_lot::Mutex;

use crate::by_id::ById;
use crate::claim::Wait;
use crate::core::{Core, Keyed, Want};
use crate::flight::Flight;
use crate::observe::Event;
use crate::permits::Queued;
use crate::scope::Scope;
use crate::settled::Settled;

pub(crate) struct FrameHost {
    core: Arc<Core>,
    scope: Arc<Scope>,
    keyed: Keyed,
    /// How nested runs are wanted.
    nested: Want,
    flight: Arc<Flight>,
    seen: Mutex<Seen>,
    /// The frame's futures that wait.
    waiting: Mutex<Waiting>,
}

/// The futures of one frame that wait: for nested runs, or for a permit to go on. There may be several, and nobody says that a
/// guest polls one of them when another one is woken.
#[derive(Default)]
struct Waiting {
    /// How many wait for nested runs.
    suspended: usize,
    /// How many wait for a permit, those to be woken when there is one, and whether one was polled since the guest was last.
    resuming: usize,
    wakers: Vec<Waker>,
    polled: bool,
    /// Their place in the queue, which wakes the guest's own task, and whether it was seen granted while nobody took it.
    place: Option<Queued>,
    seen_idle: bool,
    /// Whether the guest is being polled just now, and what comes is looked at afterwards.
    polling: bool,
    /// Whether the guest is done. Tasks that it has left behind get nothing more.
    over: bool,
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
const TRIES: u32 = 16;

impl FrameHost {
    pub(crate) fn new(
        core: Arc<Core>,
        scope: Arc<Scope>,
        keyed: &Keyed,
        want: Want,
        flight: Arc<Flight>,
    ) -> Self {
        let nested = Want { complete: want.complete, ..Want::default() };
        Self {
            core,
            scope,
            keyed: keyed.clone(),
            nested,
            flight,
            seen: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock()
    }

    fn begin(&self, keyed: &Keyed) -> Result<Nested> {
        if self.waiting.lock().over {
            return Err(Error::new(Reason::Cancelled));
        }
        if let Some(outcome) = self.core.look_up_wanted(keyed.request, self.nested, &self.scope)? {
            return Ok(Nested::Answered(outcome));
        }
        self.core
            .demand(&self.scope, keyed.clone(), self.nested, Some(&self.flight))
            .map(Nested::Pending)
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
            self.scope.stop(error.clone().in_frame(self.core.frame(&self.keyed)));
        })
    }

    /// Polls the guest. Whenever it has nothing to do until a nested run or a permit comes, it holds no permit: neither one that
    /// came from a nested run whose result it has not asked for yet, nor one from the queue for a future that it does not poll.
    /// So that this is looked at, the guest is polled whenever a permit comes.
    pub(crate) async fn watched<T>(&self, guest: impl Future<Output = T>) -> T {
        let _over = Over(self);
        let mut guest = pin!(guest);
        poll_fn(|context| {
            self.flight.wakes(context.waker());
            let wakers = {
                let mut waiting = self.waiting.lock();
                (waiting.polling, waiting.polled) = (true, false);
                if waiting.is_granted() { take(&mut waiting.wakers) } else { Vec::new() }
            };
            wakers.into_iter().for_each(Waker::wake);
            let polled = guest.as_mut().poll(context);
            if polled.is_pending() {
                self.release(context);
            }
            polled
        })
        .await
    }

    fn release(&self, context: &Context<'_>) {
        let (permit, place, wakers) = {
            let mut waiting = self.waiting.lock();
            waiting.polling = false;
            if waiting.suspended + waiting.resuming == 0 {
                return;
            }
            let permit = self.flight.take_permit();
            // Whoever was polled just now will take what has come since, and so may a task of the guest's that was woken just now.
            let idle = !waiting.polled && waiting.is_granted();
            let mut place = None;
            if idle && waiting.seen_idle {
                place = waiting.place.take();
            } else if idle {
                context.waker().wake_by_ref();
            }
            waiting.seen_idle = idle && place.is_none();
            let gone = permit.is_some() || place.is_some();
            (permit, place, if gone { take(&mut waiting.wakers) } else { Vec::new() })
        };
        drop((permit, place));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits for nested runs, without a permit.
    async fn suspended<T>(&self, nested: impl Future<Output = T>) -> T {
        let _suspended = Counted::new(self, |waiting| &mut waiting.suspended);
        let mut nested = pin!(nested);
        poll_fn(|context| {
            let polled = nested.as_mut().poll(context);
            if polled.is_pending() && !self.waiting.lock().over {
                drop(self.flight.take_permit());
            }
            polled
        })
        .await
    }

    /// Gets a permit: from the queue, or from a nested run that settles in the meantime.
    async fn resume(&self) {
        if self.flight.has_permit() {
            return;
        }
        let _queueing = self.scope.clock.queues();
        let _resuming = Counted::new(self, |waiting| &mut waiting.resuming);
        poll_fn(|context| {
            let mut waiting = self.waiting.lock();
            waiting.polled = true;
            let place = waiting.place.take();
            if !waiting.over && !self.flight.has_permit() {
                let place = place.unwrap_or_else(|| self.core.permits.queue(self.scope.root));
                let guest = self.flight.guest().unwrap_or_else(|| context.waker().clone());
                match place.poll(&mut Context::from_waker(&guest)) {
                    Ok(permit) => {
                        self.flight.keep_permit(permit);
                        // A task of the guest's takes it. Once that waits again, or is done, the guest has to give it away.
                        if !waiting.polling {
                            guest.wake();
                        }
                    }
                    Err(place) => {
                        waiting.place = Some(place);
                        if !waiting.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                            waiting.wakers.push(context.waker().clone());
                        }
                        return Poll::Pending;
                    }
                }
            }
            // The others go on with the same permit. They wake when this future is dropped.
            Poll::Ready(())
        })
        .await;
    }
}

/// The end of a guest.
struct Over<'a>(&'a FrameHost);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let (place, wakers) = {
            let mut waiting = self.0.waiting.lock();
            waiting.over = true;
            (waiting.place.take(), take(&mut waiting.wakers))
        };
        drop(place);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Waiting {
    fn is_granted(&self) -> bool {
        self.place.as_ref().is_some_and(Queued::is_granted)
    }
}

/// Counts a waiting future until it is dropped. Then those that wait for a permit look again.
struct Counted<'a> {
    host: &'a FrameHost,
    count: fn(&mut Waiting) -> &mut usize,
}

impl<'a> Counted<'a> {
    fn new(host: &'a FrameHost, count: fn(&mut Waiting) -> &mut usize) -> Self {
        *count(&mut host.waiting.lock()) += 1;
        Self { host, count }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let (place, wakers) = {
            let mut waiting = self.host.waiting.lock();
            *(self.count)(&mut waiting) -= 1;
            let place = if waiting.resuming == 0 { waiting.place.take() } else { None };
            (place, take(&mut waiting.wakers))
        };
        drop(place);
        wakers.into_iter().for_each(Waker::wake);
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
        let mut first_of: ById<usize> = ById::default();
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
                                Ok(Nested::Pending(wait)) => {
                                    under_way.push(settle(index, keyed, 1, wait))
                                }
                            }
                        }
                    },
                }
                answers.push(answer);
            }
            if under_way.is_empty() {
                break;
            }
            let Some((index, keyed, tries, settled)) = self.suspended(under_way.next()).await
            else {
                continue;
            };
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
        let request = self.keyed.request;
        tracing::debug!(%request, "{message}");
        self.core.tell(&Event::Logged { request, message });
    }
}

/// Waits for the run of the call at `index`, which is the `tries`th.
async fn settle(
    index: usize,
    keyed: Keyed,
    tries: u32,
    wait: Wait,
) -> (usize, Keyed, u32, Settled) {
    (index, keyed, tries, wait.settled().await)
}
