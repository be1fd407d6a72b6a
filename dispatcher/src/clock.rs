//! The clock that measures a root call's time against its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The clock of one root call. It is paused while none of the call's frames computes and at least
/// one waits for a permit or for its module, because the guests cannot influence how long queueing
/// and compiling take.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<State>);

#[derive(Debug)]
struct State {
    started: Instant,
    /// The number of frames with a permit.
    computing: usize,
    /// The number of frames that wait for a permit or for their module.
    queueing: usize,
    /// The total time of all pauses that have ended.
    paused: Duration,
    /// The start of the current pause.
    paused_since: Option<Instant>,
}

impl Clock {
    pub(crate) fn start() -> Arc<Self> {
        let started = Instant::now();
        Arc::new(Self(Mutex::new(State {
            started,
            computing: 0,
            queueing: 0,
            paused: Duration::ZERO,
            paused_since: None,
        })))
    }

    /// Returns the time since the start, without pauses.
    pub(crate) fn elapsed(&self) -> Duration {
        let state = self.0.lock();
        let paused =
            state.paused + state.paused_since.map_or(Duration::ZERO, |since| since.elapsed());
        state.started.elapsed().saturating_sub(paused)
    }

    /// Records that a frame got a permit.
    pub(crate) fn start_computing(&self) {
        self.update(|state| state.computing += 1);
    }

    /// Records that a frame released its permit.
    pub(crate) fn stop_computing(&self) {
        self.update(|state| state.computing -= 1);
    }

    /// Records that a frame waits for a permit or for its module, until the returned guard is
    /// dropped.
    pub(crate) fn queue(self: &Arc<Self>) -> Queueing {
        self.update(|state| state.queueing += 1);
        Queueing(Arc::clone(self))
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        change(&mut state);
        let should_pause = state.computing == 0 && state.queueing > 0;
        match state.paused_since {
            None if should_pause => state.paused_since = Some(Instant::now()),
            Some(since) if !should_pause => {
                state.paused += since.elapsed();
                state.paused_since = None;
            }
            _ => {}
        }
    }
}

/// A frame that waits for a permit or for its module.
pub(crate) struct Queueing(Arc<Clock>);

impl Drop for Queueing {
    fn drop(&mut self) {
        self.0.update(|state| state.queueing -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(30);

    #[test]
    fn the_clock_is_paused_only_while_all_frames_queue() {
        let clock = Clock::start();
        let queueing = clock.queue();
        std::thread::sleep(TIME);
        assert!(clock.elapsed() < TIME, "paused while the only frame waits");
        clock.start_computing();
        std::thread::sleep(TIME);
        assert!(clock.elapsed() >= TIME, "running while a frame computes, although another waits");
        clock.stop_computing();
        drop(queueing);
        let before = clock.elapsed();
        std::thread::sleep(TIME);
        assert!(
            clock.elapsed() >= before + TIME,
            "running while the call waits for another call's run"
        );
    }
}
