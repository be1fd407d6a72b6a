//! [`run`]: the threads of a scan. There is one for each core, and more when they wait for the disk.

use std::num::NonZero;
use std::thread::{self, Builder, Scope};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How many threads read at most when they wait for the disk.
const MAX_THREADS: usize = 32;

/// The jobs of a scan.
pub(super) struct Jobs<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

struct State<J> {
    /// Taken first, the last one first.
    urgent: Vec<J>,
    others: Vec<J>,
    /// How many threads are doing a job, which may add more.
    busy: usize,
    threads: usize,
}

impl<J> State<J> {
    fn take(&mut self) -> Option<J> {
        self.urgent.pop().or_else(|| self.others.pop())
    }
}

impl<J: Send> Jobs<J> {
    /// Adds jobs to be done: `urgent` ones before all others.
    pub(super) fn add(
        &self,
        urgent: impl IntoIterator<Item = J>,
        others: impl IntoIterator<Item = J>,
    ) {
        let mut state = self.state.lock();
        let before = state.urgent.len() + state.others.len();
        state.urgent.extend(urgent);
        state.others.extend(others);
        let added = state.urgent.len() + state.others.len() - before;
        drop(state);
        // The thread that adds them takes one itself.
        for _ in 1..added.min(MAX_THREADS) {
            self.changed.notify_one();
        }
    }
}

/// Does `first` and all jobs that are added meanwhile.
pub(super) fn run<J: Send>(first: J, job: impl Fn(J, &Jobs<J>) + Sync) {
    let state = State { urgent: vec![first], others: Vec::new(), busy: 0, threads: 1 };
    let jobs = Jobs { state: Mutex::new(state), changed: Condvar::new() };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 1..cores {
            start(scope, &jobs, &job);
        }
        work(scope, &jobs, &job);
    });
}

/// Starts another thread. If that is not possible, the others do its jobs.
fn start<'scope, J: Send>(
    scope: &'scope Scope<'scope, '_>,
    jobs: &'scope Jobs<J>,
    job: &'scope (impl Fn(J, &Jobs<J>) + Sync),
) {
    jobs.state.lock().threads += 1;
    let name = "manifold-scan".to_owned();
    if Builder::new().name(name).spawn_scoped(scope, || work(scope, jobs, job)).is_err() {
        jobs.state.lock().threads -= 1;
    }
}

fn work<'scope, J: Send>(
    scope: &'scope Scope<'scope, '_>,
    jobs: &'scope Jobs<J>,
    job: &'scope (impl Fn(J, &Jobs<J>) + Sync),
) {
    let mut waiting = Waiting::default();
    let mut state = jobs.state.lock();
    loop {
        if let Some(next) = state.take() {
            state.busy += 1;
            drop(state);
            let busy = Busy(jobs);
            waiting.measure(|| job(next, jobs));
            drop(busy);
            state = jobs.state.lock();
            let is_behind = state.urgent.len() + state.others.len() > state.threads;
            if is_behind && state.threads < MAX_THREADS && waiting.is_for_the_disk() {
                drop(state);
                start(scope, jobs, job);
                state = jobs.state.lock();
            }
        } else if state.busy == 0 {
            return;
        } else {
            jobs.changed.wait(&mut state);
        }
    }
}

/// A thread that does a job. Also ended by a panic, so that the other threads end.
struct Busy<'a, J>(&'a Jobs<J>);

impl<J> Drop for Busy<'_, J> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy -= 1;
        if state.busy == 0 && state.urgent.is_empty() && state.others.is_empty() {
            self.0.changed.notify_all();
        }
    }
}

/// Measures how long a thread's jobs took, and how much of it the thread neither computed nor waited
/// for a core.
#[derive(Default)]
struct Waiting {
    passed: Duration,
    /// How long the thread had computed, or waited for a core, when `passed` was zero.
    before: Duration,
}

impl Waiting {
    fn measure(&mut self, job: impl FnOnce()) {
        let start = Instant::now();
        job();
        self.passed += start.elapsed();
    }

    /// Returns whether the thread waited for most of the last few milliseconds.
    fn is_for_the_disk(&mut self) -> bool {
        const MEASURED: Duration = Duration::from_millis(10);
        if self.passed < MEASURED {
            return false;
        }
        let Some(runnable) = runnable_time() else { return false };
        let (passed, ran) = (self.passed, runnable.saturating_sub(self.before));
        *self = Self { passed: Duration::ZERO, before: runnable };
        passed > ran * 2
    }
}

/// Returns how long the current thread has computed or waited for a core. `None` where the system
/// does not say that: only Linux does (`/proc/[pid]/schedstat`).
#[cfg(target_os = "linux")]
fn runnable_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    // The file has the computing time, too, but as of the last tick of the scheduler.
    let computed = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).ok()?;
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let waited = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    computed.checked_add(Duration::from_nanos(waited))
}

#[cfg(not(target_os = "linux"))]
fn runnable_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_is_done_also_those_that_jobs_add() {
        let done = AtomicUsize::new(0);
        run(10, |depth: u32, jobs| {
            done.fetch_add(1, Ordering::Relaxed);
            if depth > 0 {
                jobs.add([depth - 1], [depth - 1]);
            }
        });
        assert_eq!(done.into_inner(), (1 << 11) - 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_that_wait_are_joined_by_others() {
        let (waiting, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        run(None, |job, jobs| match job {
            None => jobs.add([], (0..200).map(Some)),
            Some(_) => {
                most.fetch_max(waiting.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
                waiting.fetch_sub(1, Ordering::Relaxed);
            }
        });
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        assert!(most.into_inner() > cores);
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_job_that_panics_ends_the_others() {
        run(0, |job, jobs| match job {
            0 => jobs.add([], 1..100),
            50 => {
                // Not on the thread that called `run`, whose panic would be its own.
                if thread::current().name() == Some("manifold-scan") {
                    panic!("as it should");
                }
                jobs.add([], [50]);
                thread::sleep(Duration::from_millis(1));
            }
            _ => {}
        });
    }
}
