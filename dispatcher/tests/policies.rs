//! What a call uses the memo for: reuse, do not cache, recompute.

mod fixture;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fixture::Fixture;
use futures_util::future::join_all;
use manifold_dispatcher::api::{Call, Error, Outcome};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Event, Invocation, Policy};
use tokio::sync::Semaphore;

/// A guest `count` that is no function: it answers how often it was run. And `twice`, which runs it twice.
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
async fn what_is_not_to_be_cached_is_neither_shared_nor_remembered_nor_pinned() {
    let fixture = counting();
    let invocation = Invocation::new(fixture.image("count"), fixture.args(&[]));
    let callers = (0..3).map(|_| run(&fixture, &invocation, Policy::DoNotCache));
    let mut answers = join_all(callers).await;
    answers.sort();
    assert_eq!(answers, ["1", "2", "3"], "each caller has a run of its own");
    assert_eq!(fixture.dispatcher.stats().joins, 0);
    assert_eq!(fixture.dispatcher.pins().unwrap(), []);
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "4", "nothing was remembered");
    assert_eq!(run(&fixture, &invocation, Policy::DoNotCache).await, "5");
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "4", "and nothing was overwritten");
}

#[tokio::test]
async fn recomputing_is_shared_and_overwrites() {
    let fixture = counting();
    let invocation = Invocation::new(fixture.image("count"), fixture.args(&[]));
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "1");
    let answers = join_all((0..8).map(|_| run(&fixture, &invocation, Policy::Recompute))).await;
    assert!(answers.iter().all(|answer| answer == "2"), "{answers:?}");
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "2");
    let pins = fixture.dispatcher.pins().unwrap();
    assert_eq!(pins.len(), 1);
    assert_eq!(fixture.text(pins[0].outcome), "2", "the pin goes with the memo");
}

#[tokio::test]
async fn recomputing_leaves_what_is_below_to_the_memo_unless_all_is_wanted() {
    let fixture = counting();
    let count = fixture.image("count");
    let invocation = Invocation::new(fixture.image("twice"), fixture.args(&[("image", &count)]));
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "111");
    assert_eq!(run(&fixture, &invocation, Policy::Recompute).await, "111");
    assert_eq!(
        run(&fixture, &invocation, Policy::RecomputeAll).await,
        "222",
        "run once, however often it is wanted"
    );
    assert_eq!(
        run(&fixture, &invocation, Policy::DoNotCache).await,
        "222",
        "what is below is shared as ever"
    );
    assert_eq!(run(&fixture, &invocation, Policy::Reuse).await, "222");
}

#[tokio::test]
async fn a_guest_that_is_no_function_is_found_out_by_recomputing() {
    let told = Arc::new(Mutex::new(Vec::new()));
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
        let told = Arc::clone(&told);
        builder.observer(Arc::new(move |event: &Event<'_>| {
            if let Event::Diverged { request, remembered, recomputed } = event {
                told.lock().unwrap().push((*request, **remembered, **recomputed));
            }
        }))
    });
    for name in ["count", "constant"] {
        let invocation = Invocation::new(fixture.image(name), fixture.args(&[]));
        run(&fixture, &invocation, Policy::Reuse).await;
        run(&fixture, &invocation, Policy::Recompute).await;
    }
    let told = told.lock().unwrap();
    let [(_, remembered, recomputed)] = told[..] else { panic!("{told:?}") };
    assert_eq!(
        (fixture.text(remembered), fixture.text(recomputed)),
        ("0".to_owned(), "1".to_owned())
    );
}

#[tokio::test]
async fn a_private_run_that_reaches_itself_is_a_cycle() {
    let runtime = NativeRuntime::builder("loops", "1")
        .guest("again", |guest| async move {
            let (image, args) = (guest.job().image.to_string(), guest.job().args);
            let nested = guest.run(&image, args).await?;
            guest.put_tree([argument("nested", Outcome::blob(nested.id))]).await.map(Outcome::tree)
        })
        .build()
        .unwrap();
    let fixture = Fixture::new(runtime);
    let invocation =
        Invocation::new(fixture.image("again"), fixture.args(&[])).policy(Policy::DoNotCache);
    let error = fixture.dispatcher.run(invocation).await.unwrap_err();
    assert!(format!("{error:?}").contains("a cycle of requests"), "{error:?}");
}

/// `gate` waits for a permit of the semaphore; `above` runs `count`, then `gate`, and answers what `count` did.
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
async fn recomputing_all_is_not_content_with_what_another_call_took_from_the_memo() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = gated(&gate);
    let count = fixture.image("count");
    let alone = Invocation::new(&count, fixture.args(&[]));
    assert_eq!(run(&fixture, &alone, Policy::Reuse).await, "1");
    let invocation = Invocation::new(fixture.image("above"), fixture.args(&[("image", &count)]));
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
