//! [`Report`]: the results of many checks.

use std::fmt;
use std::sync::Arc;

use crate::check::{Check, Verdict, Violation};

/// The results of a list of checks. `Display` shows a line for each check, and a summary.
#[derive(Debug, Clone)]
pub struct Report {
    results: Vec<CheckResult>,
}

/// The result of one check in a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckResult {
    /// The name of the check.
    pub name: &'static str,
    /// The sentence of the contract that the check is about.
    pub behavior: &'static str,
    /// Whether the check passed or was skipped, or the violation that it found.
    pub result: Result<Verdict, Violation>,
}

impl Report {
    /// Runs `checks` on `fixture`, one after the other, each as [`Check::run_blocking`] does.
    pub fn run<F>(checks: &[Check<F>], fixture: &Arc<F>) -> Self
    where
        F: ?Sized + Send + Sync + 'static,
    {
        let result = |check: &Check<F>| CheckResult {
            name: check.name(),
            behavior: check.behavior(),
            result: check.run_blocking(Arc::clone(fixture)),
        };
        Self { results: checks.iter().map(result).collect() }
    }

    /// Returns the results in the order of the checks.
    pub fn results(&self) -> &[CheckResult] {
        &self.results
    }

    /// Returns whether no check found a violation. Skipped checks do not count.
    pub fn has_passed(&self) -> bool {
        self.results.iter().all(|result| result.result.is_ok())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut passed, mut skipped, mut failed) = (0, 0, 0);
        for CheckResult { name, behavior, result } in &self.results {
            match result {
                Ok(Verdict::Passed) => {
                    passed += 1;
                    writeln!(f, "passed   {name}")?;
                }
                Ok(Verdict::Skipped { reason }) => {
                    skipped += 1;
                    writeln!(f, "skipped  {name}: {reason}")?;
                }
                Err(violation) => {
                    failed += 1;
                    writeln!(f, "FAILED   {name}: {violation}")?;
                    writeln!(f, "         the contract: {behavior}")?;
                }
            }
        }
        write!(f, "{passed} passed, {skipped} skipped, {failed} failed")
    }
}
