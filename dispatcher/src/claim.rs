//! Who runs what, and who waits for whom.
//!
//! One table answers the three questions that have to be answered together: is somebody running this request already,
//! would waiting for it close a cycle, and is anybody still waiting. Everything here is synchronous and short.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::AbortRegistration;
use manifold_runtime_api::{Error, ObjectId, Reason, Result};
use smallvec::SmallVec;

use crate::by_id::ById;
use crate::clock::Clock;
use crate::flight::Flight;
use crate::settled::Settled;
use crate::sync::Mutex;

#[derive(Default)]
pub(crate) struct Claims {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next_serial: u64,
    /// The flights of a request that have not stopped yet, in the order of their claims. Only the last one can still have
    /// waiters; those before it are abandoned.
    flights: ById<SmallVec<[Arc<Flight>; 1]>>,
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
    after: Vec<Arc<Flight>>,
}

/// On whose behalf a request is claimed.
pub(crate) struct Claimant<'a> {
    /// The flight whose frame wants it; `None` is a caller from outside.
    pub(crate) waiter: Option<&'a Arc<Flight>>,
    /// The clock of the call that this is about.
    pub(crate) clock: &'a Arc<Clock>,
    /// Whether the run is for this claimant alone.
    pub(crate) private: bool,
}

/// The answer to a claim.
pub(crate) enum Claim {
    /// The claimant has to run the request, in a way that can be aborted, and to wait like everybody else.
    Run(Lead, AbortRegistration, Wait),
    /// Somebody is running it.
    Join(Wait),
}

impl Claims {
    /// Claims `request`.
    ///
    /// # Errors
    /// `Cycle` when the waiter would wait for itself. Nothing is claimed then.
    pub(crate) fn claim(
        self: &Arc<Self>,
        request: ObjectId,
        claimant: &Claimant<'_>,
    ) -> Result<Claim> {
        let waiter = claimant.waiter;
        let mut table = self.table.lock();
        if waiter.is_some_and(|waiter| !table.nodes.contains_key(&waiter.serial)) {
            // Somebody kept the host of a frame that is over.
            return Err(Error::new(Reason::Cancelled));
        }
        let last = table.flights.get(&request).and_then(|flights| flights.last());
        let joinable = last
            .filter(|flight| !claimant.private && table.nodes[&flight.serial].waiters > 0)
            .cloned();
        if let Some(flight) = joinable {
            if let Some(waiter) = waiter
                && table.waits_for_each_other(flight.serial, waiter.serial)
            {
                let chain = table.path(flight.serial, waiter.serial).unwrap_or_default();
                return Err(Error::new(Reason::Cycle { chain }));
            }
            return Ok(Claim::Join(self.wait(&mut table, waiter, flight)));
        }
        let (flight, registration) = table.insert(request, claimant);
        let wait = self.wait(&mut table, waiter, Arc::clone(&flight));
        Ok(Claim::Run(Lead { claims: Arc::clone(self), flight }, registration, wait))
    }

    fn wait(
        self: &Arc<Self>,
        table: &mut Table,
        waiter: Option<&Arc<Flight>>,
        flight: Arc<Flight>,
    ) -> Wait {
        if let Some(node) = table.nodes.get_mut(&flight.serial) {
            node.waiters += 1;
            node.waiting_frames.extend(waiter.map(|waiter| waiter.serial));
        }
        if let Some(node) = waiter.and_then(|waiter| table.nodes.get_mut(&waiter.serial)) {
            node.waits_for.push(flight.serial);
        }
        Wait { claims: Arc::clone(self), waiter: waiter.map(|waiter| waiter.serial), flight }
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
            flight.abort.abort();
        }
    }

    /// Takes a flight that has stopped out of the table, and hands its permit to a frame that goes on because of it, which is
    /// answered. A caller from outside gets none, for it may take its time before it looks.
    fn stop(&self, flight: &Flight) -> Option<Arc<Flight>> {
        let mut permit = flight.end();
        let mut heir = None;
        let mut table = self.table.lock();
        for waiter in
            table.remove(flight.serial).iter().filter_map(|serial| table.nodes.get(serial))
        {
            let Some(left) = permit.take() else { break };
            permit = waiter.flight.offer(left);
            heir = permit.is_none().then(|| Arc::clone(&waiter.flight));
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
        heir
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        let table = self.table.lock();
        table.flights.is_empty() && table.nodes.is_empty()
    }
}

fn remove_one(serials: &mut Vec<u64>, serial: u64) {
    if let Some(index) = serials.iter().position(|other| *other == serial) {
        serials.swap_remove(index);
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
        let mut after = Vec::new();
        if !claimant.private {
            let flights = self.flights.entry(request).or_default();
            after.extend(flights.iter().cloned());
            flights.push(Arc::clone(&flight));
        }
        let node = Node {
            flight: Arc::clone(&flight),
            waiters: 0,
            waiting_frames: Vec::new(),
            waits_for: Vec::new(),
            after,
        };
        self.nodes.insert(serial, node);
        (flight, registration)
    }

    /// Takes a flight out, with all edges from and to it. Answers the flights whose frames waited for it.
    fn remove(&mut self, serial: u64) -> Vec<u64> {
        let Some(Node { waiting_frames, waits_for, .. }) = self.nodes.remove(&serial) else {
            return Vec::new();
        };
        for below in waits_for {
            if let Some(node) = self.nodes.get_mut(&below) {
                remove_one(&mut node.waiting_frames, serial);
            }
        }
        for above in &waiting_frames {
            if let Some(node) = self.nodes.get_mut(above) {
                remove_one(&mut node.waits_for, serial);
            }
        }
        waiting_frames
    }

    /// Whether `flight` waits for `waiter`, directly or not, so that `waiter` must not wait for `flight`.
    ///
    /// A flight that was just claimed waits for nothing, so only joining a flight can close a cycle, and only joining asks.
    /// The search goes from both ends by turns and is over when either comes to an end: it costs no more than twice what is
    /// below the one or above the other, whichever is less.
    fn waits_for_each_other(&self, flight: u64, waiter: u64) -> bool {
        let (mut below, mut above) = (Search::from(flight), Search::from(waiter));
        if flight == waiter {
            return true;
        }
        loop {
            match below.step(|serial| self.waits_for(serial)) {
                None => return false,
                Some(met) if above.met.contains(&met) => return true,
                Some(_) => {}
            }
            match above.step(|serial| self.waiting_frames(serial)) {
                None => return false,
                Some(met) if below.met.contains(&met) => return true,
                Some(_) => {}
            }
        }
    }

    /// The requests on a way from `from` to `to` along who waits for whom, closed with the first one again.
    fn path(&self, from: u64, to: u64) -> Option<Vec<ObjectId>> {
        let mut met = HashSet::from([from]);
        let mut way = vec![(from, self.waits_for(from).iter())];
        while let Some((serial, rest)) = way.last_mut() {
            if *serial == to {
                let first = way.first().map(|(serial, _)| *serial);
                return Some(
                    way.iter()
                        .map(|(serial, _)| *serial)
                        .chain(first)
                        .filter_map(|serial| self.request(serial))
                        .collect(),
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

    fn request(&self, serial: u64) -> Option<ObjectId> {
        self.nodes.get(&serial).map(|node| node.flight.request)
    }

    fn waits_for(&self, serial: u64) -> &[u64] {
        self.nodes.get(&serial).map_or(&[], |node| &node.waits_for)
    }

    fn waiting_frames(&self, serial: u64) -> &[u64] {
        self.nodes.get(&serial).map_or(&[], |node| &node.waiting_frames)
    }
}

/// A walk over flights that takes one edge at a time.
struct Search {
    met: HashSet<u64>,
    /// Flights whose edges are not all taken, with the next one.
    open: Vec<(u64, usize)>,
}

impl Search {
    fn from(serial: u64) -> Self {
        Self { met: HashSet::from([serial]), open: vec![(serial, 0)] }
    }

    /// Takes the next edge, and answers where it leads; `None` when there is no more.
    fn step<'a>(&mut self, edges: impl Fn(u64) -> &'a [u64]) -> Option<u64> {
        loop {
            let (serial, next) = self.open.last_mut()?;
            let Some(to) = edges(*serial).get(*next).copied() else {
                self.open.pop();
                continue;
            };
            *next += 1;
            if self.met.insert(to) {
                self.open.push((to, 0));
            }
            return Some(to);
        }
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

    /// Waits until earlier executions of the same request, abandoned but not yet stopped, have stopped.
    pub(crate) async fn turn(&self) {
        let after =
            self.claims.table.lock().nodes.get(&self.flight.serial).map(|node| node.after.clone());
        for earlier in after.unwrap_or_default() {
            earlier.settled.wait().await;
        }
    }

    /// Whether there are such.
    pub(crate) fn has_to_wait(&self) -> bool {
        self.claims
            .table
            .lock()
            .nodes
            .get(&self.flight.serial)
            .is_some_and(|node| !node.after.is_empty())
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
        let heir = self.claims.stop(&self.flight);
        self.flight.settled.announce(settled);
        // The heir's guest may wait for something else, and then it must not keep the permit.
        if let Some(guest) = heir.and_then(|heir| heir.guest()) {
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
            Reason::Panicked { message: "while the dispatcher settled it".to_owned() }
        } else {
            Reason::Cancelled
        };
        self.publish(Settled::lost(Error::new(reason)));
    }
}

/// A place among those who wait for a flight. Dropping it gives the place up; the last one to do so cancels the work.
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
        self.claims.leave(self.waiter, &self.flight);
    }
}

#[cfg(test)]
mod tests {
    //! Every test runs under shuttle, which tries random orders of what the claims' lock allows.

    use std::mem::take;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::{Abortable, join_all};
    use manifold_runtime_api::{ObjectKind, Outcome};
    use shuttle::future::{block_on, spawn, yield_now};
    use shuttle::rand::{Rng, thread_rng};

    use super::*;
    use crate::permits::Permits;

    const SCHEDULES: usize = 2000;

    fn explore(test: impl Fn() + Send + Sync + 'static) {
        shuttle::check_random(test, SCHEDULES);
    }

    fn request(name: &str) -> ObjectId {
        ObjectId::of(ObjectKind::Blob, name.as_bytes())
    }

    fn claim(claims: &Arc<Claims>, waiter: Option<&Arc<Flight>>, name: &str) -> Result<Claim> {
        claims.claim(request(name), &Claimant { waiter, clock: &Clock::start(), private: false })
    }

    fn lead(claims: &Arc<Claims>, waiter: Option<&Arc<Flight>>, name: &str) -> (Lead, Wait) {
        match claim(claims, waiter, name) {
            Ok(Claim::Run(lead, _, wait)) => (lead, wait),
            _ => panic!("{name} is claimed already"),
        }
    }

    fn success() -> Settled {
        Settled::remembered(Outcome::blob(request("outcome")))
    }

    // root1 → a → b
    // root2 → b → a   must fail: a waits for b already
    #[test]
    fn cycle_a_waits_b_b_waits_a_across_chains() {
        explore(|| {
            let claims = Arc::default();
            let (a, _root1) = lead(&claims, None, "a");
            let (b, _root2) = lead(&claims, None, "b");
            let Ok(Claim::Join(_a_waits)) = claim(&claims, Some(a.flight()), "b") else {
                panic!("b is in flight")
            };
            let Err(error) = claim(&claims, Some(b.flight()), "a") else { panic!("a cycle") };
            let Reason::Cycle { chain } = error.reason() else { panic!("{error:?}") };
            assert_eq!(chain, &[request("a"), request("b"), request("a")]);
        });
    }

    // However the two chains are interleaved, somebody is told, and nobody waits for ever (shuttle would report a deadlock).
    #[test]
    fn chains_that_want_each_other_come_to_an_end() {
        explore(|| {
            let claims: Arc<Claims> = Arc::default();
            let cycles = Arc::new(AtomicUsize::new(0));
            let chains = [["a", "b"], ["b", "a"]].map(|[first, second]| {
                let (claims, cycles) = (Arc::clone(&claims), Arc::clone(&cycles));
                spawn(async move { run_chain(&claims, None, &[first, second], &cycles).await })
            });
            block_on(join_all(chains));
            assert!(claims.is_empty());
            let cycles = cycles.load(Ordering::Relaxed);
            assert!(cycles <= 1, "one of the two goes on");
        });
    }

    /// Runs the first of `names`, whose frame wants the second, and so on; the last wants the first again.
    fn run_chain<'a>(
        claims: &'a Arc<Claims>,
        waiter: Option<&'a Arc<Flight>>,
        names: &'a [&'static str],
        cycles: &'a AtomicUsize,
    ) -> futures_util::future::BoxFuture<'a, ()> {
        async move {
            let Some((name, rest)) = names.split_first() else { return };
            match claim(claims, waiter, name) {
                Err(error) => {
                    assert!(matches!(error.reason(), Reason::Cycle { .. }));
                    cycles.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Claim::Join(wait)) => drop(wait.settled().await),
                Ok(Claim::Run(lead, _, wait)) => {
                    let flight = Arc::clone(lead.flight());
                    run_chain(claims, Some(&flight), rest, cycles).await;
                    lead.settle(success());
                    assert!(wait.settled().await.result.is_ok());
                }
            }
        }
        .boxed()
    }

    // Random joins among flights: refused exactly where the waiter can be reached already.
    #[test]
    fn a_wait_is_refused_exactly_where_it_closes_a_cycle() {
        const FLIGHTS: usize = 8;
        explore(|| {
            let claims: Arc<Claims> = Arc::default();
            let names: Vec<String> = (0..FLIGHTS).map(|number| number.to_string()).collect();
            let flights: Vec<_> = names.iter().map(|name| lead(&claims, None, name)).collect();
            let mut waits: Vec<(usize, usize, Wait)> = Vec::new();
            for _ in 0..30 {
                let (waiter, flight) =
                    (thread_rng().gen_range(0..FLIGHTS), thread_rng().gen_range(0..FLIGHTS));
                if thread_rng().gen_bool(0.2) && !waits.is_empty() {
                    waits.swap_remove(0);
                }
                let mut reached = vec![flight];
                let mut next = 0;
                while let Some(from) = reached.get(next).copied() {
                    next += 1;
                    let further: Vec<_> =
                        waits.iter().filter(|wait| wait.0 == from).map(|wait| wait.1).collect();
                    reached.extend(
                        further
                            .into_iter()
                            .filter(|to| !reached.contains(to))
                            .collect::<HashSet<_>>(),
                    );
                }
                match claim(&claims, Some(flights[waiter].0.flight()), &names[flight]) {
                    Ok(Claim::Join(wait)) => {
                        assert!(!reached.contains(&waiter), "{waiter} waits for {flight}");
                        waits.push((waiter, flight, wait));
                    }
                    Ok(Claim::Run(..)) => panic!("all are in flight"),
                    Err(error) => {
                        assert!(reached.contains(&waiter), "{waiter} may wait for {flight}");
                        let Reason::Cycle { chain } = error.reason() else { panic!("{error:?}") };
                        assert_eq!(
                            (chain[0], chain[chain.len() - 2]),
                            (request(&names[flight]), request(&names[waiter]))
                        );
                        let known = |from: ObjectId, to: ObjectId| {
                            waits.iter().any(|wait| {
                                (request(&names[wait.0]), request(&names[wait.1])) == (from, to)
                            })
                        };
                        assert!(
                            chain[..chain.len() - 1].windows(2).all(|pair| known(pair[0], pair[1])),
                            "{chain:?}"
                        );
                    }
                }
            }
        });
    }

    #[test]
    fn cycle_of_one() {
        explore(|| {
            let claims = Arc::default();
            let (a, _wait) = lead(&claims, None, "a");
            let Err(error) = claim(&claims, Some(a.flight()), "a") else { panic!("a cycle") };
            assert!(
                matches!(error.reason(), Reason::Cycle { chain } if chain == &[request("a"), request("a")])
            );
        });
    }

    #[test]
    fn a_left_wait_no_longer_counts_as_an_edge() {
        explore(|| {
            let claims = Arc::default();
            let (a, _root1) = lead(&claims, None, "a");
            let (b, _root2) = lead(&claims, None, "b");
            drop(claim(&claims, Some(a.flight()), "b"));
            assert!(matches!(claim(&claims, Some(b.flight()), "a"), Ok(Claim::Join(_))));
        });
    }

    #[test]
    fn a_private_flight_is_not_joined_and_its_frame_counts_in_cycles() {
        explore(|| {
            let claims: Arc<Claims> = Arc::default();
            let clock = Clock::start();
            let private = Claimant { waiter: None, clock: &clock, private: true };
            let Ok(Claim::Run(alone, _, _root)) = claims.claim(request("a"), &private) else {
                panic!("private")
            };
            assert!(matches!(claims.claim(request("a"), &private), Ok(Claim::Run(..))));
            let (b, _wait) = lead(&claims, Some(alone.flight()), "b");
            let (a, _wait) = lead(&claims, Some(b.flight()), "a");
            assert!(claim(&claims, Some(a.flight()), "b").is_err(), "a → b → a");
        });
    }

    // Every caller gets an answer, executions of the request never overlap, and one is aborted only if all its waiters left.
    #[test]
    fn callers_come_and_go() {
        explore(|| {
            let claims: Arc<Claims> = Arc::default();
            let running = Arc::new(AtomicUsize::new(0));
            let executions = Arc::new(Mutex::new(Vec::new()));
            let callers = (0..4).map(|_| {
                let (claims, running) = (Arc::clone(&claims), Arc::clone(&running));
                let executions = Arc::clone(&executions);
                spawn(async move {
                    let leaves = thread_rng().gen_bool(0.5);
                    let wait = match claim(&claims, None, "a") {
                        Ok(Claim::Join(wait)) => wait,
                        Ok(Claim::Run(lead, registration, wait)) => {
                            let execution =
                                spawn(Abortable::new(execute(lead, running), registration));
                            executions.lock().push(execution);
                            wait
                        }
                        Err(error) => panic!("{error:?}"),
                    };
                    if leaves {
                        yield_now().await;
                        drop(wait);
                        return;
                    }
                    assert!(
                        wait.settled().await.result.is_ok(),
                        "somebody waits, so nothing is cancelled"
                    );
                })
            });
            block_on(join_all(callers.collect::<Vec<_>>()));
            let executions = take(&mut *executions.lock());
            block_on(join_all(executions));
            assert!(claims.is_empty());
        });
    }

    async fn execute(lead: Lead, running: Arc<AtomicUsize>) {
        lead.turn().await;
        let _running = Running::begin(running);
        for _ in 0..3 {
            yield_now().await;
        }
        drop(_running);
        lead.settle(success());
    }

    struct Running(Arc<AtomicUsize>);

    impl Running {
        fn begin(running: Arc<AtomicUsize>) -> Self {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two executions at once");
            Self(running)
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    // A frame that waits without a permit gets the one of the run that it waits for, or one from the queue: none is lost.
    #[test]
    fn permits_survive_every_hand_over() {
        explore(|| {
            let claims: Arc<Claims> = Arc::default();
            let permits = Permits::new(1);
            let tasks = (0..3).map(|root: u64| {
                let (claims, permits) = (Arc::clone(&claims), Arc::clone(&permits));
                spawn(async move {
                    let name = ["a", "b", "a"][root as usize];
                    let Ok(Claim::Run(parent, _, _wait)) =
                        claim(&claims, None, &format!("parent {root}"))
                    else {
                        panic!("nobody else wants it")
                    };
                    parent.flight().keep_permit(permits.queue(root).permit().await);
                    let mut nested = None;
                    let wait = match claim(&claims, Some(parent.flight()), name) {
                        Ok(Claim::Join(wait)) => wait,
                        Ok(Claim::Run(child, _, wait)) => {
                            let permits = Arc::clone(&permits);
                            nested = Some(spawn(async move {
                                child.flight().keep_permit(permits.queue(root).permit().await);
                                yield_now().await;
                                child.settle(success());
                            }));
                            wait
                        }
                        Err(error) => panic!("{error:?}"),
                    };
                    drop(parent.flight().take_permit());
                    wait.settled().await;
                    if !parent.flight().has_permit() {
                        let permit = permits.queue(root).permit().await;
                        parent.flight().keep_permit(permit);
                    }
                    parent.settle(success());
                    if let Some(nested) = nested {
                        nested.await.unwrap();
                    }
                })
            });
            block_on(join_all(tasks.collect::<Vec<_>>()));
            assert!(permits.queue(9).permit().now_or_never().is_some(), "the permit is free again");
        });
    }

    #[test]
    fn an_abandoned_flight_is_not_joined_and_its_successor_takes_turns() {
        explore(|| {
            let claims = Arc::default();
            let (old, wait) = lead(&claims, None, "a");
            drop(wait);
            assert!(old.is_abandoned());
            let (second, second_wait) = lead(&claims, None, "a");
            drop(second_wait);
            drop(second);
            let (third, _wait) = lead(&claims, None, "a");
            let mut turn = Box::pin(third.turn());
            assert!(turn.as_mut().now_or_never().is_none(), "the first flight has not stopped");
            drop(old);
            block_on(turn);
        });
    }

    #[test]
    fn a_lost_lead_wakes_the_waiters_with_an_error() {
        explore(|| {
            let claims: Arc<Claims> = Arc::default();
            let (a, wait) = lead(&claims, None, "a");
            let waiter = spawn(wait.settled());
            drop(a);
            let settled = block_on(waiter).unwrap();
            assert!(
                matches!(settled.result, Err(error) if matches!(error.reason(), Reason::Cancelled))
            );
            assert!(claims.is_empty());
        });
    }

    #[test]
    fn everybody_gets_the_result_and_nothing_stays_behind() {
        explore(|| {
            let claims: Arc<Claims> = Arc::default();
            let (a, first) = lead(&claims, None, "a");
            let Ok(Claim::Join(second)) = claim(&claims, None, "a") else { panic!("in flight") };
            let waiters = [spawn(first.settled()), spawn(second.settled())];
            a.settle(success());
            assert!(
                block_on(join_all(waiters))
                    .into_iter()
                    .all(|settled| settled.unwrap().result.is_ok())
            );
            assert!(claims.is_empty());
        });
    }
}
