use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifold_runtime_api::abi::Session;
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, ImageRef, Job, Limit, Limits, MemoryReservation,
    ObjectId, ObjectKind, Outcome, Reason, Result, Runtime, Status, TreeError, abi, async_trait,
};
use parking_lot::Mutex;

use crate::conversation::{Buffers, End, converse};
use crate::engine::{Container, ContainerEngine, LAST_BREATH, Shared};
use crate::error::{EngineError, Step};
use crate::image;
use crate::isolation::Isolation;
use crate::pool::Pool;
use crate::retry::{ATTEMPTS, Setback, pause};
use crate::serving::Servers;
use crate::spec::Spec;

/// How a container comes to its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Created for the job, and removed after it, while the job waits: what a container costs when nothing is done about it.
    Fresh,
    /// Started ahead, and used once.
    #[default]
    Parked,
    /// One container for many jobs, for which it forks a process each.
    Serving,
}

/// Runs guests in containers.
///
/// As a runtime of its own host image, a module is the tree of a container image, or a blob with the text `docker://<digest>`.
/// Given to the dispatcher's builder as `containers`, it runs what `docker://<digest>` names, and keeps the containers warm that
/// are hosts of modules.
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

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    /// The store.
    Tree(ObjectId),
    /// The engine, which has it under this name.
    Engine(String),
}

/// An image that is looked for once.
#[derive(Default)]
struct Image {
    /// Its name, which the engine has for certain.
    name: tokio::sync::OnceCell<Arc<str>>,
    setback: Setback<Error>,
}

/// A [`DockerRuntime`] whose settings are still being chosen.
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
    /// How containers come to their jobs. Default: [`Mode::Parked`].
    ///
    /// Fresh and parked containers are the same in everything that a guest can see, and have one host image; serving ones have another.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// What containers may do. Part of the host image.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How many containers of an image wait for a job, at least one. Default: 4.
    #[must_use]
    pub fn parked(mut self, count: usize) -> Self {
        self.parked = count.max(1);
        self
    }

    /// How long containers that nobody asks for are kept. Default: 60 s.
    #[must_use]
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }

    /// How large an image kept in the store may be, in bytes. Default: 1 GiB.
    #[must_use]
    pub fn image_bytes(mut self, bytes: u64) -> Self {
        self.image_bytes = bytes;
        self
    }

    /// The runtime, on `engine`. Nothing is connected yet.
    ///
    /// # Errors
    /// `RuntimeFailed` when containers that serve many jobs could leave something from one to the next: with a root file system that
    /// can be written, as root, or with all system calls.
    pub fn build(self, engine: &ContainerEngine) -> Result<DockerRuntime> {
        if let (Mode::Serving, Some(leak)) = (self.mode, self.isolation.leak_between_jobs()) {
            let problem = format!(
                "with {leak} one job of a container that serves many could leave something for the next"
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
            .describe(HostImage::new(name).with("abi", abi::NAME).with("process", process))
            .seal()
    }
}

impl DockerRuntime {
    /// Begins with the defaults.
    pub fn builder() -> DockerRuntimeBuilder {
        DockerRuntimeBuilder::default()
    }
}

/// What a job's containers are.
enum Plan {
    OneJob(Spec),
    ManyJobs(Spec),
}

/// What came of an attempt.
enum Attempt {
    Done(Result<Outcome>),
    /// The container was lost through no fault of the guest. Another one may do.
    Lost(Error),
}

/// What a container counts in a call's memory. How much one uses is not known; its own limit bounds it.
const CONTAINER_BYTES: u64 = 4 << 20;

#[async_trait]
impl Runtime for DockerRuntime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::blob_modules().and_tree_modules();
        // The key of a request for `docker://…` says nothing of how it is run, so there is one way only.
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

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<Outcome> {
        let mut memory = MemoryReservation::new(Arc::clone(&job.meter));
        memory.grow(CONTAINER_BYTES)?;
        let mut memory = Buffers::new(memory);
        let mut attempt = 1;
        loop {
            let plan = self.state.plan(&job.code, &job.limits, &*host).await?;
            let session = Session::new(job.clone(), Arc::clone(&host));
            let came_of_it = match &plan {
                Plan::OneJob(spec) => self.state.attempt_alone(spec, &session, &mut memory).await,
                Plan::ManyJobs(spec) => {
                    self.state.attempt_served(spec, &session, &mut memory).await
                }
            };
            match came_of_it {
                Attempt::Done(result) => return result,
                Attempt::Lost(error)
                    if attempt == ATTEMPTS || self.state.engine.lost.check().is_err() =>
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
    async fn plan(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<Plan> {
        let source = match code {
            Code::Module(module) if module.kind == ObjectKind::Tree => Source::Tree(module.id),
            Code::Module(module) => {
                Source::Engine(reference(module.id, &host.get(module.id).await?)?)
            }
            Code::Container(container) | Code::Hosted { host: container, .. } => {
                Source::Engine(container.as_str().to_owned())
            }
        };
        let memory_bytes = self.isolation.memory_bytes.min(limits.memory_bytes);
        let image = self.image(source, host).await?;
        let hosted = match code {
            Code::Hosted { module, .. } => Some(*module),
            Code::Module(_) | Code::Container(_) => None,
        };
        let many_jobs = self.mode == Mode::Serving || hosted.is_some();
        let spec = Spec { image, memory_bytes, isolation: Arc::clone(&self.isolation), hosted };
        Ok(if many_jobs { Plan::ManyJobs(spec) } else { Plan::OneJob(spec) })
    }

    /// The name of an image that the engine has. It is looked for once, and again when that failed.
    async fn image(&self, source: Source, host: &dyn Host) -> Result<Arc<str>> {
        let image = Arc::clone(self.images.lock().entry(source.clone()).or_default());
        let found = image.name.get_or_try_init(|| async {
            image.setback.check()?;
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
                image.setback.remember(error);
            }
            found
        });
        found.await.cloned()
    }

    /// Has an image looked for again: the engine may have lost it.
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

    /// What came of it that there is no container. To get one was tried more than once already, except where something can be done.
    fn without_container(&self, spec: &Spec, error: EngineError) -> Attempt {
        match &error {
            // The engine has lost the image: it is loaded again, or said to be missing.
            EngineError::Refused { step: Step::Create, code: 404, .. } => self.forget(&spec.image),
            // Those that only wait make room.
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
        // A guest that has named its outcome has nothing left to do but to end.
        let is_ending = matches!(end, End::Settled) && session.has_outcome();
        let patience = if is_ending { LAST_BREATH } else { Duration::ZERO };
        let came_of_it = match end {
            End::Settled => Attempt::Done(session.finish(Ok(()))),
            End::Stopped(error) => Attempt::Done(session.finish(Err(error))),
            End::Silence { half, unanswered } => {
                self.silence(spec, session, &container, half, unanswered).await
            }
        };
        drop(wire);
        let gone = container.remove(patience);
        if self.mode == Mode::Fresh {
            let _ = gone.await;
        }
        came_of_it
    }

    /// What it means that a container's guest says no more.
    async fn silence(
        &self,
        spec: &Spec,
        session: &Session,
        container: &Container,
        half: bool,
        unanswered: bool,
    ) -> Attempt {
        let death = match container.death(LAST_BREATH).await {
            Ok(Some(death)) => death,
            // The guest has closed it, or the engine has lost it: not for certain the guest's fault.
            Ok(None) => return lost("the container's output ended, and the container goes on"),
            Err(EngineError::Refused { code: 404, .. }) => {
                return lost("the container was removed by somebody else");
            }
            Err(error) => return Attempt::Lost(error.into()),
        };
        match death.exit_code {
            _ if death.out_of_memory => {
                done(session, Limit::Memory { bytes: spec.memory_bytes }.into())
            }
            _ if !death.is_of_its_own() => {
                lost("the container was killed from outside, or the engine has lost it")
            }
            // Its input may have been ended, by an engine that was started again in the meantime.
            _ if unanswered => lost("the container ended before it was answered"),
            _ if half => done(session, Error::abi_violation("it ended in the middle of a line")),
            0 => Attempt::Done(session.finish(Ok(()))),
            code => {
                let trap = match code - 128 {
                    signal @ 1..=64 => format!("the process was ended by signal {signal}"),
                    _ => format!("the process ended with status {code}"),
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
        let mut place = match self.servers(spec.clone()).take().await {
            Ok(place) => place,
            Err(error) => return self.without_container(spec, error),
        };
        let Some(wire) = &mut place.wire else { return lost("the connection was lost") };
        match converse(wire, session, memory).await {
            End::Settled => {
                place.is_settled = true;
                Attempt::Done(session.finish(Ok(())))
            }
            End::Stopped(error) => done(session, error),
            // A guest that ends by itself is told of by whoever forked it. This one was killed, perhaps for memory, or all of the
            // container was.
            End::Silence { .. } => {
                lost("the process that had the job was killed, or its container was")
            }
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

/// The container that a module's text names.
fn reference(module: ObjectId, text: &[u8]) -> Result<String> {
    let bad = |problem: String| Error::new(Reason::BadModule { module, problem });
    let text = text.to_str().map_err(|_| bad("it is no text".to_owned()))?;
    match ImageRef::parse(text) {
        Ok(ImageRef::Docker(container)) if container.is_by_digest() => {
            Ok(container.as_str().to_owned())
        }
        _ => Err(bad("a module that is a blob is the text docker://<digest>".to_owned())),
    }
}

fn get_or_insert<K: Clone + Eq + Hash, V>(
    map: &Mutex<HashMap<K, Arc<V>>>,
    key: K,
    make: impl FnOnce(K) -> V,
) -> Arc<V> {
    Arc::clone(map.lock().entry(key.clone()).or_insert_with(|| Arc::new(make(key))))
}

/// Lets containers go that nobody asks for, until the runtime is gone.
async fn reap(state: Weak<State>, idle: Duration) {
    loop {
        tokio::time::sleep((idle / 4).max(Duration::from_millis(10))).await;
        let Some(state) = state.upgrade() else { return };
        state.pools.lock().retain(|_, pool| !pool.is_idle(idle));
        state.servers.lock().retain(|_, servers| !servers.is_idle(idle));
    }
}

/// How long dropping a runtime may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Drop for DockerRuntime {
    /// Removes the containers that wait for jobs, and waits for that for a few seconds. [`ContainerEngine::close`] waits for more.
    fn drop(&mut self) {
        self.state.pools.lock().drain().for_each(|(_, pool)| pool.close());
        self.state.servers.lock().clear();
        self.state.engine.wait_for_calm(PATIENCE);
    }
}
