//! The clock that measures a root call's time against its deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The clock of one root call. It is paused while none of the call's frames computes and at least
/// one waits for a permit or for its module, because the guests cannot influence how long queueing
/// and compiling take.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// The number of frames with a permit, and [`QUEUEING`] times the number of frames that wait for
    /// a permit or for their module. All frames of a call change it, so it is one atomic number.
    frames: AtomicU64,
    pauses: Mutex<Pauses>,
}

const COMPUTING: u64 = 1;
const QUEUEING: u64 = 1 << 32;

#[derive(Debug, Default)]
struct Pauses {
    /// The total time of all pauses that have ended.
    ended: Duration,
    /// The start of the current pause.
    since: Option<Instant>,
}

impl Clock {
    pub(crate) fn start() -> Arc<Self> {
        let (started, frames, pauses) = (Instant::now(), AtomicU64::new(0), Mutex::default());
        Arc::new(Self { started, frames, pauses })
    }

    /// Returns the time since the start, without pauses.
    pub(crate) fn elapsed(&self) -> Duration {
        let pauses = self.pauses.lock();
        let paused = pauses.ended + pauses.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.started.elapsed().saturating_sub(paused)
    }

    /// Records that a frame got a permit.
    pub(crate) fn start_computing(&self) {
        self.update(COMPUTING);
    }

    /// Records that a frame released its permit.
    pub(crate) fn stop_computing(&self) {
        self.update(COMPUTING.wrapping_neg());
    }

    /// Records that a frame waits for a permit or for its module, until the returned guard is
    /// dropped.
    pub(crate) fn queue(self: &Arc<Self>) -> Queueing {
        self.update(QUEUEING);
        Queueing(Some(Arc::clone(self)))
    }

    /// Adds to the numbers of frames.
    fn update(&self, change: u64) {
        let before = self.frames.fetch_add(change, Ordering::AcqRel);
        if should_pause(before) != should_pause(before.wrapping_add(change)) {
            self.pause_or_go_on();
        }
    }

    /// Begins or ends a pause, according to the current numbers of frames. This is called after every
    /// change that begins or ends one, so the last call sees the last change.
    #[cold]
    fn pause_or_go_on(&self) {
        let mut pauses = self.pauses.lock();
        let should_pause = should_pause(self.frames.load(Ordering::Acquire));
        match pauses.since {
            None if should_pause => pauses.since = Some(Instant::now()),
            Some(since) if !should_pause => {
                pauses.ended += since.elapsed();
                pauses.since = None;
            }
            _ => {}
        }
    }
}

fn should_pause(frames: u64) -> bool {
    frames >= QUEUEING && frames.is_multiple_of(QUEUEING)
}

/// A frame that waits for a permit or for its module.
pub(crate) struct Queueing(Option<Arc<Clock>>);

impl Queueing {
    /// Records that the frame got its permit: it computes, and no longer waits.
    pub(crate) fn start_computing(mut self) {
        if let Some(clock) = self.0.take() {
            clock.update(COMPUTING.wrapping_sub(QUEUEING));
        }
    }
}

impl Drop for Queueing {
    fn drop(&mut self) {
        if let Some(clock) = &self.0 {
            clock.update(QUEUEING.wrapping_neg());
        }
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
