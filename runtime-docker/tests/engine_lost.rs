//! The container engine is killed during a fold.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use manifold_runtime_api::{ErrorKind, ObjectRef, Status};
use manifold_runtime_docker::{DockerRuntime, Mode};
use manifold_testing::containers::{ContainerFixture, engine};
use manifold_testing::{Vector, store_fixture};

/// Returns the process id of the engine if `cargo xtask docker` started it. That one may be killed,
/// because it is restarted.
fn mortal_engine() -> Option<String> {
    let endpoint = std::env::var("DOCKER_HOST").unwrap_or_default();
    let directory = Path::new(endpoint.strip_prefix("unix://")?).parent()?;
    let is_private = directory.file_name()?.to_str()?.starts_with("manifold-docker-");
    is_private.then(|| std::fs::read_to_string(directory.join("docker.pid")).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fold_fails_in_bounded_time_and_completes_when_the_engine_is_back() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Recycled, Mode::Serving] {
        let Some(pid) = mortal_engine() else {
            eprintln!(
                "SKIPPED: this engine must not be killed; `cargo xtask test` starts one that can be."
            );
            return;
        };
        let vector = Vector::read("bench");
        let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(mode).parked(2));
        let root = ObjectRef::tree(store_fixture(&fixture.dispatcher, "bench"));
        let visitors = [("post", "file-count.docker")];
        let mut fold = std::pin::pin!(fixture.try_fold("fold", root, &visitors));
        let visitor = fixture.image("file-count.docker");
        let time_to_kill = async {
            while fixture.requests_for(&visitor).len() < 12 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            result = &mut fold => panic!("{mode:?}: the fold ended before the engine was killed: {result:?}"),
            () = time_to_kill => {}
        }
        assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
        let killed = Instant::now();
        let result =
            tokio::time::timeout(Duration::from_secs(60), fold).await.expect("the fold ends");
        let before = fixture.dispatcher.stats();
        match result {
            Err(error) => {
                assert_eq!(
                    (error.kind(), error.status()),
                    (ErrorKind::Runtime, Status::Transient),
                    "{error:?}"
                );
                eprintln!(
                    "{mode:?}: failed {:?} after the kill: {}",
                    killed.elapsed(),
                    error.root_cause()
                );
                assert!(killed.elapsed() < Duration::from_secs(30));
            }
            // Connections to a serving container do not go through the engine.
            Ok(text) => assert_eq!((mode, text), (Mode::Serving, vector.result_text.clone())),
        }

        let start = Instant::now();
        while engine.version().await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "the engine is not restarted");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(fixture.fold("fold", root, &visitors).await, vector.result_text, "{mode:?}");
        // Completed runs are not repeated. Lost ones are.
        let done = fixture.dispatcher.stats() - before;
        assert!(done.runs < vector.distinct_runs as u64, "{mode:?}: {done:?}");
    }
    engine.close().unwrap();
}
