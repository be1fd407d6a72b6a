//! Serves operations on the guest's own V8 thread, between its turns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use manifold_runtime_api::abi::{Answer, Operation};
use manifold_runtime_api::{Error, Limit, Reason, Result};

use crate::job::{Event, Frame, Resident};

/// The result of serving a guest's operations on its V8 thread.
pub(super) enum Served {
    /// Some operations have results.
    Results,
    /// All operations are pending, or there were none.
    Pending,
    /// The job has ended with this result.
    Ended(Result<()>),
}

/// The bytes of results that are collected before the guest takes them. No other limit counts them.
const MAX_UNDELIVERED_BYTES: usize = 1 << 20;

/// Serves the operations of a guest that complete without waiting, as most reads and writes of
/// objects do, so that the guest need not leave its thread for them. The rest is sent to the task
/// that runs the job.
pub(super) fn serve_at_once(resident: &mut Resident) -> Served {
    let frame = Arc::clone(&resident.frame);
    let _reactor = frame.executor.enter();
    let (mut served, mut answered) = (Served::Pending, 0);
    let mut rest = Vec::new();
    let mut asked = std::mem::take(&mut resident.conversation.asked).into_iter();
    for (id, operation) in asked.by_ref() {
        // Between its turns, no other code checks whether a guest was cancelled.
        if frame.is_cancelled() {
            return Served::Ended(Err(Error::new(Reason::Cancelled)));
        }
        let time = frame.job.limits.compute_time;
        if frame.computing_time() > time {
            return Served::Ended(Err(Limit::ComputeTime { time }.into()));
        }
        let nested = matches!(operation, Operation::Run(_) | Operation::RunMany(_));
        let mut service = match operation {
            // A log line has no result.
            Operation::Log(message) => {
                log(&frame, &message);
                continue;
            }
            operation => frame.serve(operation),
        };
        if nested {
            // The dispatcher manages the frame's permit in the task that runs the job.
            rest.push((id, service));
            continue;
        }
        let mut context = Context::from_waker(Waker::noop());
        // A panic of the host must not affect the other guests of this thread.
        match catch_unwind(AssertUnwindSafe(|| service.as_mut().poll(&mut context))) {
            Ok(Poll::Ready(answer)) => {
                if let Ok(Answer::Blob(content)) = &answer {
                    answered += content.len();
                }
                resident.conversation.answer(id, answer);
                served = Served::Results;
            }
            Ok(Poll::Pending) => rest.push((id, service)),
            Err(_) => {
                return Served::Ended(Err(Error::runtime(
                    "the host panicked in an operation of a guest",
                )));
            }
        }
        if frame.session.has_ended() {
            return Served::Ended(Ok(()));
        }
        if answered > MAX_UNDELIVERED_BYTES {
            break;
        }
    }
    resident.conversation.asked = asked.collect();
    if !rest.is_empty() {
        frame.notify(Event::Asked(rest));
    }
    served
}

/// Serves operations that the guest started without awaiting them before its entry returned or
/// failed: log lines, `out` and `fail` still take effect.
pub(super) fn serve_last(resident: &mut Resident) {
    let frame = Arc::clone(&resident.frame);
    for (_, operation) in std::mem::take(&mut resident.conversation.asked) {
        match operation {
            Operation::Log(message) => log(&frame, &message),
            operation @ (Operation::Out(_) | Operation::Fail(_)) => {
                // These complete at the first poll.
                let _ =
                    frame.serve(operation).as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            _ => {}
        }
    }
}

/// Writes to the job's log. The receiver of the log may panic.
fn log(frame: &Frame, message: &str) {
    let _ = catch_unwind(AssertUnwindSafe(|| frame.session.log(message)));
}
