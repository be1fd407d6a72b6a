//! Run permits: how many frames can compute at once, and which waiting frame is next.
//!
//! Each thread has a stack of its own, so that a recursion stays on the thread where it is, with what
//! it has in the processor's caches, and threads do not wait for each other. A thread whose stack is
//! empty takes the oldest ticket of another stack, which is the one with the most work below it.

mod stack;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::elsewhere::Offer;
use crate::padded::Padded;
use crate::sync::{AtomicUsize, Mutex};
use stack::{Quantum, Stacks};

/// The number of the root call that a frame works for, directly or through nested runs.
pub(crate) type RootId = u64;

/// A fixed number of run permits.
///
/// Within one root call and one thread, permits are granted last-in-first-out, so that a recursion
/// goes deep before it goes wide and the number of frames in progress stays near depth × width for
/// each permit. Root calls take turns of [`QUANTUM`] permits. A thread whose tickets are not served
/// meanwhile, because it is busy with something else, gets a turn of others if it has tickets of another
/// root call. So no root call waits for ever while others have work. What the own root call has there
/// waits: it would go wide otherwise, and its turn comes when the rest has ended.
pub(crate) struct Permits {
    free: Padded<AtomicUsize>,
    count: usize,
    /// The stacks of the threads. Some threads may share one.
    slots: Box<[Padded<Slot>]>,
    quantum: Quantum,
}

/// The waiting tickets of a thread.
#[derive(Default)]
struct Slot {
    /// The number of tickets, set while `stacks` is locked.
    waiting: AtomicUsize,
    /// How many of its tickets were served, and how many had been when another thread last looked.
    served: AtomicUsize,
    seen: AtomicUsize,
    stacks: Mutex<Stacks>,
}

/// How many permits in a row a root call gets while others wait, and for how long. Frames of some
/// runtimes take seconds.
const QUANTUM: Quantum = Quantum { permits: 64, time: Duration::from_millis(10) };
const MAX_SLOTS: usize = 64;

/// The right to compute. Dropping it passes it to the next waiter.
pub(crate) struct Permit {
    /// `None` once the right has been passed on.
    permits: Option<Arc<Permits>>,
}

/// A request for one permit. It can wait in the queues of several root calls and is served once.
pub(crate) type Ticket = Arc<Request>;

/// What a [`Ticket`] refers to.
pub(crate) struct Request {
    /// Where the permit goes. `None` once it is served.
    sender: Mutex<Option<oneshot::Sender<Permit>>>,
    /// The run that waits, if it may be given away.
    offer: Option<Offer>,
}

/// A place in the queue, which exists as soon as this value does, or a granted permit.
/// [`Queued::permit`] waits for the permit.
pub(crate) enum Queued {
    Granted(Permit),
    Waiting(oneshot::Receiver<Permit>, Ticket),
}

impl Permits {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        // Threads are numbered as they come. With more stacks than threads, few of them share one. A
        // single permit needs no other thread's stack.
        let slots = if count == 1 { 1 } else { (4 * count).min(MAX_SLOTS) };
        Self::with(count, slots, QUANTUM)
    }

    fn with(count: usize, slots: usize, quantum: Quantum) -> Arc<Self> {
        let slots = (0..slots.max(1)).map(|_| Padded::default()).collect();
        Arc::new(Self { free: Padded(AtomicUsize::new(count)), count, slots, quantum })
    }

    /// Returns how many permits are in use now, and how many there are.
    pub(crate) fn in_use(&self) -> (usize, usize) {
        (self.count.saturating_sub(self.free.0.load(Relaxed)), self.count)
    }

    /// Requests a permit on behalf of `root`.
    pub(crate) fn queue(self: &Arc<Self>, root: RootId) -> Queued {
        self.queue_run(root, || None)
    }

    /// Requests a permit on behalf of `root` for a run that has not begun. While it waits, it may be
    /// given away if `offer` returns something.
    pub(crate) fn queue_run(
        self: &Arc<Self>,
        root: RootId,
        offer: impl FnOnce() -> Option<Offer>,
    ) -> Queued {
        if self.take_free() {
            return Queued::Granted(Permit { permits: Some(Arc::clone(self)) });
        }
        let (sender, receiver) = oneshot::channel();
        let ticket = Arc::new(Request { sender: Mutex::new(Some(sender)), offer: offer() });
        self.push(root, Arc::clone(&ticket));
        // A permit that was released meanwhile may not have found the ticket. `Permit::drop` looks at
        // the stacks once more after it has made a permit free, so one of the two finds the other.
        if self.take_free() {
            drop(Permit { permits: Some(Arc::clone(self)) });
        }
        Queued::Waiting(receiver, ticket)
    }

    /// Adds `ticket`, which waits already, to the queue of `root`, which wants the same run. A ticket
    /// that was served already is skipped.
    pub(crate) fn queue_also(&self, root: RootId, ticket: Ticket) {
        self.push(root, ticket);
    }

    /// Ends the wait of the oldest offered run that has waited since before `before` and that `accept`
    /// accepts. Returns whether there was one. It gets a permit that counts as none, and `accept` has
    /// told its flight that it is given away.
    pub(crate) fn give_away(
        &self,
        before: Instant,
        accept: &mut dyn FnMut(&Offer) -> bool,
    ) -> bool {
        // The oldest has the most work below it.
        let oldest = |slot: &Slot| slot.stacks.lock().oldest_offer();
        let waiting = self.slots.iter().map(|slot| &slot.0);
        let waiting = waiting.filter(|slot| slot.waiting.load(SeqCst) > 0);
        let mut slots: Vec<_> = waiting.filter_map(|slot| Some((oldest(slot)?, slot))).collect();
        slots.sort_by_key(|(since, _)| *since);
        slots.into_iter().any(|(_, slot)| {
            let mut stacks = slot.stacks.lock();
            let found = stacks.remove_oldest(|ticket| {
                let offer = ticket.offer.as_ref()?;
                if offer.since > before {
                    return Some(false);
                }
                let mut sender = ticket.sender.lock();
                let waits = sender.as_ref().is_some_and(|sender| !sender.is_closed());
                if !waits || !accept(offer) {
                    return None;
                }
                let sent = sender.take().map(|sender| sender.send(Permit { permits: None }));
                sent.is_some_and(|sent| sent.is_ok()).then_some(true)
            });
            slot.waiting.store(stacks.len(), SeqCst);
            found
        })
    }

    /// Returns whether an offered run has waited since before `before`, and about how many tickets
    /// wait.
    pub(crate) fn surplus(&self, before: Instant) -> (bool, usize) {
        let waiting = self.slots.iter().map(|slot| slot.0.waiting.load(Relaxed)).sum();
        let oldest = |slot: &Slot| slot.stacks.lock().oldest_offer();
        let mut slots = self.slots.iter().map(|slot| &slot.0);
        let has_offers =
            waiting > 0 && slots.any(|slot| oldest(slot).is_some_and(|since| since <= before));
        (has_offers, waiting)
    }

    fn push(&self, root: RootId, ticket: Ticket) {
        let slot = &self.slots[self.own_slot()].0;
        let mut stacks = slot.stacks.lock();
        stacks.push(root, ticket);
        slot.waiting.store(stacks.len(), SeqCst);
    }

    fn take_free(&self) -> bool {
        let free = &self.free.0;
        free.load(SeqCst) > 0
            && free.fetch_update(SeqCst, SeqCst, |free| free.checked_sub(1)).is_ok()
    }

    /// Dequeues the next waiter. Cancelled waiters are skipped.
    fn next(&self) -> Option<oneshot::Sender<Permit>> {
        let own = self.own_slot();
        let slot = &self.slots[own].0;
        let now = Instant::now();
        let mut stacks = slot.stacks.lock();
        if let Some(round) = stacks.count_release(self.quantum, now) {
            let root = stacks.current();
            drop(stacks);
            let neglected = |other: &Slot| {
                let served = other.served.load(Relaxed);
                served == other.seen.swap(served, Relaxed)
            };
            let pop = |stacks: &mut Stacks| stacks.pop_oldest_of_others(root, now);
            if let Some(next) = self.steal(own, round, neglected, pop) {
                return Some(next);
            }
            stacks = slot.stacks.lock();
        }
        let next = slot.take(&mut stacks, |stacks| stacks.pop(self.quantum, now));
        drop(stacks);
        next.or_else(|| self.steal(own, 0, |_| true, |stacks| stacks.pop_oldest(now)))
    }

    /// Takes a ticket of another stack for which `condition` holds. In each round, another stack is
    /// looked at first.
    fn steal(
        &self,
        own: usize,
        round: usize,
        condition: impl Fn(&Slot) -> bool,
        pop: impl Fn(&mut Stacks) -> Option<Ticket>,
    ) -> Option<oneshot::Sender<Permit>> {
        let count = self.slots.len();
        let others = (0..count).map(|at| (own + 1 + round + at) % count);
        let mut others = others.filter(|other| *other != own).map(|other| &self.slots[other].0);
        others.find_map(|other| {
            if other.waiting.load(SeqCst) == 0 || !condition(other) {
                return None;
            }
            other.take(&mut other.stacks.lock(), &pop)
        })
    }

    /// Returns the index of this thread's stack.
    #[cfg(not(test))]
    fn own_slot(&self) -> usize {
        crate::thread_number::thread_number() % self.slots.len()
    }

    /// In the tests, a task can be on any thread.
    #[cfg(test)]
    fn own_slot(&self) -> usize {
        use shuttle::rand::{Rng, thread_rng};
        if self.slots.len() == 1 { 0 } else { thread_rng().gen_range(0..self.slots.len()) }
    }
}

impl Request {
    /// Returns since when the run has waited, if it may be given away and has not been served.
    fn waits_since(&self) -> Option<Instant> {
        let offer = self.offer.as_ref()?;
        self.sender.lock().is_some().then_some(offer.since)
    }
}

impl Slot {
    /// Takes the sender of the first ticket that still waits, of those that `pop` removes from the
    /// stacks of this slot.
    fn take(
        &self,
        stacks: &mut Stacks,
        pop: impl Fn(&mut Stacks) -> Option<Ticket>,
    ) -> Option<oneshot::Sender<Permit>> {
        let mut next = None;
        while next.is_none()
            && let Some(ticket) = pop(stacks)
        {
            next = ticket.sender.lock().take().filter(|sender| !sender.is_closed());
        }
        if next.is_some() {
            stacks.count_grant();
            self.served.fetch_add(1, Relaxed);
        }
        self.waiting.store(stacks.len(), SeqCst);
        next
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(permits) = self.permits.take() else { return };
        loop {
            while let Some(next) = permits.next() {
                match next.send(Self { permits: Some(Arc::clone(&permits)) }) {
                    Ok(()) => return,
                    Err(mut refused) => refused.permits = None,
                }
            }
            permits.free.0.fetch_add(1, SeqCst);
            // A ticket that was added meanwhile may not have found the free permit.
            let nobody_waits = permits.slots.iter().all(|slot| slot.0.waiting.load(SeqCst) == 0);
            if nobody_waits || !permits.take_free() {
                return;
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
    use std::sync::atomic::AtomicUsize;

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
    fn permits_are_granted_last_in_first_out_within_a_root_and_in_turns_across_roots() {
        shuttle::check_random(
            || {
                let permits = Permits::with(1, 1, Quantum { permits: 1, time: Duration::MAX });
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
                let permits = Permits::with(1, 1, Quantum { permits: 1, time: Duration::MAX });
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

    // Offered runs that are given away get no permit, those that are not get one, and no ticket is
    // both served and given away or lost. Those with another root call do not disturb this.
    #[test]
    fn an_offered_run_is_served_or_given_away() {
        shuttle::check_random(
            || {
                let permits = Permits::new(1);
                let (served, given) =
                    (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
                let tasks = (0..4).map(|root| {
                    let (permits, served) = (Arc::clone(&permits), Arc::clone(&served));
                    let given = Arc::clone(&given);
                    spawn(async move {
                        let queued =
                            permits.queue_run(root % 2, || (root < 3).then(Offer::of_tests));
                        yield_now().await;
                        let permit = queued.permit().await;
                        let counter = if permit.permits.is_some() { served } else { given };
                        counter.fetch_add(1, SeqCst);
                        yield_now().await;
                        drop(permit);
                    })
                });
                let tasks: Vec<_> = tasks.collect();
                let thief = {
                    let permits = Arc::clone(&permits);
                    spawn(async move {
                        let mut count = 0;
                        for _ in 0..3 {
                            yield_now().await;
                            count += usize::from(permits.give_away(Instant::now(), &mut |_| true));
                        }
                        count
                    })
                };
                block_on(join_all(tasks));
                let count = block_on(thief).unwrap();
                assert_eq!(given.load(SeqCst), count);
                assert_eq!(served.load(SeqCst), 4 - count);
                assert!(matches!(permits.queue(0), Queued::Granted(_)), "the permit is free");
            },
            3000,
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
                        assert!(computing.fetch_add(1, SeqCst) < 2);
                        yield_now().await;
                        computing.fetch_sub(1, SeqCst);
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
