//! Nodes in processes of their own, which are killed and stopped.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use manifold_dispatcher::api::ObjectId;
use manifold_nodes::NodeOptions;
use manifold_testing::nats::Nats;

use crate::machine::{Machine, starts};

/// Names the server, so that the test program is a node. Its role follows after a space.
const ROLE: &str = "MANIFOLD_TEST_NODE";

/// A process of this program that is a node.
struct Process {
    process: Child,
    /// The lines that it has printed.
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(server: &Nats, role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::is_a_node_if_it_is_told_to", "--nocapture"]);
        command.env(ROLE, format!("{} {role}", server.address())).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, all) = (process.stdout.take().unwrap(), Arc::clone(&lines));
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                all.lock().unwrap().push(line);
            }
        });
        Self { process, lines }
    }

    /// Returns the words after `kind` in the lines that begin with it.
    fn said(&self, kind: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter_map(|line| line.strip_prefix(kind)).map(str::to_owned).collect()
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    async fn says(&self, kind: &str) {
        while self.said(kind).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").unwrap();
    output.flush().unwrap();
}

/// The body of the processes. Does nothing in an ordinary run of the tests.
#[test]
fn is_a_node_if_it_is_told_to() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (address, role) = role.split_once(' ').unwrap();
    // The name of the test comes before, on the same line.
    say("");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = NodeOptions::new(address);
        let machine = Machine::join(options, role == "helper").await;
        say("ready");
        if role == "helper" {
            let mut said = 0;
            loop {
                let started = machine.fixture.journal.started.lock().unwrap().clone();
                started[said..].iter().for_each(|(request, _)| say(&format!("started {request}")));
                said = started.len();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        machine.has_peers(2).await;
        machine.run(machine.all("leaf", 80, 60)).await.unwrap();
    });
}

/// How many nodes are killed: more if this variable of the environment says so.
fn kills() -> u64 {
    std::env::var("MANIFOLD_NODE_KILLS").map_or(6, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_are_killed_at_random_change_nothing() {
    let Some(server) = Nats::start() else { return };
    let mut rng = fastrand::Rng::with_seed(4);
    for case in 0..kills() {
        let origin = Arc::new(Machine::join(NodeOptions::new(server.address()), false).await);
        let helpers = [(); 2].map(|()| Process::start(&server, "helper"));
        for helper in &helpers {
            helper.says("ready").await;
        }
        origin.has_peers(2).await;
        let (caller, invocation) = (Arc::clone(&origin), origin.all("leaf", 60, 60 + case));
        let run = tokio::spawn(async move { caller.run(invocation).await });
        tokio::time::sleep(Duration::from_millis(rng.u64(0..700))).await;
        helpers[0].signal("-KILL");
        let killed = Instant::now();
        let outcome = run.await.unwrap().unwrap();
        assert_eq!(outcome.text().unwrap(), "1770");
        // What was lost is at most two runs of the dead node, and what waited there.
        let time = killed.elapsed();
        assert!(time < Duration::from_secs(5 + 2 + 3), "case {case}: {time:?}");
        let dead = ids(&helpers[0].said("started "));
        let mut all = starts(&[&origin]);
        for request in [&dead[..], &ids(&helpers[1].said("started "))].concat() {
            *all.entry(request).or_default() += 1;
        }
        for (request, count) in all {
            let bound = if dead.contains(&request) { 2 } else { 1 };
            assert!(count <= bound, "case {case}: {request} was started {count} times");
        }
        origin.node.leave().await;
    }
}

fn ids(said: &[String]) -> Vec<ObjectId> {
    said.iter().map(|id| ObjectId::from_hex(id).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_done_for_a_killed_origin_is_not_done_again() {
    let Some(server) = Nats::start() else { return };
    let helpers = [(); 2].map(|()| Process::start(&server, "helper"));
    let first = Process::start(&server, "origin");
    let started = || helpers.iter().map(|helper| helper.said("started ").len()).sum::<usize>();
    while started() < 24 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.signal("-KILL");
    let second = Machine::join(NodeOptions::new(server.address()), false).await;
    let before: Vec<_> = helpers.iter().flat_map(|helper| ids(&helper.said("started "))).collect();
    let outcome = second.run(second.all("leaf", 80, 60)).await.unwrap();
    assert_eq!(outcome.text().unwrap(), "3160");
    // Most of what the helpers had begun had ended, and has come from the memo.
    let mut again = HashMap::new();
    for helper in &helpers {
        for request in ids(&helper.said("started ")) {
            *again.entry(request).or_insert(0) += 1;
        }
    }
    let twice = before.iter().filter(|request| again[*request] > 1).count();
    assert!(twice <= 4, "{twice} of {} runs were repeated", before.len());
    let stats = second.fixture.dispatcher.stats();
    assert!(stats.arrived >= 20, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_stopped_for_long_comes_back_too_late() {
    let Some(server) = Nats::start() else { return };
    let helper = Process::start(&server, "helper");
    helper.says("ready").await;
    let origin = Arc::new(Machine::join(NodeOptions::new(server.address()), false).await);
    origin.has_peers(1).await;
    let (caller, invocation) = (Arc::clone(&origin), origin.all("leaf", 12, 300));
    let run = tokio::spawn(async move { caller.run(invocation).await });
    helper.says("started ").await;
    helper.signal("-STOP");
    let stopped = Instant::now();
    let outcome = run.await.unwrap().unwrap();
    assert_eq!(outcome.text().unwrap(), "66");
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed())).await;
    helper.signal("-CONT");
    // It ends what it had begun, and finds that it was done. Then it helps again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = helper.said("started ").len();
    let outcome = origin.run(origin.all("leaf", 20, 100)).await.unwrap();
    assert_eq!(outcome.text().unwrap(), "190");
    assert!(helper.said("started ").len() > before);
    let client = async_nats::connect(server.address()).await.unwrap();
    let memo = async_nats::jetstream::new(client).get_key_value("manifold-default-memo").await;
    let entries = memo.unwrap().stream.get_info().await.unwrap().state;
    assert_eq!(entries.last_sequence, entries.messages, "an outcome was written twice");
}
