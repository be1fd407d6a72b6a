//! Run permits: how many frames can compute at once, and which waiting frame is next.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::sync::Mutex;

/// The number of the root call that a frame works for, directly or through nested runs.
pub(crate) type RootId = u64;

/// A fixed number of run permits.
///
/// Within one root call, permits are granted last-in-first-out, so that a recursion goes deep
/// before it goes wide and the number of frames in progress stays near depth × width. Across root
/// calls, permits are granted round-robin.
pub(crate) struct Permits {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// The waiting tickets of each root call. No stack is empty.
    waiting: HashMap<RootId, Vec<Ticket>>,
    /// The root calls with waiting tickets. The front one is next.
    order: VecDeque<RootId>,
}

/// The right to compute. Dropping it passes it to the next waiter.
pub(crate) struct Permit {
    /// `None` once the right has been passed on.
    permits: Option<Arc<Permits>>,
}

/// A request for one permit. It can wait in the queues of several root calls and is served once.
pub(crate) type Ticket = Arc<Mutex<Option<oneshot::Sender<Permit>>>>;

/// A place in the queue, which exists as soon as this value does, or a granted permit.
/// [`Queued::permit`] waits for the permit.
pub(crate) enum Queued {
    Granted(Permit),
    Waiting(oneshot::Receiver<Permit>, Ticket),
}

impl Permits {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        let state = State { free: count, waiting: HashMap::new(), order: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Requests a permit on behalf of `root`.
    pub(crate) fn queue(self: &Arc<Self>, root: RootId) -> Queued {
        let mut state = self.state.lock();
        if state.free > 0 {
            state.free -= 1;
            return Queued::Granted(Permit { permits: Some(Arc::clone(self)) });
        }
        let (sender, receiver) = oneshot::channel();
        let ticket = Arc::new(Mutex::new(Some(sender)));
        state.push(root, Arc::clone(&ticket));
        Queued::Waiting(receiver, ticket)
    }

    /// Adds `ticket` to the queue of `root`, which wants the same run.
    pub(crate) fn queue_also(&self, root: RootId, ticket: Ticket) {
        // This need not check for a free permit: none is free while a ticket waits. A ticket that
        // was served already is skipped.
        self.state.lock().push(root, ticket);
    }

    /// Dequeues the next waiter. Cancelled waiters are skipped without using up the turn of their
    /// root call. If nothing waits, the permit becomes free.
    fn next(&self) -> Option<oneshot::Sender<Permit>> {
        let mut state = self.state.lock();
        while let Some(root) = state.order.pop_front() {
            let Some(stack) = state.waiting.get_mut(&root) else { continue };
            let mut next = None;
            while next.is_none()
                && let Some(ticket) = stack.pop()
            {
                next = ticket.lock().take().filter(|sender| !sender.is_closed());
            }
            if stack.is_empty() {
                state.waiting.remove(&root);
            } else {
                state.order.push_back(root);
            }
            if next.is_some() {
                return next;
            }
        }
        state.free += 1;
        None
    }
}

impl State {
    fn push(&mut self, root: RootId, ticket: Ticket) {
        let stack = self.waiting.entry(root).or_default();
        if stack.is_empty() {
            self.order.push_back(root);
        }
        stack.push(ticket);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(permits) = self.permits.take() else { return };
        while let Some(next) = permits.next() {
            match next.send(Self { permits: Some(Arc::clone(&permits)) }) {
                Ok(()) => return,
                Err(mut refused) => refused.permits = None,
            }
        }
    }
}

impl Queued {
    /// Returns the ticket, to be added to the queue of another root call. `None` if the permit was
    /// free at once.
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Granted(_) => None,
            Self::Waiting(_, ticket) => Some(Arc::clone(ticket)),
        }
    }

    /// Returns whether the permit has been granted.
    pub(crate) fn is_granted(&self) -> bool {
        match self {
            Self::Granted(_) => true,
            Self::Waiting(receiver, _) => !receiver.is_empty(),
        }
    }

    /// Polls for the permit. Returns the place again if the permit has not been granted yet.
    pub(crate) fn poll(self, context: &mut Context<'_>) -> Result<Permit, Self> {
        match self {
            Self::Granted(permit) => Ok(permit),
            Self::Waiting(mut receiver, ticket) => match Pin::new(&mut receiver).poll(context) {
                Poll::Ready(permit) => Ok(permit.unwrap_or(Permit { permits: None })),
                Poll::Pending => Err(Self::Waiting(receiver, ticket)),
            },
        }
    }

    /// Waits for the permit.
    pub(crate) async fn permit(self) -> Permit {
        match self {
            Self::Granted(permit) => permit,
            // The ticket keeps the sender until it is served, so the receiver cannot fail before
            // the queue itself is dropped.
            Self::Waiting(receiver, _ticket) => receiver.await.unwrap_or(Permit { permits: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use shuttle::future::{block_on, spawn, yield_now};
    use shuttle::rand::{Rng, thread_rng};

    use super::*;

    fn waiting(queued: Queued) -> oneshot::Receiver<Permit> {
        match queued {
            Queued::Waiting(receiver, _) => receiver,
            Queued::Granted(_) => panic!("no permit was free"),
        }
    }

    #[test]
    fn permits_are_granted_last_in_first_out_within_a_root_and_round_robin_across_roots() {
        shuttle::check_random(
            || {
                let permits = Permits::new(1);
                let mut held = permits.queue(1).permit().now_or_never();
                let mut queue: Vec<_> =
                    [1, 1, 2].map(|root| Some(waiting(permits.queue(root)))).into_iter().collect();
                let mut order = Vec::new();
                while queue.iter().any(Option::is_some) {
                    drop(held.take());
                    for (name, place) in queue.iter_mut().enumerate() {
                        if let Some(receiver) = place
                            && let Ok(permit) = receiver.try_recv()
                        {
                            held = Some(permit);
                            order.push(name);
                            *place = None;
                        }
                    }
                }
                assert_eq!(order, [1, 2, 0]);
            },
            10,
        );
    }

    #[test]
    fn a_cancelled_waiter_is_skipped() {
        shuttle::check_random(
            || {
                let permits = Permits::new(1);
                let held = permits.queue(1).permit().now_or_never();
                let patient = waiting(permits.queue(1));
                drop(permits.queue(1));
                drop(permits.queue(1));
                drop(held);
                drop(block_on(patient));
                assert!(matches!(permits.queue(1), Queued::Granted(_)));
            },
            10,
        );
    }

    #[test]
    fn a_ticket_in_two_queues_is_served_once() {
        shuttle::check_random(
            || {
                let permits = Permits::new(1);
                let held = permits.queue(0).permit().now_or_never();
                let shared = permits.queue(1);
                let mut above: Vec<_> = (0..3).map(|_| waiting(permits.queue(1))).collect();
                permits.queue_also(2, shared.ticket().unwrap());
                let mut shared = waiting(shared);
                drop(held);
                let first = above.pop().unwrap().try_recv().unwrap();
                drop(first);
                let served = shared.try_recv().unwrap();
                drop(served);
                assert!(above.iter_mut().rev().all(|place| place.try_recv().map(drop).is_ok()));
                assert!(matches!(permits.queue(1), Queued::Granted(_)));
            },
            10,
        );
    }

    // However tasks arrive, wait and stop waiting, no more of them compute at once than there are
    // permits, and all permits are free at the end.
    #[test]
    fn permits_are_neither_lost_nor_created() {
        shuttle::check_random(
            || {
                let permits = Permits::new(2);
                let computing = Arc::new(AtomicUsize::new(0));
                let tasks = (0..5).map(|root| {
                    let (permits, computing) = (Arc::clone(&permits), Arc::clone(&computing));
                    spawn(async move {
                        let queued = permits.queue(root % 2);
                        yield_now().await;
                        if thread_rng().gen_bool(0.3) {
                            return;
                        }
                        let permit = queued.permit().await;
                        assert!(computing.fetch_add(1, Ordering::SeqCst) < 2);
                        yield_now().await;
                        computing.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    })
                });
                block_on(join_all(tasks.collect::<Vec<_>>()));
                let both = [permits.queue(0), permits.queue(1)];
                assert!(both.iter().all(|queued| matches!(queued, Queued::Granted(_))));
            },
            3000,
        );
    }
}
