//! The guest that has the turn on a V8 thread: measures its computing time, and lets other threads
//! stop it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deno_core::v8;
use manifold_runtime_api::Error;
use parking_lot::Mutex;

use super::Stop;
use crate::job::Frame;

/// One turn: the guest runs on the thread until it waits or ends.
struct Turn {
    frame: Arc<Frame>,
    isolate: v8::IsolateHandle,
    since: Instant,
    stop: Option<(Stop, Instant)>,
}

/// The current turn of a V8 thread, if any.
#[derive(Default)]
pub(crate) struct Turns(Mutex<Option<Turn>>);

/// A guest that did not stop after a stop request.
pub(crate) struct Stuck {
    pub(crate) frame: Arc<Frame>,
    pub(crate) stop: Stop,
}

impl Stuck {
    /// Returns the error with which the guest's job ends.
    pub(crate) fn error(&self) -> Error {
        self.stop.error(&self.frame.job.limits)
    }
}

impl Turns {
    /// Begins a turn of `frame` in `isolate`. Stops it at once if the job was cancelled before.
    pub(crate) fn begin(&self, frame: Arc<Frame>, isolate: v8::IsolateHandle) {
        let mut turn = self.0.lock();
        let begun = turn.insert(Turn { frame, isolate, since: Instant::now(), stop: None });
        // A job that is cancelled later finds the turn.
        if begun.frame.is_cancelled() {
            begun.stop(Stop::Cancelled);
        }
    }

    /// Ends the turn, after which it can no longer be stopped. Returns the reason why it was
    /// stopped, if it was.
    pub(crate) fn end(&self) -> Option<Stop> {
        let turn = self.0.lock().take()?;
        turn.frame.add_computing_time(turn.since.elapsed());
        turn.isolate.cancel_terminate_execution();
        turn.stop.map(|(stop, _)| stop)
    }

    /// Stops the guest that has the turn.
    pub(crate) fn stop_current(&self, stop: Stop) {
        if let Some(turn) = self.0.lock().as_mut() {
            turn.stop(stop);
        }
    }

    /// Stops the frame with this id if it has the turn.
    pub(crate) fn stop_frame(&self, frame: u64, stop: Stop) {
        if let Some(turn) = self.0.lock().as_mut().filter(|turn| turn.frame.id == frame) {
            turn.stop(stop);
        }
    }

    /// Stops the guest if it exceeded its computing time. Returns it if it has not stopped within
    /// `patience` after a stop request.
    pub(crate) fn check(&self, patience: Duration) -> Option<Stuck> {
        let mut turn = self.0.lock();
        let turn = turn.as_mut()?;
        if turn.frame.computing_time() + turn.since.elapsed() > turn.frame.job.limits.compute_time {
            turn.stop(Stop::ComputeTime);
        }
        let (stop, since) = turn.stop?;
        // Repeated, because a guest that keeps hitting the cause of the stop may have missed the
        // first request.
        turn.isolate.terminate_execution();
        (since.elapsed() > patience).then_some(Stuck { frame: Arc::clone(&turn.frame), stop })
    }

    /// Takes the guest that has the turn, with the reason of an earlier stop request or else
    /// `reason`. For a thread that cannot continue.
    pub(crate) fn take_stuck(&self, reason: Stop) -> Option<Stuck> {
        let turn = self.0.lock().take()?;
        let stop = turn.stop.map_or(reason, |(stop, _)| stop);
        Some(Stuck { frame: turn.frame, stop })
    }
}

impl Turn {
    fn stop(&mut self, stop: Stop) {
        self.stop.get_or_insert_with(|| (stop, Instant::now()));
        self.isolate.terminate_execution();
    }
}
