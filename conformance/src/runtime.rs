//! The checks of a [`Runtime`], and the [`RuntimeFixture`] that they need.

mod cancellation;
mod failures;
mod identity;
mod limits;
mod logs;
mod meters;
mod modules;
mod nesting;
mod objects;
mod outcomes;
mod setup;
mod spy;

use std::sync::Arc;
use std::time::Duration;

use manifold_runtime_api::Runtime;

use crate::behavior;
use crate::check::{Check, conclude};
use crate::module::Module;
use crate::program::Program;

/// Supplies a runtime and its guests to the checks of [`runtime_checks`].
///
/// Only the first two methods are required. The others have defaults that suit a runtime which
/// starts a guest in less than a second.
pub trait RuntimeFixture: Send + Sync + 'static {
    /// Creates a runtime. It is called in a tokio runtime, several times for some checks, and each
    /// time returns a new instance with the same host image.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// Returns the module of a guest that does what `program` specifies, or `None` if no guest of
    /// this runtime can do that. The checks that need the program are then skipped.
    fn module(&self, program: Program) -> Option<Module>;

    /// Returns a module that cannot be loaded, for example because it has a syntax error.
    /// Default: `None`, which skips the check.
    fn unloadable_module(&self) -> Option<Module> {
        None
    }

    /// Returns why the check called `check` does not apply to this runtime. It is then reported as
    /// skipped for this reason. Default: `None`, for every check.
    fn skip_reason(&self, check: &str) -> Option<String> {
        let _ = check;
        None
    }

    /// Returns how many jobs wait for their hosts at once in the check of concurrency.
    /// Default: 64.
    fn waiting_jobs(&self) -> usize {
        64
    }

    /// Returns how deep a guest calls itself in the check of recursion. Default: 200.
    fn recursion_depth(&self) -> usize {
        200
    }

    /// Returns the computing time that the checks of that limit allow. Every program that ends must
    /// need less. Default: 1 s.
    fn compute_time(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Returns the memory that the checks of that limit allow, in bytes. Every program that ends
    /// must need less. Default: 64 MiB.
    fn memory_bytes(&self) -> u64 {
        64 << 20
    }

    /// Returns how long a check waits for something that has to happen, such as the end of a job.
    /// Increase it for a slow runtime. Default: 30 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

macro_rules! list {
    ({} $($module:ident::$name:ident: $behavior:ident,)*) => {
        vec![$(Check {
            name: stringify!($name),
            behavior: behavior::$behavior,
            run: |fixture: Arc<dyn RuntimeFixture>| conclude($module::$name(fixture)),
            skip_reason: |fixture: &dyn RuntimeFixture, name: &str| fixture.skip_reason(name),
            patience: |fixture: &dyn RuntimeFixture| fixture.patience(),
        }),*]
    };
}

/// Returns the checks of a runtime, in the order in which they are best read.
pub fn runtime_checks() -> Vec<Check<dyn RuntimeFixture>> {
    crate::__runtime_checks!([list])
}
