//! Invariant 7: a hit whose object is missing is a miss and is computed again, and so are missing
//! objects that an outcome reaches.

use std::sync::Arc;

use manifold_dispatcher::api::{
    EntryMode, Error, ObjectId, ObjectKind, ObjectRef, Runtime, Status, TreeEntry,
};
use manifold_dispatcher::layers::{Faults, Faulty, Overlaid};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Dispatcher, DispatcherBuilder, Invocation, MemoryStore, Store};
use manifold_standard_guests::native_guests;
use manifold_testing::spans::SpanJournal;
use manifold_testing::{Fixture, VECTORS, Vector, store_fixture};
use tokio::sync::Notify;

/// A dispatcher and its store. The guest `leaf` returns a blob, `tree` a tree that contains it,
/// `outer` a tree that contains that one, and `read` the text of the blob.
fn nested() -> (Fixture, Arc<MemoryStore>) {
    nested_with(|builder| builder)
}

fn nested_with(
    build: impl FnOnce(DispatcherBuilder) -> DispatcherBuilder,
) -> (Fixture, Arc<MemoryStore>) {
    let runtime = NativeRuntime::builder("nested", "1")
        .guest("leaf", |guest| async move { guest.blob("at the bottom").await })
        .guest("tree", |guest| async move {
            let leaf = guest.run(&guest.text("leaf").await?, guest.put_tree([]).await?).await?;
            guest.put_tree([argument("leaf", leaf)]).await.map(ObjectRef::tree)
        })
        .guest("outer", |guest| async move {
            let tree = guest.run(&guest.text("tree").await?, guest.job().args).await?;
            guest.put_tree([argument("tree", tree)]).await.map(ObjectRef::tree)
        })
        .guest("read", |guest| async move {
            let outer = guest.run(&guest.text("outer").await?, guest.job().args).await?;
            let tree = guest.host().tree(outer.id).await?.get("tree").map(|entry| entry.id);
            let tree =
                guest.host().tree(tree.ok_or_else(|| Error::guest_failed("no tree"))?).await?;
            let leaf = tree.get("leaf").ok_or_else(|| Error::guest_failed("no leaf"))?.id;
            // The error is caught, so that a wrong outcome would be visible.
            match guest.host().get(leaf).await {
                Ok(text) => guest.blob(text).await,
                Err(_) => guest.blob("nothing").await,
            }
        })
        .build()
        .unwrap();
    let store = Arc::new(MemoryStore::new());
    (Fixture::with(runtime, |builder| build(builder.store(Arc::clone(&store)))), store)
}

fn names(fixture: &Fixture) -> ObjectId {
    let images: Vec<_> =
        ["leaf", "tree", "outer"].iter().map(|name| (*name, fixture.image(name))).collect();
    fixture.args(&images.iter().map(|(name, image)| (*name, image.as_str())).collect::<Vec<_>>())
}

fn leaf_id() -> ObjectId {
    ObjectId::of(ObjectKind::Blob, b"at the bottom")
}

#[tokio::test]
async fn a_lost_outcome_is_computed_again() {
    let (fixture, store) = nested();
    let invocation = Invocation::new(fixture.image("leaf")).args(fixture.args(&[]));
    let first = fixture.dispatcher.run(invocation.clone()).await.unwrap();
    assert!(store.evict(first.outcome.id));
    let second = fixture.dispatcher.run(invocation).await.unwrap();
    assert!(!second.from_memo);
    assert_eq!(fixture.text(second.outcome), "at the bottom");
}

#[tokio::test]
async fn a_lost_object_that_a_memoized_outcome_reaches_is_computed_again() {
    let spans = Arc::new(SpanJournal::default());
    let (fixture, store) = nested_with(|builder| builder.observer(Arc::clone(&spans)));
    let args = names(&fixture);
    fixture.dispatcher.run(Invocation::new(fixture.image("outer")).args(args)).await.unwrap();
    let before = fixture.dispatcher.stats();
    assert!(store.evict(leaf_id()));
    // The memo still has `outer`, `tree` and `leaf`. Only the blob three levels down is lost.
    let read =
        fixture.dispatcher.run(Invocation::new(fixture.image("read")).args(args)).await.unwrap();
    assert_eq!(fixture.text(read.outcome), "at the bottom");
    let done = fixture.dispatcher.stats() - before;
    assert_eq!((done.runs, done.rewinds), (4, 1), "each runs once, and `read` begins again");
    spans.check(fixture.dispatcher.stats(), true, false);
    assert!(
        fixture.dispatcher.look_up(read.request).unwrap().is_some(),
        "the second outcome does not depend on the loss"
    );
}

#[tokio::test]
async fn lost_objects_of_an_outcome_are_computed_again_before_it_is_pinned() {
    let (fixture, store) = nested();
    let args = names(&fixture);
    let invocation = Invocation::new(fixture.image("outer")).args(args);
    let first = fixture.dispatcher.run(invocation.clone().unpinned()).await.unwrap();
    assert!(store.evict(leaf_id()));
    let second = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(first.outcome, second.outcome);
    assert!(fixture.dispatcher.read(leaf_id()).is_ok(), "computed again for the pin");
}

#[tokio::test]
async fn a_missing_argument_is_an_error_without_further_runs() {
    let (fixture, store) = nested();
    let invocation = Invocation::new(fixture.image("outer")).args(names(&fixture));
    let text = fixture.dispatcher.read_tree(names(&fixture)).unwrap().get("tree").unwrap().id;
    assert!(store.evict(text));
    let error = fixture.dispatcher.run(invocation).await.unwrap_err();
    assert_eq!(error.missing_object(), Some(text));
    assert_eq!((fixture.runs(), fixture.dispatcher.stats().rewinds), (1, 0));
}

#[tokio::test]
async fn a_guest_that_reads_an_invented_id_is_run_a_bounded_number_of_times() {
    let runtime = NativeRuntime::builder("guessing", "1")
        .guest("guess", |guest| async move {
            let id = ObjectId::of(ObjectKind::Blob, guest.job().request.as_bytes());
            guest.host().get(id).await?;
            guest.blob("found").await
        })
        .guest("down", |guest| async move {
            let number: u32 = guest.text("number").await?.parse().unwrap();
            let image = guest.text(if number == 0 { "guess" } else { "down" }).await?;
            let mut entries = guest.args().await?.entries().to_vec();
            entries.retain(|entry| entry.name != "number");
            let number = guest.host().put_blob(number.saturating_sub(1).to_string().into()).await?;
            entries.push(argument("number", ObjectRef::blob(number)));
            let args = guest.put_tree(entries).await?;
            guest.run(&image, args).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let (guess, down) = (fixture.image("guess"), fixture.image("down"));
    let args = fixture.args(&[("guess", &guess), ("down", &down), ("number", "10")]);
    let error = fixture.dispatcher.run(Invocation::new(&down).args(args)).await.unwrap_err();
    assert!(error.missing_object().is_some());
    assert!(fixture.runs() < 1000, "{} runs for twelve frames", fixture.runs());
}

/// Each run misses an object that no earlier run has missed, and stores it, so that it is always
/// worth running the guest again.
#[tokio::test]
async fn a_guest_that_misses_another_object_in_every_run_is_run_a_bounded_number_of_times() {
    let runtime = NativeRuntime::builder("missing", "1")
        .guest("miss", |guest| async move {
            let number: u64 = guest
                .text("number")
                .await?
                .parse()
                .map_err(|_| Error::guest_failed("not a number"))?;
            for attempt in 0.. {
                let text = format!("{number} {attempt}");
                if guest.host().get(ObjectId::of(ObjectKind::Blob, text.as_bytes())).await.is_err()
                {
                    guest.host().put_blob(text.into()).await?;
                    break;
                }
            }
            if number == 0 {
                return guest.blob("bottom").await;
            }
            let below =
                ObjectRef::blob(guest.host().put_blob((number - 1).to_string().into()).await?);
            guest.run(&guest.job().image, guest.put_tree([argument("number", below)]).await?).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("miss")).args(fixture.args(&[("number", "5")]));
    let completion = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "bottom");
    // Every level adds 17 runs to those of the level above. It does not multiply them.
    assert!(
        fixture.runs() <= 17 * (1 + 2 + 3 + 4 + 5 + 6),
        "{} runs for six frames",
        fixture.runs()
    );
}

/// Folds the fixture `name` over a faulty store until the fold succeeds, and compares the result
/// with the golden vector. Returns how many objects were lost.
async fn fold_with(name: &str, faults: Faults) -> u64 {
    let vector = Vector::read(name);
    let runtime: Arc<dyn Runtime> =
        Arc::new(native_guests(NativeRuntime::builder("native", "1")).build().unwrap());
    let source = Arc::new(MemoryStore::new());
    let writer = Dispatcher::builder().store(Arc::clone(&source)).build().unwrap();
    vector.store_images(&writer);
    store_fixture(&writer, name);
    let args = vector.args(&writer);

    let store = Arc::new(Faulty::new(MemoryStore::new(), faults));
    let dispatcher = loop {
        let builder = Dispatcher::builder().store(Arc::clone(&store)).source(Arc::clone(&source));
        match builder.runtime_as(vector.host_ref.0, Arc::clone(&runtime)).build() {
            Ok(dispatcher) => break dispatcher,
            Err(error) => assert_eq!(error.status(), Status::Transient, "{error:?}"),
        }
    };
    let invocation = Invocation::new(vector.images["fold-wasm"].0)
        .args(args)
        .salt(vector.salt.clone())
        .std(vector.std.0);
    for _ in 0..500 {
        match dispatcher.run(invocation.clone()).await {
            Ok(completion) => {
                assert_eq!(completion.request, vector.top_request.0);
                assert_eq!(
                    completion.outcome,
                    ObjectRef::blob(vector.result.1.0),
                    "{name} {faults:?}"
                );
                return store.losses();
            }
            // A lost object is computed again within the call. An injected failure is returned, and
            // the call is repeated.
            Err(error) => {
                assert!(
                    faults.failure + faults.partial_write > 0.0,
                    "{name} {faults:?}: {error:?}"
                );
                assert_eq!(error.status(), Status::Transient, "{error:?}");
            }
        }
    }
    panic!("{name} {faults:?} does not succeed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folds_that_lose_objects_at_random_return_the_right_results() {
    let mut losses = 0;
    for seed in 0..40 {
        for name in VECTORS {
            let mut faults = Faults::seeded(seed);
            faults.loss = [0.05, 0.2, 0.5][(seed % 3) as usize];
            losses += fold_with(name, faults).await;
        }
    }
    assert!(losses > 1000, "only {losses} objects were lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folds_on_a_failing_store_return_the_right_result_or_a_transient_error() {
    for seed in 0..20 {
        for name in ["wide", "odd"] {
            let mut faults = Faults::seeded(seed);
            (faults.failure, faults.partial_write, faults.forgotten) = (0.01, 0.01, 0.1);
            faults.loss = if seed % 2 == 0 { 0.1 } else { 0.0 };
            fold_with(name, faults).await;
        }
    }
}

#[tokio::test]
async fn a_lost_tree_within_an_outcome_is_computed_again() {
    let (fixture, store) = nested();
    let args = names(&fixture);
    let first =
        fixture.dispatcher.run(Invocation::new(fixture.image("outer")).args(args)).await.unwrap();
    let outer = fixture.dispatcher.read_tree(first.outcome.id).unwrap();
    let [TreeEntry { id, mode: EntryMode::Tree, .. }] = outer.entries() else {
        panic!("{outer:?}")
    };
    assert!(store.evict(*id));
    let read =
        fixture.dispatcher.run(Invocation::new(fixture.image("read")).args(args)).await.unwrap();
    assert_eq!(fixture.text(read.outcome), "at the bottom");
    assert!(fixture.dispatcher.read_tree(*id).is_ok());
}

/// Returns a store that reports that objects may vanish from it, as they do when a test evicts them
/// from `store`.
fn losing(store: &Arc<MemoryStore>) -> Arc<dyn Store> {
    Arc::new(Overlaid::new(Arc::clone(store), MemoryStore::new()))
}

/// A call's arguments, its image and its named images cannot be computed again, so the call keeps
/// them.
#[tokio::test]
async fn a_call_keeps_its_arguments_and_images_while_it_runs() {
    let (store, started, evicted) =
        (Arc::new(MemoryStore::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (on_start, on_eviction) = (Arc::clone(&started), Arc::clone(&evicted));
    let runtime = NativeRuntime::builder("patient", "1")
        .guest("patient", move |guest| {
            let (started, evicted) = (Arc::clone(&on_start), Arc::clone(&on_eviction));
            async move {
                started.notify_one();
                evicted.notified().await;
                // Use an image that an argument refers to, a named image, and an argument.
                let empty = guest.put_tree([]).await?;
                let helper = guest.run(&guest.text("helper").await?, empty).await?;
                let other = guest.run("/cas/std/other", empty).await?;
                let mut text = guest.bytes("plain").await?.to_vec();
                for outcome in [helper, other] {
                    text.push(b' ');
                    text.extend(guest.host().get(outcome.id).await?);
                }
                guest.blob(text).await
            }
        })
        .guest("helper", |guest| async move { guest.blob("helped").await })
        .guest("other", |guest| async move { guest.blob("named").await })
        .build()
        .unwrap();
    let fixture = Fixture::with(runtime, |builder| builder.store(losing(&store)));
    let other: ObjectId = fixture.image("other").parse().unwrap();
    let std =
        fixture.dispatcher.put_tree([TreeEntry::new("other", EntryMode::Tree, other)]).unwrap();
    let args = fixture.args(&[("helper", &fixture.image("helper")), ("plain", "given")]);
    let invocation = Invocation::new(fixture.image("patient")).args(args).std(std);
    let everything = store.object_ids();
    let dispatcher = fixture.dispatcher.clone();
    let running = tokio::spawn(async move { dispatcher.run(invocation).await });
    started.notified().await;
    for id in everything {
        store.evict(id);
    }
    evicted.notify_one();
    let outcome = running.await.unwrap().unwrap().outcome;
    assert_eq!(fixture.text(outcome), "given helped named");
    // After the call, the evicted objects are not kept any more.
    assert!(fixture.dispatcher.read(args).is_err());
}

/// `hold` keeps arguments for later calls.
#[tokio::test]
async fn held_objects_can_be_read_until_the_last_hold_is_dropped() {
    let store = Arc::new(MemoryStore::new());
    let runtime = NativeRuntime::builder("idle", "1").build().unwrap();
    let fixture = Fixture::with(runtime, |builder| builder.store(losing(&store)));
    let args = fixture.args(&[("text", "kept")]);
    let (held, again) =
        (fixture.dispatcher.hold(args).unwrap(), fixture.dispatcher.hold(args).unwrap());
    let text = ObjectId::of(ObjectKind::Blob, b"kept");
    for id in [args, text] {
        assert!(store.evict(id));
    }
    drop(held);
    assert_eq!(fixture.dispatcher.read(text).unwrap().content, "kept");
    assert_eq!(fixture.dispatcher.read_tree(args).unwrap().len(), 1);
    drop(again);
    assert!(fixture.dispatcher.read(text).is_err());
}
