//! Exchanges requests and responses between a guest on its fiber and the task that polls the fiber.
//!
//! An import function stores the guest's request here and suspends the fiber. The task that polls
//! the fiber takes the request, serves it on its own stack, stores the response and resumes the
//! fiber. A fiber's stack therefore holds the guest and almost nothing else, however deep the
//! host's own code recurses.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use manifold_runtime_api::abi::Encoding;
use parking_lot::Mutex;

/// One job's pending request, response and log lines, and its computing time.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<State>);

#[derive(Default)]
struct State {
    request: Option<Request>,
    response: Option<Vec<u8>>,
    log: Vec<String>,
    /// Computing time of all polls of the job that have returned.
    computed: Duration,
    /// When the current poll of the job began; `None` between polls.
    computing_since: Option<Instant>,
}

/// A request of a guest, as bytes.
pub(crate) struct Request {
    pub(crate) encoding: Encoding,
    pub(crate) body: Vec<u8>,
}

/// Why a guest's fiber suspended or ended.
pub(crate) enum Step<T> {
    /// It waits for the response to this request.
    Request(Request),
    /// It ended with this result.
    Done(T),
}

impl Mailbox {
    /// Sends `request` and suspends the fiber until there is a response. Called on the fiber.
    pub(crate) async fn exchange(&self, request: Request) -> Vec<u8> {
        self.0.lock().request = Some(request);
        // No waker is needed: `resume` polls again after every response.
        poll_fn(|_| match self.0.lock().response.take() {
            Some(response) => Poll::Ready(response),
            None => Poll::Pending,
        })
        .await
    }

    /// Runs the fiber until it ends or makes a request. Yields to the executor whenever the fiber
    /// does. Called outside the fiber.
    pub(crate) async fn resume<T>(&self, fiber: &mut Pin<Box<impl Future<Output = T>>>) -> Step<T> {
        poll_fn(|context| {
            let polled = fiber.as_mut().poll(context);
            let request = self.0.lock().request.take();
            match (polled, request) {
                (Poll::Ready(done), _) => Poll::Ready(Step::Done(done)),
                (Poll::Pending, Some(request)) => Poll::Ready(Step::Request(request)),
                (Poll::Pending, None) => Poll::Pending,
            }
        })
        .await
    }

    /// Drives `job` and counts the time of each poll as computing time: the guest's own, and what
    /// the host spends on its requests. Time spent waiting does not count. Called outside the
    /// fiber.
    pub(crate) async fn clocked<T>(&self, job: impl Future<Output = T>) -> T {
        let mut job = pin!(job);
        poll_fn(|context| {
            self.0.lock().computing_since = Some(Instant::now());
            let polled = job.as_mut().poll(context);
            let mut state = self.0.lock();
            let stretch =
                state.computing_since.take().map_or(Duration::ZERO, |since| since.elapsed());
            state.computed += stretch;
            polled
        })
        .await
    }

    /// Stores the response to the last request, for the next [`Mailbox::resume`]. Called outside
    /// the fiber.
    pub(crate) fn respond(&self, response: Vec<u8>) {
        self.0.lock().response = Some(response);
    }

    /// Returns the computing time up to `now`: the guest's own, and the host's on its behalf.
    pub(crate) fn computing_time(&self, now: Instant) -> Duration {
        let state = self.0.lock();
        state.computed
            + state
                .computing_since
                .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Adds a line to the pending log lines. Called on the fiber.
    pub(crate) fn log(&self, line: String) {
        self.0.lock().log.push(line);
    }

    /// Removes and returns the pending log lines.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().log)
    }
}
