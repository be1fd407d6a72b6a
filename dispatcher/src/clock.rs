//! The time that counts against a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A clock of one call from outside. It stands still while none of the call's frames computes and some wait for a permit or for
/// their module: neither queueing nor compiling is the guests' doing.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<State>);

#[derive(Debug)]
struct State {
    started: Instant,
    computing: usize,
    queueing: usize,
    stood: Duration,
    stands_since: Option<Instant>,
}

impl Clock {
    pub(crate) fn start() -> Arc<Self> {
        let started = Instant::now();
        Arc::new(Self(Mutex::new(State {
            started,
            computing: 0,
            queueing: 0,
            stood: Duration::ZERO,
            stands_since: None,
        })))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let state = self.0.lock();
        let stood =
            state.stood + state.stands_since.map_or(Duration::ZERO, |since| since.elapsed());
        state.started.elapsed().saturating_sub(stood)
    }

    /// A frame got a permit.
    pub(crate) fn computes(&self) {
        self.change(|state| state.computing += 1);
    }

    /// A frame gave its permit away.
    pub(crate) fn pauses(&self) {
        self.change(|state| state.computing -= 1);
    }

    /// A frame waits for a permit, or its module, until the answer is dropped.
    pub(crate) fn queues(self: &Arc<Self>) -> Queueing {
        self.change(|state| state.queueing += 1);
        Queueing(Arc::clone(self))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        change(&mut state);
        let stands = state.computing == 0 && state.queueing > 0;
        match state.stands_since {
            None if stands => state.stands_since = Some(Instant::now()),
            Some(since) if !stands => {
                state.stood += since.elapsed();
                state.stands_since = None;
            }
            _ => {}
        }
    }
}

pub(crate) struct Queueing(Arc<Clock>);

impl Drop for Queueing {
    fn drop(&mut self) {
        self.0.change(|state| state.queueing -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(30);

    #[test]
    fn it_stands_still_only_while_all_that_is_under_way_waits() {
        let clock = Clock::start();
        let queueing = clock.queues();
        std::thread::sleep(TIME);
        assert!(clock.elapsed() < TIME, "it queues");
        clock.computes();
        std::thread::sleep(TIME);
        assert!(clock.elapsed() >= TIME, "it computes, though something queues");
        clock.pauses();
        drop(queueing);
        let before = clock.elapsed();
        std::thread::sleep(TIME);
        assert!(clock.elapsed() >= before + TIME, "it waits for somebody else's run");
    }
}
