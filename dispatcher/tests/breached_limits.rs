//! Invariant 10: a breached limit is a typed error that names the limit, the guest and the request; the process goes on.
//!
//! Here are the budgets of whole calls; `cli/tests/hostile_guests.rs` has the limits of single frames.

mod fixture;

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fixture::Fixture;
use manifold_dispatcher::api::{Error, Limit, Limits, Outcome, Reason, Status};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use manifold_dispatcher::{Budget, Completion, Invocation, Policy};
use tokio::sync::Semaphore;

/// Guests `count-down`, which nests as deep as its argument says and stores something on every level; `hang`; `try`, which runs
/// another image and answers its error as text; and `gate`, which waits for `gate`.
fn fixture_with(budget: Budget, gate: Arc<Semaphore>) -> Fixture {
    let runtime = NativeRuntime::builder("guests", "1")
        .guest("count-down", count_down)
        .guest("hang", |_| pending())
        .guest("try", |guest| async move {
            let (image, number) = (guest.text("image").await?, guest.required("number").await?);
            let args = guest.put_tree([argument("number", Outcome::blob(number.id))]).await?;
            match guest.run(&image, args).await {
                Ok(outcome) => Ok(outcome),
                Err(error) => guest.blob(error.root_cause().to_string()).await,
            }
        })
        .guest("gate", move |guest| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.map_err(|_| Error::guest_failed("closed"))?.forget();
                guest.blob("through").await
            }
        })
        .build()
        .unwrap();
    Fixture::with(runtime, |builder| builder.budget(budget).permits(1))
}

fn fixture(budget: Budget) -> Fixture {
    fixture_with(budget, Arc::new(Semaphore::new(0)))
}

async fn count_down(guest: NativeGuest) -> Result<Outcome, Error> {
    let number: u32 =
        guest.text("number").await?.parse().map_err(|_| Error::guest_failed("no number"))?;
    if number == 0 {
        return guest.blob("bottom").await;
    }
    let below = Outcome::blob(guest.host().put_blob((number - 1).to_string().into()).await?);
    let args = guest.put_tree([argument("number", below)]).await?;
    guest.run(&guest.job().image, args).await
}

fn counting_down(fixture: &Fixture, number: u32) -> Invocation {
    Invocation::new(fixture.image("count-down"), fixture.args(&[("number", &number.to_string())]))
}

async fn breach(fixture: &Fixture, invocation: Invocation) -> (Limit, Error) {
    let error = fixture.dispatcher.run(invocation.clone()).await.unwrap_err();
    let Reason::LimitBreached(limit) = error.root_cause().reason() else { panic!("{error:?}") };
    let frame = error.root_cause().frame().unwrap();
    assert_eq!((frame.runtime.as_str(), frame.image.len()), ("guests", 40), "the frame is named");
    if !matches!(limit, Limit::Deadline { .. }) {
        assert_ne!(
            frame.request,
            error.frame().unwrap().request,
            "the frame that met the limit, and not the call's"
        );
    }
    assert_eq!(error.breached_limit(), Some(*limit));
    assert!(!error.is_function_of_request());
    let request = error.frame().unwrap().request;
    assert_eq!(fixture.dispatcher.look_up(request).unwrap(), None, "never remembered");
    (*limit, error)
}

#[tokio::test]
async fn the_number_of_runs() {
    let fixture = fixture(Budget::new().runs(10));
    assert!(fixture.dispatcher.run(counting_down(&fixture, 9)).await.is_ok(), "ten runs");
    let (limit, _) = breach(&fixture, counting_down(&fixture, 100)).await;
    assert_eq!(limit, Limit::Runs { count: 10 });
    // Ten more of them are in the memo every time, or none is: the call ended, the dispatcher did not.
    assert!(fixture.dispatcher.run(counting_down(&fixture, 12)).await.is_ok());
}

#[tokio::test]
async fn the_depth() {
    let fixture = fixture(Budget::new().depth(5));
    let (limit, error) = breach(&fixture, counting_down(&fixture, 6)).await;
    assert_eq!(limit, Limit::Depth { levels: 5 });
    assert_eq!(error.chain().count(), 6, "every frame above is in the chain");
    assert!(fixture.dispatcher.run(counting_down(&fixture, 5)).await.is_ok());
}

#[tokio::test]
async fn a_guest_that_survives_a_breach_below_is_not_remembered() {
    let fixture = fixture(Budget::new().depth(5));
    let count_down = fixture.image("count-down");
    let invocation = Invocation::new(
        fixture.image("try"),
        fixture.args(&[("image", &count_down), ("number", "9")]),
    );
    let completion = fixture.dispatcher.run(invocation.clone()).await.unwrap();
    assert!(fixture.text(completion.outcome).contains("nesting of 5 levels"));
    assert_eq!(fixture.dispatcher.look_up(completion.request).unwrap(), None);
}

#[tokio::test]
async fn the_bytes_that_are_stored() {
    let fixture = fixture(Budget::new().written_bytes(1000));
    let (limit, _) = breach(&fixture, counting_down(&fixture, 5000)).await;
    assert_eq!(limit, Limit::WrittenBytes { bytes: 1000 });
    let count_down = fixture.image("count-down");
    let surviving = Invocation::new(
        fixture.image("try"),
        fixture.args(&[("image", &count_down), ("number", "5000")]),
    );
    assert_eq!(
        breach(&fixture, surviving).await.0,
        Limit::WrittenBytes { bytes: 1000 },
        "the whole call ends"
    );
}

#[tokio::test]
async fn an_invocation_narrows_the_budget_and_never_widens_it() {
    let fixture = fixture(Budget::new().runs(10));
    let wide = counting_down(&fixture, 20).budget(Budget::new().runs(1000));
    assert_eq!(breach(&fixture, wide).await.0, Limit::Runs { count: 10 });
    let narrow = counting_down(&fixture, 100).budget(Budget::new().runs(3));
    assert_eq!(breach(&fixture, narrow).await.0, Limit::Runs { count: 3 });
}

#[test]
fn the_deadline_in_a_runtime_without_timers() {
    let threads = tokio::runtime::Builder::new_current_thread().build().unwrap();
    threads.block_on(async {
        let fixture = fixture(Budget::new().deadline(Duration::from_millis(50)));
        let start = Instant::now();
        let (limit, error) =
            breach(&fixture, Invocation::new(fixture.image("hang"), fixture.args(&[]))).await;
        assert_eq!(limit, Limit::Deadline { time: Duration::from_millis(50) });
        assert_eq!(error.status(), Status::Transient);
        assert!(start.elapsed() >= Duration::from_millis(50));
    });
}

#[tokio::test]
async fn a_nested_run_has_no_more_time_than_is_left() {
    let fixture = fixture(Budget::new().deadline(Duration::from_millis(50)));
    let hang = fixture.image("hang");
    let invocation =
        Invocation::new(fixture.image("try"), fixture.args(&[("image", &hang), ("number", "1")]));
    assert_eq!(
        breach(&fixture, invocation).await.0,
        Limit::Deadline { time: Duration::from_millis(50) }
    );
}

#[tokio::test]
async fn the_deadline_does_not_cover_queueing() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new().deadline(Duration::from_secs(60)), Arc::clone(&gate));
    // A trusted guest that waits for something else than its host keeps the only permit.
    let holder = Invocation::new(fixture.image("gate"), fixture.args(&[]));
    let holder = tokio::spawn({
        let dispatcher = fixture.dispatcher.clone();
        async move { dispatcher.run(holder).await }
    });
    while fixture.runs() == 0 {
        tokio::task::yield_now().await;
    }
    let queued =
        counting_down(&fixture, 2).budget(Budget::new().deadline(Duration::from_millis(100)));
    let queued = tokio::spawn({
        let dispatcher = fixture.dispatcher.clone();
        async move { dispatcher.run(queued).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.add_permits(1);
    holder.await.unwrap().unwrap();
    assert_eq!(fixture.text(queued.await.unwrap().unwrap().outcome), "bottom");
}

/// Runs `poor` and then `rich` while a third one holds the only permit, so that they share what they have in common.
async fn meet(
    fixture: &Fixture,
    gate: &Semaphore,
    poor: Invocation,
    rich: Invocation,
) -> (Result<Completion, Error>, Result<Completion, Error>) {
    let run = |invocation: Invocation| {
        let dispatcher = fixture.dispatcher.clone();
        tokio::spawn(async move { dispatcher.run(invocation).await })
    };
    let holder = run(Invocation::new(fixture.image("gate"), fixture.args(&[])));
    while fixture.runs() == 0 {
        tokio::task::yield_now().await;
    }
    let poor = run(poor);
    tokio::task::yield_now().await;
    let rich = run(rich);
    tokio::task::yield_now().await;
    gate.add_permits(1);
    holder.await.unwrap().unwrap();
    (poor.await.unwrap(), rich.await.unwrap())
}

#[tokio::test]
async fn who_may_use_more_is_not_ended_by_the_limit_of_whom_it_shares_with() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new(), Arc::clone(&gate));
    let poor = counting_down(&fixture, 20).budget(Budget::new().runs(5));
    let (poor, rich) = meet(&fixture, &gate, poor, counting_down(&fixture, 20)).await;
    assert_eq!(poor.unwrap_err().breached_limit(), Some(Limit::Runs { count: 5 }));
    assert_eq!(fixture.text(rich.unwrap().outcome), "bottom");
    assert!(fixture.dispatcher.stats().joins > 0, "they have met");
}

/// The rich caller's own frame, and not only the caller, is not ended by what the poor one may not.
#[tokio::test]
async fn a_frame_that_may_use_more_runs_again_what_another_calls_limit_ended() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new(), Arc::clone(&gate));
    let poor = counting_down(&fixture, 20).budget(Budget::new().runs(5));
    let count_down = fixture.image("count-down");
    let rich = Invocation::new(
        fixture.image("try"),
        fixture.args(&[("image", &count_down), ("number", "20")]),
    );
    let (poor, rich) = meet(&fixture, &gate, poor, rich).await;
    assert!(poor.is_err());
    let completion = rich.unwrap();
    assert_eq!(fixture.text(completion.outcome), "bottom");
    assert!(
        fixture.dispatcher.look_up(completion.request).unwrap().is_some(),
        "and owes nothing to the breach"
    );
    assert!(fixture.dispatcher.stats().joins > 0, "they have met");
}

#[tokio::test]
async fn an_outcome_that_a_breach_had_a_part_in_is_not_pinned() {
    let fixture = fixture(Budget::new());
    let count_down = fixture.image("count-down");
    let invocation = Invocation::new(
        fixture.image("try"),
        fixture.args(&[("image", &count_down), ("number", "9")]),
    );
    let good = fixture.dispatcher.run(invocation.clone()).await.unwrap();
    let again = invocation.policy(Policy::RecomputeAll).budget(Budget::new().depth(5));
    let spoilt = fixture.dispatcher.run(again).await.unwrap();
    assert_ne!(spoilt.outcome, good.outcome);
    let pins = fixture.dispatcher.pins().unwrap();
    assert_eq!(pins.iter().map(|pin| pin.outcome).collect::<Vec<_>>(), [good.outcome]);
    assert_eq!(fixture.dispatcher.look_up(good.request).unwrap(), Some(good.outcome));
}

#[tokio::test]
async fn a_bound_on_fuel_is_the_callers_own_affair() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new(), Arc::clone(&gate));
    let invocation = Invocation::new(fixture.image("gate"), fixture.args(&[]));
    let bounded = fixture.dispatcher.run(invocation.clone().budget(Budget::new().fuel(1)));
    let free = fixture.dispatcher.run(invocation);
    gate.add_permits(1);
    let (bounded, free) = futures_util::join!(bounded, free);
    assert!(bounded.unwrap_err().to_string().contains("measures no fuel"));
    assert_eq!(fixture.text(free.unwrap().outcome), "through");
}

#[tokio::test]
async fn a_runtime_that_measures_no_fuel_refuses_a_bound_on_it() {
    let fixture = fixture(Budget::new());
    let error = fixture
        .dispatcher
        .run(counting_down(&fixture, 1).budget(Budget::new().fuel(1000)))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("measures no fuel"), "{error}");
    let mut limits = Limits::default();
    limits.fuel = Some(1000);
    let error =
        fixture.dispatcher.run(counting_down(&fixture, 1).limits(limits)).await.unwrap_err();
    assert!(error.to_string().contains("measures no fuel"), "{error}");
}
