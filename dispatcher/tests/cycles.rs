//! Invariant 2: a wait that would close a cycle fails before anybody blocks, also across chains.

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::Fixture;
use manifold_dispatcher::Invocation;
use manifold_dispatcher::api::{ErrorKind, Outcome, Reason, Result};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use tokio::sync::Barrier;

/// Far longer than anything here takes, and short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the guest's own image on the arguments `{me: name}`.
async fn run_as(guest: &NativeGuest, name: &str) -> Result<Outcome> {
    let name = Outcome::blob(guest.host().put_blob(name.to_owned().into()).await?);
    let args = guest.put_tree([argument("me", name)]).await?;
    guest.run(&guest.job().image.clone(), args).await
}

#[tokio::test]
async fn a_request_that_wants_itself() {
    let runtime = NativeRuntime::builder("native", "1")
        .guest("again", |guest| async move {
            let args = guest.job().args;
            guest.run(&guest.job().image.clone(), args).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("again"), fixture.args(&[]));
    let error = tokio::time::timeout(PATIENCE, fixture.dispatcher.run(invocation))
        .await
        .unwrap()
        .unwrap_err();
    let Reason::Cycle { chain } = error.root_cause().reason() else { panic!("{error:?}") };
    let request = error.frame().unwrap().request;
    assert_eq!(chain, &[request, request]);
    assert_eq!(error.kind(), ErrorKind::Request);
    assert_eq!(fixture.journal.memoized.lock().unwrap().len(), 0);
}

/// A chain that comes back to its start: every guest runs the next image on the same arguments.
#[tokio::test]
async fn a_chain_that_comes_back_lists_every_request() {
    const LENGTH: usize = 50;
    let runtime = NativeRuntime::builder("native", "1")
        .guest("next", |guest| async move {
            let number: usize = guest.text("me").await?.parse().unwrap_or_default();
            run_as(&guest, &((number + 1) % LENGTH).to_string()).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("next"), fixture.args(&[("me", "0")]));
    let error = tokio::time::timeout(PATIENCE, fixture.dispatcher.run(invocation))
        .await
        .unwrap()
        .unwrap_err();
    let Reason::Cycle { chain } = error.root_cause().reason() else { panic!("{error:?}") };
    assert_eq!(chain.len(), LENGTH + 1);
    assert_eq!(chain.first(), chain.last());
    assert_eq!(error.chain().filter(|error| error.frame().is_some()).count(), LENGTH);
}

// root1 → a → (both have started) → b
// root2 → b → (both have started) → a
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_chains_that_wait_for_each_other() {
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
        fixture.dispatcher.run(Invocation::new(fixture.image("other"), fixture.args(&[("me", me)])))
    };
    let (a, b) = tokio::time::timeout(PATIENCE, async { tokio::join!(invoke("a"), invoke("b")) })
        .await
        .expect("an error and no hang");
    for error in [a.unwrap_err(), b.unwrap_err()] {
        assert!(
            matches!(error.root_cause().reason(), Reason::Cycle { chain } if chain.len() == 3),
            "{error:?}"
        );
    }
    assert_eq!(fixture.runs(), 2);
}

/// What a guest makes of a cycle depends on who called it, so nothing of it is remembered.
#[tokio::test]
async fn a_survived_cycle_is_not_remembered() {
    let runtime = NativeRuntime::builder("native", "1")
        .guest("careless", |guest| async move {
            let me = guest.text("me").await?;
            let found = run_as(&guest, if me == "a" { "b" } else { "a" }).await;
            guest.blob(if found.is_ok() { "all is well" } else { "what cycle?" }).await
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation = Invocation::new(fixture.image("careless"), fixture.args(&[("me", "a")]));
    let completion = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(fixture.text(completion.outcome), "all is well");
    assert_eq!(fixture.journal.memoized.lock().unwrap().len(), 0);
}
