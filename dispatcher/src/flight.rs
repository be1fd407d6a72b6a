//! One execution, and what it holds of the right to compute.

use std::sync::Arc;
use std::task::Waker;

use futures_util::future::{AbortHandle, AbortRegistration};
use manifold_runtime_api::ObjectId;
use smallvec::SmallVec;

use crate::announcement::Announcement;
use crate::clock::{Clock, Queueing};
use crate::permits::{Permit, Permits, Queued, RootId, Ticket};
use crate::settled::Settled;
use crate::sync::Mutex;

/// One execution of a request, from the claim until its code has stopped.
pub(crate) struct Flight {
    pub(crate) serial: u64,
    pub(crate) request: ObjectId,
    /// How deep the run is nested below the call that led to it first: 0 for what was called from outside.
    pub(crate) depth: u32,
    /// The clock of that call.
    clock: Arc<Clock>,
    pub(crate) settled: Announcement<Settled>,
    /// The run permit of this flight's frame while the frame computes. A nested run that settles puts its own here: a
    /// recursion that goes back up must not be overtaken by what has not begun yet.
    permit: Mutex<Held>,
    queue: Mutex<Queue>,
    /// Wakes the task of the flight's guest.
    guest: Mutex<Option<Waker>>,
    pub(crate) abort: AbortHandle,
}

/// What a flight holds of the right to compute.
#[derive(Default)]
struct Held {
    permit: Option<Permit>,
    /// Nothing is taken any more.
    over: bool,
}

/// Whose queues a flight stands in before it begins, and whose time stands still meanwhile.
#[derive(Default)]
struct Queue {
    roots: SmallVec<[RootId; 2]>,
    ticket: Option<Ticket>,
    standing: Vec<Queueing>,
    begun: bool,
}

impl Flight {
    pub(crate) fn new(
        serial: u64,
        request: ObjectId,
        depth: u32,
        clock: Arc<Clock>,
    ) -> (Arc<Self>, AbortRegistration) {
        let (abort, registration) = AbortHandle::new_pair();
        let flight = Self {
            serial,
            request,
            depth,
            clock,
            settled: Announcement::new(),
            permit: Mutex::default(),
            queue: Mutex::default(),
            guest: Mutex::default(),
            abort,
        };
        (Arc::new(flight), registration)
    }

    pub(crate) fn take_permit(&self) -> Option<Permit> {
        self.taken(self.permit.lock().permit.take())
    }

    /// Takes the permit, and takes none from now on.
    pub(crate) fn end(&self) -> Option<Permit> {
        let permit = {
            let mut held = self.permit.lock();
            held.over = true;
            held.permit.take()
        };
        self.taken(permit)
    }

    fn taken(&self, permit: Option<Permit>) -> Option<Permit> {
        if permit.is_some() {
            self.clock.pauses();
        }
        permit
    }

    /// What wakes the task of the flight's guest, once it was polled.
    pub(crate) fn guest(&self) -> Option<Waker> {
        self.guest.lock().clone()
    }

    /// Names what wakes the task of the flight's guest.
    pub(crate) fn wakes(&self, waker: &Waker) {
        let mut guest = self.guest.lock();
        if guest.as_ref().is_none_or(|guest| !guest.will_wake(waker)) {
            *guest = Some(waker.clone());
        }
    }

    pub(crate) fn has_permit(&self) -> bool {
        self.permit.lock().permit.is_some()
    }

    /// Takes `permit`, or gives it back where there is one already or the flight is over.
    pub(crate) fn offer(&self, permit: Permit) -> Option<Permit> {
        let mut held = self.permit.lock();
        if held.over || held.permit.is_some() {
            return Some(permit);
        }
        self.clock.computes();
        held.permit.replace(permit)
    }

    /// Keeps `permit`, unless there is one already.
    pub(crate) fn keep_permit(&self, permit: Permit) {
        drop(self.offer(permit));
    }

    /// Has the flight, if it has not begun, stand in the queue of a call that joins it, and that call's clock stand still.
    pub(crate) fn is_wanted_by(&self, root: RootId, clock: &Arc<Clock>, permits: &Permits) {
        let mut queue = self.queue.lock();
        if queue.begun || queue.roots.contains(&root) {
            return;
        }
        queue.roots.push(root);
        queue.standing.push(clock.queues());
        if let Some(ticket) = queue.ticket.clone() {
            permits.queue_also(root, ticket);
        }
    }

    /// The flight stands in the queue of the call that led to it.
    pub(crate) fn queues(&self, queued: &Queued, leader: RootId, permits: &Permits) {
        let Some(ticket) = queued.ticket() else { return };
        let mut queue = self.queue.lock();
        for root in queue.roots.iter().filter(|root| **root != leader) {
            permits.queue_also(*root, Arc::clone(&ticket));
        }
        queue.roots.push(leader);
        queue.ticket = Some(ticket);
    }

    /// The flight has its permit.
    pub(crate) fn begins(&self) {
        let queue =
            std::mem::replace(&mut *self.queue.lock(), Queue { begun: true, ..Queue::default() });
        drop(queue);
    }
}
