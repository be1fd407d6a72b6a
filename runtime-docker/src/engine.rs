//! The client of a container engine: connecting, starting containers, removing them, and removing
//! orphans.

use std::collections::HashMap;
use std::fmt;
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
use crate::retry::{RecentFailure, retrying};
use crate::wire::Wire;

/// A connection to a container engine. Cloning is cheap, and clones share the connection and its
/// containers.
///
/// # Behavior
/// - It connects when the first job needs it. Containers that crashed processes have left in the
///   engine are removed then.
/// - Every call has a deadline. Only a few containers are started at a time, because more would
///   stall the engine.
/// - Containers are removed in the background. [`ContainerEngine::close`] waits for that.
#[derive(Clone)]
pub struct ContainerEngine {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for ContainerEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerEngine").finish_non_exhaustive()
    }
}

/// How to reach an engine, and bounds for its use.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// The engine's address: `unix:///path` or `tcp://host:port`. Default: the value of
    /// `DOCKER_HOST`, or `unix:///var/run/docker.sock` if that is not set.
    pub endpoint: String,
    /// Maximum time for one call. Default: 20 s.
    pub deadline: Duration,
    /// How many containers are started, and how many removed, at a time. Default: 4 of each.
    pub at_once: usize,
    /// Maximum number of containers at one time. A job that needs one more fails. It does not wait,
    /// because the jobs that would have to end first may be waiting for it. Default: 512.
    pub containers: usize,
}

impl EngineOptions {
    /// Sets [`EngineOptions::endpoint`](#structfield.endpoint).
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Sets [`EngineOptions::deadline`](#structfield.deadline).
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets [`EngineOptions::at_once`](#structfield.at_once).
    #[must_use]
    pub const fn at_once(mut self, at_once: usize) -> Self {
        self.at_once = at_once;
        self
    }

    /// Sets [`EngineOptions::containers`](#structfield.containers).
    #[must_use]
    pub const fn containers(mut self, containers: usize) -> Self {
        self.containers = containers;
        self
    }
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

/// The state that all clones of a [`ContainerEngine`] share.
pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    docker: tokio::sync::Mutex<Option<Docker>>,
    starts: Semaphore,
    removals: Semaphore,
    owner: Owner,
    /// Number of this connection among all that this process makes to engines.
    connection: u64,
    containers: Mutex<Containers>,
    changed: Condvar,
    is_podman: AtomicBool,
    /// The last failure to reach the engine. While it is recent, no containers are started.
    pub(crate) connection_failure: RecentFailure<EngineError>,
    /// The last timeout of a removal. While it is recent, no further removals are tried.
    removal_failure: RecentFailure<EngineError>,
    handle: Handle,
    runtime: Option<Runtime>,
}

/// Counts of this process's containers.
#[derive(Default)]
struct Containers {
    /// How many exist, as far as this process knows.
    alive: usize,
    /// How many of them are being removed.
    removing: usize,
    /// How many are being started.
    starting: usize,
    closed: bool,
}

/// Label that names the process that owns a container.
const OWNER: &str = "io.manifold.owner";
/// Label that numbers the connection that created a container, within its process.
const CONNECTION: &str = "io.manifold.connection";
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static CONTAINERS: AtomicU64 = AtomicU64::new(0);
/// First and longest pause between attempts to remove a container that could not be removed.
const REMOVAL_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

impl ContainerEngine {
    /// Creates a client of the engine that `options` describe. Does not connect yet.
    ///
    /// # Errors
    /// Returns an error if the client's threads cannot be started.
    pub fn new(options: EngineOptions) -> std::io::Result<Self> {
        let start = || {
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("manifold-docker")
                .enable_all()
                .build()
        };
        // Tokio panics if it cannot start a thread.
        let runtime = std::panic::catch_unwind(start).map_err(|_| {
            std::io::Error::other("cannot start a thread for the container engine's client")
        })??;
        let at_once = options.at_once.max(1);
        let shared = Shared {
            options,
            docker: tokio::sync::Mutex::new(None),
            starts: Semaphore::new(at_once),
            removals: Semaphore::new(at_once),
            owner: Owner::this_process(),
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            containers: Mutex::default(),
            changed: Condvar::new(),
            is_podman: AtomicBool::new(false),
            connection_failure: RecentFailure::default(),
            removal_failure: RecentFailure::default(),
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Connects to the engine and returns its name and version.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] or [`EngineError::TimedOut`] if the engine does not respond.
    pub async fn version(&self) -> Result<String, EngineError> {
        let shared = Arc::clone(&self.shared);
        self.shared
            .spawn(async move {
                let docker = shared.docker().await?;
                let version = shared.call(Step::Connect, docker.version()).await?;
                shared.connection_failure.clear();
                let name =
                    version.platform.map_or_else(|| "engine".to_owned(), |platform| platform.name);
                Ok(format!("{name} {}", version.version.unwrap_or_default()).trim().to_owned())
            })
            .await
    }

    /// Returns the digest of the image that `name` currently stands for in the engine. `name` may
    /// be a tag. The digest is what to put after `docker://`.
    ///
    /// # Errors
    /// - [`EngineError::Refused`] if the engine has no such image.
    /// - [`EngineError::Unreachable`] or [`EngineError::TimedOut`] if the engine does not respond.
    pub async fn digest(&self, name: &str) -> Result<String, EngineError> {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.shared
            .spawn(async move {
                let docker = shared.docker().await?;
                let image = shared.call(Step::InspectImage, docker.inspect_image(&name)).await?;
                image.id.ok_or_else(|| EngineError::Refused {
                    step: Step::InspectImage,
                    code: 200,
                    message: "the response contains no image id".to_owned(),
                })
            })
            .await
    }

    /// Returns the labels of the containers that are created through this connection.
    pub fn labels(&self) -> HashMap<String, String> {
        self.shared.labels()
    }

    /// Returns whether this connection has containers, including those that are being started.
    pub fn has_containers(&self) -> bool {
        let containers = self.shared.containers.lock();
        containers.alive + containers.starting > 0
    }

    /// Accepts no more jobs, removes all containers of this connection, and waits until they are
    /// removed.
    ///
    /// # Errors
    /// Returns an error if containers remain because the engine cannot be reached or does not
    /// respond. The next process that uses the engine removes them.
    pub fn close(&self) -> Result<(), EngineError> {
        self.shared.containers.lock().closed = true;
        self.shared.wait_until_idle(self.shared.options.deadline);
        let shared = Arc::clone(&self.shared);
        let (done, end) = std::sync::mpsc::channel();
        self.shared.handle.spawn(async move {
            let _ = done.send(shared.remove_own().await);
        });
        end.recv_timeout(self.shared.options.deadline * 2).unwrap_or(Err(EngineError::Closed))
    }
}

impl Shared {
    /// Runs `work` on this client's own threads and waits for it. The work continues even if the
    /// returned future is dropped.
    pub(crate) async fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.handle.spawn(work).await.unwrap_or(Err(EngineError::Closed))
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Makes one call to the engine, with the default deadline.
    pub(crate) async fn call<T>(
        &self,
        step: Step,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        self.call_within(self.options.deadline, step, call).await
    }

    /// Makes one call to the engine, with its own deadline.
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
                        self.connection_failure.record(&error)
                    }
                    Step::Remove => self.removal_failure.record(&error),
                    // A timeout for one image or container says nothing about others.
                    Step::Load | Step::InspectImage | Step::Wait | Step::Inspect => {}
                }
                Err(error)
            }
        }
    }

    /// Returns the client. The first call connects, and removes orphaned containers.
    pub(crate) async fn docker(&self) -> Result<Docker, EngineError> {
        let mut connected = self.docker.lock().await;
        if let Some(docker) = &*connected {
            return Ok(docker.clone());
        }
        self.connection_failure.check()?;
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
            tracing::warn!("cannot remove all orphaned containers: {error}");
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

    /// Creates a container, attaches to it, and starts it. Retries transient failures.
    pub(crate) async fn launch(self: &Arc<Self>, body: Box<ContainerCreateBody>) -> Launched {
        self.connection_failure.check()?;
        let launched = retrying(|| Box::pin(self.launch_once(body.clone()))).await;
        if let Err(error @ EngineError::Unreachable { .. }) = &launched {
            self.connection_failure.record(error);
        }
        launched
    }

    async fn launch_once(self: &Arc<Self>, mut body: Box<ContainerCreateBody>) -> Launched {
        let shared = Arc::clone(self);
        body.labels = Some(self.labels());
        // Dropped after the container, so that `wait_until_idle` counts either this or the
        // container's removal.
        let starting = self.count_starting();
        self.spawn(async move {
            let _starting = starting;
            let docker = shared.docker().await?;
            if shared.is_podman.load(Ordering::Relaxed) {
                adapt_to_podman(&mut body);
            }
            let Ok(_turn) = shared.starts.acquire().await else { return Err(EngineError::Closed) };
            shared.connection_failure.check()?;
            let container = shared.reserve_container()?;
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

    /// Counts a new container and names it. Dropping the returned value removes it, even if it was
    /// never created.
    ///
    /// # Errors
    /// - [`EngineError::Closed`] if this connection is closed.
    /// - [`EngineError::TooMany`] if there are as many containers as the options allow.
    fn reserve_container(self: &Arc<Self>) -> Result<Container, EngineError> {
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
        Ok(Container { shared: Arc::clone(self), name, is_removing: false })
    }

    /// Removes a container in the background, and kills it if it has not ended within `patience`.
    /// The returned task ends when the container is removed, or when its removal has failed for
    /// now.
    fn dispose(self: &Arc<Self>, name: String, patience: Duration) -> JoinHandle<()> {
        self.containers.lock().removing += 1;
        let shared = Arc::clone(self);
        self.handle.spawn(async move {
            if !patience.is_zero()
                && let Ok(docker) = shared.docker().await
            {
                wait_for_end(&docker, &name, patience).await;
            }
            let removed = retrying(|| shared.remove(&name)).await;
            shared.containers.lock().removing -= 1;
            match removed {
                Ok(()) => shared.count_removed(),
                Err(error) => {
                    tracing::warn!("cannot remove container {name}, will retry: {error}");
                    shared.changed.notify_all();
                    tokio::spawn(keep_removing(Arc::downgrade(&shared), name));
                }
            }
        })
    }

    /// Removes a container whose creation timed out, in case the engine creates it later.
    fn remove_later(self: &Arc<Self>, name: String) {
        let shared = Arc::clone(self);
        self.handle.spawn(async move {
            tokio::time::sleep(shared.options.deadline).await;
            let _ = shared.remove(&name).await;
        });
    }

    /// Counts a container as being started until the returned value is dropped.
    fn count_starting(self: &Arc<Self>) -> Starting {
        self.containers.lock().starting += 1;
        Starting(Arc::clone(self))
    }

    /// Counts a container as removed.
    fn count_removed(&self) {
        self.containers.lock().alive -= 1;
        self.changed.notify_all();
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let docker = self.docker().await?;
        let Ok(_turn) = self.removals.acquire().await else { return Err(EngineError::Closed) };
        self.removal_failure.check()?;
        self.force_removal(&docker, name).await
    }

    async fn force_removal(&self, docker: &Docker, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.call(Step::Remove, docker.remove_container(container, Some(options))).await {
            // The container does not exist, or is already being removed.
            Err(EngineError::Refused { code: 404 | 409, .. }) => Ok(()),
            result => result,
        }
    }

    /// Removes the containers with labels for which `unwanted` returns true.
    async fn sweep(
        &self,
        docker: &Docker,
        unwanted: impl Fn(&HashMap<String, String>) -> bool,
    ) -> Result<(), EngineError> {
        let mut filters = HashMap::from([("label", vec![OWNER])]);
        if self.is_podman.load(Ordering::Relaxed) {
            // Podman has a further status, `stopped`, on the way to `exited`, which bollard cannot
            // parse.
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
                // The engine may refuse to remove one container and still remove the next.
                Err(error @ EngineError::Refused { .. }) => outcome = Err(error),
                removed => removed?,
            }
        }
        outcome
    }

    /// Removes all remaining containers of this connection. Does nothing if the engine was never
    /// reached.
    async fn remove_own(&self) -> Result<(), EngineError> {
        let Some(docker) = self.docker.lock().await.clone() else { return Ok(()) };
        let own = self.labels();
        self.sweep(&docker, |labels| {
            own.iter().all(|(name, value)| labels.get(name) == Some(value))
        })
        .await
    }

    /// Blocks until no container is being started or removed, or until `patience` has passed.
    pub(crate) fn wait_until_idle(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut containers = self.containers.lock();
        while containers.removing + containers.starting > 0
            && !self.changed.wait_until(&mut containers, deadline).timed_out()
        {}
    }
}

/// Retries the removal of a container at growing intervals, until the connection is closed, which
/// removes what remains.
async fn keep_removing(shared: Weak<Shared>, name: String) {
    let (mut pause, longest) = REMOVAL_PAUSES;
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.containers.lock().closed {
            return;
        }
        if shared.remove(&name).await.is_ok() {
            return shared.count_removed();
        }
        pause = (pause * 2).min(longest);
    }
}

/// Sets the limit on processes explicitly. Podman raises each limit that is not set to the
/// machine's maximum, which it may not have the right to do.
fn adapt_to_podman(body: &mut ContainerCreateBody) {
    let processes_of_user =
        ResourcesUlimits { name: Some("nproc".to_owned()), soft: Some(4096), hard: Some(4096) };
    if let Some(limits) = body.host_config.as_mut().and_then(|config| config.ulimits.as_mut()) {
        limits.push(processes_of_user);
    }
}

/// Counts a container as being started until it is dropped.
struct Starting(Arc<Shared>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.containers.lock().starting -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The last reference may be dropped on one of the runtime's own threads, where a blocking
        // shutdown would panic.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A container of this process. Dropping it kills and removes the container in the background.
pub(crate) struct Container {
    shared: Arc<Shared>,
    name: String,
    is_removing: bool,
}

/// A running container and its standard streams.
pub(crate) type Launched = Result<(Container, Wire), EngineError>;

/// How a container ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) out_of_memory: bool,
    pub(crate) exit_code: i64,
}

impl Exit {
    /// Returns whether the container's own program ended it, as far as the exit code shows. An
    /// engine that has lost a container reports 255, and an engine that restarts kills the
    /// containers that it finds.
    pub(crate) fn ended_by_itself(&self) -> bool {
        const KILLED: i64 = 128 + 9;
        /// The status with which the guest SDK exits when its host is gone.
        const LOST_ITS_HOST: i64 = 86;
        const UNKNOWN_STATUS: i64 = 255;
        ![KILLED, LOST_ITS_HOST, UNKNOWN_STATUS].contains(&self.exit_code)
    }
}

/// Waits until a container ends, or until `patience` has passed. Does not return the exit code,
/// because bollard reports any code other than 0 as an error.
async fn wait_for_end(docker: &Docker, name: &str, patience: Duration) {
    let mut ends = docker.wait_container(name, None::<WaitContainerOptions>);
    let _ = tokio::time::timeout(patience, ends.next()).await;
}

/// How long a process may take to end after it has named its outcome or closed its standard output.
pub(crate) const EXIT_GRACE: Duration = Duration::from_secs(2);

impl Container {
    /// Waits until the container ends, and returns how it ended; `None` if it has not ended within
    /// `patience`.
    pub(crate) async fn wait_for_exit(
        &self,
        patience: Duration,
    ) -> Result<Option<Exit>, EngineError> {
        let (shared, name) = (Arc::clone(&self.shared), self.name.clone());
        self.shared
            .spawn(async move {
                let docker = shared.docker().await?;
                wait_for_end(&docker, &name, patience).await;
                let container =
                    shared.call(Step::Inspect, docker.inspect_container(&name, None)).await?;
                let ContainerState { running, oom_killed, exit_code, .. } =
                    container.state.unwrap_or_default();
                Ok((running != Some(true)).then(|| Exit {
                    out_of_memory: oom_killed == Some(true),
                    exit_code: exit_code.unwrap_or_default(),
                }))
            })
            .await
    }

    /// Removes the container in the background, and kills it if it has not ended within `patience`.
    /// Waiting for a container that is about to end saves the engine the process that it starts to
    /// kill one. The returned task ends when the container is removed, or when its removal has
    /// failed for now.
    pub(crate) fn remove(mut self, patience: Duration) -> JoinHandle<()> {
        self.is_removing = true;
        self.shared.dispose(std::mem::take(&mut self.name), patience)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.is_removing {
            self.shared.dispose(std::mem::take(&mut self.name), Duration::ZERO);
        }
    }
}
