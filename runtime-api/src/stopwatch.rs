use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::reason::Limit;

/// Measures a guest's computing time and checks it against [`Limits::compute_time`].
///
/// Computing time is the time in which the guest's own code runs. The time in which the guest waits
/// for its host does not count, so a runtime stops the watch before it awaits the host and starts
/// it again afterwards.
///
/// ```
/// use manifold_runtime_api::{Limits, Stopwatch};
///
/// let mut watch = Stopwatch::new(&Limits::default());
/// watch.start();
/// // The guest computes, and calls this now and then:
/// watch.check()?;
/// watch.stop();
/// // The guest waits for its host.
/// assert!(watch.remaining() <= Limits::default().compute_time);
/// # Ok::<(), manifold_runtime_api::Limit>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stopwatch {
    limit: Duration,
    counted: Duration,
    started: Option<Instant>,
}

impl Stopwatch {
    /// Creates a stopped watch that shows zero.
    pub fn new(limits: &Limits) -> Self {
        Self { limit: limits.compute_time, counted: Duration::ZERO, started: None }
    }

    /// Starts counting. Does nothing while the watch runs.
    pub fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// Stops counting. Does nothing while the watch is stopped.
    pub fn stop(&mut self) {
        self.counted = self.elapsed();
        self.started = None;
    }

    /// Returns the computing time so far.
    pub fn elapsed(&self) -> Duration {
        self.counted + self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Returns the computing time that is left. Zero once the limit is reached.
    pub fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.elapsed())
    }

    /// Checks the computing time against the limit.
    ///
    /// # Errors
    /// [`Limit::ComputeTime`] if the guest has used up its computing time.
    pub fn check(&self) -> Result<(), Limit> {
        if self.elapsed() < self.limit { Ok(()) } else { Err(self.breach()) }
    }

    /// Returns the breach that a runtime reports when it stops the guest by another clock of its
    /// own.
    pub fn breach(&self) -> Limit {
        Limit::ComputeTime { time: self.limit }
    }
}
