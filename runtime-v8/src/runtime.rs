use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use deno_core::v8;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use manifold_runtime_api::abi::{self, Session};
use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, Job, Limit, Limits, ObjectId, ObjectKind,
    ObjectRef, Reason, Result, Runtime, async_trait,
};
use tokio::sync::mpsc;

use crate::engine;
use crate::frame::{Event, Frame, OperationId, Service};
use crate::pool::Pool;
use crate::program::{Program, Programs};
use crate::snapshot;
use crate::transpile;
use crate::worker::{Message, Worker};

/// Runs TypeScript and JavaScript guests on V8.
///
/// Every job gets fresh globals in a warm isolate. A job that waits for nested runs holds these
/// globals and no thread.
pub struct V8Runtime {
    host_image: HostImage,
    programs: Programs,
    pool: OnceLock<Result<Arc<Pool>>>,
    threads: usize,
    dynamic_code: bool,
    next_frame: AtomicU64,
}

/// Builder of a [`V8Runtime`]. Created by [`V8Runtime::builder`].
#[derive(Debug, Clone)]
pub struct V8RuntimeBuilder {
    threads: usize,
    dynamic_code: bool,
}

impl fmt::Debug for V8Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("V8Runtime")
            .field("host_image", &self.host_image)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl V8Runtime {
    /// Creates a runtime with default settings.
    ///
    /// V8's flags apply to the whole process. A program that also uses V8 for something else has to
    /// run its first job on this runtime before that.
    ///
    /// # Errors
    /// Same as [`V8RuntimeBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Returns a builder with default settings.
    pub fn builder() -> V8RuntimeBuilder {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        V8RuntimeBuilder { threads, dynamic_code: false }
    }

    /// Returns the V8 threads and starts them on the first call. A failure to start them is
    /// permanent.
    fn pool(&self) -> Result<&Arc<Pool>> {
        let start = || {
            snapshot::blob()
                .and_then(|_| Pool::start(self.threads, self.dynamic_code))
                .map(Arc::new)
        };
        self.pool.get_or_init(start).as_ref().map_err(Clone::clone)
    }

    async fn run_once(
        &self,
        pool: &Pool,
        job: &Job,
        program: &Arc<Program>,
        host: &Arc<dyn Host>,
        alone: bool,
    ) -> Attempt {
        let (events, inbox) = mpsc::unbounded_channel();
        let id = self.next_frame.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session::new(job.clone(), Arc::clone(host)));
        let frame =
            Arc::new(Frame::new(id, Arc::clone(&session), Arc::clone(program), alone, events));
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
}

impl V8RuntimeBuilder {
    /// Sets the number of threads that run guests, at least 1. The default is the available
    /// parallelism. It does not influence outcomes.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets whether guests may compile code from text, with `eval` and `new Function`. The default
    /// is `false`. Part of the host image.
    #[must_use]
    pub fn dynamic_code(mut self, allowed: bool) -> Self {
        self.dynamic_code = allowed;
        self
    }

    /// Creates the runtime. V8 itself is started by the first job.
    ///
    /// # Errors
    /// Returns an error if the settings do not form a valid host image.
    pub fn build(self) -> Result<V8Runtime> {
        let prelude = ObjectId::of(ObjectKind::Blob, snapshot::PRELUDE.as_bytes());
        let host_image = HostImage::new("v8")
            .with("engine", v8::V8::get_version())
            .with("processor", std::env::consts::ARCH)
            .with("flags", engine::FLAGS)
            .with("locale", engine::LOCALE)
            .with("time zone", engine::TIME_ZONE)
            .with("transpiler", transpile::TRANSPILER)
            .with("abi", abi::NAME)
            .with("prelude", prelude)
            .with("dynamic code", self.dynamic_code)
            .seal()?;
        Ok(V8Runtime {
            host_image,
            programs: Programs::new(),
            pool: OnceLock::new(),
            threads: self.threads,
            dynamic_code: self.dynamic_code,
            next_frame: AtomicU64::new(0),
        })
    }
}

#[async_trait]
impl Runtime for V8Runtime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules().and_tree_modules()
    }

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.programs.get(code.own_module()?, limits, host, self.pool()?).await.map(|_| ())
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        let pool = self.pool()?;
        let program = self.programs.get(job.code.own_module()?, &job.limits, &*host, pool).await?;
        let _awake = pool.awake();
        let mut alone = false;
        for _ in 0..MAX_ATTEMPTS {
            match self.run_once(pool, &job, &program, &host, alone).await {
                Attempt::Ended(outcome) => return outcome,
                Attempt::Evicted { suspect } => alone |= suspect,
            }
        }
        Err(Error::new(Reason::RuntimeFailed {
            problem: format!(
                "the guest was evicted {MAX_ATTEMPTS} times because other guests exhausted the V8 \
                 heap or lost the V8 thread"
            ),
            status: manifold_runtime_api::Status::Transient,
        }))
    }
}

/// The end of one attempt to run a guest.
enum Attempt {
    Ended(Result<ObjectRef>),
    Evicted { suspect: bool },
}

/// How often a guest is started if it keeps being evicted.
const MAX_ATTEMPTS: usize = 32;

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
