//! [`Flight`]: one execution of a request, with its permit or its places in the queues for one.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use futures_util::future::{AbortHandle, AbortRegistration};
use manifold_runtime_api::ObjectId;
use smallvec::SmallVec;

use crate::announcement::Announcement;
use crate::clock::{Clock, Queueing};
use crate::elsewhere::Taker;
use crate::permits::{Permit, Permits, Queued, RootId, Ticket};
use crate::settled::Settled;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard};

/// One execution of a request, from the claim until its code has stopped.
pub(crate) struct Flight {
    pub(crate) request: ObjectId,
    /// The nesting depth of the run below the root call that started it. A root call's own request
    /// has depth 0.
    pub(crate) depth: u32,
    /// The clock of that root call.
    clock: Arc<Clock>,
    pub(crate) settled: Announcement<Settled>,
    /// The run permit of this flight's frame while the frame computes. A nested run that settles
    /// passes its own permit to this flight, so that a recursion on its way up is not overtaken by
    /// runs that have not begun.
    permit: Mutex<Option<Permit>>,
    queue: Mutex<Queue>,
    /// Wakes the task that polls the guest.
    guest_waker: Mutex<Option<Waker>>,
    abort: AbortHandle,
    /// The number of waiters: frames and root calls.
    waiters: AtomicUsize,
    /// Whether the flight has stopped.
    ended: AtomicBool,
    /// Whether the run was stopped because somebody takes it over, and has not begun again.
    is_stopped: AtomicBool,
    edges: Mutex<Edges>,
    /// Whether the run may be taken over while it is in progress.
    may_leave: AtomicBool,
    /// Who takes the run over, once somebody does.
    taker: Mutex<Option<Taker>>,
    /// The number of the time when the run was taken over. 0 if it is not elsewhere.
    away: AtomicU64,
}

/// Which flights wait for which, as far as it concerns one flight. The same flight can occur several
/// times.
#[derive(Default)]
pub(crate) struct Edges {
    /// The flights that this flight's frame waits for.
    pub(crate) waits_for: SmallVec<[Arc<Flight>; 1]>,
    /// The flights whose frames wait for this flight. Empty once the flight has stopped.
    pub(crate) waiting: SmallVec<[Arc<Flight>; 1]>,
}

/// The queues in which a flight waits before it begins. The clocks of their root calls may be
/// paused meanwhile.
#[derive(Default)]
struct Queue {
    roots: SmallVec<[RootId; 2]>,
    ticket: Option<Ticket>,
    queueing: Vec<Queueing>,
    begun: bool,
}

impl Flight {
    /// Creates a flight with one waiter: the frame of the flight `waiter`, or a root call.
    pub(crate) fn new(
        request: ObjectId,
        depth: u32,
        clock: Arc<Clock>,
        waiter: Option<Arc<Self>>,
    ) -> (Arc<Self>, AbortRegistration) {
        let (abort, registration) = AbortHandle::new_pair();
        let edges = Edges { waiting: waiter.into_iter().collect(), ..Edges::default() };
        let flight = Self {
            request,
            depth,
            clock,
            settled: Announcement::new(),
            permit: Mutex::default(),
            queue: Mutex::default(),
            guest_waker: Mutex::default(),
            abort,
            waiters: AtomicUsize::new(1),
            ended: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            edges: Mutex::new(edges),
            may_leave: AtomicBool::new(false),
            taker: Mutex::default(),
            away: AtomicU64::new(0),
        };
        (Arc::new(flight), registration)
    }

    pub(crate) fn edges(&self) -> MutexGuard<'_, Edges> {
        self.edges.lock()
    }

    /// Adds a waiter. Returns `false` if the flight is abandoned: it has no waiters, and is aborted.
    pub(crate) fn add_waiter(&self) -> bool {
        let more = |waiters: usize| (waiters > 0).then_some(waiters + 1);
        self.waiters.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Adds an edge from `waiter`, unless this flight has stopped.
    pub(crate) fn wait_for(&self, waiter: &Arc<Self>) {
        let mut edges = self.edges();
        if !self.has_ended() {
            edges.waiting.push(Arc::clone(waiter));
        }
    }

    /// Removes a waiter and its edge. Aborts the flight if it was the last one.
    pub(crate) fn remove_waiter(self: &Arc<Self>, waiter: Option<&Arc<Self>>) {
        if let Some(waiter) = waiter {
            remove_one(&mut waiter.edges().waits_for, self);
        }
        let was_last = self.waiters.fetch_sub(1, Ordering::AcqRel) == 1;
        if self.has_ended() {
            return;
        }
        if let Some(waiter) = waiter {
            remove_one(&mut self.edges().waiting, waiter);
        }
        if was_last {
            self.abort.abort();
        }
    }

    /// Returns whether no waiter is left.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.waiters.load(Ordering::Acquire) == 0
    }

    /// Returns whether the flight has stopped.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Removes all edges. Returns the flights whose frames wait for this one.
    pub(crate) fn end_waits(&self) -> SmallVec<[Arc<Self>; 1]> {
        let mut edges = self.edges();
        let Edges { waits_for, waiting } = std::mem::take(&mut *edges);
        drop(edges);
        drop(waits_for);
        waiting
    }

    pub(crate) fn take_permit(&self) -> Option<Permit> {
        self.taken(self.permit.lock().take())
    }

    /// Takes the permit of a frame that waits for something outside of the dispatcher. The clock
    /// still counts the frame as computing.
    pub(crate) fn lend_permit(&self) -> Option<Permit> {
        self.permit.lock().take()
    }

    /// Ends the flight, which accepts no more permits from now on. Returns its permit, with which the
    /// frame still counts as computing.
    pub(crate) fn end(&self) -> Option<Permit> {
        self.ended.store(true, Ordering::Release);
        self.permit.lock().take()
    }

    /// Passes the permit of this flight, which has ended, to `waiter`. Returns it if that has one
    /// already or has ended.
    pub(crate) fn pass_permit(&self, permit: Permit, waiter: &Self) -> Option<Permit> {
        let left = waiter.hold(permit);
        if left.is_none() && !Arc::ptr_eq(&self.clock, &waiter.clock) {
            waiter.clock.start_computing();
            self.clock.stop_computing();
        }
        left
    }

    /// Drops the permit of this flight, which has ended.
    pub(crate) fn drop_permit(&self, permit: Option<Permit>) {
        drop(self.taken(permit));
    }

    /// If a permit was taken, records in the clock that the frame no longer computes.
    fn taken(&self, permit: Option<Permit>) -> Option<Permit> {
        if permit.is_some() {
            self.clock.stop_computing();
        }
        permit
    }

    /// Returns the waker of the task that polls the guest. `None` if the guest has not been polled
    /// yet.
    pub(crate) fn guest_waker(&self) -> Option<Waker> {
        self.guest_waker.lock().clone()
    }

    /// Sets the waker of the task that polls the guest.
    pub(crate) fn set_guest_waker(&self, waker: &Waker) {
        let mut guest = self.guest_waker.lock();
        if guest.as_ref().is_none_or(|guest| !guest.will_wake(waker)) {
            *guest = Some(waker.clone());
        }
    }

    pub(crate) fn has_permit(&self) -> bool {
        self.permit.lock().is_some()
    }

    /// Takes `permit`, and leaves the clock to the caller. Returns it if the flight has a permit
    /// already, or has ended or was stopped.
    fn hold(&self, permit: Permit) -> Option<Permit> {
        let mut held = self.permit.lock();
        // `end` and `stop` set the flag before they take the permit, so a permit that is kept here is
        // taken there.
        let accepts = !self.has_ended() && !self.is_stopped.load(Ordering::Acquire);
        if !accepts || held.is_some() {
            return Some(permit);
        }
        held.replace(permit)
    }

    /// Takes `permit`, unless the flight has a permit already or has ended. Then the permit is
    /// dropped, which passes it on.
    pub(crate) fn keep_permit(&self, permit: Permit) {
        match self.hold(permit) {
            None => self.clock.start_computing(),
            Some(refused) => drop(refused),
        }
    }

    /// If the run has not begun, also queues it under the joining root call and counts it as
    /// queueing in that call's clock.
    pub(crate) fn join_queue(&self, root: RootId, clock: &Arc<Clock>, permits: &Permits) {
        let mut queue = self.queue.lock();
        if queue.begun || queue.roots.contains(&root) {
            return;
        }
        queue.roots.push(root);
        queue.queueing.push(clock.queue());
        if let Some(ticket) = queue.ticket.clone() {
            permits.queue_also(root, ticket);
        }
    }

    /// Keeps the ticket of the place in the queue of the root call `leader`, which started the
    /// flight, and adds it to the queues of the root calls that have joined.
    pub(crate) fn queue(&self, queued: &Queued, leader: RootId, permits: &Permits) {
        let Some(ticket) = queued.ticket() else { return };
        let mut queue = self.queue.lock();
        for root in queue.roots.iter().filter(|root| **root != leader) {
            permits.queue_also(*root, Arc::clone(&ticket));
        }
        queue.roots.push(leader);
        queue.ticket = Some(ticket);
    }

    /// Takes the permit that the run was queued for, and no longer counts the flight as queueing in
    /// the clocks.
    pub(crate) fn begin(&self, permit: Permit, queueing: Queueing) {
        self.is_stopped.store(false, Ordering::Release);
        let refused = self.hold(permit);
        if refused.is_none() {
            queueing.start_computing();
        }
        drop(refused);
        self.leave_queues();
    }

    /// Leaves the queues, and no longer counts as queueing in the clocks.
    fn leave_queues(&self) {
        // It is dropped after the lock is released.
        let queue =
            std::mem::replace(&mut *self.queue.lock(), Queue { begun: true, ..Queue::default() });
        drop(queue);
    }
}

/// Runs that are taken over.
impl Flight {
    /// Records that the run may be taken over while it is in progress.
    pub(crate) fn allow_leaving(&self) {
        self.may_leave.store(true, Ordering::Relaxed);
    }

    /// Returns whether the run is in progress here, and may be taken over.
    pub(crate) fn can_leave(&self) -> bool {
        self.may_leave.load(Ordering::Relaxed) && !self.has_ended() && self.away().is_none()
    }

    /// Sets who takes the run over.
    pub(crate) fn set_taker(&self, taker: Taker) {
        *self.taker.lock() = Some(taker);
    }

    /// Returns who takes the run over.
    pub(crate) fn take_taker(&self) -> Option<Taker> {
        self.taker.lock().take()
    }

    /// Polls `run` until it ends. Returns who takes it over if somebody does before.
    pub(crate) async fn until_taken<T>(&self, run: impl Future<Output = T>) -> Result<T, Taker> {
        let mut run = pin!(run);
        poll_fn(|context| match self.take_taker() {
            Some(taker) => Poll::Ready(Err(taker)),
            None => run.as_mut().poll(context).map(Ok),
        })
        .await
    }

    /// Releases the permit, and accepts none until the run begins again: a nested run that ends now may
    /// still pass its own.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        drop(self.take_permit());
    }

    /// Records that the run, which computes no longer, is elsewhere, until the guard is dropped. The
    /// call's clock counts it as computing.
    pub(crate) fn leave(self: &Arc<Self>, number: u64, queueing: Option<Queueing>) -> Away {
        match queueing {
            Some(queueing) => queueing.start_computing(),
            None => self.clock.start_computing(),
        }
        self.leave_queues();
        self.away.store(number, Ordering::Release);
        Away(Arc::clone(self))
    }

    /// Returns the number of the time when the run was taken over. `None` if it is not elsewhere.
    pub(crate) fn away(&self) -> Option<u64> {
        Some(self.away.load(Ordering::Acquire)).filter(|number| *number > 0)
    }
}

/// A run that is elsewhere.
pub(crate) struct Away(Arc<Flight>);

impl Drop for Away {
    fn drop(&mut self) {
        self.0.away.store(0, Ordering::Release);
        self.0.clock.stop_computing();
        self.0.queue.lock().begun = false;
    }
}

fn remove_one(flights: &mut SmallVec<[Arc<Flight>; 1]>, flight: &Arc<Flight>) {
    if let Some(index) = flights.iter().position(|other| Arc::ptr_eq(other, flight)) {
        flights.swap_remove(index);
    }
}
