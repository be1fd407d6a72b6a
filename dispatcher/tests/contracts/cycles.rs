//! Invariant 2: a wait that would close a cycle fails before it blocks, also across chains of runs.

use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::{ErrorKind, ObjectRef, Reason, Result};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use manifold_testing::Fixture;
use tokio::sync::Barrier;

/// The time after which a test counts as hanging. All tests take far less.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs the guest's own image with the arguments `{me: name}`.
async fn run_as(guest: &NativeGuest, name: &str) -> Result<ObjectRef> {
    let name = ObjectRef::blob(guest.host().put_blob(name.to_owned().into()).await?);
    let args = guest.put_tree([argument("me", name)]).await?;
    guest.run(&guest.job().image.clone(), args).await
}

#[tokio::test]
async fn a_request_that_runs_itself_is_an_error() {
    let runtime = NativeRuntime::builder("native", "1")
        .guest("again", |guest| async move {
            let args = guest.job().args;
            guest.run(&guest.job().image.clone(), args).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("again")).args(fixture.args(&[]));
    let error = tokio::time::timeout(TIMEOUT, fixture.dispatcher.run(invocation))
        .await
        .unwrap()
        .unwrap_err();
    let Reason::Cycle { chain } = error.root_cause().reason() else { panic!("{error:?}") };
    let request = error.frame().unwrap().request;
    assert_eq!(chain, &[request, request]);
    assert_eq!(error.kind(), ErrorKind::Request);
    assert_eq!(fixture.journal.memoized.lock().unwrap().len(), 0);
}

/// Every guest runs its own image with the next number; the last one runs the first request again.
#[tokio::test]
async fn the_error_of_a_long_cycle_lists_every_request() {
    const LENGTH: usize = 50;
    let runtime = NativeRuntime::builder("native", "1")
        .guest("next", |guest| async move {
            let number: usize = guest.text("me").await?.parse().unwrap_or_default();
            run_as(&guest, &((number + 1) % LENGTH).to_string()).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("next")).args(fixture.args(&[("me", "0")]));
    let error = tokio::time::timeout(TIMEOUT, fixture.dispatcher.run(invocation))
        .await
        .unwrap()
        .unwrap_err();
    let Reason::Cycle { chain } = error.root_cause().reason() else { panic!("{error:?}") };
    assert_eq!(chain.len(), LENGTH + 1);
    assert_eq!(chain.first(), chain.last());
    assert_eq!(error.chain().filter(|error| error.frame().is_some()).count(), LENGTH);
}

// First root call: a → (wait until both have started) → b
// Second root call: b → (wait until both have started) → a
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_chains_that_wait_for_each_other_are_an_error() {
    let both = Arc::new(Barrier::new(2));
    let runtime = NativeRuntime::builder("native", "1")
        .guest("other", move |guest| {
            let both = Arc::clone(&both);
            async move {
                both.wait().await;
                let me = guest.text("me").await?;
                run_as(&guest, if me == "a" { "b" } else { "a" }).await
            }
        })
        .build()
        .unwrap();
    let fixture = Fixture::with(runtime, |builder| builder.permits(2));
    let invoke = |me| {
        fixture
            .dispatcher
            .run(Invocation::new(fixture.image("other")).args(fixture.args(&[("me", me)])))
    };
    let (a, b) = tokio::time::timeout(TIMEOUT, async { tokio::join!(invoke("a"), invoke("b")) })
        .await
        .expect("the calls return within the timeout");
    for error in [a.unwrap_err(), b.unwrap_err()] {
        assert!(
            matches!(error.root_cause().reason(), Reason::Cycle { chain } if chain.len() == 3),
            "{error:?}"
        );
    }
    assert_eq!(fixture.runs(), 2);
}

/// Which run fails with the cycle error depends on the caller, so an outcome computed after
/// catching it is not memoized.
#[tokio::test]
async fn an_outcome_computed_after_catching_a_cycle_is_not_memoized() {
    let runtime = NativeRuntime::builder("native", "1")
        .guest("careless", |guest| async move {
            let me = guest.text("me").await?;
            let found = run_as(&guest, if me == "a" { "b" } else { "a" }).await;
            guest.blob(if found.is_ok() { "all is well" } else { "what cycle?" }).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("careless")).args(fixture.args(&[("me", "a")]));
    let completion = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "all is well");
    assert_eq!(fixture.journal.memoized.lock().unwrap().len(), 0);
}
