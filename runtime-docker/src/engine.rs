//! The connection to a container engine, and everything that is asked of it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerState, ResourcesUlimits};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use futures_util::{StreamExt, stream};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::error::{EngineError, Step};
use crate::owner::Owner;
use crate::retry::{Setback, retrying};
use crate::wire::Wire;

/// A container engine. Cloning is cheap, and clones share everything.
///
/// # Behavior
/// - Nothing is connected before the first job needs it. What processes that crashed have left in the engine is removed then.
/// - Every call has a deadline, and only a few containers are started at a time: more would stall the engine.
/// - Containers are removed in the background; [`ContainerEngine::close`] waits for that.
#[derive(Clone)]
pub struct ContainerEngine {
    pub(crate) shared: Arc<Shared>,
}

/// How to reach an engine, and how much to ask of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Where it is: `unix:///path`, or `tcp://host:port`. Default: `DOCKER_HOST`, or else `/var/run/docker.sock`.
    pub endpoint: String,
    /// How long one call may take. Default: 20 s.
    pub deadline: Duration,
    /// How many containers are started, or removed, at a time. Default: 4 of each.
    pub at_once: usize,
    /// How many containers there may be. A job that needs one more fails; it does not wait, for those who would have to end may
    /// be waiting for it. Default: 512.
    pub containers: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let endpoint = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        Self {
            endpoint: endpoint.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()),
            deadline: Duration::from_secs(20),
            at_once: 4,
            containers: 512,
        }
    }
}

pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    docker: tokio::sync::Mutex<Option<Docker>>,
    starts: Semaphore,
    removals: Semaphore,
    owner: Owner,
    /// Which of this process's connections to engines this is.
    connection: u64,
    containers: Mutex<Containers>,
    fewer: Condvar,
    is_podman: AtomicBool,
    /// Why the engine was given up last. Containers are not started then.
    pub(crate) lost: Setback<EngineError>,
    /// Why containers could not be removed.
    immovable: Setback<EngineError>,
    handle: Handle,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Containers {
    /// How many there are, as far as this process knows.
    alive: usize,
    /// How many of them are being removed.
    leaving: usize,
    /// How many are being started.
    coming: usize,
    closed: bool,
}

/// The label that says which process a container belongs to.
const OWNER: &str = "io.manifold.owner";
/// The label that says which of its connections made a container.
const CONNECTION: &str = "io.manifold.connection";
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static CONTAINERS: AtomicU64 = AtomicU64::new(0);
/// How long a container that could not be removed is left alone, at first and at last.
const STUCK: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

impl ContainerEngine {
    /// The engine that `options` describe. It is not connected to yet.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(options: EngineOptions) -> std::io::Result<Self> {
        let start = || {
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("manifold-docker")
                .enable_all()
                .build()
        };
        // Tokio panics where the system gives no threads.
        let runtime = std::panic::catch_unwind(start)
            .map_err(|_| std::io::Error::other("there are no more threads"))??;
        let at_once = options.at_once.max(1);
        let shared = Shared {
            options,
            docker: tokio::sync::Mutex::new(None),
            starts: Semaphore::new(at_once),
            removals: Semaphore::new(at_once),
            owner: Owner::this_process(),
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            containers: Mutex::default(),
            fewer: Condvar::new(),
            is_podman: AtomicBool::new(false),
            lost: Setback::default(),
            immovable: Setback::default(),
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Connects to the engine, and answers its name and version.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn version(&self) -> Result<String, EngineError> {
        let shared = Arc::clone(&self.shared);
        self.shared
            .spawn(async move {
                let docker = shared.docker().await?;
                let version = shared.call(Step::Connect, docker.version()).await?;
                shared.lost.forget();
                let name =
                    version.platform.map_or_else(|| "engine".to_owned(), |platform| platform.name);
                Ok(format!("{name} {}", version.version.unwrap_or_default()).trim().to_owned())
            })
            .await
    }

    /// The digest that the engine has for an image's name, such as a tag that may move: what to put after `docker://`.
    ///
    /// # Errors
    /// When the engine has no such image, or does not answer.
    pub async fn digest(&self, name: &str) -> Result<String, EngineError> {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.shared
            .spawn(async move {
                let docker = shared.docker().await?;
                let image = shared.call(Step::InspectImage, docker.inspect_image(&name)).await?;
                image.id.ok_or_else(|| EngineError::Refused {
                    step: Step::InspectImage,
                    code: 200,
                    message: "it named no id".to_owned(),
                })
            })
            .await
    }

    /// The labels of the containers that are made through this.
    pub fn labels(&self) -> HashMap<String, String> {
        self.shared.labels()
    }

    /// Whether there are containers of this process, or some on their way.
    pub fn has_containers(&self) -> bool {
        let containers = self.shared.containers.lock();
        containers.alive + containers.coming > 0
    }

    /// Takes no more jobs, and waits until every container that nobody uses any more is removed.
    ///
    /// # Errors
    /// When containers stay, because the engine cannot be reached or does not answer. The next process that uses the engine
    /// removes them.
    pub fn close(&self) -> Result<(), EngineError> {
        self.shared.containers.lock().closed = true;
        self.shared.wait_for_calm(self.shared.options.deadline);
        let shared = Arc::clone(&self.shared);
        let (done, end) = std::sync::mpsc::channel();
        self.shared.handle.spawn(async move {
            let _ = done.send(shared.remove_own().await);
        });
        end.recv_timeout(self.shared.options.deadline * 2).unwrap_or(Err(EngineError::Closed))
    }
}

impl Shared {
    /// Runs `work` on the engine's own threads, whoever waits for it. Work goes on when nobody does any more.
    pub(crate) async fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.handle.spawn(work).await.unwrap_or(Err(EngineError::Closed))
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Makes one call, within the deadline.
    pub(crate) async fn call<T>(
        &self,
        step: Step,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        self.call_within(self.options.deadline, step, call).await
    }

    /// Makes one call that may take longer than others.
    pub(crate) async fn call_within<T>(
        &self,
        deadline: Duration,
        step: Step,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        let endpoint = &self.options.endpoint;
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(EngineError::new(endpoint, step, error)),
            Err(_) => {
                let error = EngineError::TimedOut { endpoint: endpoint.clone(), step, deadline };
                match step {
                    Step::Connect | Step::List | Step::Create | Step::Attach | Step::Start => {
                        self.lost.remember(&error)
                    }
                    Step::Remove => self.immovable.remember(&error),
                    // One image or container says nothing of the others.
                    Step::Load | Step::InspectImage | Step::Wait | Step::Inspect => {}
                }
                Err(error)
            }
        }
    }

    /// The client. Connects first, and removes what others have left, if nobody has yet.
    pub(crate) async fn docker(&self) -> Result<Docker, EngineError> {
        let mut connected = self.docker.lock().await;
        if let Some(docker) = &*connected {
            return Ok(docker.clone());
        }
        self.lost.check()?;
        let endpoint = &self.options.endpoint;
        let docker = Docker::connect_with_host(endpoint)
            .map_err(|error| EngineError::new(endpoint, Step::Connect, error))?;
        // Uploads and waits have deadlines of their own.
        let docker = docker.with_timeout(self.options.deadline * 30);
        let docker = self.call(Step::Connect, docker.negotiate_version()).await?;
        let version = self.call(Step::Connect, docker.version()).await?;
        let is_podman =
            version.components.iter().flatten().any(|component| component.name.contains("Podman"));
        self.is_podman.store(is_podman, Ordering::Relaxed);
        if let Err(error) = self
            .sweep(&docker, |labels| labels.get(OWNER).is_some_and(|owner| Owner::is_orphan(owner)))
            .await
        {
            tracing::warn!("orphaned containers may be left: {error}");
        }
        *connected = Some(docker.clone());
        Ok(docker)
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (OWNER.to_owned(), self.owner.label()),
            (CONNECTION.to_owned(), self.connection.to_string()),
        ])
    }

    /// Creates a container, attaches to it, and starts it; again if that may help.
    pub(crate) async fn launch(self: &Arc<Self>, body: Box<ContainerCreateBody>) -> Launched {
        self.lost.check()?;
        let launched = retrying(|| Box::pin(self.launch_once(body.clone()))).await;
        if let Err(error @ EngineError::Unreachable { .. }) = &launched {
            self.lost.remember(error);
        }
        launched
    }

    async fn launch_once(self: &Arc<Self>, mut body: Box<ContainerCreateBody>) -> Launched {
        let shared = Arc::clone(self);
        body.labels = Some(self.labels());
        // Let go after the container, whose removal is under way by then.
        let coming = self.is_coming();
        self.spawn(async move {
            let _coming = coming;
            let docker = shared.docker().await?;
            if shared.is_podman.load(Ordering::Relaxed) {
                adapt_to_podman(&mut body);
            }
            let Ok(_turn) = shared.starts.acquire().await else { return Err(EngineError::Closed) };
            shared.lost.check()?;
            let container = shared.name_container()?;
            let options = CreateContainerOptionsBuilder::new().name(&container.name).build();
            if let Err(error) = shared
                .call(Step::Create, Box::pin(docker.create_container(Some(options), *body)))
                .await
            {
                if matches!(error, EngineError::TimedOut { .. }) {
                    shared.remove_later(container.name.clone());
                }
                return Err(error);
            }
            let options = AttachContainerOptionsBuilder::new()
                .stream(true)
                .stdin(true)
                .stdout(true)
                .stderr(true)
                .build();
            let attached = shared
                .call(Step::Attach, docker.attach_container(&container.name, Some(options)))
                .await?;
            shared
                .call(
                    Step::Start,
                    docker.start_container(&container.name, None::<StartContainerOptions>),
                )
                .await?;
            Ok((container, Wire::attached(attached)))
        })
        .await
    }

    /// Takes a place for a container. Whatever becomes of it, it is removed.
    fn name_container(self: &Arc<Self>) -> Result<Container, EngineError> {
        let mut containers = self.containers.lock();
        if containers.closed {
            return Err(EngineError::Closed);
        }
        if containers.alive >= self.options.containers {
            return Err(EngineError::TooMany { count: containers.alive });
        }
        containers.alive += 1;
        let name = format!(
            "manifold-{}-{}",
            self.owner.name(),
            CONTAINERS.fetch_add(1, Ordering::Relaxed)
        );
        Ok(Container { shared: Arc::clone(self), name, is_leaving: false })
    }

    /// Removes a container, in the background, and kills it if it has not ended within `patience`. What is answered ends when the
    /// container is gone, or stays for now.
    fn dispose(self: &Arc<Self>, name: String, patience: Duration) -> JoinHandle<()> {
        self.containers.lock().leaving += 1;
        let shared = Arc::clone(self);
        self.handle.spawn(async move {
            if !patience.is_zero()
                && let Ok(docker) = shared.docker().await
            {
                wait_for_end(&docker, &name, patience).await;
            }
            let removed = retrying(|| shared.remove(&name)).await;
            shared.containers.lock().leaving -= 1;
            match removed {
                Ok(()) => shared.has_left(),
                Err(error) => {
                    tracing::warn!("container {name} stays for now: {error}");
                    shared.fewer.notify_all();
                    tokio::spawn(remove_some_time(Arc::downgrade(&shared), name));
                }
            }
        })
    }

    /// Removes what an engine makes after all, that did not answer in time when it was asked to.
    fn remove_later(self: &Arc<Self>, name: String) {
        let shared = Arc::clone(self);
        self.handle.spawn(async move {
            tokio::time::sleep(shared.options.deadline).await;
            let _ = shared.remove(&name).await;
        });
    }

    /// Counts a container that is being started, until this is dropped.
    fn is_coming(self: &Arc<Self>) -> Coming {
        self.containers.lock().coming += 1;
        Coming(Arc::clone(self))
    }

    fn has_left(&self) {
        self.containers.lock().alive -= 1;
        self.fewer.notify_all();
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let docker = self.docker().await?;
        let Ok(_turn) = self.removals.acquire().await else { return Err(EngineError::Closed) };
        self.immovable.check()?;
        self.force_removal(&docker, name).await
    }

    async fn force_removal(&self, docker: &Docker, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.call(Step::Remove, docker.remove_container(container, Some(options))).await {
            // Not there, or somebody is at it.
            Err(EngineError::Refused { code: 404 | 409, .. }) => Ok(()),
            result => result,
        }
    }

    /// Removes the containers whose labels say that they are `unwanted`.
    async fn sweep(
        &self,
        docker: &Docker,
        unwanted: impl Fn(&HashMap<String, String>) -> bool,
    ) -> Result<(), EngineError> {
        let mut filters = HashMap::from([("label", vec![OWNER])]);
        if self.is_podman.load(Ordering::Relaxed) {
            // It has a further one, `stopped`, on the way to `exited`, which bollard does not know.
            filters.insert("status", vec!["created", "running", "paused", "exited"]);
        }
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers =
            self.call(Step::List, docker.list_containers(Some(options))).await?.into_iter();
        let ids = containers.filter_map(|container| {
            container
                .labels
                .is_some_and(|labels| unwanted(&labels))
                .then_some(container.id)
                .flatten()
        });
        let mut removals = stream::iter(ids.map(async |id| self.force_removal(docker, &id).await))
            .buffer_unordered(self.options.at_once.max(1));
        let mut outcome = Ok(());
        while let Some(removed) = removals.next().await {
            match removed {
                // What is true of one may not be of the next.
                Err(error @ EngineError::Refused { .. }) => outcome = Err(error),
                removed => removed?,
            }
        }
        outcome
    }

    /// Removes whatever this process still has. There is nothing to do in an engine that was never reached.
    async fn remove_own(&self) -> Result<(), EngineError> {
        let Some(docker) = self.docker.lock().await.clone() else { return Ok(()) };
        let own = self.labels();
        self.sweep(&docker, |labels| {
            own.iter().all(|(name, value)| labels.get(name) == Some(value))
        })
        .await
    }

    /// Blocks until nothing is being started or removed any more, or until `patience` is over.
    pub(crate) fn wait_for_calm(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut containers = self.containers.lock();
        while containers.leaving + containers.coming > 0
            && !self.fewer.wait_until(&mut containers, deadline).timed_out()
        {}
    }
}

/// Tries to remove a container ever more seldom, until the engine is closed, which removes what is left.
async fn remove_some_time(shared: Weak<Shared>, name: String) {
    let (mut pause, longest) = STUCK;
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.containers.lock().closed {
            return;
        }
        if shared.remove(&name).await.is_ok() {
            return shared.has_left();
        }
        pause = (pause * 2).min(longest);
    }
}

/// Podman raises each limit that it is not told to what the machine allows, for which it may not have the right.
fn adapt_to_podman(body: &mut ContainerCreateBody) {
    let processes_of_user =
        ResourcesUlimits { name: Some("nproc".to_owned()), soft: Some(4096), hard: Some(4096) };
    if let Some(limits) = body.host_config.as_mut().and_then(|config| config.ulimits.as_mut()) {
        limits.push(processes_of_user);
    }
}

/// A container that is being started.
struct Coming(Arc<Shared>);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.containers.lock().coming -= 1;
        self.0.fewer.notify_all();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The last one to let go may be a task on these very threads.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A container of this process. It is killed and removed when it is dropped.
pub(crate) struct Container {
    shared: Arc<Shared>,
    name: String,
    is_leaving: bool,
}

/// A container that runs, and its standard streams.
pub(crate) type Launched = Result<(Container, Wire), EngineError>;

/// How a container ended.
#[derive(Debug)]
pub(crate) struct Death {
    pub(crate) out_of_memory: bool,
    pub(crate) exit_code: i64,
}

impl Death {
    /// Whether its own program ended it, as far as one can tell: engines that lost it answer 255, and kill what they find when they
    /// are started again.
    pub(crate) fn is_of_its_own(&self) -> bool {
        const KILLED: i64 = 128 + 9;
        /// The guest SDK's word for it.
        const HOST_IS_GONE: i64 = 86;
        const STATUS_IS_LOST: i64 = 255;
        ![KILLED, HOST_IS_GONE, STATUS_IS_LOST].contains(&self.exit_code)
    }
}

/// Waits for a container's end for some time. What it ended with is not told here: bollard takes any code but 0 for an error.
async fn wait_for_end(docker: &Docker, name: &str, patience: Duration) {
    let mut ends = docker.wait_container(name, None::<WaitContainerOptions>);
    let _ = tokio::time::timeout(patience, ends.next()).await;
}

/// How long a process may take to end after it has closed its standard output.
pub(crate) const LAST_BREATH: Duration = Duration::from_secs(2);

impl Container {
    /// How it ended; `None` when it has not within `patience`.
    pub(crate) async fn death(&self, patience: Duration) -> Result<Option<Death>, EngineError> {
        let (shared, name) = (Arc::clone(&self.shared), self.name.clone());
        self.shared
            .spawn(async move {
                let docker = shared.docker().await?;
                wait_for_end(&docker, &name, patience).await;
                let container =
                    shared.call(Step::Inspect, docker.inspect_container(&name, None)).await?;
                let ContainerState { running, oom_killed, exit_code, .. } =
                    container.state.unwrap_or_default();
                Ok((running != Some(true)).then(|| Death {
                    out_of_memory: oom_killed == Some(true),
                    exit_code: exit_code.unwrap_or_default(),
                }))
            })
            .await
    }

    /// Removes it in the background, and kills it if it has not ended within `patience`: to kill one that is about to end would have
    /// the engine start a process for nothing. What is answered ends when the container is gone, or stays for now.
    pub(crate) fn remove(mut self, patience: Duration) -> JoinHandle<()> {
        self.is_leaving = true;
        self.shared.dispose(std::mem::take(&mut self.name), patience)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.is_leaving {
            self.shared.dispose(std::mem::take(&mut self.name), Duration::ZERO);
        }
    }
}
