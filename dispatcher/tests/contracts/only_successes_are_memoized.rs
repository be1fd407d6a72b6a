//! Invariants 4 and 7: only a success whose object is in the store is memoized, and a hit whose
//! object is missing is a miss.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use manifold_dispatcher::api::{Error, Limit, ObjectId, ObjectKind, ObjectRef, Reason};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Invocation, MemoryStore, ObjectSource};
use manifold_testing::Fixture;

#[tokio::test]
async fn an_outcome_that_is_missing_or_of_another_kind_is_an_error() {
    let runtime = NativeRuntime::builder("liar", "1")
        .guest("nothing", |_| async {
            Ok(ObjectRef::blob(ObjectId::of(ObjectKind::Blob, b"never stored")))
        })
        .guest("blob-as-tree", |guest| async move {
            Ok(ObjectRef::tree(guest.blob("a blob").await?.id))
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    for guest in ["nothing", "blob-as-tree"] {
        let invocation = Invocation::new(fixture.image(guest)).args(fixture.args(&[]));
        let error = fixture.dispatcher.run(invocation).await.unwrap_err();
        assert!(
            matches!(error.reason(), Reason::MissingObject { .. } | Reason::WrongKind { .. }),
            "{error:?}"
        );
        assert_eq!(error.frame().unwrap().runtime, "liar");
    }
    assert_eq!(fixture.journal.memoized.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_hit_whose_object_is_missing_is_computed_again() {
    let store = Arc::new(MemoryStore::new());
    let runtime = NativeRuntime::builder("native", "1")
        .guest("hello", |guest| async move { guest.blob("hello").await })
        .build();
    let fixture = Fixture::with(runtime.unwrap(), |builder| builder.store(Arc::clone(&store)));
    let invocation = Invocation::new(fixture.image("hello")).args(fixture.args(&[]));
    let first = fixture.dispatcher.run(invocation.clone()).await.unwrap();
    assert!(fixture.dispatcher.run(invocation.clone()).await.unwrap().from_memo);

    assert!(store.evict(first.outcome.id));
    assert_eq!(fixture.dispatcher.look_up(first.request).unwrap(), None);
    let again = fixture.dispatcher.run(invocation).await.unwrap();
    assert!(!again.from_memo);
    assert_eq!(again.outcome, first.outcome);
    assert!(store.read(first.outcome.id).unwrap().is_some());
    assert_eq!(fixture.runs(), 2);
}

/// A parent that catches a child's failure is memoized only if the failure depends on the child's
/// request alone.
#[tokio::test]
async fn outcomes_that_depend_on_a_clock_or_a_missing_object_are_not_memoized_at_any_level() {
    let late = Arc::new(AtomicUsize::new(0));
    let runtime = NativeRuntime::builder("native", "1")
        .guest("grandparent", |guest| async move {
            let args = guest.put_tree([guest.required("child").await?]).await?;
            guest.run(&guest.text("parent").await?, args).await
        })
        .guest("parent", |guest| async move {
            let args = guest.put_tree([]).await?;
            match guest.run(&guest.text("child").await?, args).await {
                Ok(outcome) => Ok(outcome),
                Err(_) => guest.blob("made up").await,
            }
        })
        .guest("sure-failure", |_| async { Err(Error::guest_failed("always")) })
        .guest("late-once", {
            let late = Arc::clone(&late);
            move |guest| {
                let first = late.fetch_add(1, Ordering::Relaxed) == 0;
                async move {
                    if first {
                        return Err(
                            Limit::ComputeTime { time: std::time::Duration::from_secs(1) }.into()
                        );
                    }
                    guest.blob("in time").await
                }
            }
        })
        .guest("reads-missing-object", |guest| async move {
            let missing = ObjectId::of(ObjectKind::Blob, b"missing");
            match guest.host().get(missing).await {
                Ok(_) => guest.blob("found").await,
                Err(_) => guest.blob("not found").await,
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let parent = fixture.image("parent");
    let invoke = |child: &str| {
        let args = fixture.args(&[("parent", &parent), ("child", &fixture.image(child))]);
        fixture.dispatcher.run(Invocation::new(fixture.image("grandparent")).args(args))
    };
    let memoized = || fixture.journal.memoized.lock().unwrap().len();

    let completion = invoke("sure-failure").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "made up");
    assert_eq!(memoized(), 2, "parent and grandparent");

    let completion = invoke("late-once").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "made up");
    assert_eq!(memoized(), 2, "the outcome depends on a clock");
    let completion = invoke("late-once").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "in time");
    assert_eq!(memoized(), 5);

    let completion = invoke("reads-missing-object").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "not found");
    assert_eq!(memoized(), 5, "another store may have the object");
    fixture.dispatcher.put_blob("missing").unwrap();
    let completion = invoke("reads-missing-object").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "found");
}
