//! Random call graphs over three nodes, each of which makes calls and helps the others.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use manifold_dispatcher::api::Reason;
use manifold_nodes::NodeOptions;
use manifold_testing::nats::Nats;

use crate::machine::Machine;

/// The nodes of a graph: how long each sleeps, in milliseconds, and which it runs.
struct Graph(Vec<(u64, Vec<usize>)>);

impl Graph {
    /// Creates a graph in which each node runs nodes with larger numbers and, with `has_cycles`, now and
    /// then one with a smaller number.
    fn random(rng: &mut fastrand::Rng, has_cycles: bool) -> Self {
        let count = rng.usize(4..24);
        let mut node = |index: usize| {
            let mut below: Vec<_> = (0..rng.usize(0..5))
                .filter(|_| index + 1 < count)
                .map(|_| rng.usize(index + 1..count))
                .collect();
            if has_cycles && rng.usize(0..6) == 0 {
                below.push(rng.usize(0..=index));
            }
            let millis = if rng.usize(0..4) == 0 { rng.u64(0..40) } else { 2 };
            (millis, below)
        };
        Self((0..count).map(&mut node).collect())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (millis, below) in &self.0 {
            let below: Vec<_> = below.iter().map(usize::to_string).collect();
            writeln!(text, "{millis}: {}", below.join(" ")).unwrap();
        }
        text
    }

    /// Returns what `graph` returns for a node. `None` if it reaches a cycle.
    fn outcome(&self, index: usize, known: &mut HashMap<usize, Option<u64>>) -> Option<u64> {
        if let Some(outcome) = known.get(&index) {
            return *outcome;
        }
        // While it is being computed, it reaches itself.
        known.insert(index, None);
        let mut sum = Some(index as u64);
        for below in &self.0[index].1 {
            let below = self.outcome(*below, known);
            sum = sum.zip(below).map(|(sum, below)| sum.wrapping_mul(3).wrapping_add(below));
        }
        known.insert(index, sum);
        sum
    }
}

/// How many graphs are tried: more if this variable of the environment says so.
fn cases(default: u32) -> u32 {
    std::env::var("MANIFOLD_NODE_GRAPHS").map_or(default, |count| count.parse().unwrap())
}

async fn three(server: &Nats) -> Vec<Machine> {
    let mut machines = Vec::new();
    for _ in 0..3 {
        machines.push(Machine::join(NodeOptions::new(server.address()), true).await);
    }
    for machine in &machines {
        machine.has_peers(2).await;
    }
    machines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn acyclic_graphs_have_the_right_outcomes_and_no_cycles() {
    let Some(server) = Nats::start() else { return };
    let machines = three(&server).await;
    let mut rng = fastrand::Rng::with_seed(21);
    let cases = cases(40);
    for case in 0..cases {
        let graph = Graph::random(&mut rng, false);
        let text = format!("{}case {case}", graph.text());
        // Different nodes begin at different places, at nearly the same time.
        let starts: Vec<_> = machines
            .iter()
            .map(|machine| {
                let index = rng.usize(0..graph.0.len() / 2);
                let pause = Duration::from_millis(rng.u64(0..6));
                (machine, index, pause)
            })
            .collect();
        let runs = starts.into_iter().map(|(machine, index, pause)| {
            let (graph, text) = (&graph, &text);
            async move {
                tokio::time::sleep(pause).await;
                let outcome = machine.run(machine.graph(text, index)).await.unwrap();
                let expected = graph.outcome(index, &mut HashMap::new()).unwrap();
                assert_eq!(outcome.text().unwrap(), expected.to_string(), "case {case}");
            }
        });
        futures_util::future::join_all(runs).await;
    }
    let arrived: u64 =
        machines.iter().map(|machine| machine.fixture.dispatcher.stats().arrived).sum();
    assert!(arrived > u64::from(cases) / 2, "only {arrived} outcomes came from other nodes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn graphs_with_cycles_end_soon() {
    let Some(server) = Nats::start() else { return };
    let machines = three(&server).await;
    let mut rng = fastrand::Rng::with_seed(21);
    for case in 0..cases(40) / 4 {
        let graph = Graph::random(&mut rng, true);
        let text = format!("{}cycles {case}", graph.text());
        let runs = machines.iter().enumerate().map(|(index, machine)| {
            let (graph, text) = (&graph, &text);
            async move {
                let start = Instant::now();
                let result = machine.run(machine.graph(text, index)).await;
                match (graph.outcome(index, &mut HashMap::new()), result) {
                    (Some(sum), result) => {
                        assert_eq!(result.unwrap().text().unwrap(), sum.to_string(), "case {case}");
                    }
                    (None, Ok(outcome)) => panic!("case {case}: {:?} in a cycle", outcome.text()),
                    (None, Err(error)) => {
                        let reason = error.root_cause();
                        let is_cycle = matches!(reason.reason(), Reason::Cycle { .. });
                        assert!(is_cycle, "case {case}: {error:?}");
                        assert!(start.elapsed() < Duration::from_secs(20), "case {case}");
                    }
                }
            }
        });
        futures_util::future::join_all(runs).await;
    }
}
