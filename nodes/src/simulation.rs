//! A simulation of many nodes, in virtual time: what no machine of the tests could show. The rules of
//! giving, taking and waiting are those of `policy`, which the real nodes follow; the network, the server
//! and the guests are simulated, from measured figures.
//!
//! `MANIFOLD_SIMULATION=full cargo test --release -p manifold-nodes simulation -- --nocapture` prints the
//! tables of `docs/scale.md`.

mod server;
mod work;
mod world;

use std::fmt::Write;

use world::World;

/// Time, in nanoseconds.
type Nanos = u64;

const MILLIS: Nanos = 1_000_000;
/// How many bytes of inputs arrive at once.
const ANSWER: u64 = 400 << 10;

/// What is simulated.
#[derive(Debug, Clone)]
struct Plan {
    nodes: usize,
    permits: usize,
    frames: u64,
    /// How long a frame takes.
    frame: Nanos,
    /// How many bytes of inputs a frame has, and of outcomes.
    frame_bytes: u64,
    outcome_bytes: u64,
    /// How long a message takes from a node to the server.
    latency: Nanos,
    /// Bytes in a second.
    bandwidth: f64,
    /// The share of messages that are lost.
    loss: f64,
    /// The share of nodes that are ten times as slow.
    stragglers: f64,
    /// The share of nodes that are cut off from the server, and when.
    partition: (f64, (Nanos, Nanos)),
    /// The share of nodes that die in the first second.
    crashes: f64,
    /// How much work is given away at once, in microseconds.
    enough: u64,
    seed: u64,
}

impl Plan {
    fn new(nodes: usize, frames: u64) -> Self {
        Self {
            nodes,
            permits: 4,
            frames,
            frame: 13_000,
            frame_bytes: 60,
            outcome_bytes: 60,
            latency: MILLIS / 4,
            bandwidth: 1e9,
            loss: 0.0,
            stragglers: 0.0,
            partition: (0.0, (0, 0)),
            crashes: 0.0,
            enough: crate::policy::ENOUGH,
            seed: 7,
        }
    }

    /// Returns how long a full answer with inputs takes.
    fn answer_time(&self) -> Nanos {
        (ANSWER as f64 / self.bandwidth * 1e9) as Nanos
    }

    fn run(&self) -> Report {
        World::new(self).run()
    }

    /// Returns how many nodes the call kept busy, for each that there is: slow ones count as what they are.
    fn efficiency(&self, report: &Report) -> f64 {
        let slow = (self.nodes as f64 * self.stragglers).round();
        let nodes = self.nodes as f64 - slow * 0.9;
        self.speedup(report) / nodes
    }

    /// Returns how many times as fast as one node the call was.
    fn speedup(&self, report: &Report) -> f64 {
        let alone = self.frames as f64 * self.frame as f64 / self.permits as f64;
        alone / report.time as f64
    }
}

/// What a simulated call took.
#[derive(Debug, Clone, Default)]
struct Report {
    time: Nanos,
    /// The frames that were run, also those that were run twice.
    frames: u64,
    units: u64,
    taken_back: u64,
    messages: u64,
    /// The entries that were read and written on the server.
    entries: u64,
    bytes: u64,
    /// How much of the time the server was busy. More than one: it had not ended with the call.
    server_busy: f64,
}

fn heads(table: &mut String, first: &str) {
    writeln!(
        table,
        "| {first} | time | times one node | efficiency | units | messages | entries | MB | run twice | server |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    )
    .unwrap();
}

fn row(table: &mut String, name: &str, plan: &Plan) -> Report {
    let report = plan.run();
    writeln!(
        table,
        "| {name} | {:.2} s | {:.1} | {:.0} % | {} | {} | {} | {:.1} | {:.2} % | {:.0} % |",
        report.time as f64 / 1e9,
        plan.speedup(&report),
        plan.efficiency(&report) * 100.0,
        report.units,
        report.messages,
        report.entries,
        report.bytes as f64 / 1e6,
        (report.frames - plan.frames) as f64 / plan.frames as f64 * 100.0,
        report.server_busy * 100.0
    )
    .unwrap();
    report
}

fn failures(plan: &Plan) -> Vec<(&'static str, Plan)> {
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        plan
    };
    vec![
        ("nothing fails", with(&|_| {})),
        ("1 ms to the server", with(&|plan| plan.latency = MILLIS)),
        ("10 ms to the server", with(&|plan| plan.latency = 10 * MILLIS)),
        ("contents are sent, too (5 KB a frame)", with(&|plan| plan.frame_bytes = 5_000)),
        ("1 % of messages are lost", with(&|plan| plan.loss = 0.01)),
        ("10 % of nodes are ten times as slow", with(&|plan| plan.stragglers = 0.1)),
        (
            "10 % of nodes are cut off for 3 s",
            with(&|plan| plan.partition = (0.1, (200 * MILLIS, 3_200 * MILLIS))),
        ),
        (
            "10 % of nodes are cut off for 10 s",
            with(&|plan| plan.partition = (0.1, (200 * MILLIS, 10_200 * MILLIS))),
        ),
        ("10 % of nodes die", with(&|plan| plan.crashes = 0.1)),
    ]
}

#[test]
fn the_tables_of_many_nodes() {
    if std::env::var_os("MANIFOLD_SIMULATION").is_none() {
        return;
    }
    let mut table = String::new();
    for (name, frames) in [("10⁶", 1_000_000), ("10⁷", 10_000_000), ("10⁸", 100_000_000)] {
        heads(&mut table, &format!("nodes, {name} frames"));
        for nodes in [1, 2, 4, 16, 64, 256, 1000] {
            row(&mut table, &nodes.to_string(), &Plan::new(nodes, frames));
        }
        table.push('\n');
    }
    heads(&mut table, "nodes, 10⁷ frames of 300 µs");
    for nodes in [1, 4, 16, 64, 256, 1000] {
        let plan = Plan { frame: 300_000, ..Plan::new(nodes, 10_000_000) };
        row(&mut table, &nodes.to_string(), &plan);
    }
    table.push('\n');
    heads(&mut table, "64 nodes, 10⁸ frames");
    for (name, plan) in failures(&Plan::new(64, 100_000_000)) {
        row(&mut table, name, &plan);
    }
    table.push('\n');
    heads(&mut table, "given at once, 16 nodes, 10⁷ frames");
    for enough in [1, 5, 20, 80, 320] {
        let plan = Plan { enough: enough * 1_000, ..Plan::new(16, 10_000_000) };
        row(&mut table, &format!("{enough} ms"), &plan);
    }
    println!("{table}");
}

#[test]
fn many_nodes_are_faster_and_run_nothing_twice() {
    let frames = 2_000_000;
    for (nodes, least) in [(1, 1.0), (2, 1.8), (4, 3.4), (16, 10.0)] {
        let plan = Plan::new(nodes, frames);
        let report = plan.run();
        assert_eq!(report.frames, frames, "{nodes} nodes: {report:?}");
        assert_eq!(report.taken_back, 0);
        assert!(plan.speedup(&report) >= least * 0.99, "{nodes}: {}", plan.speedup(&report));
        // Subtrees go over the network, frames do not.
        assert!(report.units < frames / 1_000, "{nodes} nodes: {report:?}");
    }
}

#[test]
fn whatever_fails_the_call_ends_with_all_of_its_frames() {
    let plan = Plan::new(10, 2_000_000);
    for (name, plan) in failures(&plan) {
        for seed in 0..4 {
            let plan = Plan { seed, ..plan.clone() };
            let report = plan.run();
            assert!(report.frames >= plan.frames, "{name}: {report:?}");
            let fails = plan.loss + plan.partition.0 + plan.crashes > 0.0;
            assert!(fails || report.frames == plan.frames, "{name}: {report:?}");
            let alone = plan.frames * plan.frame / plan.permits as u64;
            assert!(report.time < alone + 12_000 * MILLIS, "{name}: {report:?}");
        }
    }
}

#[test]
fn a_simulation_with_one_seed_is_always_the_same() {
    let plan = Plan { loss: 0.02, crashes: 0.1, ..Plan::new(12, 1_000_000) };
    let (one, other) = (plan.run(), plan.run());
    assert_eq!((one.time, one.units, one.messages), (other.time, other.units, other.messages));
}
