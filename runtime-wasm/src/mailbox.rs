//! How a guest on its fiber and the host outside exchange a request and its response.
//!
//! An import function leaves the request here and suspends the fiber. Whoever polls the fiber takes the request, serves it
//! on an ordinary stack, leaves the response and resumes. So a fiber's stack holds the guest and next to nothing else,
//! whatever depth the host's own code may reach.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use manifold_runtime_api::abi::Encoding;
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct Mailbox(Mutex<State>);

#[derive(Default)]
struct State {
    request: Option<Request>,
    response: Option<Vec<u8>>,
    log: Vec<String>,
    computed: Duration,
    computing_since: Option<Instant>,
}

/// What a guest asks for.
pub(crate) struct Request {
    pub(crate) encoding: Encoding,
    pub(crate) body: Vec<u8>,
}

/// Why a guest's fiber stopped for now.
pub(crate) enum Step<T> {
    /// It wants a request served.
    Request(Request),
    /// It is over.
    Done(T),
}

impl Mailbox {
    /// On the fiber: sends `request` and suspends until there is a response.
    pub(crate) async fn exchange(&self, request: Request) -> Vec<u8> {
        self.0.lock().request = Some(request);
        // Nobody needs waking: `resume` polls again after every response.
        poll_fn(|_| match self.0.lock().response.take() {
            Some(response) => Poll::Ready(response),
            None => Poll::Pending,
        })
        .await
    }

    /// Outside: lets the fiber run until it is over or wants something. Yields to the executor whenever the fiber does.
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

    /// Outside: does all of a job's work. What the guest computes, and what the host works for it, counts as computing time; what
    /// either waits for does not.
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

    pub(crate) fn respond(&self, response: Vec<u8>) {
        self.0.lock().response = Some(response);
    }

    /// How long the guest, and the host on its behalf, have computed by `now`.
    pub(crate) fn computing_time(&self, now: Instant) -> Duration {
        let state = self.0.lock();
        state.computed
            + state
                .computing_since
                .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// On the fiber: leaves a line for the log.
    pub(crate) fn log(&self, line: String) {
        self.0.lock().log.push(line);
    }

    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().log)
    }
}
