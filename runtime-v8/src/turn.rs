//! Whose turn it is on a V8 thread, and how others stop it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deno_core::v8;
use manifold_runtime_api::{Error, Limit, Limits, Reason};
use parking_lot::Mutex;

use crate::frame::Frame;
use crate::isolate;

/// Why a guest is stopped in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It has computed for longer than it may.
    ComputeTime,
    /// Nobody wants its outcome any more.
    Cancelled,
    /// The heap is full.
    Heap,
}

/// One uninterrupted run of a guest.
struct Turn {
    frame: Arc<Frame>,
    isolate: v8::IsolateHandle,
    since: Instant,
    stop: Option<(Stop, Instant)>,
}

/// The turn of a V8 thread, if there is one.
#[derive(Default)]
pub(crate) struct Turns(Mutex<Option<Turn>>);

/// A guest that was told to stop and does not.
pub(crate) struct Stuck {
    pub(crate) frame: Arc<Frame>,
    pub(crate) stop: Stop,
}

impl Stop {
    /// What the job of a guest with these limits ends with.
    pub(crate) fn error(self, limits: &Limits) -> Error {
        match self {
            Self::ComputeTime => Limit::ComputeTime { time: limits.compute_time }.into(),
            Self::Heap => Limit::Memory { bytes: isolate::heap_bytes(limits) }.into(),
            Self::Cancelled => Error::new(Reason::Cancelled),
        }
    }
}

impl Stuck {
    /// What its job ends with.
    pub(crate) fn error(&self) -> Error {
        self.stop.error(&self.frame.job.limits)
    }
}

impl Turns {
    pub(crate) fn begin(&self, frame: Arc<Frame>, isolate: v8::IsolateHandle) {
        let stop = None;
        *self.0.lock() = Some(Turn { frame, isolate, since: Instant::now(), stop });
    }

    /// Ends the turn. From now on nobody stops it. Answers why it was stopped, if it was.
    pub(crate) fn end(&self) -> Option<Stop> {
        let turn = self.0.lock().take()?;
        turn.frame.add_computing_time(turn.since.elapsed());
        turn.isolate.cancel_terminate_execution();
        turn.stop.map(|(stop, _)| stop)
    }

    /// Stops whoever has the turn.
    pub(crate) fn stop_current(&self, stop: Stop) {
        if let Some(turn) = self.0.lock().as_mut() {
            turn.stop(stop);
        }
    }

    /// Stops the frame if it has the turn.
    pub(crate) fn stop_frame(&self, frame: u64, stop: Stop) {
        if let Some(turn) = self.0.lock().as_mut().filter(|turn| turn.frame.id == frame) {
            turn.stop(stop);
        }
    }

    /// Stops who has computed for too long. Answers who was told to stop and has not within `patience`.
    pub(crate) fn check(&self, patience: Duration) -> Option<Stuck> {
        let mut turn = self.0.lock();
        let turn = turn.as_mut()?;
        if turn.frame.computing_time() + turn.since.elapsed() > turn.frame.job.limits.compute_time {
            turn.stop(Stop::ComputeTime);
        }
        let (stop, since) = turn.stop?;
        // A guest that runs into the reason to stop again and again may have missed the first call.
        turn.isolate.terminate_execution();
        (since.elapsed() > patience).then_some(Stuck { frame: Arc::clone(&turn.frame), stop })
    }

    /// Who has the turn, stopped for this reason if for no other. For threads that cannot go on.
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
