//! The outcome of a job is a function of the job.

use std::sync::Arc;
use std::time::Duration;

use manifold_runtime_api::{Limits, Meter, ObjectRef};

use super::RuntimeFixture;
use super::setup::Setup;
use crate::check::{Step, ensure, ensure_eq, short};
use crate::program::Program;

/// Runs `Program::Probe` and returns its outcome, with the text of it.
async fn probe(setup: &Setup, limits: Limits, meter: Meter) -> Step<(ObjectRef, String)> {
    let job = setup.job(Program::Probe, &[])?.limits(limits).meter(Arc::new(meter));
    let (outcome, object) = setup.outcome("Program::Probe", job).await?;
    Ok((outcome, String::from_utf8_lossy(&object.content).into_owned()))
}

async fn plain_probe(setup: &Setup) -> Step<(ObjectRef, String)> {
    probe(setup, Limits::default(), Meter::unlimited()).await
}

fn ensure_same(what: &str, found: &(ObjectRef, String), first: &(ObjectRef, String)) -> Step {
    ensure(
        found == first,
        format!("Program::Probe to return the same outcome {what}: {}", short(&first.1)),
        || short(&found.1),
    )
}

/// > What a guest observes depends only on its `Job` and on the results of its `Host` calls.
///
/// Runs `Program::Probe` repeatedly on one instance, with some time and another job in between.
pub(super) async fn a_repeated_job_has_the_same_outcome(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    let first = plain_probe(&setup).await?;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        setup.echo("Program::Probe").await?;
        ensure_same("each time", &plain_probe(&setup).await?, &first)?;
    }
    Ok(())
}

/// > Two runtimes with the same host image hash must produce the same outcomes.
///
/// Runs `Program::Probe` on two instances of the runtime, each with a host of its own.
pub(super) async fn another_instance_has_the_same_outcome(
    fixture: Arc<dyn RuntimeFixture>,
) -> Step {
    let first = plain_probe(&Setup::new(Arc::clone(&fixture))).await?;
    let second = Setup::new(fixture);
    second.echo("the start of a second instance").await?;
    ensure_same("on a second instance", &plain_probe(&second).await?, &first)
}

/// > What a guest observes depends only on its `Job` and on the results of its `Host` calls.
///
/// Runs `Program::Probe` 16 times at once on one instance.
pub(super) async fn concurrent_jobs_have_the_same_outcome(
    fixture: Arc<dyn RuntimeFixture>,
) -> Step {
    let setup = Setup::new(fixture);
    let first = plain_probe(&setup).await?;
    let jobs: Vec<_> =
        (0..16).map(|_| Ok(setup.start(setup.job(Program::Probe, &[])?))).collect::<Step<_>>()?;
    for job in jobs {
        let outcome = job.end().await?;
        let outcome = outcome.map_err(|error| {
            crate::check::violation("16 jobs of Program::Probe at once to succeed", short(&error))
        })?;
        let (outcome, object) = setup.object("Program::Probe", outcome)?;
        let text = String::from_utf8_lossy(&object.content).into_owned();
        ensure_same("beside other jobs", &(outcome, text), &first)?;
    }
    Ok(())
}

/// > A limit never changes a memoized outcome: failures are not memoized, and neither is the
/// > outcome of a caller that caught one.
///
/// Runs `Program::Probe` under limits that it does not reach.
pub(super) async fn limits_do_not_change_an_outcome(fixture: Arc<dyn RuntimeFixture>) -> Step {
    const MIB: u64 = 1 << 20;
    let setup = Setup::new(fixture);
    let first = plain_probe(&setup).await?;
    let tight = Limits::default()
        .memory_bytes(setup.fixture.memory_bytes())
        .compute_time(setup.fixture.compute_time())
        .guest_request_bytes(MIB)
        .response_bytes(MIB)
        .log_bytes(MIB / 2);
    ensure_same("under tighter limits", &probe(&setup, tight, Meter::unlimited()).await?, &first)?;
    let meter = || Meter::new(u64::MAX, 1 << 40);
    ensure_same("within a budget", &probe(&setup, Limits::default(), meter()).await?, &first)?;
    if setup.runtime.capabilities().fuel {
        let measured = Limits::default().fuel(Some(u64::MAX / 2));
        let found = probe(&setup, measured, Meter::unlimited()).await?;
        ensure_same("with a limit on its fuel", &found, &first)?;
    }
    Ok(())
}

/// > What a guest observes depends only on its `Job` and on the results of its `Host` calls.
///
/// Runs `Program::Remember` repeatedly. Its global variable starts at 0 in every job.
pub(super) async fn nothing_is_left_for_the_next_job(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let setup = Setup::new(fixture);
    for run in 1..=5 {
        let job = setup.job(Program::Remember, &[])?;
        let value = setup.text("Program::Remember", job).await?;
        ensure_eq(&format!("the outcome of Program::Remember in run {run}"), value.as_str(), "1")?;
    }
    Ok(())
}
