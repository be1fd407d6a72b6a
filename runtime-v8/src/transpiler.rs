//! The helpers that transpile, a few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use manifold_runtime_api::{Error, Limit, ObjectId, Reason, Result, Status};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::helper::{self, Failure, Helper};

/// Helpers that wait for work.
pub(crate) struct Transpiler {
    idle: Mutex<Vec<Helper>>,
    /// Each takes much memory, so there are few at a time.
    permits: Semaphore,
}

impl Transpiler {
    pub(crate) fn new() -> Self {
        let at_a_time = std::thread::available_parallelism().map_or(1, usize::from);
        Self { idle: Mutex::default(), permits: Semaphore::new(at_a_time) }
    }

    /// Makes JavaScript of `text`, the content of the file at `path` of `module`, within `time`. Returns the code and its source
    /// map.
    ///
    /// # Errors
    /// `BadModule` when something is wrong with the file, and where; also when the transpiler needs more than it may have, because
    /// of `LimitBreached`. `RuntimeFailed` when no helper can be started.
    pub(crate) async fn transpile(
        self: &Arc<Self>,
        module: ObjectId,
        path: String,
        text: String,
        time: Duration,
    ) -> Result<(String, String)> {
        // It is never closed.
        let _permit = self.permits.acquire().await;
        let abandoned = Abandoned::default();
        let (helpers, given_up, of_file) =
            (Arc::clone(self), Arc::clone(&abandoned.0), path.clone());
        let work = move || helpers.transpile_now(&of_file, &text, time, &given_up);
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|error| {
            Error::runtime(format!("the transpilation of module {module} was lost: {error}"))
        })?;
        done.map_err(|failure| explain(module, &path, failure, time))
    }

    fn transpile_now(
        &self,
        path: &str,
        text: &str,
        time: Duration,
        abandoned: &AtomicBool,
    ) -> Result<(String, String), Failure> {
        // One that was idle for long has ended.
        let idle = std::iter::from_fn(|| self.idle.lock().pop()).find_map(Helper::if_alive);
        let was_idle = idle.is_some();
        let mut helper = match idle {
            Some(helper) => helper,
            None => Helper::start()?,
        };
        let mut answer = helper.transpile(path, text, time, abandoned);
        if was_idle && matches!(answer, Err(Failure::Lost(_))) {
            // It may have ended just then.
            helper = Helper::start()?;
            answer = helper.transpile(path, text, time, abandoned);
        }
        if matches!(answer, Ok(_) | Err(Failure::Refused(_))) {
            self.idle.lock().push(helper);
        }
        answer
    }
}

/// Told when nobody waits any more.
#[derive(Default)]
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn explain(module: ObjectId, path: &str, failure: Failure, time: Duration) -> Error {
    let bad = |problem: String| Error::new(Reason::BadModule { module, problem });
    let (problem, limit) = match failure {
        Failure::Refused(problem) => return bad(problem),
        Failure::Abandoned => return Error::new(Reason::Cancelled),
        Failure::Lost(error) => {
            return Error::new(Reason::RuntimeFailed {
                problem: format!("the process that transpiles {path} failed: {error}"),
                status: Status::Transient,
            });
        }
        Failure::Stack => (
            "its code is nested too deep for the transpiler",
            Limit::TranspilerStack { bytes: helper::STACK },
        ),
        Failure::Memory => (
            "transpiling it takes too much memory",
            Limit::TranspilerMemory { bytes: helper::MEMORY },
        ),
        Failure::Time => ("transpiling it takes too long", Limit::TranspilerTime { time }),
    };
    bad(format!("{path}: {problem}; JavaScript needs no transpiler")).caused_by(limit.into())
}
