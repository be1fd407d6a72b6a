//! The golden vectors: every request id and every result of four whole folds.

mod fixture;

use std::collections::BTreeMap;
use std::sync::Arc;

use fixture::{Journal, VECTORS, Vector, store_fixture};
use manifold_dispatcher::api::{Outcome, Runtime};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Dispatcher, Invocation};

async fn fold(name: &str) {
    let vector = Vector::read(name);
    let journal = Arc::new(Journal::default());
    let runtime: Arc<dyn Runtime> =
        Arc::new(NativeRuntime::builder("native", "1").fold_guests().build().unwrap());
    let dispatcher = Dispatcher::builder()
        .runtime_as(vector.host_ref.0, runtime)
        .observer(Arc::clone(&journal) as _)
        .build()
        .unwrap();
    vector.store_images(&dispatcher);
    assert_eq!(store_fixture(&dispatcher, name), vector.root.0, "{name}: the fixture");

    let invocation = Invocation::new(vector.images["fold-wasm"].0, vector.args(&dispatcher))
        .salt(vector.salt.clone())
        .std(vector.std.0);
    let completion = dispatcher.run(invocation.clone()).await.unwrap();
    assert_eq!(completion.request, vector.top_request.0, "{name}: the top request");
    assert_eq!(completion.outcome, Outcome::blob(vector.result.1.0));
    assert_eq!(dispatcher.read(completion.outcome.id).unwrap().content, vector.result_text);

    let expected: BTreeMap<_, _> = vector
        .runs
        .iter()
        .map(|run| (run.request.0, Some(Outcome::blob(run.result.1.0))))
        .collect();
    assert_eq!(*journal.settled.lock().unwrap(), expected, "{name}: requests and results");
    assert_eq!(journal.started.lock().unwrap().len(), vector.distinct_runs, "{name}: each once");
    assert_eq!(dispatcher.stats().runs, vector.distinct_runs as u64);

    let before = dispatcher.stats();
    let again = dispatcher.run(invocation).await.unwrap();
    assert!(again.remembered);
    assert_eq!(again.outcome, completion.outcome);
    let done = dispatcher.stats() - before;
    assert_eq!((done.runs, done.hits), (0, 1), "{name}: repeating a fold is one look-up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_and_result_of_the_vectors() {
    for name in VECTORS {
        fold(name).await;
    }
}
