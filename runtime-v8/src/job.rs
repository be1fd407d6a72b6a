//! One job's life: it is sent to a V8 thread, its operations are served until the guest ends, and
//! its outcome is taken from the session.
//!
//! A job has a part that all threads share ([`Frame`]) and a part that lives on the V8 thread
//! ([`Resident`]). The task that runs the job receives [`Event`]s from the thread and sends back the
//! results of operations.

mod conversation;
mod frame;
mod resident;

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use manifold_runtime_api::abi::Session;
use manifold_runtime_api::{Error, Host, Job, JobPhase, Limit, ObjectRef, Report, Result};
use tokio::sync::mpsc;

pub(crate) use frame::{Event, Frame, OperationId, Service};
pub(crate) use resident::{Current, Resident, with, with_current};

use crate::pool::Pool;
use crate::prepare::Program;
use crate::worker::{Message, Worker};

/// The end of one attempt to run a guest.
pub(crate) enum Attempt {
    /// The job has ended with this result.
    Ended(Result<ObjectRef>),
    /// The guest was evicted and can run again, see [`Event::Evicted`].
    Evicted {
        /// Whether the guest may have been the cause.
        suspect: bool,
    },
}

/// Runs the guest once, on the V8 thread that has least to do. Dropping the future stops the guest.
///
/// `id` is new for every attempt. `alone` gives the guest an isolate without other guests.
pub(crate) async fn attempt(
    id: u64,
    job: &Job,
    program: &Arc<Program>,
    host: &Arc<dyn Host>,
    pool: &Pool,
    alone: bool,
) -> Attempt {
    let (events, inbox) = mpsc::unbounded_channel();
    let session = Arc::new(Session::new(job.clone(), Arc::clone(host)));
    let frame = Arc::new(Frame::new(id, Arc::clone(&session), Arc::clone(program), alone, events));
    session.report(Report::Phase(JobPhase::Queue));
    let worker = match pool.admit(&frame) {
        Ok(worker) => worker,
        Err(error) => return Attempt::Ended(Err(error)),
    };
    let guest = Guest { frame, worker };
    match guest.serve(inbox).await {
        End::Over(end) => Attempt::Ended(session.finish(end)),
        End::Evicted { suspect } => Attempt::Evicted { suspect },
    }
}

/// The reason why a V8 thread stopped running a guest.
enum End {
    Over(Result<()>),
    Evicted { suspect: bool },
}

/// The maximum number of operations of one guest that are served concurrently.
const MAX_CONCURRENT_OPERATIONS: usize = 256;

/// A guest on a V8 thread. Dropping this value stops the guest.
struct Guest {
    frame: Arc<Frame>,
    worker: Arc<Worker>,
}

impl Guest {
    /// Serves the guest's operations until it ends or is evicted.
    async fn serve(&self, mut events: mpsc::UnboundedReceiver<Event>) -> End {
        let mut waiting: VecDeque<(OperationId, Service)> = VecDeque::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < MAX_CONCURRENT_OPERATIONS
                && let Some((id, service)) = waiting.pop_front()
            {
                under_way.push(async move { (id, service.await) });
            }
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(Event::Asked(asked)) => waiting.extend(asked),
                    Some(Event::Ended(end)) => return End::Over(end),
                    Some(Event::Evicted { suspect }) => return End::Evicted { suspect },
                    None => return End::Over(Err(Error::runtime(
                        "a V8 thread dropped a guest without reporting its end",
                    ))),
                },
                Some(answer) = under_way.next(), if !under_way.is_empty() => {
                    let mut answers = vec![answer];
                    while let Some(Some(answer)) = under_way.next().now_or_never() {
                        answers.push(answer);
                    }
                    let time = self.frame.job.limits.compute_time;
                    if self.frame.computing_time() > time {
                        return End::Over(Err(Limit::ComputeTime { time }.into()));
                    }
                    if self.frame.session.has_ended() {
                        return End::Over(Ok(()));
                    }
                    self.worker.send(Message::Answers(self.frame.id, answers));
                }
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.frame.is_over() {
            self.worker.cancel(&self.frame);
        }
    }
}
