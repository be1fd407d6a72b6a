//! Invariants 4 and 7: only a success whose object is in the store is memoized, and a hit whose object is gone is a miss.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::Fixture;
use manifold_dispatcher::api::{Error, Limit, ObjectId, ObjectKind, Outcome, Reason};
use manifold_dispatcher::native::NativeRuntime;
use manifold_dispatcher::{Invocation, MemoryStore, ObjectSource};

#[tokio::test]
async fn an_outcome_that_is_not_in_the_store_or_of_another_kind_is_an_error() {
    let runtime = NativeRuntime::builder("liar", "1")
        .guest("nothing", |_| async {
            Ok(Outcome::blob(ObjectId::of(ObjectKind::Blob, b"never stored")))
        })
        .guest(
            "blob-as-tree",
            |guest| async move { Ok(Outcome::tree(guest.blob("a blob").await?.id)) },
        )
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    for guest in ["nothing", "blob-as-tree"] {
        let invocation = Invocation::new(fixture.image(guest), fixture.args(&[]));
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
async fn a_hit_whose_object_is_gone_is_computed_again() {
    let store = Arc::new(MemoryStore::new());
    let runtime = NativeRuntime::builder("native", "1")
        .guest("hello", |guest| async move { guest.blob("hello").await })
        .build();
    let fixture = Fixture::with(runtime.unwrap(), |builder| builder.store(Arc::clone(&store) as _));
    let invocation = Invocation::new(fixture.image("hello"), fixture.args(&[]));
    let first = fixture.dispatcher.run(invocation.clone()).await.unwrap();
    assert!(fixture.dispatcher.run(invocation.clone()).await.unwrap().remembered);

    assert!(store.evict(first.outcome.id));
    assert_eq!(fixture.dispatcher.look_up(first.request).unwrap(), None);
    let again = fixture.dispatcher.run(invocation).await.unwrap();
    assert!(!again.remembered);
    assert_eq!(again.outcome, first.outcome);
    assert!(store.read(first.outcome.id).unwrap().is_some());
    assert_eq!(fixture.runs(), 2);
}

/// A parent that survives a child's failure is memoized only if that failure comes again wherever the child is run.
#[tokio::test]
async fn what_a_clock_or_a_lost_object_decided_is_forgotten_all_the_way_up() {
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
        .guest("reads-what-is-gone", |guest| async move {
            let gone = ObjectId::of(ObjectKind::Blob, b"gone");
            match guest.host().get(gone).await {
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
        fixture.dispatcher.run(Invocation::new(fixture.image("grandparent"), args))
    };
    let memoized = || fixture.journal.memoized.lock().unwrap().len();

    let completion = invoke("sure-failure").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "made up");
    assert_eq!(memoized(), 2, "parent and grandparent");

    let completion = invoke("late-once").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "made up");
    assert_eq!(memoized(), 2, "a clock decided");
    let completion = invoke("late-once").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "in time");
    assert_eq!(memoized(), 5);

    let completion = invoke("reads-what-is-gone").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "not found");
    assert_eq!(memoized(), 5, "another store may have the object");
    fixture.dispatcher.put_blob("gone").unwrap();
    let completion = invoke("reads-what-is-gone").await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "found");
}
