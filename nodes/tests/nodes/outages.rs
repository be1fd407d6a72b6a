//! The server is away for some time, or for good.

use std::time::{Duration, Instant};

use manifold_dispatcher::Completion;
use manifold_dispatcher::api::Error;
use manifold_nodes::NodeOptions;
use manifold_testing::nats::{Cluster, Nats};
use tokio::task::JoinHandle;

use crate::machine::Machine;

/// Starts a call that runs `count` leaves of 100 ms each, and waits until the helper runs some of them.
async fn shared_run(
    origin: Machine,
    helper: &Machine,
    count: u64,
) -> JoinHandle<(Result<Completion, Error>, Machine)> {
    origin.has_peers(1).await;
    let invocation = origin.all("leaf", count, 100);
    let run = tokio::spawn(async move { (origin.run(invocation).await, origin) });
    while helper.fixture.runs() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    let Some(mut server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    let run = shared_run(origin, &helper, 60).await;
    server.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.resume();
    let (outcome, _origin) = run.await.unwrap();
    assert_eq!(outcome.unwrap().text().unwrap(), "1770");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_stays_away_stops_nothing() {
    let Some(mut server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    let run = shared_run(origin, &helper, 30).await;
    server.kill();
    let (outcome, origin) = run.await.unwrap();
    assert_eq!(outcome.unwrap().text().unwrap(), "435");
    // Later calls do not wait for it.
    let start = Instant::now();
    assert_eq!(origin.run(origin.all("leaf", 4, 1)).await.unwrap().text().unwrap(), "6");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_away_for_half_a_minute_is_used_again() {
    let Some(mut server) = Nats::start() else { return };
    let (origin, helper) = (Machine::new(&server, false).await, Machine::new(&server, true).await);
    let run = shared_run(origin, &helper, 400).await;
    server.kill();
    tokio::time::sleep(Duration::from_secs(30)).await;
    server.resume();
    let (outcome, origin) = run.await.unwrap();
    assert_eq!(outcome.unwrap().text().unwrap(), "79800");
    origin.has_peers(1).await;
    let (before, start) = (helper.fixture.runs(), Instant::now());
    for millis in 80.. {
        assert!(start.elapsed() < Duration::from_secs(20), "the helper takes nothing over");
        let sum = origin.run(origin.all("leaf", 20, millis)).await.unwrap().text().unwrap();
        assert_eq!(sum, "190");
        if helper.fixture.runs() > before {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_leader_of_a_cluster_can_be_killed() {
    let Some(mut cluster) = Cluster::start() else { return };
    let options = NodeOptions::new(cluster.address());
    let origin = loop {
        // The servers elect leaders first.
        let client = async_nats::connect(cluster.servers[0].address()).await.unwrap();
        let context = async_nats::jetstream::new(client);
        let config = async_nats::jetstream::stream::Config {
            name: "ready".to_owned(),
            num_replicas: 3,
            ..async_nats::jetstream::stream::Config::default()
        };
        if context.create_stream(config).await.is_ok() {
            break Machine::join(options.clone(), false).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let helper = Machine::join(options, true).await;
    let run = shared_run(origin, &helper, 60).await;
    let client = async_nats::connect(cluster.servers[1].address()).await.unwrap();
    let claims = async_nats::jetstream::new(client).get_key_value("manifold-default-claims").await;
    let info = claims.unwrap().stream.get_info().await.unwrap().cluster.unwrap();
    let leader = info.leader.unwrap();
    assert_eq!(info.replicas.len(), 2, "the claims have three replicas");
    cluster.servers[leader[1..].parse::<usize>().unwrap()].kill();
    let (outcome, _origin) = run.await.unwrap();
    assert_eq!(outcome.unwrap().text().unwrap(), "1770");
}
