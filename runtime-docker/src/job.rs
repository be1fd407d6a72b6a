//! One job's life: it gets a container, its guest runs, and the end of the container is
//! interpreted. A job that loses its container through no fault of its guest is tried again.

use std::sync::Arc;

use manifold_runtime_api::abi::Session;
use manifold_runtime_api::{
    Error, Host, Job, JobPhase, Limit, MemoryReservation, ObjectRef, Reason, Report, Result, Status,
};

use crate::containers::Containers;
use crate::conversation::{Buffers, End, converse};
use crate::engine::{ATTEMPTS, Container, EXIT_GRACE, EngineError, LOST_ITS_HOST, Step, pause};
use crate::init::Ended;
use crate::prepare::Preparer;
use crate::spec::Spec;
use crate::worker::Worker;

/// Bytes that a container counts in its call's memory budget. Its actual use is not known here, and
/// bounded by its own limit.
const CONTAINER_BYTES: u64 = 4 << 20;

/// Runs a job, with further attempts if it loses its container.
pub(crate) async fn run(
    preparer: &Preparer,
    containers: &Containers,
    job: Job,
    host: Arc<dyn Host>,
) -> Result<ObjectRef> {
    let mut memory = MemoryReservation::new(Arc::clone(&job.meter));
    memory.grow(CONTAINER_BYTES)?;
    let mut memory = Buffers::new(memory);
    let mut attempt = 1;
    loop {
        host.report(Report::Phase(JobPhase::Prepare));
        let spec = preparer.prepare(&job.code, &job.limits, &*host).await?;
        let session = Session::new(job.clone(), Arc::clone(&host));
        session.report(Report::Phase(JobPhase::Queue));
        let run = Run { preparer, containers, spec, session };
        let result = if containers.serve_many_jobs(&run.spec) {
            run.served(&mut memory).await
        } else {
            run.alone(&mut memory).await
        };
        match result {
            Attempt::Done(result) => return result,
            Attempt::Lost(error) if attempt == ATTEMPTS || containers.cannot_reach_the_engine() => {
                return Err(error);
            }
            Attempt::Lost(error) => tracing::debug!("attempt {attempt}: {error}"),
        }
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}

/// The result of an attempt to run a job.
enum Attempt {
    Done(Result<ObjectRef>),
    /// The container was lost through no fault of the guest. Another container may succeed.
    Lost(Error),
}

/// One attempt to run a job.
struct Run<'a> {
    preparer: &'a Preparer,
    containers: &'a Containers,
    spec: Spec,
    session: Session,
}

impl Run<'_> {
    /// Runs the job in a container that has no other at the same time.
    async fn alone(&self, memory: &mut Buffers) -> Attempt {
        let taken = match self.containers.take(&self.spec).await {
            Ok(taken) => taken,
            Err(error) => return self.without_container(error).await,
        };
        self.session.report(Report::Phase(JobPhase::Start));
        let Worker { container, link, .. } = taken.worker();
        let mut wire = match link.begin().await {
            Ok(wire) => wire,
            Err(_) => return self.explain_loss(container).await,
        };
        let end = converse(&mut wire, &self.session, memory).await;
        drop(wire);
        let (result, is_usable) = match end {
            End::Settled => (Attempt::Done(self.session.finish(Ok(()))), true),
            End::Stopped(error) => (Attempt::Done(self.session.finish(Err(error))), false),
            End::Closed { mid_line } => match link.ended() {
                Some(ended) => self.explain_end(ended, mid_line),
                None => (self.explain_loss(container).await, false),
            },
        };
        if is_usable && !self.containers.are_removed_with_the_job() {
            taken.recycle();
        } else {
            let removal = taken.remove();
            if self.containers.are_removed_with_the_job() {
                let _ = removal.await;
            }
        }
        result
    }

    /// Interprets the end of the guest's program. Returns also whether its container can have
    /// another job.
    fn explain_end(&self, ended: Ended, mid_line: bool) -> (Attempt, bool) {
        const SIGKILL: u8 = 9;
        let trapped = |trap: String| Error::new(Reason::Trapped { trap });
        let result = match ended {
            Ended::OutOfMemory => {
                let breach = Limit::Memory { bytes: self.spec.memory_bytes };
                return (self.done(breach.into()), false);
            }
            Ended::CannotStart { problem } => {
                let image = &self.spec.image;
                let problem = format!("cannot run the program of image {image}: {problem}");
                Err(Error::runtime(problem))
            }
            Ended::Killed { signal: SIGKILL } => {
                return (lost("the guest was killed by another program"), false);
            }
            Ended::Exited { status: LOST_ITS_HOST } => {
                return (lost("the guest has lost its connection"), false);
            }
            _ if mid_line => Err(Error::abi_violation("it ended in the middle of a line")),
            Ended::Exited { status: 0 } => Ok(()),
            Ended::Exited { status } => {
                Err(trapped(format!("the process exited with status {status}")))
            }
            Ended::Killed { signal } => {
                Err(trapped(format!("the process was killed by signal {signal}")))
            }
        };
        (Attempt::Done(self.session.finish(result)), true)
    }

    /// Interprets the end of a container that did not say how its guest has ended.
    async fn explain_loss(&self, container: &Container) -> Attempt {
        match container.wait_for_exit(EXIT_GRACE).await {
            Ok(Some(exit)) if exit.out_of_memory => {
                self.done(Limit::Memory { bytes: self.spec.memory_bytes }.into())
            }
            Ok(Some(_)) => {
                lost("the container was killed by another program, or the engine lost it")
            }
            Ok(None) => lost("the connection to the container was lost"),
            Err(EngineError::Refused { code: 404, .. }) => {
                lost("the container was removed by another program")
            }
            Err(error) => Attempt::Lost(error.into()),
        }
    }

    /// Runs the job in a container that serves many.
    async fn served(&self, memory: &mut Buffers) -> Attempt {
        let mut assignment = match self.containers.take_share(&self.spec).await {
            Ok(assignment) => assignment,
            Err(error) => return self.without_container(error).await,
        };
        self.session.report(Report::Phase(JobPhase::Start));
        let Some(wire) = &mut assignment.wire else { return lost("the connection was lost") };
        match converse(wire, &self.session, memory).await {
            End::Settled => {
                assignment.is_settled = true;
                Attempt::Done(self.session.finish(Ok(())))
            }
            End::Stopped(error) => self.done(error),
            // The process that forks guests reports one that ends by itself. This one was killed,
            // perhaps for memory, or the whole container was.
            End::Closed { .. } => lost("the job's process was killed, or its container was"),
        }
    }

    /// Returns the result of an attempt that got no container. The start was already retried, so
    /// the attempt is only repeated where something has changed: the image is looked up again,
    /// containers without a job make room, or a serving container may be replaced.
    async fn without_container(&self, error: EngineError) -> Attempt {
        match &error {
            // The engine has lost the image. The next attempt loads it again, or reports that it is
            // missing.
            EngineError::Refused { step: Step::Create, code: 404, .. } => {
                self.preparer.forget(&self.spec.image)
            }
            // A container without a job is removed to make room.
            EngineError::TooMany { .. } => self.containers.make_room().await,
            EngineError::NotServing { status: Status::Transient, .. } => {}
            _ => return Attempt::Done(Err(error.of_job(&self.spec.image))),
        }
        Attempt::Lost(error.of_job(&self.spec.image))
    }

    fn done(&self, error: Error) -> Attempt {
        Attempt::Done(self.session.finish(Err(error)))
    }
}

fn lost(problem: &str) -> Attempt {
    Attempt::Lost(Error::new(Reason::RuntimeFailed {
        problem: problem.to_owned(),
        status: Status::Transient,
    }))
}
