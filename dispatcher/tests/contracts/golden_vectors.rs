//! The golden vectors: every request id and every result of four complete folds.

use std::collections::BTreeMap;
use std::sync::Arc;

use manifold_dispatcher::api::{ObjectRef, Runtime};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_standard_guests::native_guests;
use manifold_testing::{Journal, VECTORS, Vector, store_fixture};

async fn fold(name: &str) {
    let vector = Vector::read(name);
    let journal = Arc::new(Journal::default());
    let runtime: Arc<dyn Runtime> =
        Arc::new(native_guests(NativeRuntime::builder("native", "1")).build().unwrap());
    let dispatcher = Dispatcher::builder()
        .runtime_as(vector.host_ref.0, runtime)
        .observer(Arc::clone(&journal))
        .build()
        .unwrap();
    vector.store_images(&dispatcher);
    assert_eq!(store_fixture(&dispatcher, name), vector.root.0, "{name}: the fixture");

    let invocation = Invocation::new(vector.images["fold-wasm"].0)
        .args(vector.args(&dispatcher))
        .salt(vector.salt.clone())
        .std(vector.std.0);
    let completion = dispatcher.run(invocation.clone()).await.unwrap();
    assert_eq!(completion.request, vector.top_request.0, "{name}: the top request");
    assert_eq!(completion.outcome, ObjectRef::blob(vector.result.1.0));
    assert_eq!(dispatcher.read(completion.outcome.id).unwrap().content, vector.result_text);

    let expected: BTreeMap<_, _> = vector
        .runs
        .iter()
        .map(|run| (run.request.0, Some(ObjectRef::blob(run.result.1.0))))
        .collect();
    assert_eq!(*journal.settled.lock().unwrap(), expected, "{name}: requests and results");
    assert_eq!(
        journal.started.lock().unwrap().len(),
        vector.distinct_runs,
        "{name}: every request is run once"
    );
    assert_eq!(dispatcher.stats().runs, vector.distinct_runs as u64);

    let before = dispatcher.stats();
    let again = dispatcher.run(invocation).await.unwrap();
    assert!(again.from_memo);
    assert_eq!(again.outcome, completion.outcome);
    let done = dispatcher.stats() - before;
    assert_eq!((done.runs, done.hits), (0, 1), "{name}: a repeated fold is one look-up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folds_match_every_request_and_result_of_the_vectors() {
    for name in VECTORS {
        fold(name).await;
    }
}
