//! [`Check`]s and their results, and how a check is run.

use std::fmt::{self, Write as _};
use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// The result of a check that found no violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The implementation behaves as the contract requires.
    Passed,
    /// The check does not apply to this implementation, or the fixture does not support it.
    Skipped {
        /// Why the check was skipped.
        reason: String,
    },
}

/// A difference between what a contract requires and what an implementation does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}; found {found}")]
pub struct Violation {
    /// What the contract requires.
    pub expected: String,
    /// What happened instead.
    pub found: String,
}

/// Why a check stops before its end.
pub(crate) enum Stop {
    Skipped(String),
    Violated(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violated(violation)
    }
}

/// The result of one step of a check.
pub(crate) type Step<T = ()> = Result<T, Stop>;

/// Returns the violation that `found` is, where the contract requires `expected`.
pub(crate) fn violation(expected: impl Into<String>, found: impl Into<String>) -> Stop {
    Stop::Violated(Violation { expected: expected.into(), found: found.into() })
}

/// Stops the check as skipped.
pub(crate) fn skip<T>(reason: impl Into<String>) -> Step<T> {
    Err(Stop::Skipped(reason.into()))
}

/// Stops the check with a violation unless `holds`.
pub(crate) fn ensure(
    holds: bool,
    expected: impl Into<String>,
    found: impl FnOnce() -> String,
) -> Step {
    if holds { Ok(()) } else { Err(violation(expected, found())) }
}

/// Stops the check with a violation unless `found` equals `expected`. `what` names the value.
pub(crate) fn ensure_eq<T: PartialEq + fmt::Debug>(what: &str, found: T, expected: T) -> Step {
    ensure(found == expected, format!("{what} to be {}", short(&expected)), || short(&found))
}

/// Returns the `Debug` text of a value, truncated to a length that a report can show.
pub(crate) fn short(value: &impl fmt::Debug) -> String {
    /// A text that refuses to grow beyond its bound, so that a long one is not formatted at all.
    struct Short(String);

    impl fmt::Write for Short {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            const MAX_BYTES: usize = 1000;
            let end = more.floor_char_boundary(MAX_BYTES.saturating_sub(self.0.len()));
            self.0.push_str(&more[..end]);
            if end == more.len() { Ok(()) } else { Err(fmt::Error) }
        }
    }

    let mut text = Short(String::new());
    if write!(text, "{value:?}").is_err() {
        text.0.push('…');
    }
    text.0
}

/// The future of a running check.
pub(crate) type CheckFuture = Pin<Box<dyn Future<Output = Result<Verdict, Violation>> + Send>>;

/// Turns the future of a check's steps into the future of its result.
pub(crate) fn conclude(steps: impl Future<Output = Step> + Send + 'static) -> CheckFuture {
    Box::pin(async move {
        match steps.await {
            Ok(()) => Ok(Verdict::Passed),
            Err(Stop::Skipped(reason)) => Ok(Verdict::Skipped { reason }),
            Err(Stop::Violated(violation)) => Err(violation),
        }
    })
}

/// One check of a contract. `F` is the type of the fixtures that it can be run on, for example
/// `dyn RuntimeFixture`.
pub struct Check<F: ?Sized> {
    pub(crate) name: &'static str,
    pub(crate) behavior: &'static str,
    pub(crate) run: fn(Arc<F>) -> CheckFuture,
    pub(crate) skip_reason: fn(&F, &str) -> Option<String>,
    pub(crate) patience: fn(&F) -> Duration,
}

impl<F: ?Sized> Clone for Check<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: ?Sized> Copy for Check<F> {}

impl<F: ?Sized> fmt::Debug for Check<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("behavior", &self.behavior)
            .finish_non_exhaustive()
    }
}

/// How many times the fixture's patience a whole check may take.
const CHECK_PATIENCE: u32 = 20;

impl<F: ?Sized + Send + Sync + 'static> Check<F> {
    /// Returns the name of the check, which is also the name of the test that the macros generate.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the sentence of the contract that the check is about.
    pub fn behavior(&self) -> &'static str {
        self.behavior
    }

    /// Runs the check. Needs a tokio runtime with a timer and at least two worker threads, since an
    /// implementation that violates its contract can block one of them.
    ///
    /// # Errors
    /// Returns the first [`Violation`] that the check finds.
    pub async fn run(&self, fixture: Arc<F>) -> Result<Verdict, Violation> {
        match (self.skip_reason)(&fixture, self.name) {
            Some(reason) => Ok(Verdict::Skipped { reason }),
            None => (self.run)(fixture).await,
        }
    }

    /// Runs the check in a tokio runtime of its own, and waits for its end. A check that panics, or
    /// that takes twenty times the fixture's patience, is a violation.
    ///
    /// # Errors
    /// Returns the first [`Violation`] that the check finds.
    pub fn run_blocking(&self, fixture: Arc<F>) -> Result<Verdict, Violation> {
        let patience = (self.patience)(&fixture) * CHECK_PATIENCE;
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Violation {
                expected: "a tokio runtime for the check".to_owned(),
                found: error.to_string(),
            })?;
        let check = *self;
        let task = executor.spawn(async move { check.run(fixture).await });
        // A thread that an implementation blocks drives no timer, so the bound on the whole check
        // does not depend on the executor.
        let (sender, receiver) = mpsc::channel();
        executor.spawn(async move { sender.send(task.await) });
        let result = receiver.recv_timeout(patience);
        executor.shutdown_background();
        let found = match result {
            Ok(Ok(result)) => return result,
            Ok(Err(panic)) => format!("the check panicked: {panic}"),
            Err(RecvTimeoutError::Timeout) => "it has not ended".to_owned(),
            Err(RecvTimeoutError::Disconnected) => "its executor ended before it".to_owned(),
        };
        Err(Violation { expected: format!("the check to end within {patience:?}"), found })
    }
}

/// Runs the check `name` of `checks` as a test: panics on a violation, and writes to standard error
/// if the check is skipped. For the macros.
///
/// # Panics
/// Panics if the check finds a violation.
#[doc(hidden)]
#[expect(clippy::panic, reason = "a test fails by a panic")]
pub fn test<F>(checks: &[Check<F>], name: &str, fixture: Arc<F>)
where
    F: ?Sized + Send + Sync + 'static,
{
    let Some(check) = checks.iter().find(|check| check.name == name) else {
        panic!("there is no check {name}");
    };
    match check.run_blocking(fixture) {
        Ok(Verdict::Passed) => {}
        Ok(Verdict::Skipped { reason }) => {
            // Written directly, because the test harness hides what the print macros write. An
            // error is ignored: the skipped check is no failure.
            let _ = writeln!(std::io::stderr(), "skipped {name}: {reason}");
        }
        Err(violation) => panic!("{name}: {violation}\nthe contract: {}", check.behavior),
    }
}
