//! The policies: reuse, do not cache, recompute, recompute all.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use manifold_dispatcher::api::{Call, Error, ObjectRef};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Event, Invocation, Policy};
use manifold_testing::Fixture;
use tokio::sync::Semaphore;

/// A dispatcher with the guests `count`, which returns how many times it was run and so is not a
/// pure function, and `twice`, which runs its argument `image` twice in `run_many` and once alone.
fn counting() -> Fixture {
    let runs = Arc::new(AtomicUsize::new(0));
    let runtime = NativeRuntime::builder("counting", "1")
        .guest("count", move |guest| {
            let number = runs.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                tokio::task::yield_now().await;
                guest.blob(number.to_string()).await
            }
        })
        .guest("twice", |guest| async move {
            let (image, args) = (guest.text("image").await?, guest.put_tree([]).await?);
            let calls =
                vec![Call { image: image.clone(), args }, Call { image: image.clone(), args }];
            let mut text = String::new();
            for result in guest.host().run_many(calls).await {
                text += &String::from_utf8_lossy(&guest.host().get(result?.id).await?);
            }
            let third = guest.run(&image, args).await?;
            text += &String::from_utf8_lossy(&guest.host().get(third.id).await?);
            guest.blob(text).await
        })
        .build()
        .unwrap();
    Fixture::new(runtime)
}

async fn run(fixture: &Fixture, invocation: &Invocation, policy: Policy) -> String {
    let completion = fixture.dispatcher.run(invocation.clone().policy(policy)).await.unwrap();
    fixture.text(completion.outcome)
}

#[tokio::test]
async fn do_not_cache_neither_shares_nor_memoizes_nor_pins() {
    let fixture = counting();
    let invocation = Invocation::new(fixture.image("count")).args(fixture.args(&[]));
    let callers = (0..3).map(|_| run(&fixture, &invocation, Policy::DoNotCache));
    let mut results = join_all(callers).await;
    results.sort();
    assert_eq!(results, ["1", "2", "3"], "each caller has its own run");
    assert_eq!(fixture.dispatcher.stats().joins, 0);
    assert_eq!(fixture.dispatcher.pins().unwrap(), []);
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "4", "nothing was memoized");
    assert_eq!(run(&fixture, &invocation, Policy::DoNotCache).await, "5");
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "4", "nothing was overwritten");
}

#[tokio::test]
async fn recompute_shares_the_run_and_overwrites_memo_and_pin() {
    let fixture = counting();
    let invocation = Invocation::new(fixture.image("count")).args(fixture.args(&[]));
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "1");
    let results = join_all((0..8).map(|_| run(&fixture, &invocation, Policy::Recompute))).await;
    assert!(results.iter().all(|result| result == "2"), "{results:?}");
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "2");
    let pins = fixture.dispatcher.pins().unwrap();
    assert_eq!(pins.len(), 1);
    assert_eq!(fixture.text(pins[0].outcome), "2", "the pin has the same outcome as the memo");
}

#[tokio::test]
async fn only_recompute_all_recomputes_nested_runs() {
    let fixture = counting();
    let count = fixture.image("count");
    let invocation =
        Invocation::new(fixture.image("twice")).args(fixture.args(&[("image", &count)]));
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "111");
    assert_eq!(run(&fixture, &invocation, Policy::Recompute).await, "111");
    assert_eq!(
        run(&fixture, &invocation, Policy::RecomputeAll).await,
        "222",
        "a nested request is recomputed once within a call"
    );
    assert_eq!(
        run(&fixture, &invocation, Policy::DoNotCache).await,
        "222",
        "nested runs use the memo"
    );
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "222");
}

#[tokio::test]
async fn recompute_detects_a_guest_that_is_not_a_pure_function() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let runs = Arc::new(AtomicUsize::new(0));
    let runtime = NativeRuntime::builder("counting", "1")
        .guest("count", move |guest| {
            let number = runs.fetch_add(1, Ordering::Relaxed);
            async move { guest.blob(number.to_string()).await }
        })
        .guest("constant", |guest| async move { guest.blob("the same").await })
        .build()
        .unwrap();
    let fixture = Fixture::with(runtime, |builder| {
        let events = Arc::clone(&events);
        builder.on_event(move |event: &Event<'_>| {
            if let Event::Diverged { request, memoized, recomputed } = event {
                events.lock().unwrap().push((*request, **memoized, **recomputed));
            }
        })
    });
    for name in ["count", "constant"] {
        let invocation = Invocation::new(fixture.image(name)).args(fixture.args(&[]));
        run(&fixture, &invocation, Policy::Reuse).await;
        run(&fixture, &invocation, Policy::Recompute).await;
    }
    let events = events.lock().unwrap();
    let [(_, remembered, recomputed)] = events[..] else { panic!("{events:?}") };
    assert_eq!(
        (fixture.text(remembered), fixture.text(recomputed)),
        ("0".to_owned(), "1".to_owned())
    );
}

#[tokio::test]
async fn a_do_not_cache_run_that_requests_itself_is_a_cycle() {
    let runtime = NativeRuntime::builder("loops", "1")
        .guest("again", |guest| async move {
            let (image, args) = (guest.job().image.to_string(), guest.job().args);
            let nested = guest.run(&image, args).await?;
            guest
                .put_tree([argument("nested", ObjectRef::blob(nested.id))])
                .await
                .map(ObjectRef::tree)
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation =
        Invocation::new(fixture.image("again")).args(fixture.args(&[])).policy(Policy::DoNotCache);
    let error = fixture.dispatcher.run(invocation).await.unwrap_err();
    assert!(format!("{error:?}").contains("a cycle of requests"), "{error:?}");
}

/// A dispatcher with the guests `count`, which returns how many times it was run, and `above`,
/// which runs its argument `image`, then waits for a permit of `gate`, and returns the nested
/// outcome.
fn gated(gate: &Arc<Semaphore>) -> Fixture {
    let (gate, runs) = (Arc::clone(gate), Arc::new(AtomicUsize::new(0)));
    let runtime = NativeRuntime::builder("gated", "1")
        .guest("count", move |guest| {
            let number = runs.fetch_add(1, Ordering::Relaxed) + 1;
            async move { guest.blob(number.to_string()).await }
        })
        .guest("above", move |guest| {
            let gate = Arc::clone(&gate);
            async move {
                let counted =
                    guest.run(&guest.text("image").await?, guest.put_tree([]).await?).await?;
                gate.acquire().await.map_err(|_| Error::guest_failed("closed"))?.forget();
                Ok(counted)
            }
        })
        .build()
        .unwrap();
    Fixture::with(runtime, |builder| builder.permits(4))
}

#[tokio::test]
async fn recompute_all_does_not_use_a_flight_that_read_the_memo() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = gated(&gate);
    let count = fixture.image("count");
    let alone = Invocation::new(&count).args(fixture.args(&[]));
    assert_eq!(run(&fixture, &alone, Policy::Reuse).await, "1");
    let invocation =
        Invocation::new(fixture.image("above")).args(fixture.args(&[("image", &count)]));
    let reusing = run(&fixture, &invocation, Policy::Reuse);
    let recomputing = run(&fixture, &invocation, Policy::RecomputeAll);
    let opening = async {
        while fixture.dispatcher.stats().joins == 0 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
    };
    let (reused, recomputed, ()) = futures_util::join!(reusing, recomputing, opening);
    assert_eq!((reused.as_str(), recomputed.as_str()), ("1", "2"));
    assert_eq!(run(&fixture, &alone, Policy::Reuse).await, "2");
}
