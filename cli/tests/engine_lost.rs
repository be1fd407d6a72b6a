//! The engine is killed in the middle of a fold.

#[path = "../../dispatcher/tests/fixture/mod.rs"]
mod fixture;

mod containers;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use containers::{Fixture, engine};
use fixture::{Vector, store_fixture};
use manifold_runtime_api::{ErrorKind, Outcome, Status};
use manifold_runtime_docker::{DockerRuntime, Mode};

/// The process of an engine that may be killed, for it is started again: the one that `cargo xtask docker` keeps.
fn mortal_engine() -> Option<String> {
    let endpoint = std::env::var("DOCKER_HOST").unwrap_or_default();
    let directory = Path::new(endpoint.strip_prefix("unix://")?).parent()?;
    let is_private = directory.file_name()?.to_str()?.starts_with("manifold-docker-");
    is_private.then(|| std::fs::read_to_string(directory.join("docker.pid")).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fold_fails_in_bounded_time_and_completes_when_the_engine_is_back() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Serving] {
        let Some(pid) = mortal_engine() else {
            eprintln!(
                "SKIPPED: this engine is not ours to kill; `cargo xtask test` brings one that is."
            );
            return;
        };
        let vector = Vector::read("bench");
        let fixture = Fixture::new(&engine, DockerRuntime::builder().mode(mode).parked(2));
        let root = Outcome::tree(store_fixture(&fixture.dispatcher, "bench"));
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
            Ok(answer) => assert_eq!((mode, answer), (Mode::Serving, vector.result_text.clone())),
        }

        let start = Instant::now();
        while engine.version().await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "the engine does not come back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(fixture.fold("fold", root, &visitors).await, vector.result_text, "{mode:?}");
        // What had been computed is not computed again; what was lost is.
        let done = fixture.dispatcher.stats() - before;
        assert!(done.runs < vector.distinct_runs as u64, "{mode:?}: {done:?}");
    }
    engine.close().unwrap();
}
