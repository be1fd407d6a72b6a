//! Every test runs under shuttle, which tries random interleavings at the lock of the claims.

use std::collections::HashSet;
use std::mem::take;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::{Abortable, join_all};
use manifold_runtime_api::{ObjectKind, ObjectRef};
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
        _ => panic!("{name} is already claimed"),
    }
}

fn success() -> Settled {
    Settled::from_memo(ObjectRef::blob(request("outcome")))
}

// root1 → a → b
// root2 → b → a   must fail, because a already waits for b
#[test]
fn a_cycle_across_two_root_calls_is_an_error() {
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

// However the two chains are interleaved, at least one of them succeeds, and neither waits for
// ever (shuttle would report a deadlock).
#[test]
fn root_calls_that_wait_for_each_other_do_not_deadlock() {
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
        assert!(cycles <= 1, "at least one of the two chains succeeds");
    });
}

/// Runs the first of `names`. Its frame runs the second, and so on.
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

// A random join among flights is refused exactly if the flight already waits for the waiter.
#[test]
fn a_wait_is_refused_exactly_if_it_closes_a_cycle() {
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
                    further.into_iter().filter(|to| !reached.contains(to)).collect::<HashSet<_>>(),
                );
            }
            match claim(&claims, Some(flights[waiter].0.flight()), &names[flight]) {
                Ok(Claim::Join(wait)) => {
                    assert!(!reached.contains(&waiter), "{waiter} must not wait for {flight}");
                    waits.push((waiter, flight, wait));
                }
                Ok(Claim::Run(..)) => panic!("all requests are in flight"),
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
fn a_request_that_waits_for_itself_is_an_error() {
    explore(|| {
        let claims = Arc::default();
        let (a, _wait) = lead(&claims, None, "a");
        let Err(error) = claim(&claims, Some(a.flight()), "a") else { panic!("a cycle") };
        assert!(matches!(
            error.reason(),
            Reason::Cycle { chain } if chain == &[request("a"), request("a")]
        ));
    });
}

#[test]
fn a_dropped_wait_is_not_an_edge() {
    explore(|| {
        let claims = Arc::default();
        let (a, _root1) = lead(&claims, None, "a");
        let (b, _root2) = lead(&claims, None, "b");
        drop(claim(&claims, Some(a.flight()), "b"));
        assert!(matches!(claim(&claims, Some(b.flight()), "a"), Ok(Claim::Join(_))));
    });
}

#[test]
fn a_private_flight_is_not_joined_but_counts_in_cycles() {
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

// Every caller that waits gets a result, executions of the request never overlap, and an
// execution is aborted only if all its waiters have left.
#[test]
fn every_waiting_caller_gets_a_result_and_executions_do_not_overlap() {
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
                        let execution = spawn(Abortable::new(execute(lead, running), registration));
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
                    "a run with a waiter is not cancelled"
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

// A frame that waits without a permit gets the permit of the run that it waits for, or one from
// the queue. No permit is lost.
#[test]
fn no_permit_is_lost_when_it_is_passed_on() {
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
                    panic!("the parent is claimed only once")
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
fn a_claim_after_an_abandoned_flight_waits_until_it_has_stopped() {
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
fn a_dropped_lead_fails_its_waiters() {
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
fn every_waiter_gets_the_result_and_the_table_is_empty_afterwards() {
    explore(|| {
        let claims: Arc<Claims> = Arc::default();
        let (a, first) = lead(&claims, None, "a");
        let Ok(Claim::Join(second)) = claim(&claims, None, "a") else { panic!("in flight") };
        let waiters = [spawn(first.settled()), spawn(second.settled())];
        a.settle(success());
        assert!(
            block_on(join_all(waiters)).into_iter().all(|settled| settled.unwrap().result.is_ok())
        );
        assert!(claims.is_empty());
    });
}
