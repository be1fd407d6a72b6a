//! Transpiles files in helper processes, a bounded number at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use manifold_runtime_api::{Error, Limit, ObjectId, Reason, Result, Status};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::helper::{self, Failure, Helper};

/// A set of idle helpers, and the bound on how many work at a time.
pub(crate) struct Transpiler {
    idle: Mutex<Vec<Helper>>,
    /// One for each helper that may work at a time. The number is small because a helper may take
    /// much memory.
    permits: Semaphore,
}

impl Transpiler {
    pub(crate) fn new() -> Self {
        let max_helpers = std::thread::available_parallelism().map_or(1, usize::from);
        Self { idle: Mutex::default(), permits: Semaphore::new(max_helpers) }
    }

    /// Transpiles `text`, the content of the file at `path` of `module`, to JavaScript within
    /// `time`. Returns the code and its source map.
    ///
    /// # Errors
    /// - `BadModule` if the file has an error, with its position. Also if the transpiler exceeds a
    ///   limit; the cause is then `LimitBreached`.
    /// - `Cancelled` if the caller stopped waiting.
    /// - `RuntimeFailed` if no helper can be started, or if it fails for another reason.
    pub(crate) async fn transpile(
        self: &Arc<Self>,
        module: ObjectId,
        path: String,
        text: String,
        time: Duration,
    ) -> Result<(String, String)> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let abandoned = Abandoned::default();
        let (helpers, given_up, of_file) =
            (Arc::clone(self), Arc::clone(&abandoned.0), path.clone());
        let work = move || helpers.transpile_now(&of_file, &text, time, &given_up);
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|error| {
            Error::runtime(format!("the task that transpiles module {module} failed: {error}"))
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
        // A helper ends after it was idle for a while.
        let idle = std::iter::from_fn(|| self.idle.lock().pop()).find_map(Helper::if_alive);
        let was_idle = idle.is_some();
        let mut helper = match idle {
            Some(helper) => helper,
            None => Helper::start()?,
        };
        let mut answer = helper.transpile(path, text, time, abandoned);
        if was_idle && matches!(answer, Err(Failure::Lost(_))) {
            // It may have ended between the check and the request.
            helper = Helper::start()?;
            answer = helper.transpile(path, text, time, abandoned);
        }
        if matches!(answer, Ok(_) | Err(Failure::Refused(_))) {
            self.idle.lock().push(helper);
        }
        answer
    }
}

/// A flag that is set when it is dropped, that is, when the caller no longer waits.
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
            "the code is nested too deeply for the transpiler",
            Limit::TranspilerStack { bytes: helper::STACK_BYTES },
        ),
        Failure::Memory => (
            "transpiling the file takes too much memory",
            Limit::TranspilerMemory { bytes: helper::MEMORY_BYTES },
        ),
        Failure::Time => ("transpiling the file takes too long", Limit::TranspilerTime { time }),
    };
    bad(format!("{path}: {problem}; compile it to JavaScript, which is not transpiled"))
        .caused_by(limit.into())
}
