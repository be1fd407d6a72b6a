//! Runs go to other nodes, and everything else stays as it is on one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_dispatcher::api::{Limit, Reason};
use manifold_dispatcher::{Budget, MemoryStore};
use manifold_nodes::{Node, NodeError, NodeOptions};
use manifold_testing::nats::Nats;

use crate::machine::{Machine, starts};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_nodes_are_faster_than_one_and_run_nothing_twice() {
    let Some(server) = Nats::start() else { return };
    let origin = Machine::new(&server, false).await;
    let start = Instant::now();
    let alone = origin.fixture.dispatcher.run(origin.all("leaf", 120, 41)).await.unwrap();
    let alone_time = start.elapsed();
    assert_eq!(alone.text().unwrap(), "7140");
    let (first, second) = (Machine::new(&server, true).await, Machine::new(&server, true).await);
    origin.has_peers(2).await;
    origin.fixture.journal.started.lock().unwrap().clear();
    let start = Instant::now();
    let shared = origin.run(origin.all("leaf", 120, 42)).await.unwrap();
    let time = start.elapsed();
    assert_eq!(shared.outcome, alone.outcome);
    let starts = starts(&[&origin, &first, &second]);
    assert_eq!(starts.len(), 121);
    assert!(starts.values().all(|count| *count == 1), "a request ran twice");
    let stats = [&first, &second].map(|machine| machine.fixture.dispatcher.stats().runs);
    assert!(stats.iter().all(|runs| *runs > 5), "{stats:?}");
    assert_eq!(origin.fixture.dispatcher.stats().arrived, stats.iter().sum::<u64>());
    let gain = alone_time.as_secs_f64() / time.as_secs_f64();
    eprintln!("three nodes are {gain:.2} times as fast as one");
    // A bound on the time would fail on a busy machine. The number of runs is the gain.
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nested_outcomes_of_a_unit_are_memoized_where_it_came_from() {
    let Some(server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    origin.run(origin.all("group", 20, 100)).await.unwrap();
    // The image of the nested runs is named in a text, so it is not a part of the arguments.
    let ran = starts(&[&helper]);
    assert!(ran.len() > 3, "the helper has run units with nested runs");
    for request in ran.keys() {
        assert!(origin.fixture.dispatcher.look_up(*request).unwrap().is_some());
    }
    let repeated = starts(&[&origin, &helper]).values().filter(|count| **count > 1).count();
    assert!(repeated < 12, "{repeated} requests ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_origins_of_one_request_run_it_once() {
    let Some(server) = Nats::start() else { return };
    let (first, second) = (Machine::new(&server, false).await, Machine::new(&server, false).await);
    let (one, other) =
        tokio::join!(first.run(first.all("leaf", 10, 30)), second.run(second.all("leaf", 10, 30)),);
    assert_eq!(one.unwrap().text().unwrap(), "45");
    assert_eq!(other.unwrap().text().unwrap(), "45");
    let starts = starts(&[&first, &second]);
    assert!(starts.values().all(|count| *count == 1), "{starts:?}");
    // A third finds the outcome, although nobody is asked.
    let third = Machine::new(&server, false).await;
    first.node.leave().await;
    second.node.leave().await;
    let found = third.run(third.all("leaf", 10, 30)).await.unwrap();
    assert!(found.from_memo);
    assert_eq!(third.fixture.runs(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failure_has_its_whole_chain() {
    let Some(server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    let error = origin.run(origin.all("fail", 60, 0)).await.unwrap_err();
    assert!(matches!(error.root_cause().reason(), Reason::GuestFailed { .. }), "{error:?}");
    assert!(error.chain().any(|error| error.frame().is_some()));
    assert!(helper.fixture.runs() > 0, "the helper has taken something over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_helper_that_leaves_gives_its_runs_back() {
    let Some(server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    let dispatcher = helper.fixture.dispatcher.clone();
    let leaving = async {
        while helper.node.taken() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        helper.node.leave().await;
        while dispatcher.permits().0 > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let run = origin.run(origin.all("leaf", 12, 300));
    let (outcome, ()) = tokio::join!(run, leaving);
    assert_eq!(outcome.unwrap().text().unwrap(), "66");
}

// What a killed process leaves: it says nothing any more, and its claims stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_runs_of_a_dead_node_are_taken_back() {
    let Some(server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    let dying = async move {
        while helper.node.taken() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(helper.node);
        Instant::now()
    };
    let run = origin.run(origin.all("leaf", 8, 400));
    let (outcome, died) = tokio::join!(run, dying);
    assert_eq!(outcome.unwrap().text().unwrap(), "28");
    // The time to live, two seconds, and the work that was lost.
    assert!(died.elapsed() < Duration::from_secs(5 + 2 + 4), "{:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cycle_over_two_nodes_is_an_error_on_both() {
    let Some(server) = Nats::start() else { return };
    let (one, two) = (Machine::new(&server, false).await, Machine::new(&server, false).await);
    one.has_peers(1).await;
    two.has_peers(1).await;
    let start = Instant::now();
    let (first, second) = tokio::join!(one.run(one.ring("a", "b")), two.run(two.ring("b", "a")));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(matches!(error.root_cause().reason(), Reason::Cycle { .. }), "{error:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_ends_stops_its_work_on_other_nodes() {
    let Some(server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    let budget = Budget::new().deadline(Duration::from_secs(3));
    let error = origin.run(origin.all("leaf", 40, 60_000).budget(budget)).await.unwrap_err();
    assert!(matches!(error.breached_limit(), Some(Limit::Deadline { .. })), "{error:?}");
    assert!(helper.fixture.runs() > 0, "the helper has taken something over");
    let ended = Instant::now();
    while helper.fixture.dispatcher.permits().0 > 0 {
        assert!(ended.elapsed() < Duration::from_secs(20), "the helper goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_budget_counts_runs_on_other_nodes() {
    let Some(server) = Nats::start() else { return };
    let (origin, _helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    origin.has_peers(1).await;
    let enough = origin.all("leaf", 20, 20).budget(Budget::new().runs(21));
    origin.run(enough).await.unwrap();
    let error = origin.run(origin.all("leaf", 20, 21).budget(Budget::new().runs(20))).await;
    let error = error.unwrap_err();
    assert_eq!(error.breached_limit(), Some(Limit::Runs { count: 20 }), "{error:?}");
}

#[tokio::test]
async fn what_cannot_join_says_why() {
    let dispatcher = manifold_dispatcher::Dispatcher::builder().build().unwrap();
    let join = |options: NodeOptions| {
        let dispatcher = dispatcher.clone();
        async move { Node::join(dispatcher, Arc::new(MemoryStore::new()), &options).await }
    };
    let error = join(NodeOptions::new("nats://name:secret@127.0.0.1:1")).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && !text.contains("secret"), "{text}");
    let error = join(NodeOptions::new("nats://127.0.0.1:1").pool("a.b")).await.unwrap_err();
    assert!(matches!(error, NodeError::Pool { .. }));
    let options = NodeOptions::new("nats://127.0.0.1:1").credentials(Some("/nowhere".into()));
    assert!(matches!(join(options).await.unwrap_err(), NodeError::Credentials { .. }));
}
