//! Compares concurrent runs of random call graphs with a sequential oracle. The graphs are acyclic
//! or cyclic, and have shared nodes, failures, duplicates and guests that await their runs in
//! unusual ways. Several callers with all policies run them at once, and some of the calls are
//! cancelled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use manifold_dispatcher::api::{Call, Error, ObjectRef, Reason, Result};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use manifold_dispatcher::{Arrived, Completion, Dispatcher, Invocation, MemoryStore, Policy};
use manifold_testing::Fixture;
use manifold_testing::spans::SpanJournal;
use proptest::prelude::*;

/// How a node runs its children. Every node adds up their results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Runs them one after the other.
    Sequence,
    /// Runs them in one `run_many`.
    Many,
    /// Starts all of them, then awaits them from the last to the first.
    Lazy,
    /// Runs all of them concurrently, and takes the results in the order in which they complete.
    Unordered,
    /// Starts and drops each run, then runs all in one `run_many` concurrently with a single run of
    /// the first.
    Fickle,
    /// Runs the first in another task, and the others meanwhile.
    Spawned,
    /// Polls the first once without a waker, then runs the others, then awaits the first.
    Aside,
    /// Runs them in one `run_many`, then fails.
    Fail,
    /// Runs them one after the other and counts a failed child as 1000.
    Forgive,
}

#[derive(Debug, Clone)]
struct Node {
    style: Style,
    children: Vec<usize>,
}

type Graph = Arc<Vec<Node>>;

/// Returns the result of node `index`, computed by recursion over lower nodes; `None` if it fails.
fn oracle(graph: &Graph, index: usize, known: &mut HashMap<usize, Option<u64>>) -> Option<u64> {
    if let Some(result) = known.get(&index) {
        return *result;
    }
    let node = &graph[index];
    let children: Vec<_> = node.children.iter().map(|child| oracle(graph, *child, known)).collect();
    let result = match node.style {
        Style::Fail => None,
        Style::Forgive => Some(children.iter().map(|result| result.unwrap_or(1000)).sum::<u64>()),
        _ => children.into_iter().sum::<Option<u64>>(),
    };
    let result = result.map(|sum| (sum + index as u64 + 1) % 1_000_003);
    known.insert(index, result);
    result
}

/// The guest: runs the node whose index is the argument `node`.
async fn node(guest: NativeGuest, graph: Graph) -> Result<ObjectRef> {
    let index: usize =
        guest.text("node").await?.parse().map_err(|_| Error::guest_failed("not a number"))?;
    let node = &graph[index];
    let mut calls = Vec::new();
    for child in &node.children {
        let child = ObjectRef::blob(guest.host().put_blob(child.to_string().into()).await?);
        calls.push(Call {
            image: guest.job().image.to_string(),
            args: guest.put_tree([argument("node", child)]).await?,
        });
    }
    let results = match node.style {
        Style::Sequence | Style::Forgive => {
            let mut results = Vec::new();
            for call in calls {
                results.push(guest.host().run(call).await);
            }
            results
        }
        Style::Many | Style::Fail => guest.host().run_many(calls).await,
        Style::Unordered => {
            let runs = calls.into_iter().enumerate().map(|(place, call)| {
                let run = guest.host().run(call);
                async move { (place, run.await) }
            });
            let mut runs: FuturesUnordered<_> = runs.collect();
            let mut results = Vec::new();
            while let Some(result) = runs.next().await {
                results.push(result);
            }
            results.sort_by_key(|(place, _)| *place);
            results.into_iter().map(|(_, result)| result).collect()
        }
        Style::Spawned | Style::Aside if calls.is_empty() => Vec::new(),
        Style::Spawned => {
            let (host, first) = (guest.host_handle(), calls.remove(0));
            let first = tokio::spawn(async move { host.run(first).await });
            tokio::task::yield_now().await;
            let mut results = Vec::new();
            for call in calls {
                results.push(guest.host().run(call).await);
            }
            results.insert(0, first.await.map_err(|_| Error::guest_failed("the task failed"))?);
            results
        }
        Style::Aside => {
            let mut first = guest.host().run(calls.remove(0));
            let mut results = Vec::new();
            let ready = (&mut first).now_or_never();
            for call in calls {
                results.push(guest.host().run(call).await);
            }
            results.insert(
                0,
                match ready {
                    Some(result) => result,
                    None => first.await,
                },
            );
            results
        }
        Style::Fickle => {
            for call in &calls {
                let mut run = guest.host().run(call.clone());
                let _ = futures_util::poll!(&mut run);
            }
            let first = calls.first().cloned();
            let beside = async {
                match first {
                    Some(call) => Some(guest.host().run(call).await),
                    None => None,
                }
            };
            let (results, _) =
                futures_util::future::join(guest.host().run_many(calls), beside).await;
            results
        }
        Style::Lazy => {
            let mut begun: Vec<_> =
                calls.into_iter().map(|call| Some(guest.host().run(call))).collect();
            let mut results = Vec::new();
            for run in begun.iter_mut().flatten() {
                if let std::task::Poll::Ready(result) = futures_util::poll!(&mut *run) {
                    results.push(result);
                    continue;
                }
                results.push(Err(Error::guest_failed("not yet")));
            }
            for (run, result) in begun.iter_mut().zip(&mut results).rev() {
                if result.as_ref().is_err_and(|error| error.to_string() == "not yet")
                    && let Some(run) = run.take()
                {
                    *result = run.await;
                }
            }
            results
        }
    };
    let mut sum = 0;
    for result in results {
        sum += match (result, node.style) {
            (Err(_), Style::Forgive) => 1000,
            (result, _) => {
                let text = guest.host().get(result?.id).await?;
                String::from_utf8_lossy(&text)
                    .parse::<u64>()
                    .map_err(|_| Error::guest_failed("not a number"))?
            }
        };
    }
    if matches!(node.style, Style::Fail) {
        return Err(Error::guest_failed(format!("{index} fails")));
    }
    guest.blob(((sum + index as u64 + 1) % 1_000_003).to_string()).await
}

/// Returns for each node whether it reaches a cycle. The run of such a node fails, or its outcome
/// depends on which run came first; it is never memoized.
fn reach_cycles(graph: &Graph) -> Vec<bool> {
    // Remove leaves repeatedly. Every node that is left reaches a cycle.
    let mut is_left = vec![true; graph.len()];
    while let Some(index) = (0..graph.len()).find(|index| {
        is_left[*index] && graph[*index].children.iter().all(|child| !is_left[*child])
    }) {
        is_left[index] = false;
    }
    is_left
}

/// Generates graphs. In an acyclic graph, the children of a node have smaller indices.
fn graphs(cyclic: bool) -> impl Strategy<Value = Graph> {
    let style = prop_oneof![
        4 => Just(Style::Sequence),
        4 => Just(Style::Many),
        4 => Just(Style::Lazy),
        4 => Just(Style::Unordered),
        2 => Just(Style::Fickle),
        2 => Just(Style::Spawned),
        2 => Just(Style::Aside),
        1 => Just(Style::Fail),
        2 => Just(Style::Forgive),
    ];
    let children = if cyclic { 0..3 } else { 0..6 };
    let node = (style, prop::collection::vec(any::<prop::sample::Index>(), children));
    prop::collection::vec(node, 1..40).prop_map(move |nodes| {
        let count = nodes.len();
        let below = |(index, (style, children)): (usize, (Style, Vec<prop::sample::Index>))| {
            let below = if cyclic { count } else { index };
            let children = if below == 0 {
                Vec::new()
            } else {
                children.iter().map(|child| child.index(below)).collect()
            };
            Node { style, children }
        };
        Arc::new(nodes.into_iter().enumerate().map(below).collect())
    })
}

/// A caller: the node to run, the number of scheduler turns after which the call is cancelled, if
/// it is, and the policy.
type Caller = (prop::sample::Index, Option<u8>, Policy);

fn callers() -> impl Strategy<Value = Vec<Caller>> {
    let policy = prop_oneof![
        6 => Just(Policy::Reuse),
        1 => Just(Policy::DoNotCache),
        1 => Just(Policy::Recompute),
        1 => Just(Policy::RecomputeAll),
    ];
    prop::collection::vec(
        (any::<prop::sample::Index>(), prop::option::weighted(0.3, 0u8..40), policy),
        1..8,
    )
}

/// Runs `callers` concurrently, then every node alone, and compares all results with the oracle.
/// With `thieves`, other tasks take runs over meanwhile.
async fn agree(graph: Graph, permits: usize, width: usize, callers: Vec<Caller>, thieves: bool) {
    let runtime = || {
        let graph = Arc::clone(&graph);
        let guest = move |guest| node(guest, Arc::clone(&graph));
        NativeRuntime::builder("graph", "1").guest("node", guest).build().unwrap()
    };
    let journal = Arc::new(SpanJournal::default());
    let store = Arc::new(MemoryStore::new());
    let fixture = Fixture::with(runtime(), |builder| {
        let builder = builder.permits(permits).width(width).observer(Arc::clone(&journal));
        builder.store(Arc::clone(&store)).shares_runs(thieves)
    });
    // What is taken over runs in a dispatcher of its own, with its own memo.
    let other = Dispatcher::builder().runtime(runtime()).source(store).build().unwrap();
    let thieves: Vec<_> = (0..if thieves { 2 } else { 0 })
        .map(|number| tokio::spawn(steal(fixture.dispatcher.clone(), other.clone(), number)))
        .collect();
    let image = fixture.image("node");
    let invocation = |index: usize| {
        Invocation::new(&image).args(fixture.args(&[("node", &index.to_string())])).unpinned()
    };
    let runs: Vec<_> = callers
        .iter()
        .map(|(node, cancelled_after, policy)| {
            let index = node.index(graph.len());
            let (dispatcher, invocation) =
                (fixture.dispatcher.clone(), invocation(index).policy(*policy));
            let run = tokio::spawn(async move { dispatcher.run(invocation).await });
            if let Some(turns) = *cancelled_after {
                let run = run.abort_handle();
                tokio::spawn(async move {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                    run.abort();
                });
            }
            async move { (index, run.await) }
        })
        .collect();
    let cyclic = reach_cycles(&graph);
    let mut known = HashMap::new();
    for (index, run) in
        tokio::time::timeout(Duration::from_secs(30), join_all(runs)).await.expect("no timeout")
    {
        match run {
            Ok(result) => check(&fixture, &graph, &cyclic, index, result, &mut known),
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
    }
    // The concurrent runs must not have left traces: every node returns its result, and no permit
    // was lost.
    let mut looked_up = 0;
    for index in 0..graph.len() {
        let run = fixture.dispatcher.run(invocation(index));
        let result = tokio::time::timeout(Duration::from_secs(30), run).await.expect("no timeout");
        if let Ok(completion) = &result {
            let memoized = fixture.dispatcher.look_up(completion.request).unwrap();
            assert_eq!(memoized.is_some(), !cyclic[index], "node {index} in the memo");
            looked_up += u64::from(memoized.is_some());
        }
        check(&fixture, &graph, &cyclic, index, result, &mut known);
    }
    let was_taken = !thieves.is_empty();
    for thief in thieves {
        thief.abort();
        assert!(thief.await.map_or_else(|error| error.is_cancelled(), |()| true));
    }
    let patient = !was_taken
        && callers.iter().all(|(_, cancelled_after, _)| cancelled_after.is_none())
        && graph.iter().all(|node| node.style != Style::Fickle && node.style != Style::Lazy);
    journal.wait();
    // `Dispatcher::look_up` is a hit without a span.
    let mut stats = fixture.dispatcher.stats();
    stats.hits -= looked_up;
    journal.check(stats, patient, was_taken);
    // A cancelled run releases its permit after its span has ended.
    let all_free = async {
        while fixture.dispatcher.permits().0 > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_free).await.expect("no permit is lost");
}

/// Takes runs over, those that wait and those in progress, and settles them or gives them back.
async fn steal(dispatcher: Dispatcher, other: Dispatcher, mut number: u32) {
    let mut turn = move || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        number >> 24
    };
    // A run that is taken over again and again comes to no end.
    let mut left = 50;
    let mut long_runs = dispatcher.long_runs();
    while left > 0 {
        tokio::task::yield_now().await;
        dispatcher.want_runs(turn() % 2 == 0);
        let unit = if turn() % 2 == 0 {
            dispatcher.take_queued(Duration::ZERO, |_| turn() % 3 > 0).await
        } else {
            match long_runs.take().pop() {
                Some(run) => run.take_over().await,
                None => None,
            }
        };
        let Some(mut unit) = unit else { continue };
        left -= 1;
        if turn() % 4 == 0 {
            continue;
        }
        let invocation = Invocation::new(&unit.image).args(unit.args).unpinned().collecting();
        let run = other.run(invocation);
        // What is cancelled here is cancelled there.
        let completion = tokio::select! {
            completion = run => completion,
            () = unit.cancelled() => continue,
        };
        // A failure, and what depends on one, is repeated here.
        let Ok(completion) = completion else { continue };
        if other.look_up(unit.request).unwrap().is_none() {
            continue;
        }
        assert_eq!(completion.request, unit.request);
        dispatcher.put_blob(completion.bytes().unwrap()).unwrap();
        let mut entries = completion.entries.clone();
        // Some of them come without their objects, as from a node that fails.
        for (_, outcome) in &entries {
            if turn() % 2 == 0 {
                let object = other.read(outcome.id).unwrap();
                dispatcher.put_blob(object.content).unwrap();
            }
        }
        entries.truncate(turn() as usize % 8);
        let arrived = Arrived::new(completion.outcome).spent(completion.spent);
        unit.settle(arrived.entries(entries));
    }
    dispatcher.want_runs(false);
}

/// Asserts that `result` is a possible result of node `index`.
fn check(
    fixture: &Fixture,
    graph: &Graph,
    cyclic: &[bool],
    index: usize,
    result: Result<Completion>,
    known: &mut HashMap<usize, Option<u64>>,
) {
    if !cyclic[index] {
        let result =
            result.ok().map(|completion| fixture.text(completion.outcome).parse().unwrap());
        assert_eq!(result, oracle(graph, index, known), "node {index}");
    } else if matches!(graph[index].style, Style::Forgive) {
        assert!(result.is_ok(), "node {index} catches failures of its children: {result:?}");
    } else if let Err(error) = result {
        let cause = error.root_cause();
        let expected = matches!(cause.reason(), Reason::Cycle { .. } | Reason::GuestFailed { .. });
        assert!(expected, "node {index}: {error:?}");
    } else {
        let catches = graph[index].children.iter().any(|child| cyclic[*child]);
        assert!(catches, "node {index} reaches a cycle, but none of its children does");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn concurrent_runs_agree_with_a_sequential_oracle(
        graph in graphs(false),
        permits in 1usize..4,
        width in 1usize..5,
        callers in callers(),
        workers in prop::sample::select(&[1, 2, 3, 16][..]),
        thieves in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(agree(graph, permits, width, callers, thieves));
    }

    #[test]
    fn cycles_are_errors_and_do_not_affect_other_runs(
        graph in graphs(true),
        permits in 1usize..4,
        width in 1usize..5,
        callers in callers(),
        workers in prop::sample::select(&[1, 2, 3, 16][..]),
        thieves in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(agree(graph, permits, width, callers, thieves));
    }
}
