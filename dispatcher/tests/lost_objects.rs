//! Invariant 7: a hit whose object is gone is a miss, and is recomputed; so is whatever else was lost on the way.

mod fixture;

use std::sync::Arc;

use fixture::{Fixture, VECTORS, Vector, store_fixture};
use manifold_dispatcher::api::{
    EntryMode, Error, ObjectId, ObjectKind, Outcome, Runtime, Status, TreeEntry,
};
use manifold_dispatcher::layers::{Faults, Faulty, Overlaid};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Dispatcher, Invocation, MemoryStore, Store};
use tokio::sync::Notify;

/// `leaf` answers a blob, `tree` a tree around it, `outer` a tree around that, and `read` the text at the bottom.
fn nested() -> (Fixture, Arc<MemoryStore>) {
    let runtime = NativeRuntime::builder("nested", "1")
        .guest("leaf", |guest| async move { guest.blob("at the bottom").await })
        .guest("tree", |guest| async move {
            let leaf = guest.run(&guest.text("leaf").await?, guest.put_tree([]).await?).await?;
            guest.put_tree([argument("leaf", leaf)]).await.map(Outcome::tree)
        })
        .guest("outer", |guest| async move {
            let tree = guest.run(&guest.text("tree").await?, guest.job().args).await?;
            guest.put_tree([argument("tree", tree)]).await.map(Outcome::tree)
        })
        .guest("read", |guest| async move {
            let outer = guest.run(&guest.text("outer").await?, guest.job().args).await?;
            let tree = guest.host().tree(outer.id).await?.get("tree").map(|entry| entry.id);
            let tree =
                guest.host().tree(tree.ok_or_else(|| Error::guest_failed("no tree"))?).await?;
            let leaf = tree.get("leaf").ok_or_else(|| Error::guest_failed("no leaf"))?.id;
            // An error is forgiven, so that a wrong answer would show.
            match guest.host().get(leaf).await {
                Ok(text) => guest.blob(text).await,
                Err(_) => guest.blob("nothing").await,
            }
        })
        .build()
        .unwrap();
    let store = Arc::new(MemoryStore::new());
    (Fixture::with(runtime, |builder| builder.store(Arc::clone(&store) as _)), store)
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
async fn an_outcome_that_is_gone_is_computed_again() {
    let (fixture, store) = nested();
    let invocation = Invocation::new(fixture.image("leaf"), fixture.args(&[]));
    let first = fixture.dispatcher.run(invocation.clone()).await.unwrap();
    assert!(store.evict(first.outcome.id));
    let second = fixture.dispatcher.run(invocation).await.unwrap();
    assert!(!second.remembered);
    assert_eq!(fixture.text(second.outcome), "at the bottom");
}

#[tokio::test]
async fn what_a_remembered_outcome_reaches_is_computed_again_by_whoever_made_it() {
    let (fixture, store) = nested();
    let args = names(&fixture);
    fixture.dispatcher.run(Invocation::new(fixture.image("outer"), args)).await.unwrap();
    let before = fixture.dispatcher.stats();
    assert!(store.evict(leaf_id()));
    // The memo still has `outer`, `tree` and `leaf`, and only the blob three levels down is gone.
    let read = fixture.dispatcher.run(Invocation::new(fixture.image("read"), args)).await.unwrap();
    assert_eq!(fixture.text(read.outcome), "at the bottom");
    let done = fixture.dispatcher.stats() - before;
    assert_eq!((done.runs, done.rewinds), (5, 1), "read twice, and each of the others once");
    assert!(
        fixture.dispatcher.look_up(read.request).unwrap().is_some(),
        "the second answer owes nothing to the loss"
    );
}

#[tokio::test]
async fn an_outcome_is_complete_when_it_is_pinned() {
    let (fixture, store) = nested();
    let args = names(&fixture);
    let invocation = Invocation::new(fixture.image("outer"), args);
    let first = fixture.dispatcher.run(invocation.clone().unpinned()).await.unwrap();
    assert!(store.evict(leaf_id()));
    let second = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(first.outcome, second.outcome);
    assert!(fixture.dispatcher.read(leaf_id()).is_ok(), "computed again, as the pin is to keep it");
}

#[tokio::test]
async fn an_argument_that_was_never_there_is_an_error_and_costs_no_further_runs() {
    let (fixture, store) = nested();
    let invocation = Invocation::new(fixture.image("outer"), names(&fixture));
    let text = fixture.dispatcher.read_tree(names(&fixture)).unwrap().get("tree").unwrap().id;
    assert!(store.evict(text));
    let error = fixture.dispatcher.run(invocation).await.unwrap_err();
    assert_eq!(error.missing_object(), Some(text));
    assert_eq!((fixture.runs(), fixture.dispatcher.stats().rewinds), (1, 0));
}

#[tokio::test]
async fn an_id_that_a_guest_made_up_is_looked_for_a_bounded_number_of_times() {
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
            entries.push(argument("number", Outcome::blob(number)));
            let args = guest.put_tree(entries).await?;
            guest.run(&image, args).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let (guess, down) = (fixture.image("guess"), fixture.image("down"));
    let args = fixture.args(&[("guess", &guess), ("down", &down), ("number", "10")]);
    let error = fixture.dispatcher.run(Invocation::new(&down, args)).await.unwrap_err();
    assert!(error.missing_object().is_some());
    assert!(fixture.runs() < 1000, "{} runs for twelve frames", fixture.runs());
}

/// Each run misses an object that none has missed before, and makes it: every time there is something new to mend.
#[tokio::test]
async fn a_guest_that_always_misses_something_new_is_run_a_bounded_number_of_times() {
    let runtime = NativeRuntime::builder("missing", "1")
        .guest("miss", |guest| async move {
            let number: u64 = guest
                .text("number")
                .await?
                .parse()
                .map_err(|_| Error::guest_failed("no number"))?;
            let made_up = |attempt: u64| format!("{number} {attempt}");
            for attempt in 0.. {
                let text = made_up(attempt);
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
                Outcome::blob(guest.host().put_blob((number - 1).to_string().into()).await?);
            guest.run(&guest.job().image, guest.put_tree([argument("number", below)]).await?).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("miss"), fixture.args(&[("number", "5")]));
    let completion = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "bottom");
    // Every level adds 17 runs to those of the level above: it does not multiply them.
    assert!(
        fixture.runs() <= 17 * (1 + 2 + 3 + 4 + 5 + 6),
        "{} runs for six frames",
        fixture.runs()
    );
}

/// Folds the fixture `name` over a store that loses objects, until it succeeds, and compares with the golden vector.
async fn fold_with(name: &str, faults: Faults) -> u64 {
    let vector = Vector::read(name);
    let runtime: Arc<dyn Runtime> =
        Arc::new(NativeRuntime::builder("native", "1").fold_guests().build().unwrap());
    let given = Arc::new(MemoryStore::new());
    let giver = Dispatcher::builder().store(Arc::clone(&given) as _).build().unwrap();
    vector.store_images(&giver);
    store_fixture(&giver, name);
    let args = vector.args(&giver);

    let store = Arc::new(Faulty::new(MemoryStore::new(), faults));
    let dispatcher = loop {
        let builder =
            Dispatcher::builder().store(Arc::clone(&store) as _).source(Arc::clone(&given) as _);
        match builder.runtime_as(vector.host_ref.0, Arc::clone(&runtime)).build() {
            Ok(dispatcher) => break dispatcher,
            Err(error) => assert_eq!(error.status(), Status::Transient, "{error:?}"),
        }
    };
    let invocation = Invocation::new(vector.images["fold-wasm"].0, args)
        .salt(vector.salt.clone())
        .std(vector.std.0);
    for _ in 0..500 {
        match dispatcher.run(invocation.clone()).await {
            Ok(completion) => {
                assert_eq!(completion.request, vector.top_request.0);
                assert_eq!(
                    completion.outcome,
                    Outcome::blob(vector.result.1.0),
                    "{name} {faults:?}"
                );
                return store.losses();
            }
            // A loss is mended on the spot; an injected failure is told, and the caller tries again.
            Err(error) => {
                assert!(
                    faults.failure + faults.partial_write > 0.0,
                    "{name} {faults:?}: {error:?}"
                );
                assert_eq!(error.status(), Status::Transient, "{error:?}");
            }
        }
    }
    panic!("{name} {faults:?} does not come to an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folds_that_lose_objects_at_random_still_give_the_right_answers() {
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
async fn folds_whose_store_fails_and_writes_half_end_right_or_with_a_transient_error() {
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
async fn a_tree_in_the_middle_of_an_outcome_is_computed_again() {
    let (fixture, store) = nested();
    let args = names(&fixture);
    let first =
        fixture.dispatcher.run(Invocation::new(fixture.image("outer"), args)).await.unwrap();
    let outer = fixture.dispatcher.read_tree(first.outcome.id).unwrap();
    let [TreeEntry { id, mode: EntryMode::Tree, .. }] = outer.entries() else {
        panic!("{outer:?}")
    };
    assert!(store.evict(*id));
    let read = fixture.dispatcher.run(Invocation::new(fixture.image("read"), args)).await.unwrap();
    assert_eq!(fixture.text(read.outcome), "at the bottom");
    assert!(fixture.dispatcher.read_tree(*id).is_ok());
}

/// A store that says that others may take something out of it, as they do from `store`.
fn losing(store: &Arc<MemoryStore>) -> Arc<dyn Store> {
    Arc::new(Overlaid::new(Arc::clone(store), MemoryStore::new()))
}

/// A call's arguments, its image and its named images are nobody's to make again.
#[tokio::test]
async fn a_call_keeps_what_it_was_given_while_it_runs() {
    let (store, begun, lost) =
        (Arc::new(MemoryStore::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, loses) = (Arc::clone(&begun), Arc::clone(&lost));
    let runtime = NativeRuntime::builder("patient", "1")
        .guest("patient", move |guest| {
            let (begins, loses) = (Arc::clone(&begins), Arc::clone(&loses));
            async move {
                begins.notify_one();
                loses.notified().await;
                // Its own argument, an image that an argument names, and one that the named images hold.
                let nobody = guest.put_tree([]).await?;
                let named = guest.run(&guest.text("helper").await?, nobody).await?;
                let known = guest.run("/cas/std/other", nobody).await?;
                let mut text = guest.bytes("plain").await?.to_vec();
                for outcome in [named, known] {
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
    let invocation = Invocation::new(fixture.image("patient"), args).std(std);
    let everything = store.object_ids();
    let dispatcher = fixture.dispatcher.clone();
    let running = tokio::spawn(async move { dispatcher.run(invocation).await });
    begun.notified().await;
    for id in everything {
        store.evict(id);
    }
    lost.notify_one();
    let outcome = running.await.unwrap().unwrap().outcome;
    assert_eq!(fixture.text(outcome), "given helped named");
    // Once the call is over, what is lost is lost.
    assert!(fixture.dispatcher.read(args).is_err());
}

/// For calls to come.
#[tokio::test]
async fn what_is_held_is_found_until_it_is_let_go() {
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
