//! The log of a job.

use std::sync::Arc;

use super::RuntimeFixture;
use super::setup::Setup;
use crate::check::{Step, ensure, ensure_eq, short};
use crate::program::Program;

/// > Writes a message to the job's log.
///
/// The messages of two jobs of `Program::Log` are in the logs of their own hosts when the jobs have
/// ended, and the outcomes do not depend on them.
pub(super) async fn messages_reach_the_host(fixture: Arc<dyn RuntimeFixture>) -> Step {
    let first = Setup::new(fixture);
    let mut second = Setup::new(Arc::clone(&first.fixture));
    second.runtime = Arc::clone(&first.runtime);
    for (setup, message) in [(&first, "the first message"), (&second, "die größere Nachricht")] {
        let input = setup.blob(message);
        let (outcome, _) =
            setup.outcome("Program::Log", setup.job(Program::Log, &[("in", input)])?).await?;
        ensure_eq("the outcome of Program::Log", outcome, input)?;
    }
    for (setup, own, other) in [(&first, "first", "größere"), (&second, "größere", "first")] {
        let log = setup.host.log().join("\n");
        let expected = format!("the log to contain the word {own:?} and not {other:?}");
        ensure(log.contains(own) && !log.contains(other), expected, || short(&log))?;
    }
    Ok(())
}

/// > Size of the log that is kept of one job, in bytes. The rest is dropped, and a last line in the
/// > log says so.
///
/// `Program::Log` writes five times as much as the log of its job may contain.
pub(super) async fn the_log_is_limited(fixture: Arc<dyn RuntimeFixture>) -> Step {
    const LIMIT: usize = 1000;
    let setup = Setup::new(fixture);
    let input = setup.blob("#".repeat(5 * LIMIT));
    let limits = setup.patient_limits().log_bytes(LIMIT as u64);
    let job = setup.job(Program::Log, &[("in", input)])?.limits(limits);
    let (outcome, _) = setup.outcome("Program::Log of a long text", job).await?;
    ensure_eq("the outcome of Program::Log", outcome, input)?;
    let log = setup.host.log();
    let kept: usize = log.iter().map(|line| line.matches('#').count()).sum();
    ensure(
        (1..=LIMIT).contains(&kept),
        format!("1 to {LIMIT} bytes of the guest's text in the log"),
        || format!("{kept} bytes"),
    )?;
    let notice = log.last().is_some_and(|line| !line.is_empty() && !line.contains('#'));
    ensure(notice, "a last line in the log that says that the rest was dropped", || {
        short(&log.last())
    })
}
