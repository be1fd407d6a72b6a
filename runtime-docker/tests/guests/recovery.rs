//! Jobs that lose their container, or that have no engine.

use std::time::Duration;

use bollard::query_parameters::{KillContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use manifold_dispatcher::Invocation;
use manifold_dispatcher::native::argument;
use manifold_runtime_api::{ObjectRef, Reason, Status};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_testing::containers::{ContainerFixture, docker, engine, own_containers_of};

use crate::misbehave;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_container_is_replaced() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Recycled, Mode::Serving] {
        let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(mode).parked(1));
        assert_eq!(misbehave(&fixture, "probe", &[("do", "log")]).await.unwrap(), "logged");
        let job = misbehave(&fixture, "probe", &[("do", "sleep"), ("ms", "1200")]);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            let options = KillContainerOptionsBuilder::new().signal("KILL").build();
            for container in own_containers_of(&engine).await {
                let _ = docker().kill_container(&container, Some(options.clone())).await;
            }
        };
        let (answer, ()) = tokio::join!(job, kill);
        assert_eq!(answer.unwrap(), "slept", "{mode:?}");
        // Containers that are removed while they are idle are replaced as well.
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        for container in own_containers_of(&engine).await {
            let _ = docker().remove_container(&container, Some(options.clone())).await;
        }
        assert_eq!(
            misbehave(&fixture, "probe", &[("do", "network")]).await.unwrap().lines().count(),
            3,
            "{mode:?}"
        );
        // A job whose containers are killed again and again ends with a transient error.
        let job = misbehave(&fixture, "probe", &[("do", "sleep"), ("ms", "1900")]);
        let killing = async {
            let options = KillContainerOptionsBuilder::new().signal("KILL").build();
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                for container in own_containers_of(&engine).await {
                    let _ = docker().kill_container(&container, Some(options.clone())).await;
                }
            }
        };
        let error =
            tokio::select! { answer = job => answer.unwrap_err(), () = killing => unreachable!() };
        assert_eq!(error.status(), Status::Transient, "{mode:?}: {error:?}");
        assert!(matches!(error.reason(), Reason::RuntimeFailed { .. }), "{mode:?}: {error:?}");
    }
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_killed_before_it_serves_is_replaced() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Serving));
    let job = misbehave(&fixture, "slow-start", &[("do", "log")]);
    let kill = async {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        let mut killed = false;
        while !killed {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for container in own_containers_of(&engine).await {
                killed |= docker().kill_container(&container, Some(options.clone())).await.is_ok();
            }
        }
    };
    let (answer, ()) = tokio::join!(job, kill);
    assert_eq!(answer.unwrap(), "logged");
    engine.close().unwrap();
}

/// The init of a container says how a guest has ended, so this is not taken for a lost connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_ends_while_it_waits_for_a_response_has_no_outcome() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder());
    let slow = fixture.program("strange", &["probe"]);
    let blob = |text: &str| fixture.dispatcher.put_blob(text.to_owned()).unwrap();
    let args = [
        argument("do", ObjectRef::blob(blob("sleep"))),
        argument("ms", ObjectRef::blob(blob("1500"))),
    ];
    let args = argument("args", ObjectRef::tree(fixture.dispatcher.put_tree(args).unwrap()));
    let entries = [
        argument("do", ObjectRef::blob(blob("nest-and-leave"))),
        argument("image", ObjectRef::blob(blob(&slow))),
        args,
    ];
    let invocation = Invocation::new(&slow).args(fixture.dispatcher.put_tree(entries).unwrap());
    let error = fixture.dispatcher.run(invocation).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::NoOutcome), "{error:?}");
    engine.close().unwrap();
}

#[tokio::test]
async fn without_an_engine_a_job_is_a_transient_error() {
    let mut options = EngineOptions::default();
    options.endpoint = "unix:///nowhere/docker.sock".to_owned();
    let engine = ContainerEngine::new(options).unwrap();
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder());
    let error = fixture.run(&fixture.image("file-count.docker"), &[]).await.unwrap_err();
    assert_eq!(error.status(), Status::Transient, "{error:?}");
    assert!(error.to_string().contains("/nowhere/docker.sock"), "{error}");
    engine.close().unwrap();
}
