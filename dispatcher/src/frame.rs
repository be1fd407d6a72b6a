//! One frame's view of the dispatcher.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use manifold_runtime_api::{Call, Error, Host, Object, ObjectId, Outcome, Reason, Result, Tree, async_trait};

use crate::claim::{Flight, Settled, Wait};
use crate::core::{Core, Keyed, Scope};
use crate::observe::Event;

pub(crate) struct FrameHost {
    core: Arc<Core>,
    scope: Arc<Scope>,
    request: ObjectId,
    flight: Arc<Flight>,
    impure: AtomicBool,
}

/// A nested run: answered already, or to be waited for.
enum Nested {
    Answered(Outcome),
    Pending(Wait),
}

impl FrameHost {
    pub(crate) fn new(core: Arc<Core>, scope: Arc<Scope>, request: ObjectId, flight: Arc<Flight>) -> Self {
        Self { core, scope, request, flight, impure: AtomicBool::new(false) }
    }

    /// Whether the frame was told something that its request does not decide, such as that a clock ran out.
    pub(crate) fn saw_impure(&self) -> bool {
        self.impure.load(Ordering::Relaxed)
    }

    fn begin(&self, keyed: Keyed) -> Result<Nested> {
        if let Some(outcome) = self.core.look_up(keyed.request)? {
            return Ok(Nested::Answered(outcome));
        }
        self.core.demand(&self.scope, keyed, Some(&self.flight)).map(Nested::Pending)
    }

    fn take(&self, settled: Settled) -> Result<Outcome> {
        if !settled.pure {
            self.impure.store(true, Ordering::Relaxed);
        }
        settled.result
    }

    /// Passes an answer on, and notes an error that the request does not decide.
    fn tell<T>(&self, answer: Result<T>) -> Result<T> {
        if answer.as_ref().is_err_and(|error| !error.is_function_of_request()) {
            self.impure.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Waits for nested runs. Whenever there is still something to wait for, the permit is given away: also one that came
    /// from another nested run, whose result the guest has not asked for yet.
    async fn suspended<T>(&self, nested: impl Future<Output = T>) -> T {
        let mut nested = pin!(nested);
        poll_fn(|context| {
            let polled = nested.as_mut().poll(context);
            if polled.is_pending() {
                drop(self.flight.take_permit());
            }
            polled
        })
        .await
    }

    /// Gets a permit: from the queue, or from another nested run that settles in the meantime.
    async fn resume(&self) {
        let mut queued = pin!(async { self.core.permits.queue(self.scope.root).permit().await });
        poll_fn(|context| {
            if self.flight.has_permit() {
                return Poll::Ready(());
            }
            queued.as_mut().poll(context).map(|permit| self.flight.keep_permit(permit))
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
        self.tell(self.core.objects.store.write(Object::blob(content)))
    }

    async fn put_tree(&self, tree: Tree) -> Result<ObjectId> {
        self.tell(self.core.objects.write_tree(&tree))
    }

    async fn run(&self, call: Call) -> Result<Outcome> {
        let keyed = self.tell(self.core.key(&self.scope, &call))?;
        match self.tell(self.begin(keyed))? {
            Nested::Answered(outcome) => Ok(outcome),
            Nested::Pending(wait) => {
                let settled = self.suspended(wait.settled()).await;
                self.resume().await;
                self.take(settled)
            }
        }
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
                            match self.tell(self.begin(keyed)) {
                                Err(error) => answer = Err(error),
                                Ok(Nested::Answered(outcome)) => answer = Ok(outcome),
                                Ok(Nested::Pending(wait)) => {
                                    under_way.push(async move { (index, wait.settled().await) });
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
            if let Some((index, settled)) = self.suspended(under_way.next()).await {
                answers[index] = self.take(settled);
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
