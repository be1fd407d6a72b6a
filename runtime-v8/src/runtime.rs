use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use deno_core::v8;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use manifold_runtime_api::abi::{self, Session};
use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, Job, Limit, Limits, ObjectId, ObjectKind, Outcome,
    Reason, Result, Runtime, async_trait,
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
/// Every job gets fresh globals in a warm isolate. A job that waits for nested runs keeps those, and no thread.
pub struct V8Runtime {
    host_image: HostImage,
    programs: Programs,
    pool: OnceLock<Result<Arc<Pool>>>,
    threads: usize,
    dynamic_code: bool,
    next_frame: AtomicU64,
}

/// A [`V8Runtime`] whose settings are still being chosen.
#[derive(Debug, Clone)]
pub struct V8RuntimeBuilder {
    threads: usize,
    dynamic_code: bool,
}

impl V8Runtime {
    /// A runtime with default settings.
    ///
    /// V8's flags are those of the process: a program that uses V8 for something else, too, has to run its first job here before.
    ///
    /// # Errors
    /// As [`V8RuntimeBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Starts a runtime.
    pub fn builder() -> V8RuntimeBuilder {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        V8RuntimeBuilder { threads, dynamic_code: false }
    }

    /// V8's threads. If they could not be started once, they are not tried again.
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
            End::Displaced { suspect } => Attempt::Displaced { suspect },
        }
    }
}

impl V8RuntimeBuilder {
    /// How many threads run guests. Default: as many as there are processors. It changes no answer.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Whether guests may make code from text, with `eval` and `new Function`. Default: no. Part of the host image.
    #[must_use]
    pub fn dynamic_code(mut self, allowed: bool) -> Self {
        self.dynamic_code = allowed;
        self
    }

    /// Makes the runtime. V8 itself starts with the first job.
    ///
    /// # Errors
    /// None so far.
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

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<Outcome> {
        let pool = self.pool()?;
        let program = self.programs.get(job.code.own_module()?, &job.limits, &*host, pool).await?;
        let _awake = pool.awake();
        let mut alone = false;
        for _ in 0..ATTEMPTS {
            match self.run_once(pool, &job, &program, &host, alone).await {
                Attempt::Ended(outcome) => return outcome,
                Attempt::Displaced { suspect } => alone |= suspect,
            }
        }
        Err(Error::new(Reason::RuntimeFailed {
            problem: "V8 ran out of memory, again and again, though not through this guest"
                .to_owned(),
            status: manifold_runtime_api::Status::Transient,
        }))
    }
}

/// How an attempt to run a guest ended.
enum Attempt {
    Ended(Result<Outcome>),
    Displaced { suspect: bool },
}

/// How often a guest that others displace is run.
const ATTEMPTS: usize = 32;

/// How a guest's stay on a V8 thread ended.
enum End {
    Over(Result<()>),
    Displaced { suspect: bool },
}

/// How many of a guest's questions are worked on at a time.
const AT_A_TIME: usize = 256;

/// A guest on a V8 thread. Dropping it stops it.
struct Guest {
    frame: Arc<Frame>,
    worker: Arc<Worker>,
}

impl Guest {
    /// Answers what the guest asks until it is over or displaced.
    async fn serve(&self, mut events: mpsc::UnboundedReceiver<Event>) -> End {
        let mut waiting: VecDeque<(OperationId, Service)> = VecDeque::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < AT_A_TIME
                && let Some((id, service)) = waiting.pop_front()
            {
                under_way.push(async move { (id, service.await) });
            }
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(Event::Asked(asked)) => waiting.extend(asked),
                    Some(Event::Ended(end)) => return End::Over(end),
                    Some(Event::Displaced { suspect }) => return End::Displaced { suspect },
                    None => return End::Over(Err(Error::runtime("a V8 thread forgot a guest"))),
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
