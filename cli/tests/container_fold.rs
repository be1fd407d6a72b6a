//! The container guests against the golden vectors, and beside the others.

#[path = "../../dispatcher/tests/fixture/mod.rs"]
mod fixture;

mod containers;

use containers::{Fixture, engine};
use fixture::{VECTORS, Vector, store_fixture};
use manifold_runtime_api::Outcome;
use manifold_runtime_docker::{DockerRuntime, Mode};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_and_distinct_runs_of_the_vectors() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Serving, Mode::Parked] {
        for name in VECTORS {
            let (fixture, vector) =
                (Fixture::new(&engine, DockerRuntime::builder().mode(mode), None), Vector::read(name));
            let root = Outcome::tree(store_fixture(&fixture.dispatcher, name));
            let visitors = [("post", "file-count.docker")];
            let start = std::time::Instant::now();
            assert_eq!(fixture.fold("fold.docker", root, &visitors).await, vector.result_text, "{name}");
            eprintln!("{mode:?} {name}: {:?} {}", start.elapsed(), fixture.runs());
            assert_eq!(fixture.runs(), vector.distinct_runs, "{name}");
        }
    }
    engine.close().unwrap();
}
