//! Invariant 10: a breached limit is a typed error that names the limit, the guest and the request.
//! The process continues.
//!
//! These tests are about the budgets of root calls. `runtime-wasm/tests/hostile_guests` has those about
//! the limits of single frames.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_dispatcher::api::{
    Capabilities, Error, Host, HostImage, Job, Limit, Limits, ObjectRef, Reason, Runtime, Status,
    async_trait,
};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use manifold_dispatcher::{Budget, Completion, Invocation, Policy};
use manifold_testing::{Fixture, HoldsPermits};
use tokio::sync::Semaphore;

/// A dispatcher with one permit and the guests `count-down`, which nests as deep as its argument
/// `number` says and stores something on every level; `hang`, which never completes; `try`, which
/// runs another image and, if that fails, returns the error as text; `stumble`, which runs `hungry`,
/// which breaches its limit on memory, and then another image; and `gate`, which waits for `gate`.
fn fixture_with(budget: Budget, gate: Arc<Semaphore>) -> Fixture {
    let runtime = NativeRuntime::builder("guests", "1")
        .guest("count-down", count_down)
        .guest("hang", |_| pending())
        .guest("try", |guest| async move {
            let (image, number) = (guest.text("image").await?, guest.required("number").await?);
            let args = guest.put_tree([argument("number", ObjectRef::blob(number.id))]).await?;
            match guest.run(&image, args).await {
                Ok(outcome) => Ok(outcome),
                Err(error) => guest.blob(error.root_cause().to_string()).await,
            }
        })
        .guest("hungry", |_| async { Err(Limit::Memory { bytes: 1 }.into()) })
        .guest("stumble", |guest| async move {
            let (hungry, image) = (guest.text("hungry").await?, guest.text("image").await?);
            let _ = guest.run(&hungry, guest.put_tree([]).await?).await;
            guest.run(&image, guest.job().args).await
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
    Fixture::with(HoldsPermits(runtime), |builder| builder.budget(budget).permits(1))
}

fn fixture(budget: Budget) -> Fixture {
    fixture_with(budget, Arc::new(Semaphore::new(0)))
}

async fn count_down(guest: NativeGuest) -> Result<ObjectRef, Error> {
    let number: u32 =
        guest.text("number").await?.parse().map_err(|_| Error::guest_failed("not a number"))?;
    if number == 0 {
        return guest.blob("bottom").await;
    }
    let below = ObjectRef::blob(guest.host().put_blob((number - 1).to_string().into()).await?);
    let args = guest.put_tree([argument("number", below)]).await?;
    guest.run(&guest.job().image, args).await
}

fn counting_down(fixture: &Fixture, number: u32) -> Invocation {
    Invocation::new(fixture.image("count-down"))
        .args(fixture.args(&[("number", &number.to_string())]))
}

/// Runs `invocation`, which has to breach a limit, and returns the limit and the error.
async fn breach(fixture: &Fixture, invocation: Invocation) -> (Limit, Error) {
    let error = fixture.dispatcher.run(invocation.clone()).await.unwrap_err();
    let Reason::LimitBreached(limit) = error.root_cause().reason() else { panic!("{error:?}") };
    let frame = error.root_cause().frame().unwrap();
    assert_eq!((frame.runtime.as_str(), frame.image.len()), ("guests", 40), "the frame is named");
    if !matches!(limit, Limit::Deadline { .. }) {
        assert_ne!(
            frame.request,
            error.frame().unwrap().request,
            "the frame that breached the limit, not the root call's frame"
        );
    }
    assert_eq!(error.breached_limit(), Some(*limit));
    assert!(!error.is_function_of_request());
    let request = error.frame().unwrap().request;
    assert_eq!(fixture.dispatcher.look_up(request).unwrap(), None, "not memoized");
    (*limit, error)
}

#[tokio::test]
async fn exceeding_the_budget_of_runs_is_an_error() {
    let fixture = fixture(Budget::new().runs(10));
    assert!(fixture.dispatcher.run(counting_down(&fixture, 9)).await.is_ok(), "ten runs");
    let (limit, _) = breach(&fixture, counting_down(&fixture, 100)).await;
    assert_eq!(limit, Limit::Runs { count: 10 });
    // The breach ended the call, not the dispatcher: further calls succeed.
    assert!(fixture.dispatcher.run(counting_down(&fixture, 12)).await.is_ok());
}

#[tokio::test]
async fn exceeding_the_budget_of_depth_is_an_error() {
    let fixture = fixture(Budget::new().depth(5));
    let (limit, error) = breach(&fixture, counting_down(&fixture, 6)).await;
    assert_eq!(limit, Limit::Depth { levels: 5 });
    assert_eq!(error.chain().count(), 6, "every frame above is in the chain");
    assert!(fixture.dispatcher.run(counting_down(&fixture, 5)).await.is_ok());
}

#[tokio::test]
async fn an_outcome_computed_after_catching_a_breach_is_not_memoized() {
    let fixture = fixture(Budget::new().depth(5));
    let count_down = fixture.image("count-down");
    let invocation = Invocation::new(fixture.image("try"))
        .args(fixture.args(&[("image", &count_down), ("number", "9")]));
    let completion = fixture.dispatcher.run(invocation.clone()).await.unwrap();
    assert!(fixture.text(completion.outcome).contains("nesting of 5 levels"));
    assert_eq!(fixture.dispatcher.look_up(completion.request).unwrap(), None);
}

#[tokio::test]
async fn exceeding_the_budget_of_written_bytes_ends_the_root_call() {
    let fixture = fixture(Budget::new().written_bytes(1000));
    let (limit, _) = breach(&fixture, counting_down(&fixture, 5000)).await;
    assert_eq!(limit, Limit::WrittenBytes { bytes: 1000 });
    let count_down = fixture.image("count-down");
    let surviving = Invocation::new(fixture.image("try"))
        .args(fixture.args(&[("image", &count_down), ("number", "5000")]));
    assert_eq!(
        breach(&fixture, surviving).await.0,
        Limit::WrittenBytes { bytes: 1000 },
        "the root call fails even if a guest catches the breach"
    );
}

#[tokio::test]
async fn an_invocation_can_narrow_but_not_widen_the_budget() {
    let fixture = fixture(Budget::new().runs(10));
    let wide = counting_down(&fixture, 20).budget(Budget::new().runs(1000));
    assert_eq!(breach(&fixture, wide).await.0, Limit::Runs { count: 10 });
    let narrow = counting_down(&fixture, 100).budget(Budget::new().runs(3));
    assert_eq!(breach(&fixture, narrow).await.0, Limit::Runs { count: 3 });
}

#[test]
fn a_deadline_works_in_a_tokio_runtime_without_timers() {
    let threads = tokio::runtime::Builder::new_current_thread().build().unwrap();
    threads.block_on(async {
        let fixture = fixture(Budget::new().deadline(Duration::from_millis(50)));
        let start = Instant::now();
        let (limit, error) =
            breach(&fixture, Invocation::new(fixture.image("hang")).args(fixture.args(&[]))).await;
        assert_eq!(limit, Limit::Deadline { time: Duration::from_millis(50) });
        assert_eq!(error.status(), Status::Transient);
        assert!(start.elapsed() >= Duration::from_millis(50));
    });
}

#[tokio::test]
async fn a_nested_run_has_only_the_time_that_is_left() {
    let fixture = fixture(Budget::new().deadline(Duration::from_millis(50)));
    let hang = fixture.image("hang");
    let invocation = Invocation::new(fixture.image("try"))
        .args(fixture.args(&[("image", &hang), ("number", "1")]));
    assert_eq!(
        breach(&fixture, invocation).await.0,
        Limit::Deadline { time: Duration::from_millis(50) }
    );
}

#[tokio::test]
async fn the_deadline_excludes_the_time_in_the_queue() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new().deadline(Duration::from_secs(60)), Arc::clone(&gate));
    // A native guest that waits for something other than its host keeps the only permit.
    let holder = Invocation::new(fixture.image("gate")).args(fixture.args(&[]));
    let holder = tokio::spawn({
        let dispatcher = fixture.dispatcher.clone();
        async move { dispatcher.run(holder).await }
    });
    while fixture.runs() == 0 {
        tokio::task::yield_now().await;
    }
    let queued = counting_down(&fixture, 2).budget(Budget::new().deadline(Duration::from_secs(1)));
    let queued = tokio::spawn({
        let dispatcher = fixture.dispatcher.clone();
        async move { dispatcher.run(queued).await }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    gate.add_permits(1);
    holder.await.unwrap().unwrap();
    assert_eq!(fixture.text(queued.await.unwrap().unwrap().outcome), "bottom");
}

/// Starts `poor` and then `rich` while a third call holds the only permit, so that the two share
/// the runs that they have in common.
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
    let holder = run(Invocation::new(fixture.image("gate")).args(fixture.args(&[])));
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
async fn a_breach_of_a_smaller_budget_does_not_fail_a_call_that_shares_the_run() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new(), Arc::clone(&gate));
    let poor = counting_down(&fixture, 20).budget(Budget::new().runs(5));
    let (poor, rich) = meet(&fixture, &gate, poor, counting_down(&fixture, 20)).await;
    assert_eq!(poor.unwrap_err().breached_limit(), Some(Limit::Runs { count: 5 }));
    assert_eq!(fixture.text(rich.unwrap().outcome), "bottom");
    assert!(fixture.dispatcher.stats().joins > 0, "the calls shared a run");
}

/// A breach of the smaller budget does not reach the frames of the call with the larger one either.
#[tokio::test]
async fn a_frame_with_a_larger_budget_runs_again_what_another_calls_budget_ended() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new(), Arc::clone(&gate));
    // Longer than the turn of a root call, so that the other call joins a run in progress.
    let poor = counting_down(&fixture, 300).budget(Budget::new().runs(200));
    let count_down = fixture.image("count-down");
    let rich = Invocation::new(fixture.image("try"))
        .args(fixture.args(&[("image", &count_down), ("number", "300")]));
    let (poor, rich) = meet(&fixture, &gate, poor, rich).await;
    assert!(poor.is_err());
    let completion = rich.unwrap();
    assert_eq!(fixture.text(completion.outcome), "bottom");
    assert!(
        fixture.dispatcher.look_up(completion.request).unwrap().is_some(),
        "the outcome is memoized, because it does not depend on the breach"
    );
    assert!(fixture.dispatcher.stats().joins > 0, "the calls shared a run");
}

#[tokio::test]
async fn an_outcome_computed_after_catching_a_breach_is_not_pinned() {
    let fixture = fixture(Budget::new());
    let count_down = fixture.image("count-down");
    let invocation = Invocation::new(fixture.image("try"))
        .args(fixture.args(&[("image", &count_down), ("number", "9")]));
    let good = fixture.dispatcher.run(invocation.clone()).await.unwrap();
    let again = invocation.policy(Policy::RecomputeAll).budget(Budget::new().depth(5));
    let impure = fixture.dispatcher.run(again).await.unwrap();
    assert_ne!(impure.outcome, good.outcome);
    let pins = fixture.dispatcher.pins().unwrap();
    assert_eq!(pins.iter().map(|pin| pin.outcome).collect::<Vec<_>>(), [good.outcome]);
    assert_eq!(fixture.dispatcher.look_up(good.request).unwrap(), Some(good.outcome));
}

#[tokio::test]
async fn a_bound_on_fuel_does_not_affect_another_call_of_the_same_request() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new(), Arc::clone(&gate));
    let invocation = Invocation::new(fixture.image("gate")).args(fixture.args(&[]));
    let bounded = fixture.dispatcher.run(invocation.clone().budget(Budget::new().fuel(1)));
    let free = fixture.dispatcher.run(invocation);
    gate.add_permits(1);
    let (bounded, free) = futures_util::join!(bounded, free);
    assert!(bounded.unwrap_err().to_string().contains("measures no fuel"));
    assert_eq!(fixture.text(free.unwrap().outcome), "through");
}

#[tokio::test]
async fn a_bound_on_fuel_is_an_error_if_the_runtime_does_not_measure_fuel() {
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

/// The run has breached two limits, and only the second one binds no other call.
#[tokio::test]
async fn a_breach_of_a_smaller_budget_does_not_hide_behind_another_breach() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new(), Arc::clone(&gate));
    let (hungry, count_down) = (fixture.image("hungry"), fixture.image("count-down"));
    let args = [("hungry", &*hungry), ("image", &count_down), ("number", "20")];
    let stumble = Invocation::new(fixture.image("stumble")).args(fixture.args(&args));
    let poor = stumble.clone().budget(Budget::new().runs(5));
    let (poor, rich) = meet(&fixture, &gate, poor, stumble).await;
    assert!(poor.is_err());
    assert_eq!(fixture.text(rich.unwrap().outcome), "bottom");
    assert!(fixture.dispatcher.stats().joins > 0, "the calls shared a run");
}

/// A runtime that says that it measures fuel.
struct MeasuresFuel(NativeRuntime);

#[async_trait]
impl Runtime for MeasuresFuel {
    fn host_image(&self) -> &HostImage {
        self.0.host_image()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::blob_modules();
        capabilities.fuel = true;
        capabilities
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef, Error> {
        self.0.run(job, host).await
    }
}

/// The request is run for the call with the bound, and the refused run is below it.
#[tokio::test]
async fn a_bound_on_fuel_does_not_affect_another_call_through_a_nested_run() {
    let gate = Arc::new(Semaphore::new(0));
    let fixture = fixture_with(Budget::new(), Arc::clone(&gate));
    let relay = NativeRuntime::builder("relay", "1").guest("relay", |guest| async move {
        guest.run(&guest.text("image").await?, guest.job().args).await
    });
    let relay = MeasuresFuel(relay.build().unwrap());
    let host = relay.host_image().id();
    fixture.dispatcher.add_runtime(relay).unwrap();
    let module = ObjectRef::blob(fixture.dispatcher.put_blob("relay").unwrap());
    let relay = fixture.dispatcher.put_image(host, module).unwrap();
    let count_down = fixture.image("count-down");
    let args = fixture.args(&[("image", &count_down), ("number", "2")]);
    let relay = Invocation::new(relay).args(args);
    let bounded = relay.clone().budget(Budget::new().fuel(1000));
    let (bounded, free) = meet(&fixture, &gate, bounded, relay).await;
    assert!(bounded.unwrap_err().root_cause().to_string().contains("measures no fuel"));
    assert_eq!(fixture.text(free.unwrap().outcome), "bottom");
    assert!(fixture.dispatcher.stats().joins > 0, "the calls shared a run");
}

/// The arguments that an image binds are merged with those of each call and stored.
#[tokio::test]
async fn merged_arguments_count_as_written() {
    let fixture = fixture(Budget::new());
    let names: Vec<_> = (0..40).map(|number| number.to_string()).collect();
    let bound = fixture.args(&names.iter().map(|name| (&**name, "")).collect::<Vec<_>>());
    let curried = fixture.dispatcher.curry(&fixture.image("count-down"), None, bound).unwrap();
    let curried = curried.to_string();
    let invocation = Invocation::new(fixture.image("try"))
        .args(fixture.args(&[("image", &curried), ("number", "0")]));
    let poor = invocation.clone().budget(Budget::new().written_bytes(500));
    let error = fixture.dispatcher.run(poor).await.unwrap_err();
    assert_eq!(error.breached_limit(), Some(Limit::WrittenBytes { bytes: 500 }));
    assert!(fixture.dispatcher.run(invocation).await.is_ok());
}
