//! In-flight table: single-flight claims, waiter counts, and the wait-for graph.
//!
//! One table holds all three, because a claim has to decide them together: whether the request is
//! being run already, whether waiting for it would close a cycle, and whether a flight still has
//! waiters. All operations are synchronous and short.

mod graph;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::AbortRegistration;
use manifold_runtime_api::{Error, ObjectId, Reason, Result};
use smallvec::SmallVec;

use crate::by_id::ById;
use crate::clock::Clock;
use crate::flight::Flight;
use crate::settled::Settled;
use crate::sync::Mutex;
use graph::WaitGraph;

/// The in-flight table of a dispatcher.
#[derive(Default)]
pub(crate) struct Claims {
    table: Mutex<Table>,
    settlements: Settlements,
}

/// How many flights have ended, counted by the first byte of their requests.
struct Settlements([AtomicU64; 256]);

impl Default for Settlements {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Settlements {
    fn of(&self, request: ObjectId) -> &AtomicU64 {
        &self.0[usize::from(request.as_bytes().first().copied().unwrap_or_default())]
    }
}

#[derive(Default)]
struct Table {
    next_serial: u64,
    /// The flights of each request that have not stopped yet, in the order of their claims. Only
    /// the last one can have waiters. Those before it are abandoned.
    flights: ById<SmallVec<[Arc<Flight>; 1]>>,
    /// All flights by serial number, private ones included.
    nodes: HashMap<u64, Node>,
    /// Which of them wait for which.
    graph: WaitGraph,
}

struct Node {
    flight: Arc<Flight>,
    /// The number of waiters: frames and root calls.
    waiters: usize,
    /// The abandoned flights of the same request that had not stopped when this one was claimed.
    predecessors: Vec<Arc<Flight>>,
}

/// The caller that claims a request.
pub(crate) struct Claimant<'a> {
    /// The flight whose frame wants the request. `None` for a root call.
    pub(crate) waiter: Option<&'a Arc<Flight>>,
    /// The clock of the root call that the claim belongs to.
    pub(crate) clock: &'a Arc<Clock>,
    /// Whether the run is for this claimant alone.
    pub(crate) private: bool,
}

/// The result of a claim.
pub(crate) enum Claim {
    /// The claimant has to run the request so that it can be aborted, and waits like every other
    /// waiter.
    Run(Lead, AbortRegistration, Wait),
    /// The request is being run already.
    Join(Wait),
}

impl Claims {
    /// Returns a number that grows whenever a flight of `request` ends, and sometimes otherwise. If
    /// it was the same before a lookup that found nothing and is the same in the flight that was
    /// claimed afterwards, a second lookup would find nothing either.
    pub(crate) fn settlements(&self, request: ObjectId) -> u64 {
        self.settlements.of(request).load(Ordering::Acquire)
    }

    /// Claims `request`. If this fails, nothing is claimed.
    ///
    /// # Errors
    /// - [`Reason::Cycle`] if the waiter would wait for itself.
    /// - [`Reason::Cancelled`] if the waiter's flight has stopped.
    pub(crate) fn claim(
        self: &Arc<Self>,
        request: ObjectId,
        claimant: &Claimant<'_>,
    ) -> Result<Claim> {
        let waiter = claimant.waiter;
        let mut table = self.table.lock();
        if waiter.is_some_and(|waiter| !table.nodes.contains_key(&waiter.serial)) {
            // The guest's host is still used although its frame has ended.
            return Err(Error::new(Reason::Cancelled));
        }
        let last = table.flights.get(&request).and_then(|flights| flights.last());
        let joinable = last
            .filter(|flight| !claimant.private && table.nodes[&flight.serial].waiters > 0)
            .cloned();
        if let Some(flight) = joinable {
            if let Some(waiter) = waiter
                && table.graph.depends_on(flight.serial, waiter.serial)
            {
                let chain = table.cycle(flight.serial, waiter.serial);
                return Err(Error::new(Reason::Cycle { chain }));
            }
            return Ok(Claim::Join(self.add_waiter(&mut table, waiter, flight)));
        }
        let (flight, registration) = table.insert(request, claimant);
        let wait = self.add_waiter(&mut table, waiter, Arc::clone(&flight));
        Ok(Claim::Run(Lead { claims: Arc::clone(self), flight }, registration, wait))
    }

    fn add_waiter(
        self: &Arc<Self>,
        table: &mut Table,
        waiter: Option<&Arc<Flight>>,
        flight: Arc<Flight>,
    ) -> Wait {
        if let Some(node) = table.nodes.get_mut(&flight.serial) {
            node.waiters += 1;
        }
        if let Some(waiter) = waiter {
            table.graph.add_edge(waiter.serial, flight.serial);
        }
        Wait { claims: Arc::clone(self), waiter: waiter.map(|waiter| waiter.serial), flight }
    }

    /// Removes a waiter of `flight`. Aborts the flight if it was the last one.
    fn remove_waiter(&self, waiter: Option<u64>, flight: &Flight) {
        let mut table = self.table.lock();
        if let Some(waiter) = waiter {
            table.graph.remove_edge(waiter, flight.serial);
        }
        let Some(node) = table.nodes.get_mut(&flight.serial) else { return };
        node.waiters -= 1;
        if node.waiters == 0 {
            drop(table);
            flight.abort.abort();
        }
    }

    /// Removes a flight that has stopped from the table, and passes its permit to a frame that
    /// waited for it. Returns that frame's flight. A root call gets no permit, because it may not
    /// use the permit at once.
    fn remove_flight(&self, flight: &Flight) -> Option<Arc<Flight>> {
        let mut permit = flight.end();
        let mut recipient = None;
        // Before the next claim of the request can succeed.
        self.settlements.of(flight.request).fetch_add(1, Ordering::Release);
        let mut table = self.table.lock();
        table.nodes.remove(&flight.serial);
        let waiting = table.graph.remove(flight.serial);
        for waiter in waiting.iter().filter_map(|serial| table.nodes.get(serial)) {
            let Some(left) = permit.take() else { break };
            permit = waiter.flight.offer(left);
            recipient = permit.is_none().then(|| Arc::clone(&waiter.flight));
        }
        if let Entry::Occupied(mut flights) = table.flights.entry(flight.request) {
            flights.get_mut().retain(|other| other.serial != flight.serial);
            if flights.get().is_empty() {
                flights.remove();
            }
        }
        // A permit must not be dropped under the lock, because the frame that gets it may resume at
        // once.
        drop(table);
        drop(permit);
        recipient
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        let table = self.table.lock();
        table.flights.is_empty() && table.nodes.is_empty() && table.graph.is_empty()
    }
}

impl Table {
    fn insert(
        &mut self,
        request: ObjectId,
        claimant: &Claimant<'_>,
    ) -> (Arc<Flight>, AbortRegistration) {
        let serial = self.next_serial;
        self.next_serial += 1;
        let depth = claimant.waiter.map_or(0, |waiter| waiter.depth.saturating_add(1));
        let (flight, registration) =
            Flight::new(serial, request, depth, Arc::clone(claimant.clock));
        let mut predecessors = Vec::new();
        if !claimant.private {
            let flights = self.flights.entry(request).or_default();
            predecessors.extend(flights.iter().cloned());
            flights.push(Arc::clone(&flight));
        }
        let node = Node { flight: Arc::clone(&flight), waiters: 0, predecessors };
        self.nodes.insert(serial, node);
        self.graph.insert(serial);
        (flight, registration)
    }

    /// Returns the requests on a path along the waits from `from` to `to`, followed by the first
    /// request again.
    fn cycle(&self, from: u64, to: u64) -> Vec<ObjectId> {
        let path = self.graph.path(from, to).unwrap_or_default();
        let closed = path.iter().chain(path.first());
        closed.filter_map(|serial| Some(self.nodes.get(serial)?.flight.request)).collect()
    }
}

/// The duty to run a request. If this is dropped before it is settled, the waiters get an error:
/// the run was cancelled or panicked.
pub(crate) struct Lead {
    claims: Arc<Claims>,
    flight: Arc<Flight>,
}

impl Lead {
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Waits until the earlier executions of this request, which are abandoned, have stopped.
    pub(crate) async fn turn(&self) {
        let predecessors = self
            .claims
            .table
            .lock()
            .nodes
            .get(&self.flight.serial)
            .map(|node| node.predecessors.clone());
        for predecessor in predecessors.unwrap_or_default() {
            predecessor.settled.wait().await;
        }
    }

    /// Returns whether an abandoned execution of this request was still stopping when this flight
    /// was claimed.
    pub(crate) fn has_to_wait(&self) -> bool {
        self.claims
            .table
            .lock()
            .nodes
            .get(&self.flight.serial)
            .is_some_and(|node| !node.predecessors.is_empty())
    }

    /// Returns whether no waiter is left.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.claims.table.lock().nodes.get(&self.flight.serial).is_none_or(|node| node.waiters == 0)
    }

    /// Publishes the result. A result that is to be memoized must be in the memo by now, so that
    /// the next claimant finds it there.
    pub(crate) fn settle(self, settled: Settled) {
        self.publish(settled);
    }

    fn publish(&self, settled: Settled) {
        let recipient = self.claims.remove_flight(&self.flight);
        self.flight.settled.announce(settled);
        // The guest that got the permit may wait for something else. Then it must release the
        // permit.
        if let Some(guest) = recipient.and_then(|recipient| recipient.guest_waker()) {
            guest.wake();
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.flight.settled.is_announced() {
            return;
        }
        let reason = if std::thread::panicking() {
            Reason::Panicked { message: "in the dispatcher, while it settled the run".to_owned() }
        } else {
            Reason::Cancelled
        };
        self.publish(Settled::failed(Error::new(reason)));
    }
}

/// A place among the waiters of a flight. Dropping it gives up the place. When the last place is
/// dropped, the run is cancelled.
pub(crate) struct Wait {
    claims: Arc<Claims>,
    flight: Arc<Flight>,
    waiter: Option<u64>,
}

impl Wait {
    pub(crate) fn flight(&self) -> &Flight {
        &self.flight
    }

    pub(crate) async fn settled(self) -> Settled {
        self.flight.settled.wait().await
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.claims.remove_waiter(self.waiter, &self.flight);
    }
}

#[cfg(test)]
mod tests;
