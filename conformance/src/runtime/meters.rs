//! Budgets that jobs share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_runtime_api::{Call, Error, Job, Limit, Meter, ObjectRef};

use super::RuntimeFixture;
use super::nesting::Gate;
use super::setup::{POLL, Running, Setup, breach, wait_until};
use crate::check::{Step, ensure, ensure_eq, short, skip, violation};
use crate::program::Program;

const MIB: u64 = 1 << 20;
/// What each job of `Program::Hold` holds.
const HELD_BYTES: u64 = 4 * MIB;
/// The budget that these jobs share.
const BUDGET_BYTES: u64 = 6 * HELD_BYTES;

fn hold(setup: &Setup, meter: &Arc<Meter>, image: &str, args: ObjectRef) -> Step<Job> {
    let args =
        [("bytes", setup.blob(HELD_BYTES.to_string())), ("image", setup.blob(image)), ("in", args)];
    let job = setup.job(Program::Hold, &args)?;
    Ok(job.limits(setup.patient_limits()).meter(Arc::clone(meter)))
}

/// > A runtime charges the meter in addition to enforcing the frame's own `Limits`. If the meter
/// > returns an error, the runtime stops the guest.
///
/// Two jobs of `Program::Spin` use up one budget of fuel. A job that starts later has none left.
pub(super) async fn jobs_share_a_budget_of_fuel(fixture: Arc<dyn RuntimeFixture>) -> Step {
    const UNITS: u64 = 1_000_000;
    let setup = Setup::new(fixture);
    if !setup.runtime.capabilities().fuel {
        return skip("the runtime measures no fuel");
    }
    let meter = Arc::new(Meter::new(UNITS, u64::MAX));
    let limits = setup.patient_limits();
    let job = |program| -> Step<Job> {
        let job = setup.job(program, &[("in", setup.blob("hello"))])?;
        Ok(job.limits(limits).meter(Arc::clone(&meter)))
    };
    let jobs = [setup.start(job(Program::Spin)?), setup.start(job(Program::Spin)?)];
    for running in jobs {
        let what = "Program::Spin with a budget of fuel";
        let error = running.end().await?.err();
        let error = error.ok_or_else(|| violation(format!("{what} to fail"), "an outcome"))?;
        let limit = breach(what, &error)?;
        ensure_eq("the limit that is breached", limit, Limit::TotalFuel { units: UNITS })?;
    }
    ensure(meter.is_breached(), "the meter to be breached", || format!("{meter:?}"))?;
    let what = "Program::Echo with a budget of fuel that is used up";
    let limit = setup.breach(what, job(Program::Echo)?).await?;
    ensure_eq("the limit that is breached", limit, Limit::TotalFuel { units: UNITS })?;
    setup.echo("a breach of a budget of fuel").await
}

/// Waits until each of `jobs` waits at the gate or has ended. Whether it does in time does not
/// matter here.
async fn settle(setup: &Setup, gate: &Gate, jobs: &[Running]) {
    let ended = || jobs.iter().filter(|running| running.has_ended()).count();
    wait_until(setup.fixture.patience(), || gate.arrived() + ended() >= jobs.len()).await;
}

fn is_over_budget(error: &Error) -> Step<bool> {
    let limit = breach("Program::Hold with a budget of memory", error)?;
    Ok(limit == Limit::TotalMemory { bytes: BUDGET_BYTES })
}

/// > A runtime charges the meter in addition to enforcing the frame's own `Limits`. If the meter
/// > returns an error, the runtime stops the guest.
///
/// 16 jobs of `Program::Hold` hold 4 MiB each while they wait at once, and share a budget of
/// 24 MiB. Some of them breach it, and the others are not affected.
pub(super) async fn jobs_share_a_budget_of_memory(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let gate = Gate::new();
    let setup = Setup::with_host(fixture, gate.host());
    let meter = Arc::new(Meter::new(u64::MAX, BUDGET_BYTES));
    let args = setup.tree(&[])?;
    let jobs: Vec<_> = (0..16)
        .map(|_| Ok(setup.start(hold(&setup, &meter, Gate::REFERENCE, args)?)))
        .collect::<Step<_>>()?;
    settle(&setup, &gate, &jobs).await;
    gate.open();
    let (mut succeeded, mut breached) = (0, 0);
    for running in jobs {
        match running.end().await? {
            Ok(outcome) => {
                ensure_eq("the outcome of Program::Hold", outcome, args)?;
                succeeded += 1;
            }
            Err(error) => {
                let expected = format!("Limit::TotalMemory of {BUDGET_BYTES} bytes");
                ensure(is_over_budget(&error)?, expected, || short(&error))?;
                breached += 1;
            }
        }
    }
    ensure(
        breached > 0 && succeeded > 0,
        "some of 16 jobs that hold 4 MiB each to breach a budget of 24 MiB, and some to succeed",
        || format!("{breached} breached it, and {succeeded} succeeded"),
    )?;
    setup.echo("a breach of a budget of memory").await
}

/// > The memory that one guest holds of a `Meter`'s budget. Dropping the reservation returns all of
/// > it.
///
/// Jobs of `Program::Hold` succeed, fail and are dropped, one after the other. Together they use
/// several times the budget that they share, so each has to give back its memory.
pub(super) async fn memory_is_given_back(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let gate = Gate::new();
    let host = gate
        .host()
        .image("same", |call: Call| async move { Ok(ObjectRef::tree(call.args)) })
        .image("failing", |_: Call| async { Err(Error::guest_failed("as the check wants")) });
    let setup = Setup::with_host(fixture, host);
    let meter = Arc::new(Meter::new(u64::MAX, BUDGET_BYTES));
    let args = setup.tree(&[])?;
    for round in 1..=4 {
        finish(&setup, || hold(&setup, &meter, "same", args), |result| result.is_ok()).await?;
        let fails = |result: &Result<_, _>| result.is_err();
        finish(&setup, || hold(&setup, &meter, "failing", args), fails).await?;
        let running = wait(&setup, &gate, round, || hold(&setup, &meter, Gate::REFERENCE, args));
        running.await?.cancel("Program::Hold").await?;
    }
    finish(&setup, || hold(&setup, &meter, "same", args), |result| result.is_ok()).await
}

/// Bounds how often a job is tried again that breaches the budget: a job whose future was dropped
/// before may take some time to give back its memory.
struct Retries {
    start: Instant,
    patience: Duration,
}

impl Retries {
    fn new(setup: &Setup) -> Self {
        Self { start: Instant::now(), patience: setup.fixture.patience() }
    }

    /// Waits a little if `result` is a breach of the budget. Otherwise returns it.
    async fn next(
        &self,
        result: Result<ObjectRef, Error>,
    ) -> Step<Option<Result<ObjectRef, Error>>> {
        if !matches!(&result, Err(error) if error.breached_limit().is_some()) {
            return Ok(Some(result));
        }
        ensure(
            self.start.elapsed() < self.patience,
            "the memory of ended jobs to be given back to their budget",
            || short(&result),
        )?;
        tokio::time::sleep(POLL).await;
        Ok(None)
    }
}

/// Runs a job that has to end with a result that `is_right`.
async fn finish(
    setup: &Setup,
    job: impl Fn() -> Step<Job>,
    is_right: impl Fn(&Result<ObjectRef, Error>) -> bool,
) -> Step {
    let retries = Retries::new(setup);
    loop {
        if let Some(result) = retries.next(setup.run(job()?).await?).await? {
            let expected = "Program::Hold to succeed exactly if its nested run does";
            return ensure(is_right(&result), expected, || short(&result));
        }
    }
}

/// Starts a job that has to wait at `gate`, as the run with this number.
async fn wait(
    setup: &Setup,
    gate: &Gate,
    number: usize,
    job: impl Fn() -> Step<Job>,
) -> Step<Running> {
    let retries = Retries::new(setup);
    let patience = setup.fixture.patience();
    let expected = || format!("Program::Hold to start a run within {patience:?}");
    loop {
        let running = setup.start(job()?);
        wait_until(patience, || gate.arrived() >= number || running.has_ended()).await;
        if gate.arrived() >= number {
            return Ok(running);
        }
        if let Some(result) = retries.next(running.end().await?).await? {
            return Err(violation(expected(), short(&result)));
        }
    }
}
