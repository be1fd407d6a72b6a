//! Runs can be taken over: while they wait for a permit, and while they are in progress. Their callers
//! notice nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_dispatcher::api::{Call, Error, Limit, ObjectRef, Reason};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Arrived, Budget, Invocation, Policy, Spent, Unit};
use manifold_testing::Fixture;
use tokio::sync::{Notify, Semaphore};

/// A dispatcher with one permit. The guest `all` runs `leaf` for each of the numbers below its
/// argument `count`, and `leaf` waits for a turn of `turns`.
struct Scene {
    fixture: Fixture,
    turns: Arc<Semaphore>,
    begun: Arc<Notify>,
}

impl Scene {
    fn new(shares: bool) -> Self {
        let (turns, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
        let (waits, begins) = (Arc::clone(&turns), Arc::clone(&begun));
        let runtime = NativeRuntime::builder("native", "1")
            .guest("all", |guest| async move {
                let count: u32 = guest.text("count").await?.parse().unwrap_or_default();
                let image = guest.text("leaf").await?;
                let mut calls = Vec::new();
                for number in 0..count {
                    let number = guest.host().put_blob(number.to_string().into()).await?;
                    let args =
                        guest.put_tree([argument("number", ObjectRef::blob(number))]).await?;
                    calls.push(Call { image: image.clone(), args });
                }
                let mut numbers = Vec::new();
                for result in guest.host().run_many(calls).await {
                    let number = guest.host().get(result?.id).await?;
                    numbers.push(String::from_utf8_lossy(&number).into_owned());
                }
                guest.blob(numbers.join(" ")).await
            })
            .guest("leaf", move |guest| {
                let (waits, begins) = (Arc::clone(&waits), Arc::clone(&begins));
                async move {
                    begins.notify_one();
                    let turn = waits.acquire().await;
                    turn.map_err(|_| Error::guest_failed("no turns"))?.forget();
                    guest.blob(guest.text("number").await?).await
                }
            })
            .build()
            .unwrap();
        let runtime = manifold_testing::HoldsPermits(runtime);
        let fixture =
            Fixture::with(runtime, |builder| builder.permits(1).width(4).shares_runs(shares));
        Self { fixture, turns, begun }
    }

    fn all(&self, count: usize) -> Invocation {
        let leaf = self.fixture.image("leaf");
        let args = self.fixture.args(&[("count", &count.to_string()), ("leaf", &leaf)]);
        Invocation::new(self.fixture.image("all")).args(args)
    }

    fn leaf(&self, number: &str) -> Invocation {
        Invocation::new(self.fixture.image("leaf")).args(self.fixture.args(&[("number", number)]))
    }

    fn start(&self, invocation: Invocation) -> tokio::task::JoinHandle<Result<String, Error>> {
        let dispatcher = self.fixture.dispatcher.clone();
        tokio::spawn(async move { dispatcher.run(invocation).await?.text() })
    }

    async fn take(&self) -> Unit {
        loop {
            if let Some(unit) = self.fixture.dispatcher.take_queued(Duration::ZERO, |_| true).await
            {
                return unit;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Settles a unit of `leaf` as the guest would.
    fn settle(&self, unit: Unit) {
        let dispatcher = &self.fixture.dispatcher;
        let args = dispatcher.read_tree(unit.args).unwrap();
        let number = args.entries().iter().find(|entry| entry.name == "number").unwrap().id;
        unit.settle(Arrived::new(ObjectRef::blob(number)).spent(Spent::new(1, 0)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_run_is_taken_over_and_its_callers_get_the_outcome() {
    let scene = Scene::new(true);
    let call = scene.start(scene.all(3));
    scene.begun.notified().await;
    for _ in 0..2 {
        scene.settle(scene.take().await);
    }
    scene.turns.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap(), "0 1 2");
    let stats = scene.fixture.dispatcher.stats();
    assert_eq!((stats.runs, stats.arrived), (2, 2));
    // The outcomes are memoized.
    assert_eq!(scene.start(scene.leaf("0")).await.unwrap().unwrap(), "0");
    assert_eq!(scene.fixture.dispatcher.stats().runs, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_collects_what_its_runs_memoize_also_elsewhere() {
    let scene = Scene::new(true);
    let dispatcher = scene.fixture.dispatcher.clone();
    let (all, nested) = (scene.all(3).collecting(), scene.leaf("99"));
    let nested = dispatcher.request(&nested).unwrap();
    let call = tokio::spawn(async move { dispatcher.run(all).await });
    scene.begun.notified().await;
    let dispatcher = &scene.fixture.dispatcher;
    let [first, second] = [scene.take().await, scene.take().await];
    let [here, there] = ["here", "there"].map(|text| dispatcher.put_blob(text).unwrap());
    let [here, there] = [here, there].map(ObjectRef::blob);
    let settled = [first.request, second.request];
    first.settle(Arrived::new(here).entries(vec![(nested, here)]));
    // What is known already is not replaced.
    while dispatcher.look_up(nested).unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    second.settle(Arrived::new(there).entries(vec![(nested, there)]));
    scene.turns.add_permits(1);
    let completion = call.await.unwrap().unwrap();
    assert_eq!(dispatcher.look_up(nested).unwrap(), Some(here));
    let entries = &completion.entries;
    assert_eq!(entries.len(), 5, "three leaves, one nested in one of them, and the call");
    assert_eq!(entries.last(), Some(&(completion.request, completion.outcome)));
    for (request, outcome) in settled.into_iter().zip([here, there]).chain([(nested, here)]) {
        assert!(entries.contains(&(request, outcome)));
    }
    let again = dispatcher.run(scene.all(3).collecting()).await.unwrap();
    assert!(again.entries.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_is_dropped_runs_here() {
    let scene = Scene::new(true);
    let call = scene.start(scene.all(3));
    scene.begun.notified().await;
    drop(scene.take().await);
    let unit = scene.take().await;
    // Its object is not here.
    let unknown = manifold_dispatcher::api::Object::blob("?").id();
    unit.settle(Arrived::new(ObjectRef::blob(unknown)));
    scene.turns.add_permits(3);
    assert_eq!(call.await.unwrap().unwrap(), "0 1 2");
    let stats = scene.fixture.dispatcher.stats();
    assert_eq!((stats.runs, stats.arrived), (4, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_is_refused_is_not_given_away_again() {
    let scene = Scene::new(true);
    let call = scene.start(scene.all(3));
    scene.begun.notified().await;
    let dispatcher = &scene.fixture.dispatcher;
    let dropped = scene.take().await;
    let again = dropped.request;
    drop(dropped);
    let refused = scene.take().await;
    assert_ne!(refused.request, again, "what is given back waits behind the others");
    refused.refuse();
    let unit = scene.take().await;
    assert_eq!(unit.request, again);
    while dispatcher.surplus(Duration::ZERO).1 < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(dispatcher.take_queued(Duration::ZERO, |_| true).await.is_none());
    scene.settle(unit);
    scene.turns.add_permits(2);
    assert_eq!(call.await.unwrap().unwrap(), "0 1 2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_beyond_the_width_can_be_taken_over_when_somebody_wants_them() {
    let scene = Scene::new(true);
    let call = scene.start(scene.all(200));
    scene.begun.notified().await;
    let waiting = || scene.fixture.dispatcher.surplus(Duration::ZERO);
    // The first run can begin before the next ones are queued.
    let start = Instant::now();
    while waiting() != (true, 3) {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", waiting());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    scene.fixture.dispatcher.want_runs(true);
    while waiting().1 < 199 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..199 {
        scene.settle(scene.take().await);
    }
    scene.turns.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().split(' ').count(), 200);
    assert_eq!(scene.fixture.dispatcher.stats().arrived, 199);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_progress_is_stopped_and_taken_over() {
    let scene = Scene::new(true);
    let call = scene.start(scene.leaf("7"));
    scene.begun.notified().await;
    let dispatcher = &scene.fixture.dispatcher;
    let (mut runs, mut others) = (dispatcher.long_runs(), dispatcher.long_runs());
    assert!(runs.take().is_empty(), "it began after the last call");
    let mut long = runs.take();
    assert!(runs.take().is_empty(), "it is returned once");
    assert!(others.take().is_empty(), "each list has a last call of its own");
    let run = long.pop().unwrap();
    assert_eq!(others.take().pop().unwrap().request(), run.request());
    assert!(run.is_in_progress());
    let request = run.request();
    let unit = run.take_over().await.unwrap();
    assert_eq!(dispatcher.permits().0, 0);
    assert_eq!(dispatcher.waits_elsewhere(request), [(request, unit.number)]);
    let joined = scene.start(scene.leaf("7"));
    scene.settle(unit);
    assert_eq!(call.await.unwrap().unwrap(), "7");
    assert_eq!(joined.await.unwrap().unwrap(), "7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_stopped_cancels_its_nested_runs_and_can_be_given_back() {
    let scene = Scene::new(true);
    let call = scene.start(scene.all(2));
    scene.begun.notified().await;
    let dispatcher = &scene.fixture.dispatcher;
    let request = dispatcher.request(&scene.all(2)).unwrap();
    let inner = scene.take().await;
    assert_eq!(dispatcher.waits_elsewhere(request), [(inner.request, inner.number)]);
    let run = dispatcher.run_in_progress(request).unwrap();
    let mut inner = inner;
    let unit = run.take_over().await.unwrap();
    inner.cancelled().await;
    assert!(inner.is_cancelled());
    drop((inner, unit));
    // The first run of the other leaf may not be cancelled yet, and take a turn.
    scene.turns.add_permits(3);
    assert_eq!(call.await.unwrap().unwrap(), "0 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_cancelled_with_its_call_and_has_what_is_left_of_the_budget() {
    let scene = Scene::new(true);
    let budget = Budget::new().runs(10).depth(5).deadline(Duration::from_secs(100));
    let call = scene.start(scene.all(3).budget(budget));
    scene.begun.notified().await;
    let mut unit = scene.take().await;
    assert_eq!((unit.budget.runs, unit.budget.depth), (8, 4));
    assert!(unit.budget.deadline <= Duration::from_secs(100));
    assert!(!unit.is_cancelled());
    call.abort();
    unit.cancelled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_unit_spends_counts_against_the_budget() {
    let scene = Scene::new(true);
    let call = scene.start(scene.all(3).budget(Budget::new().runs(10)));
    scene.begun.notified().await;
    let unit = scene.take().await;
    let outcome = ObjectRef::blob(scene.fixture.dispatcher.put_blob("0").unwrap());
    unit.settle(Arrived::new(outcome).spent(Spent::new(9, 0)));
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.breached_limit(), Some(Limit::Runs { count: 10 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_counts_while_a_run_is_elsewhere() {
    let scene = Scene::new(true);
    let budget = Budget::new().deadline(Duration::from_secs(2));
    let call = scene.start(scene.leaf("1").budget(budget));
    scene.begun.notified().await;
    let mut long_runs = scene.fixture.dispatcher.long_runs();
    long_runs.take();
    let run = long_runs.take().pop().unwrap();
    let mut unit = run.take_over().await.unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error.breached_limit(), Some(Limit::Deadline { .. })), "{error}");
    unit.cancelled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_can_fail() {
    let scene = Scene::new(true);
    let call = scene.start(scene.all(3));
    scene.begun.notified().await;
    let unit = scene.take().await;
    let chain = vec![unit.request, unit.request];
    unit.fail(Error::new(Reason::Cycle { chain }));
    scene.turns.add_permits(2);
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error.root_cause().reason(), Reason::Cycle { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_must_be_run_here_stay() {
    let scene = Scene::new(true);
    let policies = [Policy::DoNotCache, Policy::Recompute, Policy::RecomputeAll];
    let calls: Vec<_> = policies
        .map(|policy| scene.start(scene.leaf(&format!("{policy:?}")).policy(policy)))
        .into_iter()
        .collect();
    scene.begun.notified().await;
    let mut long_runs = scene.fixture.dispatcher.long_runs();
    long_runs.take();
    assert!(long_runs.take().is_empty());
    assert!(!scene.fixture.dispatcher.surplus(Duration::ZERO).0);
    assert!(scene.fixture.dispatcher.take_queued(Duration::ZERO, |_| true).await.is_none());
    scene.turns.add_permits(3);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_that_shares_no_runs_gives_none_away() {
    let scene = Scene::new(false);
    let call = scene.start(scene.all(3));
    scene.begun.notified().await;
    scene.fixture.dispatcher.want_runs(true);
    assert!(scene.fixture.dispatcher.take_queued(Duration::ZERO, |_| true).await.is_none());
    assert_eq!(scene.fixture.dispatcher.surplus(Duration::ZERO), (false, 0));
    scene.turns.add_permits(3);
    assert_eq!(call.await.unwrap().unwrap(), "0 1 2");
}
