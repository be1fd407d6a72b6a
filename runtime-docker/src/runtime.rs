//! The runtime and its builder: plans a job's container, runs the job, and interprets how the
//! container ended.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifold_runtime_api::abi::Session;
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, ImageRef, Job, Limit, Limits, MemoryReservation,
    ObjectId, ObjectKind, ObjectRef, Reason, Result, Runtime, Status, TreeError, abi, async_trait,
};
use parking_lot::Mutex;

use crate::conversation::{Buffers, End, converse};
use crate::engine::{Container, ContainerEngine, EXIT_GRACE, Shared};
use crate::error::{EngineError, Step};
use crate::image;
use crate::isolation::Isolation;
use crate::pool::Pool;
use crate::retry::{ATTEMPTS, RecentFailure, pause};
use crate::serving::Servers;
use crate::spec::Spec;

/// How a job gets its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// A container is created for the job and removed before the job ends. This is the baseline
    /// without any optimization.
    Fresh,
    /// A container that was started in advance is used for one job and then removed.
    #[default]
    Parked,
    /// One container serves many jobs and forks a process for each.
    Serving,
}

/// Runs guests in containers.
///
/// Registered under its own host image, it runs modules: a module is the tree of a container image,
/// or a blob with the text `docker://<digest>`. Passed to the dispatcher's builder as `containers`,
/// it runs container images (`docker://<digest>`), and keeps the containers warm that are hosts of
/// modules.
pub struct DockerRuntime {
    host_image: HostImage,
    state: Arc<State>,
}

struct State {
    engine: Arc<Shared>,
    mode: Mode,
    isolation: Arc<Isolation>,
    parked: usize,
    image_bytes: u64,
    pools: Mutex<HashMap<Spec, Arc<Pool>>>,
    servers: Mutex<HashMap<Spec, Arc<Servers>>>,
    images: Mutex<HashMap<Source, Arc<Image>>>,
}

/// Where a container image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    /// A tree in the store.
    Tree(ObjectId),
    /// The engine, which has an image of this name.
    Engine(String),
}

/// A container image that is loaded or looked up once.
#[derive(Default)]
struct Image {
    /// Its name in the engine, set once the engine is known to have it.
    name: tokio::sync::OnceCell<Arc<str>>,
    /// The last transient failure to load it or look it up.
    recent_failure: RecentFailure<Error>,
}

/// Builder for a [`DockerRuntime`].
#[derive(Debug, Clone)]
pub struct DockerRuntimeBuilder {
    mode: Mode,
    isolation: Isolation,
    parked: usize,
    idle: Duration,
    image_bytes: u64,
}

impl Default for DockerRuntimeBuilder {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            isolation: Isolation::default(),
            parked: 4,
            idle: Duration::from_secs(60),
            image_bytes: 1 << 30,
        }
    }
}

impl DockerRuntimeBuilder {
    /// Sets how jobs get their containers. Default: [`Mode::Parked`].
    ///
    /// Fresh and parked containers do not differ in anything that a guest can observe, so they
    /// share a host image. Serving containers have their own.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets what containers may do. Part of the host image. Default: [`Isolation::default`].
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Sets how many started containers of an image wait for jobs, at least 1. Default: 4.
    #[must_use]
    pub fn parked(mut self, count: usize) -> Self {
        self.parked = count.max(1);
        self
    }

    /// Sets how long unused containers are kept. Default: 60 s.
    #[must_use]
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }

    /// Sets the maximum size of an image in the store, in bytes. Default: 1 GiB.
    #[must_use]
    pub fn image_bytes(mut self, bytes: u64) -> Self {
        self.image_bytes = bytes;
        self
    }

    /// Builds the runtime on `engine`. Does not connect to the engine yet.
    ///
    /// # Errors
    /// [`Reason::RuntimeFailed`] if the mode is [`Mode::Serving`] and the isolation lets one job of
    /// a container leave data for the next: with a writable root file system, as root, or with
    /// unconfined system calls.
    pub fn build(self, engine: &ContainerEngine) -> Result<DockerRuntime> {
        if let (Mode::Serving, Some(leak)) = (self.mode, self.isolation.leak_between_jobs()) {
            let problem = format!(
                "cannot use serving containers with {leak}: one job could leave data for the next"
            );
            return Err(Error::runtime(problem));
        }
        let host_image = self.host_image()?;
        let state = Arc::new(State {
            engine: Arc::clone(&engine.shared),
            mode: self.mode,
            isolation: Arc::new(self.isolation),
            parked: self.parked,
            image_bytes: self.image_bytes,
            pools: Mutex::default(),
            servers: Mutex::default(),
            images: Mutex::default(),
        });
        engine.shared.handle().spawn(reap(Arc::downgrade(&state), self.idle));
        Ok(DockerRuntime { host_image, state })
    }

    fn host_image(&self) -> Result<HostImage, TreeError> {
        let process = match self.mode {
            Mode::Fresh | Mode::Parked => "a container for each job",
            Mode::Serving => "forked for each job",
        };
        let name = if self.mode == Mode::Serving { "docker-serving" } else { "docker" };
        self.isolation
            .describe(
                HostImage::new(name)
                    .with("abi", abi::NAME)
                    .with("abi-revision", abi::REVISION)
                    .with("process", process),
            )
            .seal()
    }
}

impl fmt::Debug for DockerRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerRuntime")
            .field("host_image", &self.host_image)
            .finish_non_exhaustive()
    }
}

impl DockerRuntime {
    /// Returns a builder with default settings.
    pub fn builder() -> DockerRuntimeBuilder {
        DockerRuntimeBuilder::default()
    }
}

/// Which kind of container a job needs.
enum Plan {
    /// A container for this job alone.
    OneJob(Spec),
    /// A container that serves many jobs.
    ManyJobs(Spec),
}

/// The result of an attempt to run a job.
enum Attempt {
    Done(Result<ObjectRef>),
    /// The container was lost through no fault of the guest. Another container may succeed.
    Lost(Error),
}

/// Bytes that a container counts in its call's memory budget. Its actual use is not known here, and
/// bounded by its own limit.
const CONTAINER_BYTES: u64 = 4 << 20;

#[async_trait]
impl Runtime for DockerRuntime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::blob_modules().and_tree_modules();
        // The key of a request for `docker://…` does not contain the mode or isolation, so there
        // must be only one way to run it.
        let plain =
            self.state.mode != Mode::Serving && *self.state.isolation == Isolation::default();
        if plain { capabilities.and_containers() } else { capabilities }
    }

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        match self.state.plan(code, limits, host).await? {
            Plan::OneJob(spec) if self.state.mode == Mode::Parked => self.state.pool(spec).refill(),
            Plan::OneJob(_) => {}
            Plan::ManyJobs(spec) => self.state.servers(spec).warm().await?,
        }
        Ok(())
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        let mut memory = MemoryReservation::new(Arc::clone(&job.meter));
        memory.grow(CONTAINER_BYTES)?;
        let mut memory = Buffers::new(memory);
        let mut attempt = 1;
        loop {
            let plan = self.state.plan(&job.code, &job.limits, &*host).await?;
            let session = Session::new(job.clone(), Arc::clone(&host));
            let result = match &plan {
                Plan::OneJob(spec) => self.state.attempt_alone(spec, &session, &mut memory).await,
                Plan::ManyJobs(spec) => {
                    self.state.attempt_served(spec, &session, &mut memory).await
                }
            };
            match result {
                Attempt::Done(result) => return result,
                Attempt::Lost(error)
                    if attempt == ATTEMPTS
                        || self.state.engine.connection_failure.check().is_err() =>
                {
                    return Err(error);
                }
                Attempt::Lost(error) => tracing::debug!("attempt {attempt}: {error}"),
            }
            tokio::time::sleep(pause(attempt)).await;
            attempt += 1;
        }
    }
}

impl State {
    /// Chooses the container for `code`, and makes sure that the engine has its image.
    async fn plan(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<Plan> {
        let source = match code {
            Code::Module(module) if module.kind == ObjectKind::Tree => Source::Tree(module.id),
            Code::Module(module) => {
                Source::Engine(reference(module.id, &host.get(module.id).await?)?)
            }
            Code::Container(container) | Code::Hosted { host: container, .. } => {
                Source::Engine(container.as_str().to_owned())
            }
            _ => return Err(Error::runtime("the runtime for containers does not know this code")),
        };
        let memory_bytes = self.isolation.memory_bytes.min(limits.memory_bytes);
        let image = self.image(source, host).await?;
        let hosted = match code {
            Code::Hosted { module, .. } => Some(*module),
            _ => None,
        };
        let many_jobs = self.mode == Mode::Serving || hosted.is_some();
        let spec = Spec { image, memory_bytes, isolation: Arc::clone(&self.isolation), hosted };
        Ok(if many_jobs { Plan::ManyJobs(spec) } else { Plan::OneJob(spec) })
    }

    /// Returns the engine's name of an image. Loads the image or looks it up once, and again after
    /// a failure.
    async fn image(&self, source: Source, host: &dyn Host) -> Result<Arc<str>> {
        let image = Arc::clone(self.images.lock().entry(source.clone()).or_default());
        let found = image.name.get_or_try_init(|| async {
            image.recent_failure.check()?;
            let found = match &source {
                Source::Tree(tree) => {
                    image::load(&self.engine, *tree, host, self.image_bytes).await
                }
                Source::Engine(name) => {
                    image::check(&self.engine, name).await.map(|()| name.as_str().into())
                }
            };
            if let Err(error) = &found
                && error.status() == Status::Transient
            {
                image.recent_failure.record(error);
            }
            found
        });
        found.await.cloned()
    }

    /// Makes the next job load an image or look it up again, because the engine may have lost it.
    fn forget(&self, image: &str) {
        self.images.lock().retain(|_, kept| kept.name.get().is_none_or(|known| **known != *image));
    }

    fn pool(&self, spec: Spec) -> Arc<Pool> {
        get_or_insert(&self.pools, spec, |spec| {
            Pool::new(Arc::clone(&self.engine), spec, self.parked)
        })
    }

    fn servers(&self, spec: Spec) -> Arc<Servers> {
        get_or_insert(&self.servers, spec, |spec| Servers::new(Arc::clone(&self.engine), spec))
    }

    /// Returns the result of an attempt that got no container. The start was already retried, so
    /// the attempt is only repeated where something has changed: the image is looked up again,
    /// parked containers make room, or a serving container may be replaced.
    fn without_container(&self, spec: &Spec, error: EngineError) -> Attempt {
        match &error {
            // The engine has lost the image. The next attempt loads it again, or reports that it is
            // missing.
            EngineError::Refused { step: Step::Create, code: 404, .. } => self.forget(&spec.image),
            // Parked containers are removed to make room.
            EngineError::TooMany { .. } => self.pools.lock().values().for_each(|pool| pool.clear()),
            EngineError::NotServing { status: Status::Transient, .. } => {}
            _ => return Attempt::Done(Err(error.of_job(&spec.image))),
        }
        Attempt::Lost(error.of_job(&spec.image))
    }

    /// Runs a job in a container of its own.
    async fn attempt_alone(&self, spec: &Spec, session: &Session, memory: &mut Buffers) -> Attempt {
        let taken = match self.mode {
            Mode::Fresh => self.engine.launch(spec.for_one_job()).await,
            Mode::Parked | Mode::Serving => self.pool(spec.clone()).take().await,
        };
        let (container, mut wire) = match taken {
            Ok(taken) => taken,
            Err(error) => return self.without_container(spec, error),
        };
        let end = converse(&mut wire, session, memory).await;
        // A guest that has named its outcome is about to end, so it gets time to do so.
        let is_ending = matches!(end, End::Settled) && session.has_outcome();
        let patience = if is_ending { EXIT_GRACE } else { Duration::ZERO };
        let result = match end {
            End::Settled => Attempt::Done(session.finish(Ok(()))),
            End::Stopped(error) => Attempt::Done(session.finish(Err(error))),
            End::Closed { mid_line, unanswered } => {
                self.explain_exit(spec, session, &container, mid_line, unanswered).await
            }
        };
        drop(wire);
        let removal = container.remove(patience);
        if self.mode == Mode::Fresh {
            let _ = removal.await;
        }
        result
    }

    /// Interprets the end of a container whose guest has closed its output.
    async fn explain_exit(
        &self,
        spec: &Spec,
        session: &Session,
        container: &Container,
        mid_line: bool,
        unanswered: bool,
    ) -> Attempt {
        let exit = match container.wait_for_exit(EXIT_GRACE).await {
            Ok(Some(exit)) => exit,
            // Either the guest has closed its output or the engine has lost the connection, so it
            // may not be the guest's fault.
            Ok(None) => return lost("the container closed its output but is still running"),
            Err(EngineError::Refused { code: 404, .. }) => {
                return lost("the container was removed by another program");
            }
            Err(error) => return Attempt::Lost(error.into()),
        };
        match exit.exit_code {
            _ if exit.out_of_memory => {
                done(session, Limit::Memory { bytes: spec.memory_bytes }.into())
            }
            _ if !exit.ended_by_itself() => {
                lost("the container was killed by another program, or the engine lost it")
            }
            // The engine may have closed the container's input: an engine that restarts does.
            _ if unanswered => lost("the container ended before it received a response"),
            _ if mid_line => {
                done(session, Error::abi_violation("it ended in the middle of a line"))
            }
            0 => Attempt::Done(session.finish(Ok(()))),
            code => {
                let trap = match code - 128 {
                    signal @ 1..=64 => format!("the process was killed by signal {signal}"),
                    _ => format!("the process exited with status {code}"),
                };
                done(session, Error::new(Reason::Trapped { trap }))
            }
        }
    }

    /// Runs a job in a container that serves many.
    async fn attempt_served(
        &self,
        spec: &Spec,
        session: &Session,
        memory: &mut Buffers,
    ) -> Attempt {
        let mut assignment = match self.servers(spec.clone()).take().await {
            Ok(assignment) => assignment,
            Err(error) => return self.without_container(spec, error),
        };
        let Some(wire) = &mut assignment.wire else { return lost("the connection was lost") };
        match converse(wire, session, memory).await {
            End::Settled => {
                assignment.is_settled = true;
                Attempt::Done(session.finish(Ok(())))
            }
            End::Stopped(error) => done(session, error),
            // The process that forks guests reports one that ends by itself. This one was killed,
            // perhaps for memory, or the whole container was.
            End::Closed { .. } => lost("the job's process was killed, or its container was"),
        }
    }
}

fn done(session: &Session, error: Error) -> Attempt {
    Attempt::Done(session.finish(Err(error)))
}

fn lost(problem: &str) -> Attempt {
    Attempt::Lost(Error::new(Reason::RuntimeFailed {
        problem: problem.to_owned(),
        status: Status::Transient,
    }))
}

/// Parses the image reference in a module that is a blob.
///
/// # Errors
/// [`Reason::BadModule`] if the blob is not the text `docker://<digest>`.
fn reference(module: ObjectId, text: &[u8]) -> Result<String> {
    let bad = |problem: String| Error::new(Reason::BadModule { module, problem });
    let text = text
        .to_str()
        .map_err(|_| bad("it is not UTF-8 text; expected docker://<digest>".to_owned()))?;
    match ImageRef::parse(text) {
        Ok(ImageRef::Docker(container)) if container.is_by_digest() => {
            Ok(container.as_str().to_owned())
        }
        _ => Err(bad("a module that is a blob must be the text docker://<digest>".to_owned())),
    }
}

fn get_or_insert<K: Clone + Eq + Hash, V>(
    map: &Mutex<HashMap<K, Arc<V>>>,
    key: K,
    make: impl FnOnce(K) -> V,
) -> Arc<V> {
    Arc::clone(map.lock().entry(key.clone()).or_insert_with(|| Arc::new(make(key))))
}

/// Periodically removes containers that were unused for `idle`, until the runtime is dropped.
async fn reap(state: Weak<State>, idle: Duration) {
    loop {
        tokio::time::sleep((idle / 4).max(Duration::from_millis(10))).await;
        let Some(state) = state.upgrade() else { return };
        state.pools.lock().retain(|_, pool| !pool.is_idle(idle));
        state.servers.lock().retain(|_, servers| !servers.is_idle(idle));
    }
}

/// Maximum time that dropping a runtime waits.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

impl Drop for DockerRuntime {
    /// Removes the containers that wait for jobs, and waits up to 5 seconds for that.
    /// [`ContainerEngine::close`] waits longer.
    fn drop(&mut self) {
        self.state.pools.lock().drain().for_each(|(_, pool)| pool.close());
        self.state.servers.lock().clear();
        self.state.engine.wait_until_idle(DROP_TIMEOUT);
    }
}
