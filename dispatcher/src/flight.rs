//! [`Flight`]: one execution of a request, with its permit or its places in the queues for one.

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
    /// The nesting depth of the run below the root call that started it. A root call's own request
    /// has depth 0.
    pub(crate) depth: u32,
    /// The clock of that root call.
    clock: Arc<Clock>,
    pub(crate) settled: Announcement<Settled>,
    /// The run permit of this flight's frame while the frame computes. A nested run that settles
    /// passes its own permit to this flight, so that a recursion on its way up is not overtaken by
    /// runs that have not begun.
    permit: Mutex<Held>,
    queue: Mutex<Queue>,
    /// Wakes the task that polls the guest.
    guest_waker: Mutex<Option<Waker>>,
    pub(crate) abort: AbortHandle,
}

/// The permit of a flight.
#[derive(Default)]
struct Held {
    permit: Option<Permit>,
    /// Whether the flight has ended and accepts no more permits.
    ended: bool,
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
            guest_waker: Mutex::default(),
            abort,
        };
        (Arc::new(flight), registration)
    }

    pub(crate) fn take_permit(&self) -> Option<Permit> {
        self.taken(self.permit.lock().permit.take())
    }

    /// Takes the permit of a frame that waits for something outside of the dispatcher. The clock
    /// still counts the frame as computing.
    pub(crate) fn lend_permit(&self) -> Option<Permit> {
        self.permit.lock().permit.take()
    }

    /// Takes the permit. The flight accepts no more permits from now on.
    pub(crate) fn end(&self) -> Option<Permit> {
        let permit = {
            let mut held = self.permit.lock();
            held.ended = true;
            held.permit.take()
        };
        self.taken(permit)
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
        self.permit.lock().permit.is_some()
    }

    /// Takes `permit`. Returns it if the flight has a permit already or has ended.
    pub(crate) fn offer(&self, permit: Permit) -> Option<Permit> {
        let mut held = self.permit.lock();
        if held.ended || held.permit.is_some() {
            return Some(permit);
        }
        self.clock.start_computing();
        held.permit.replace(permit)
    }

    /// Takes `permit`, unless the flight has a permit already or has ended. Then the permit is
    /// dropped, which passes it on.
    pub(crate) fn keep_permit(&self, permit: Permit) {
        drop(self.offer(permit));
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

    /// Records that the flight has its permit, and no longer counts it as queueing in the clocks.
    pub(crate) fn begin(&self) {
        let queue =
            std::mem::replace(&mut *self.queue.lock(), Queue { begun: true, ..Queue::default() });
        drop(queue);
    }
}
