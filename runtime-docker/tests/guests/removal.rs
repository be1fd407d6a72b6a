//! The removal of containers: of cancelled jobs, of idle ones, and of ended processes.

use std::time::{Duration, Instant};

use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_testing::containers::{ContainerFixture, docker, engine, own_containers_of};

use crate::misbehave;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_leaves_no_process() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Recycled, Mode::Serving] {
        let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(mode).parked(1));
        let job = misbehave(&fixture, "probe", &[("do", "spin")]);
        assert!(tokio::time::timeout(Duration::from_millis(1500), job).await.is_err(), "{mode:?}");
        drop(fixture);
        let start = Instant::now();
        while !own_containers_of(&engine).await.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "{mode:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_containers_are_removed() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Recycled, Mode::Serving] {
        let idle = Duration::from_millis(400);
        let fixture = ContainerFixture::new(
            &engine,
            DockerRuntime::builder().mode(mode).parked(2).idle(idle),
        );
        assert_eq!(misbehave(&fixture, "probe", &[("do", "log")]).await.unwrap(), "logged");
        let start = Instant::now();
        while !own_containers_of(&engine).await.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "{mode:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(
            !misbehave(&fixture, "probe", &[("do", "status")]).await.unwrap().is_empty(),
            "{mode:?}"
        );
    }
    engine.close().unwrap();
    let error = ContainerEngine::version(&engine).await;
    assert!(error.is_ok(), "a closed engine still returns its version");
}

/// Creates a container that belongs to a process that does not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_dead_process_are_removed() {
    let Some(first) = engine().await else { return };
    let fixture = ContainerFixture::new(&first, DockerRuntime::builder().parked(1));
    misbehave(&fixture, "probe", &[("do", "log")]).await.unwrap();
    let node = fixture
        .dispatcher
        .read_tree(fixture.program("strange", &["probe"]).parse().unwrap())
        .unwrap();
    let mut labels = first.labels();
    let owner = labels.get_mut("io.manifold.owner").unwrap();
    let (living, _) = owner.rsplit_once('/').unwrap();
    *owner = format!("{living}/1");
    let body = bollard::models::ContainerCreateBody {
        image: Some(format!("manifold-image:{}", node.get("module").unwrap().id)),
        labels: Some(labels),
        ..Default::default()
    };
    let orphan = docker().create_container(None, body).await.unwrap().id;
    let second = ContainerEngine::new(EngineOptions::default()).unwrap();
    second.version().await.unwrap();
    let gone = docker().inspect_container(&orphan, None).await.unwrap_err().to_string();
    assert!(gone.contains("No such container") || gone.contains("no such container"), "{gone}");
    assert!(
        !own_containers_of(&first).await.is_empty(),
        "the containers of a living process are kept"
    );
    first.close().unwrap();
    second.close().unwrap();
}
