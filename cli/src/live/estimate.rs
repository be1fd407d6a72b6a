//! [`Estimate`]: how long the rest takes.

use std::time::{Duration, Instant};

/// Over how long a time the rate is averaged.
const MEMORY: f64 = 10.0;
/// How much is done before there is an estimate.
const WARM_UP: Duration = Duration::from_secs(2);

/// Estimates the time that is left from the rate of the last seconds.
pub(super) struct Estimate {
    start: Instant,
    last: Instant,
    done: u64,
    /// Frames in a second.
    rate: f64,
}

impl Estimate {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, last: now, done: 0, rate: 0.0 }
    }

    /// Returns the time that is left when `done` of `expected` frames have run. `None` in the first
    /// seconds.
    pub(super) fn left(&mut self, now: Instant, done: u64, expected: u64) -> Option<Duration> {
        let (passed, whole) = (now - self.last, now - self.start);
        if passed > Duration::ZERO {
            let new = done.saturating_sub(self.done) as f64 / passed.as_secs_f64();
            // In the beginning, this is the average of all.
            let memory = MEMORY.min(whole.as_secs_f64());
            let share = 1.0 - (-passed.as_secs_f64() / memory.max(f64::MIN_POSITIVE)).exp();
            self.rate += share * (new - self.rate);
            (self.last, self.done) = (now, done);
        }
        let left = expected.saturating_sub(done) as f64 / self.rate;
        (whole >= WARM_UP && left.is_finite()).then(|| Duration::from_secs_f64(left.min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_right_for_a_steady_rate_and_does_not_jump() {
        let start = Instant::now();
        let mut estimate = Estimate::new(start);
        let mut last = None;
        for tick in 1..=1000_u64 {
            let now = start + Duration::from_millis(100 * tick);
            // 100 frames a second, in bursts.
            let done = tick / 3 * 30;
            let Some(left) = estimate.left(now, done, 10_000) else {
                assert!(tick < 20);
                continue;
            };
            let left = left.as_secs_f64();
            let right = 100.0 - tick as f64 / 10.0;
            assert!((left - right).abs() < right * 0.15 + 2.0, "{left} s, {right} s at {tick}");
            if let Some(last) = last.replace(left) {
                assert!((left - last).abs() < last * 0.15 + 1.5, "{last} s, then {left} s");
            }
        }
    }
}
