//! In-flight table: single-flight claims, waiter counts, and the wait-for graph.
//!
//! The table is divided into shards by request, and a frame touches one of them twice: when it is
//! claimed, and when it ends. The number of a flight's waiters and its edges of the wait-for graph are
//! kept in the flight ([`Edges`](crate::flight::Edges)). All operations are synchronous and short.

mod graph;

use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::AbortRegistration;
use manifold_runtime_api::{Error, ObjectId, Reason, Result};
use smallvec::SmallVec;

use crate::by_id::ById;
use crate::clock::Clock;
use crate::flight::Flight;
use crate::padded::Padded;
use crate::settled::Settled;
use crate::span::{LeadSpan, OpenSpan};
use crate::sync::Mutex;
use graph::Neighbours;

/// The number of shards.
const SHARDS: usize = 256;

/// The in-flight table of a dispatcher.
pub(crate) struct Claims {
    shards: Box<[Padded<Shard>]>,
    /// Held while a flight joins another one: while it is checked that this closes no cycle, and the
    /// edge is added.
    joining: Mutex<()>,
}

#[derive(Default)]
struct Shard {
    /// How many flights have ended.
    settlements: AtomicU64,
    flights: Mutex<Flights>,
}

/// The flights of each request that have not stopped yet, in the order of their claims. Only the last
/// one can have waiters. Those before it are abandoned.
type Flights = ById<SmallVec<[Arc<Flight>; 1]>>;

impl Default for Claims {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Padded::default()).collect();
        Self { shards, joining: Mutex::default() }
    }
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
        self.shard(request).settlements.load(Ordering::Acquire)
    }

    fn shard(&self, request: ObjectId) -> &Shard {
        let first = request.as_bytes().first().copied().unwrap_or_default();
        &self.shards[usize::from(first) % SHARDS].0
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
        if waiter.is_some_and(|waiter| waiter.has_ended()) {
            // The guest's host is still used although its frame has ended.
            return Err(Error::new(Reason::Cancelled));
        }
        let depth = waiter.map_or(0, |waiter| waiter.depth.saturating_add(1));
        let new = || Flight::new(request, depth, Arc::clone(claimant.clock), waiter.cloned());
        let mut predecessors = SmallVec::new();
        let (flight, registration) = if claimant.private {
            new()
        } else {
            let mut flights = self.shard(request).flights.lock();
            let flights_of = flights.entry(request).or_default();
            if let Some(last) = flights_of.last().filter(|last| last.add_waiter()) {
                // From here on the flight has a waiter more, so that it is not aborted.
                let wait = Wait { waiter: None, flight: Arc::clone(last), span: None };
                drop(flights);
                return self.join(wait, waiter);
            }
            predecessors.extend(flights_of.iter().cloned());
            let (flight, registration) = new();
            flights_of.push(Arc::clone(&flight));
            (flight, registration)
        };
        if let Some(waiter) = waiter {
            waiter.edges().waits_for.push(Arc::clone(&flight));
        }
        let wait = Wait { waiter: waiter.cloned(), flight: Arc::clone(&flight), span: None };
        let lead = Lead { claims: Arc::clone(self), flight, predecessors, span: None };
        Ok(Claim::Run(lead, registration, wait))
    }

    /// Returns the flight of `request` that is in progress and has waiters.
    pub(crate) fn in_progress(&self, request: ObjectId) -> Option<Arc<Flight>> {
        let flights = self.shard(request).flights.lock();
        flights.get(&request)?.last().filter(|last| !last.is_abandoned()).cloned()
    }

    /// Makes `waiter` wait for the flight of `wait`. Errors if it would wait for itself.
    fn join(&self, mut wait: Wait, waiter: Option<&Arc<Flight>>) -> Result<Claim> {
        if let Some(waiter) = waiter {
            let _turn = self.joining.lock();
            let (from, to) = (Node(Arc::clone(&wait.flight)), Node(Arc::clone(waiter)));
            if graph::depends_on(&from, &to, Node::waits_for, Node::waiting) {
                let path = graph::path(&from, &to, Node::waits_for).unwrap_or_else(|| vec![from]);
                let closed = path.iter().chain(path.first());
                let chain = closed.map(|flight| flight.0.request).collect();
                return Err(Error::new(Reason::Cycle { chain }));
            }
            waiter.edges().waits_for.push(Arc::clone(&wait.flight));
            wait.flight.wait_for(waiter);
            wait.waiter = Some(Arc::clone(waiter));
        }
        Ok(Claim::Join(wait))
    }

    /// Removes a flight that has stopped from the table, and passes its permit to a frame that
    /// waited for it. Returns that frame's flight. A root call gets no permit, because it may not
    /// use the permit at once.
    fn remove_flight(&self, flight: &Arc<Flight>) -> Option<Arc<Flight>> {
        let mut permit = flight.end();
        let shard = self.shard(flight.request);
        // Before the next claim of the request can succeed.
        shard.settlements.fetch_add(1, Ordering::Release);
        let mut flights = shard.flights.lock();
        if let Entry::Occupied(mut flights_of) = flights.entry(flight.request) {
            flights_of.get_mut().retain(|other| !Arc::ptr_eq(other, flight));
            if flights_of.get().is_empty() {
                flights_of.remove();
            }
        }
        drop(flights);
        // No claim finds the flight any more, so it gets no further waiters.
        for waiter in flight.end_waits() {
            let Some(left) = permit.take() else { break };
            permit = flight.pass_permit(left, &waiter);
            if permit.is_none() {
                return Some(waiter);
            }
        }
        flight.drop_permit(permit);
        None
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.0.flights.lock().is_empty())
    }
}

/// A flight as a node of the graph of waits.
#[derive(Clone)]
struct Node(Arc<Flight>);

impl Node {
    /// The flights that this flight's frame waits for.
    fn waits_for(&self) -> Neighbours<Self> {
        self.0.edges().waits_for.iter().cloned().map(Self).collect()
    }

    /// The flights whose frames wait for this flight.
    fn waiting(&self) -> Neighbours<Self> {
        self.0.edges().waiting.iter().cloned().map(Self).collect()
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Node {}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The duty to run a request. If this is dropped before it is settled, the waiters get an error:
/// the run was cancelled or panicked.
pub(crate) struct Lead {
    claims: Arc<Claims>,
    flight: Arc<Flight>,
    /// The abandoned flights of the same request that had not stopped when this one was claimed.
    predecessors: SmallVec<[Arc<Flight>; 1]>,
    /// The span of the run, which ends when the result is published.
    pub(crate) span: LeadSpan,
}

impl Lead {
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Waits until the earlier executions of this request, which are abandoned, have stopped.
    pub(crate) async fn turn(&self) {
        for predecessor in &self.predecessors {
            predecessor.settled.wait().await;
        }
    }

    /// Returns whether an abandoned execution of this request was still stopping when this flight
    /// was claimed.
    pub(crate) fn has_to_wait(&self) -> bool {
        !self.predecessors.is_empty()
    }

    /// Returns whether no waiter is left.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.flight.is_abandoned()
    }

    /// Publishes the result. A result that is to be memoized must be in the memo by now, so that
    /// the next claimant finds it there.
    pub(crate) fn settle(self, settled: Settled) {
        self.publish(settled);
    }

    fn publish(&self, mut settled: Settled) {
        if let Some(span) = &self.span {
            settled.span = span.end(settled.result.clone(), !settled.ran);
        }
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
    flight: Arc<Flight>,
    /// The flight whose frame waits. `None` for a root call.
    waiter: Option<Arc<Flight>>,
    /// The span of a caller that has joined.
    span: Option<OpenSpan>,
}

impl Wait {
    pub(crate) fn flight(&self) -> &Flight {
        &self.flight
    }

    /// Ends `span` when the flight has settled or the place is given up.
    pub(crate) fn ends(&mut self, span: OpenSpan) {
        self.span = Some(span);
    }

    pub(crate) async fn settled(mut self) -> Settled {
        let settled = self.flight.settled.wait().await;
        if let Some(span) = self.span.take() {
            span.end(settled.result.clone(), settled.span.clone());
        }
        settled
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.flight.remove_waiter(self.waiter.as_ref());
    }
}

#[cfg(test)]
mod tests;
