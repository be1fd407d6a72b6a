//! Random acyclic call graphs with shared nodes, failures, duplicates and lazy guests, wanted by many callers at once, against
//! a sequential oracle.

mod fixture;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fixture::Fixture;
use futures_util::future::join_all;
use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::{Call, Error, Outcome, Result};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use proptest::prelude::*;

/// What a node does with its children, besides adding up what they answer.
#[derive(Debug, Clone, Copy)]
enum Style {
    /// One after the other.
    Sequence,
    /// In one `run_many`.
    Many,
    /// All begun, then awaited from the last to the first.
    Lazy,
    /// Fails once its children have answered.
    Fail,
    /// Counts a failed child as 1000.
    Forgive,
}

#[derive(Debug, Clone)]
struct Node {
    style: Style,
    children: Vec<usize>,
}

type Graph = Arc<Vec<Node>>;

/// What node `index` answers, by plain recursion over lower nodes.
fn oracle(graph: &Graph, index: usize, known: &mut HashMap<usize, Option<u64>>) -> Option<u64> {
    if let Some(answer) = known.get(&index) {
        return *answer;
    }
    let node = &graph[index];
    let children: Vec<_> = node.children.iter().map(|child| oracle(graph, *child, known)).collect();
    let answer = match node.style {
        Style::Fail => None,
        Style::Forgive => Some(children.iter().map(|answer| answer.unwrap_or(1000)).sum::<u64>()),
        _ => children.into_iter().sum::<Option<u64>>(),
    };
    let answer = answer.map(|sum| (sum + index as u64 + 1) % 1_000_003);
    known.insert(index, answer);
    answer
}

async fn node(guest: NativeGuest, graph: Graph) -> Result<Outcome> {
    let index: usize = guest.text("node").await?.parse().map_err(|_| Error::guest_failed("no number"))?;
    let node = &graph[index];
    let mut calls = Vec::new();
    for child in &node.children {
        let child = Outcome::blob(guest.host().put_blob(child.to_string().into()).await?);
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
        Style::Lazy => {
            let mut begun: Vec<_> = calls.into_iter().map(|call| Some(guest.host().run(call))).collect();
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
                String::from_utf8_lossy(&text).parse::<u64>().map_err(|_| Error::guest_failed("no number"))?
            }
        };
    }
    if matches!(node.style, Style::Fail) {
        return Err(Error::guest_failed(format!("{index} fails")));
    }
    guest.blob(((sum + index as u64 + 1) % 1_000_003).to_string()).await
}

fn graphs() -> impl Strategy<Value = Graph> {
    let style = prop_oneof![
        4 => Just(Style::Sequence),
        4 => Just(Style::Many),
        4 => Just(Style::Lazy),
        1 => Just(Style::Fail),
        2 => Just(Style::Forgive),
    ];
    let node = (style, prop::collection::vec(any::<prop::sample::Index>(), 0..6));
    prop::collection::vec(node, 1..40).prop_map(|nodes| {
        let below = |(index, (style, children)): (usize, (Style, Vec<prop::sample::Index>))| Node {
            style,
            children: if index == 0 { Vec::new() } else { children.iter().map(|child| child.index(index)).collect() },
        };
        Arc::new(nodes.into_iter().enumerate().map(below).collect())
    })
}

async fn agree(graph: Graph, permits: usize, width: usize, roots: Vec<prop::sample::Index>) {
    let runtime = NativeRuntime::builder("graph", "1")
        .guest("node", {
            let graph = Arc::clone(&graph);
            move |guest| node(guest, Arc::clone(&graph))
        })
        .build()
        .unwrap();
    let fixture = Fixture::with(runtime, |builder| builder.permits(permits).width(width));
    let image = fixture.image("node");
    let roots: Vec<usize> = roots.iter().map(|root| root.index(graph.len())).collect();
    let runs = roots.iter().map(|root| {
        let invocation = Invocation::new(&image, fixture.args(&[("node", &root.to_string())]));
        let dispatcher = fixture.dispatcher.clone();
        tokio::spawn(async move { dispatcher.run(invocation).await })
    });
    let runs: Vec<_> = runs.collect();
    let answers = tokio::time::timeout(Duration::from_secs(30), join_all(runs)).await.expect("no hang");
    let mut known = HashMap::new();
    for (root, answer) in roots.iter().zip(answers) {
        let answer = answer.unwrap().ok().map(|completion| fixture.text(completion.outcome).parse().unwrap());
        assert_eq!(answer, oracle(&graph, *root, &mut known), "node {root}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn concurrent_runs_agree_with_a_sequential_oracle(
        graph in graphs(),
        permits in 1usize..4,
        width in 1usize..5,
        roots in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        threads.block_on(agree(graph, permits, width, roots));
    }
}
