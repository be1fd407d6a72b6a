//! Who runs what, and who waits for whom.
//!
//! One table answers the three questions that have to be answered together: is somebody running this request already,
//! would waiting for it close a cycle, and is anybody still waiting. Everything here is synchronous and short.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use manifold_runtime_api::{Error, ObjectId, Outcome, Reason, Result};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::permits::Permit;

/// How a run ended, for everybody who waited.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    pub(crate) result: Result<Outcome>,
    /// Whether the request alone decided the result. If not, neither it nor what is made of it is memoized.
    pub(crate) pure: bool,
}

/// One execution of a request, from the claim until its code has stopped.
pub(crate) struct Flight {
    serial: u64,
    request: ObjectId,
    settled: watch::Sender<Option<Settled>>,
    /// The run permit of this flight's frame while the frame computes. A nested run that settles puts its own here: a
    /// recursion that goes back up must not be overtaken by what has not begun yet.
    permit: Mutex<Option<Permit>>,
    task: OnceLock<AbortHandle>,
}

#[derive(Default)]
pub(crate) struct Claims {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next_serial: u64,
    /// The flights of a request that have not stopped yet, in the order of their claims. Only the last one can still have
    /// waiters; those before it are abandoned.
    flights: HashMap<ObjectId, SmallVec<[Arc<Flight>; 1]>>,
    /// The same flights by serial number.
    nodes: HashMap<u64, Node>,
}

struct Node {
    flight: Arc<Flight>,
    /// How many wait for this flight, frames and callers from outside.
    waiters: usize,
    /// Flights whose frames are among the waiters.
    waiting_frames: Vec<u64>,
    /// Flights that this one's frame waits for, as often as it does.
    waits_for: Vec<u64>,
    /// Abandoned flights of the same request that had not stopped when this one was claimed.
    after: Vec<watch::Receiver<Option<Settled>>>,
}

/// The answer to a claim.
pub(crate) enum Claim {
    /// The claimant has to run the request, and to wait like everybody else.
    Run(Lead, Wait),
    /// Somebody is running it.
    Join(Wait),
}

impl Claims {
    /// Claims `request` for `waiter`, the flight whose frame wants it; `None` is a caller from outside.
    ///
    /// # Errors
    /// `Cycle` when the waiter would wait for itself. Nothing is claimed then.
    pub(crate) fn claim(self: &Arc<Self>, waiter: Option<&Arc<Flight>>, request: ObjectId) -> Result<Claim> {
        let mut table = self.table.lock();
        let last = table.flights.get(&request).and_then(|flights| flights.last());
        let joinable = last.filter(|flight| table.nodes[&flight.serial].waiters > 0).cloned();
        if let Some(flight) = joinable {
            if let Some(waiter) = waiter
                && let Some(chain) = table.path(flight.serial, waiter.serial)
            {
                return Err(Error::new(Reason::Cycle { chain }));
            }
            return Ok(Claim::Join(self.wait(&mut table, waiter, flight)));
        }
        let flight = table.insert(request);
        let wait = self.wait(&mut table, waiter, Arc::clone(&flight));
        Ok(Claim::Run(Lead { claims: Arc::clone(self), flight }, wait))
    }

    fn wait(self: &Arc<Self>, table: &mut Table, waiter: Option<&Arc<Flight>>, flight: Arc<Flight>) -> Wait {
        if let Some(node) = table.nodes.get_mut(&flight.serial) {
            node.waiters += 1;
            node.waiting_frames.extend(waiter.map(|waiter| waiter.serial));
        }
        if let Some(node) = waiter.and_then(|waiter| table.nodes.get_mut(&waiter.serial)) {
            node.waits_for.push(flight.serial);
        }
        Wait {
            claims: Arc::clone(self),
            waiter: waiter.map(|waiter| waiter.serial),
            settled: flight.settled.subscribe(),
            flight,
        }
    }

    fn leave(&self, waiter: Option<u64>, flight: &Flight) {
        let mut table = self.table.lock();
        if let Some(node) = waiter.and_then(|serial| table.nodes.get_mut(&serial)) {
            remove_one(&mut node.waits_for, flight.serial);
        }
        let Some(node) = table.nodes.get_mut(&flight.serial) else { return };
        if let Some(waiter) = waiter {
            remove_one(&mut node.waiting_frames, waiter);
        }
        node.waiters -= 1;
        if node.waiters == 0 {
            drop(table);
            if let Some(task) = flight.task.get() {
                task.abort();
            }
        }
    }

    /// Takes a flight that has stopped out of the table, and hands its permit to a frame that goes on because of it. A caller
    /// from outside gets none, for it may take its time before it looks.
    fn stop(&self, flight: &Flight) {
        let mut permit = flight.permit.lock().take();
        let mut table = self.table.lock();
        let frames = table.nodes.remove(&flight.serial).map(|node| node.waiting_frames).unwrap_or_default();
        for waiter in frames.iter().filter_map(|serial| table.nodes.get(serial)) {
            let mut slot = waiter.flight.permit.lock();
            if slot.is_none() {
                *slot = permit.take();
            }
        }
        if let Entry::Occupied(mut flights) = table.flights.entry(flight.request) {
            flights.get_mut().retain(|other| other.serial != flight.serial);
            if flights.get().is_empty() {
                flights.remove();
            }
        }
        // A permit must not be dropped under the lock: whoever gets it may be resumed at once.
        drop(table);
        drop(permit);
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        let table = self.table.lock();
        table.flights.is_empty() && table.nodes.is_empty()
    }
}

impl Flight {
    pub(crate) fn take_permit(&self) -> Option<Permit> {
        self.permit.lock().take()
    }

    pub(crate) fn has_permit(&self) -> bool {
        self.permit.lock().is_some()
    }

    /// Keeps `permit`, unless there is one already.
    pub(crate) fn keep_permit(&self, permit: Permit) {
        let surplus = {
            let mut held = self.permit.lock();
            if held.is_some() { Some(permit) } else { held.replace(permit) }
        };
        drop(surplus);
    }
}

fn remove_one(serials: &mut Vec<u64>, serial: u64) {
    if let Some(index) = serials.iter().position(|other| *other == serial) {
        serials.swap_remove(index);
    }
}

impl Table {
    fn insert(&mut self, request: ObjectId) -> Arc<Flight> {
        let serial = self.next_serial;
        self.next_serial += 1;
        let flight = Arc::new(Flight {
            serial,
            request,
            settled: watch::Sender::new(None),
            permit: Mutex::new(None),
            task: OnceLock::new(),
        });
        let flights = self.flights.entry(request).or_default();
        let after = flights.iter().map(|abandoned| abandoned.settled.subscribe()).collect();
        flights.push(Arc::clone(&flight));
        let node =
            Node { flight: Arc::clone(&flight), waiters: 0, waiting_frames: Vec::new(), waits_for: Vec::new(), after };
        self.nodes.insert(serial, node);
        flight
    }

    /// The requests on a way from `from` to `to` along who waits for whom, closed with the first one again.
    ///
    /// A flight that was just claimed waits for nothing, so only joining a flight can close a cycle, and only joining asks.
    fn path(&self, from: u64, to: u64) -> Option<Vec<ObjectId>> {
        let mut met = HashSet::from([from]);
        let mut way = vec![(from, self.waits_for(from).iter())];
        while let Some((serial, rest)) = way.last_mut() {
            if *serial == to {
                let first = way.first().map(|(serial, _)| *serial);
                return Some(
                    way.iter().map(|(serial, _)| *serial).chain(first).map(|s| self.nodes[&s].flight.request).collect(),
                );
            }
            match rest.next() {
                Some(next) if met.insert(*next) => way.push((*next, self.waits_for(*next).iter())),
                Some(_) => {}
                None => drop(way.pop()),
            }
        }
        None
    }

    fn waits_for(&self, serial: u64) -> &[u64] {
        self.nodes.get(&serial).map_or(&[], |node| &node.waits_for)
    }
}

/// The duty to run a request. Dropping it unsettled tells the waiters that the run was cancelled or panicked.
pub(crate) struct Lead {
    claims: Arc<Claims>,
    flight: Arc<Flight>,
}

impl Lead {
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Names the task that is to be aborted when nobody waits any more.
    pub(crate) fn runs_in(flight: &Flight, task: AbortHandle) {
        // The claimant still waits, so the flight cannot have been abandoned before this.
        let _ = flight.task.set(task);
    }

    /// Waits until earlier executions of the same request, abandoned but not yet stopped, have stopped.
    pub(crate) async fn turn(&self) {
        let after = self.claims.table.lock().nodes.get(&self.flight.serial).map(|node| node.after.clone());
        for mut earlier in after.unwrap_or_default() {
            // An error means that the flight is gone, which is as good.
            let _ = earlier.wait_for(Option::is_some).await;
        }
    }

    /// Whether nobody waits for the result any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.claims.table.lock().nodes.get(&self.flight.serial).is_none_or(|node| node.waiters == 0)
    }

    /// Publishes the result. The memo has it by now, if it is to have it, so that the next claimant finds it there.
    pub(crate) fn settle(self, settled: Settled) {
        self.publish(settled);
    }

    fn publish(&self, settled: Settled) {
        self.claims.stop(&self.flight);
        self.flight.settled.send_replace(Some(settled));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.flight.settled.borrow().is_some() {
            return;
        }
        let reason = if std::thread::panicking() {
            Reason::Panicked { message: "while the dispatcher settled it".to_owned() }
        } else {
            Reason::Cancelled
        };
        self.publish(Settled { result: Err(Error::new(reason)), pure: false });
    }
}

/// A place among those who wait for a flight. Dropping it gives the place up; the last one to do so cancels the work.
pub(crate) struct Wait {
    claims: Arc<Claims>,
    flight: Arc<Flight>,
    waiter: Option<u64>,
    settled: watch::Receiver<Option<Settled>>,
}

impl Wait {
    pub(crate) async fn settled(mut self) -> Settled {
        let settled = match self.settled.wait_for(Option::is_some).await {
            Ok(settled) => settled.clone(),
            Err(_) => None,
        };
        settled.unwrap_or_else(|| Settled { result: Err(Error::new(Reason::Cancelled)), pure: false })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.claims.leave(self.waiter, &self.flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifold_runtime_api::ObjectKind;

    fn request(name: &str) -> ObjectId {
        ObjectId::of(ObjectKind::Blob, name.as_bytes())
    }

    fn lead(claims: &Arc<Claims>, waiter: Option<&Arc<Flight>>, name: &str) -> (Lead, Wait) {
        match claims.claim(waiter, request(name)) {
            Ok(Claim::Run(lead, wait)) => (lead, wait),
            _ => panic!("{name} is claimed already"),
        }
    }

    fn success() -> Settled {
        Settled { result: Ok(Outcome::blob(request("outcome"))), pure: true }
    }

    // root1 → a → b
    // root2 → b → a   must fail: a waits for b already
    #[test]
    fn cycle_a_waits_b_b_waits_a_across_chains() {
        let claims = Arc::default();
        let (a, _root1) = lead(&claims, None, "a");
        let (b, _root2) = lead(&claims, None, "b");
        let Ok(Claim::Join(_a_waits)) = claims.claim(Some(a.flight()), request("b")) else { panic!("b is in flight") };
        let Err(error) = claims.claim(Some(b.flight()), request("a")) else { panic!("a cycle") };
        let Reason::Cycle { chain } = error.reason() else { panic!("{error:?}") };
        assert_eq!(chain, &[request("a"), request("b"), request("a")]);
    }

    #[test]
    fn cycle_of_one() {
        let claims = Arc::default();
        let (a, _wait) = lead(&claims, None, "a");
        let Err(error) = claims.claim(Some(a.flight()), request("a")) else { panic!("a cycle") };
        assert!(matches!(error.reason(), Reason::Cycle { chain } if chain == &[request("a"), request("a")]));
    }

    #[test]
    fn a_left_wait_no_longer_counts_as_an_edge() {
        let claims = Arc::default();
        let (a, _root1) = lead(&claims, None, "a");
        let (b, _root2) = lead(&claims, None, "b");
        drop(claims.claim(Some(a.flight()), request("b")));
        assert!(matches!(claims.claim(Some(b.flight()), request("a")), Ok(Claim::Join(_))));
    }

    #[tokio::test]
    async fn an_abandoned_flight_is_not_joined_and_its_successor_takes_turns() {
        let claims = Arc::default();
        let (old, wait) = lead(&claims, None, "a");
        drop(wait);
        assert!(old.is_abandoned());
        let (second, second_wait) = lead(&claims, None, "a");
        drop(second_wait);
        drop(second);
        let (third, _wait) = lead(&claims, None, "a");
        let turn = third.turn();
        tokio::pin!(turn);
        let not_yet = tokio::time::timeout(std::time::Duration::from_millis(20), &mut turn).await;
        assert!(not_yet.is_err(), "the first flight has not stopped");
        drop(old);
        turn.await;
    }

    #[tokio::test]
    async fn a_lost_lead_wakes_the_waiters_with_an_error() {
        let claims: Arc<Claims> = Arc::default();
        let (a, wait) = lead(&claims, None, "a");
        drop(a);
        let settled = wait.settled().await;
        assert!(matches!(settled.result, Err(error) if matches!(error.reason(), Reason::Cancelled)));
        assert!(claims.is_empty());
    }

    #[tokio::test]
    async fn everybody_gets_the_result_and_nothing_stays_behind() {
        let claims: Arc<Claims> = Arc::default();
        let (a, first) = lead(&claims, None, "a");
        let Ok(Claim::Join(second)) = claims.claim(None, request("a")) else { panic!("in flight") };
        a.settle(success());
        assert!(first.settled().await.result.is_ok());
        assert!(second.settled().await.result.is_ok());
        assert!(claims.is_empty());
    }
}
