//! Limits on one frame.

use std::sync::Arc;
use std::time::Duration;

use manifold_runtime_api::{Call, Job, Limit, ObjectRef, TestHost};

use super::RuntimeFixture;
use super::setup::Setup;
use crate::check::{Step, ensure, ensure_eq, short, skip};
use crate::program::Program;

/// The limit on requests and responses in these checks, in bytes.
const SMALL: u64 = 64 << 10;
/// A size that is far beyond that limit, in bytes.
const LARGE: u64 = 1 << 20;

/// Runs a program that has to breach its computing time.
async fn breaches_computing_time(fixture: Arc<dyn RuntimeFixture>, program: Program) -> Step {
    let setup = Setup::new(fixture);
    let time = setup.fixture.compute_time();
    let job = setup.job(program, &[])?.limits(setup.patient_limits().compute_time(time));
    let what = format!("Program::{program:?} under a limit on its computing time");
    let limit = setup.breach(&what, job).await?;
    ensure_eq("the limit that is breached", limit, Limit::ComputeTime { time })?;
    setup.echo(&what).await
}

/// Runs a program that has to breach its memory.
async fn breaches_memory(fixture: Arc<dyn RuntimeFixture>, program: Program) -> Step {
    let setup = Setup::new(fixture);
    let limits = setup.patient_limits().memory_bytes(setup.fixture.memory_bytes());
    let what = format!("Program::{program:?} under a limit on its memory");
    let limit = setup.breach(&what, setup.job(program, &[])?.limits(limits)).await?;
    ensure(matches!(limit, Limit::Memory { .. }), "Limit::Memory to be breached", || {
        short(&limit)
    })?;
    setup.echo(&what).await
}

/// > Bounds on one frame. Exceeding one ends the frame with `Reason::LimitBreached`.
///
/// `Program::Spin` breaches its computing time.
pub(super) async fn computing_time_is_limited(fixture: Arc<dyn RuntimeFixture>) -> Step {
    breaches_computing_time(fixture, Program::Spin).await
}

/// > Time spent computing. Waiting for nested runs does not count.
///
/// `Program::Relay` waits three times as long as it may compute.
pub(super) async fn waiting_does_not_count_as_computing(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let time: Duration = fixture.compute_time();
    let host = TestHost::new().image("slow", move |call: Call| async move {
        tokio::time::sleep(time * 3).await;
        Ok(ObjectRef::tree(call.args))
    });
    let setup = Setup::with_host(fixture, host);
    let args = setup.tree(&[])?;
    let job = setup.job(Program::Relay, &[("image", setup.blob("slow")), ("in", args)])?;
    let job = job.limits(setup.patient_limits().compute_time(time));
    let (outcome, _) = setup.outcome("Program::Relay of a run that takes long", job).await?;
    ensure_eq("the outcome of Program::Relay", outcome, args)
}

/// > Bounds on one frame. Exceeding one ends the frame with `Reason::LimitBreached`.
///
/// `Program::Hog` breaches its memory.
pub(super) async fn memory_is_limited(fixture: Arc<dyn RuntimeFixture>) -> Step {
    breaches_memory(fixture, Program::Hog).await
}

/// > Bounds on one frame. Exceeding one ends the frame with `Reason::LimitBreached`.
///
/// `Program::SpinAndCatch` cannot turn the breach into an outcome.
pub(super) async fn a_breach_of_computing_time_cannot_be_caught(
    fixture: Arc<dyn RuntimeFixture>,
) -> Step {
    breaches_computing_time(fixture, Program::SpinAndCatch).await
}

/// > Bounds on one frame. Exceeding one ends the frame with `Reason::LimitBreached`.
///
/// `Program::HogAndCatch` cannot turn the breach into an outcome.
pub(super) async fn a_breach_of_memory_cannot_be_caught(fixture: Arc<dyn RuntimeFixture>) -> Step {
    breaches_memory(fixture, Program::HogAndCatch).await
}

fn flood(setup: &Setup, bytes: u64) -> Step<Job> {
    let job = setup.job(Program::Flood, &[("bytes", setup.blob(bytes.to_string()))])?;
    Ok(job.limits(setup.patient_limits().guest_request_bytes(SMALL)))
}

/// > Bounds on one frame. Exceeding one ends the frame with `Reason::LimitBreached`.
///
/// `Program::Flood` stores a blob that is larger than a request may be, and one that is not.
pub(super) async fn requests_are_limited(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let what = format!("Program::Flood of {LARGE} bytes");
    let limit = setup.breach(&what, flood(&setup, LARGE)?).await?;
    ensure_eq("the limit that is breached", limit, Limit::GuestRequest { bytes: SMALL })?;
    let what = "Program::Flood of 1000 bytes";
    let (_, object) = setup.outcome(what, flood(&setup, 1000)?).await?;
    ensure(*object.content == [0; 1000], format!("{what} to store 1000 zeros"), || short(&object))
}

fn measure(setup: &Setup, bytes: u64) -> Step<Job> {
    let input = setup.blob(vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)]);
    let job = setup.job(Program::Measure, &[("in", input)])?;
    Ok(job.limits(setup.patient_limits().response_bytes(SMALL)))
}

/// > Bounds on one frame. Exceeding one ends the frame with `Reason::LimitBreached`.
///
/// `Program::Measure` reads a blob that is larger than a response may be, and one that is not.
pub(super) async fn responses_are_limited(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let what = format!("Program::Measure of {LARGE} bytes");
    let limit = setup.breach(&what, measure(&setup, LARGE)?).await?;
    ensure_eq("the limit that is breached", limit, Limit::Response { bytes: SMALL })?;
    let text = setup.text("Program::Measure of 1000 bytes", measure(&setup, 1000)?).await?;
    ensure_eq("the outcome of Program::Measure", text.as_str(), "1000")
}

/// > Whether the runtime measures fuel: it enforces `Limits::fuel` and calls `Meter::burn`.
///
/// `Program::Spin` breaches its fuel. A runtime that measures no fuel is not checked, because a
/// dispatcher refuses to run a job with a limit on it.
pub(super) async fn fuel_is_limited(fixture: Arc<dyn RuntimeFixture>) -> Step {
    const UNITS: u64 = 1_000_000;
    let setup = Setup::new(fixture);
    if !setup.runtime.capabilities().fuel {
        return skip("the runtime measures no fuel");
    }
    let job = setup.job(Program::Spin, &[])?.limits(setup.patient_limits().fuel(Some(UNITS)));
    let limit = setup.breach("Program::Spin under a limit on its fuel", job).await?;
    ensure_eq("the limit that is breached", limit, Limit::Fuel { units: UNITS })?;
    setup.echo("a breach of the limit on fuel").await
}
