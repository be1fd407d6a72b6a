//! A chain of nested runs that goes back and forth between two nodes.

use manifold_nodes::NodeOptions;
use manifold_testing::nats::Nats;

use crate::machine::Machine;

/// How many levels are descended: more if this variable of the environment says so.
fn levels() -> u64 {
    std::env::var("MANIFOLD_NODE_LEVELS").map_or(100, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn levels_alternate_between_two_nodes() {
    let Some(server) = Nats::start() else { return };
    let options = NodeOptions::new(server.address());
    let one = Machine::with(options.clone(), true, 1).await;
    let two = Machine::with(options, true, 1).await;
    one.has_peers(1).await;
    let outcome = one.run(one.descend(levels())).await.unwrap();
    assert_eq!(outcome.text().unwrap(), levels().to_string());
    let [here, there] = [&one, &two].map(|machine| machine.fixture.dispatcher.stats().arrived);
    assert!(here > levels() / 5 && there > levels() / 5, "{here} and {there} levels went over");
    let memory = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = memory.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    eprintln!("{} levels: {here} and {there} went over, {peak}", levels());
}
