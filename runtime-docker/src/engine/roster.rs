//! The roster of this process's containers: starting, counting and removing them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bollard::models::{ContainerCreateBody, ResourcesUlimits};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions,
};
use manifold_runtime_api::Status;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinHandle;

use super::client::{Client, wait_for_end};
use super::error::{EngineError, Step};
use super::exit::Exit;
use super::options::EngineOptions;
use super::owner::{self, Owner};
use super::retry::retrying;
use crate::init::{InitFile, Place, image_with_init};
use crate::spec::Spec;
use crate::wire::Streams;

/// The containers of one connection to an engine.
pub(crate) struct Roster {
    pub(crate) client: Arc<Client>,
    starts: Semaphore,
    removals: Semaphore,
    owner: Owner,
    /// Number of this connection among all that this process makes to engines.
    connection: u64,
    /// Maximum number of containers at one time.
    capacity: usize,
    counts: Mutex<Counts>,
    /// Notified when fewer containers are being started or removed.
    changed: Condvar,
    /// The program that is mounted in containers for one job at a time, once there is one.
    init: Mutex<Option<InitFile>>,
    /// The images that carry the program, by the image that they extend.
    with_init: Mutex<HashMap<Arc<str>, Arc<ImageWithInit>>>,
}

/// The name of an image that carries the program, once it is made.
type ImageWithInit = OnceCell<Arc<str>>;

/// Counts of this process's containers.
#[derive(Default)]
struct Counts {
    /// How many exist, as far as this process knows.
    alive: usize,
    /// How many of them are being removed.
    removing: usize,
    /// How many are being started.
    starting: usize,
    closed: bool,
}

/// Label that numbers the connection that created a container, within its process.
const CONNECTION: &str = "io.manifold.connection";
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static CONTAINERS: AtomicU64 = AtomicU64::new(0);
/// First and longest pause between attempts to remove a container that could not be removed.
const REMOVAL_PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

impl Roster {
    pub(super) fn new(client: Client, options: &EngineOptions) -> Self {
        let at_once = options.at_once.max(1);
        Self {
            client: Arc::new(client),
            starts: Semaphore::new(at_once),
            removals: Semaphore::new(at_once),
            owner: Owner::this_process(),
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            capacity: options.containers,
            counts: Mutex::default(),
            changed: Condvar::new(),
            init: Mutex::default(),
            with_init: Mutex::default(),
        }
    }

    /// Returns the labels of the containers of this connection.
    pub(super) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (owner::LABEL.to_owned(), self.owner.label()),
            (CONNECTION.to_owned(), self.connection.to_string()),
        ])
    }

    /// Returns whether there are containers, including those that are being started.
    pub(super) fn has_containers(&self) -> bool {
        let counts = self.counts.lock();
        counts.alive + counts.starting > 0
    }

    /// Starts a container for one job at a time.
    pub(crate) async fn launch_with_init(self: &Arc<Self>, spec: &Spec) -> Launched {
        loop {
            let place = self.place_of_init(&spec.image).await?;
            let launched = self.launch(spec.for_one_job_at_a_time(&place)).await;
            match (&launched, place) {
                (Err(error), Place::Mounted(_)) if error.is_about_a_mount() => {
                    self.client.sees_no_files();
                }
                (Err(EngineError::Refused { step: Step::Create, code: 404, .. }), _) => {
                    self.with_init.lock().remove(&spec.image);
                    return launched;
                }
                _ => return launched,
            }
        }
    }

    /// Returns where the init of containers of `image` comes from.
    async fn place_of_init(self: &Arc<Self>, image: &Arc<str>) -> Result<Place, EngineError> {
        self.client.connection_failure.check()?;
        if self.client.sees_files().await? {
            return Ok(Place::Mounted(self.init(image)?));
        }
        let cell = Arc::clone(self.with_init.lock().entry(Arc::clone(image)).or_default());
        let made = cell.get_or_try_init(|| {
            retrying(|| {
                let (roster, image) = (Arc::clone(self), Arc::clone(image));
                let name = roster.new_name();
                self.client.spawn(async move {
                    image_with_init(&roster.client, &image, &name, roster.labels()).await
                })
            })
        });
        Ok(Place::Image(Arc::clone(made.await?)))
    }

    /// Returns the path of the program that is the first process of containers for one job at a
    /// time.
    ///
    /// # Errors
    /// [`EngineError::NotServing`] if it cannot be written.
    fn init(&self, image: &str) -> Result<String, EngineError> {
        let mut init = self.init.lock();
        if let Some(init) = &*init {
            return Ok(init.path());
        }
        let written = InitFile::write().map_err(|error| EngineError::NotServing {
            image: image.to_owned(),
            problem: format!("cannot be started without its init: {error}"),
            status: Status::Permanent,
        })?;
        Ok(init.insert(written).path())
    }

    /// Returns the maximum number of containers at one time.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Accepts no more containers.
    pub(super) fn close(&self) {
        self.counts.lock().closed = true;
    }

    /// Creates a container, attaches to it, and starts it. Retries transient failures.
    pub(crate) async fn launch(self: &Arc<Self>, body: Box<ContainerCreateBody>) -> Launched {
        self.client.connection_failure.check()?;
        let launched = retrying(|| Box::pin(self.launch_once(body.clone()))).await;
        if let Err(error @ EngineError::Unreachable { .. }) = &launched {
            self.client.connection_failure.record(error);
        }
        launched
    }

    async fn launch_once(self: &Arc<Self>, mut body: Box<ContainerCreateBody>) -> Launched {
        let roster = Arc::clone(self);
        body.labels = Some(self.labels());
        // Dropped after the container, so that `wait_until_idle` counts either this or the
        // container's removal.
        let starting = self.count_starting();
        self.client
            .spawn(async move {
                let _starting = starting;
                let docker = roster.client.docker().await?;
                if roster.client.is_podman() {
                    adapt_to_podman(&mut body);
                }
                let Ok(_turn) = roster.starts.acquire().await else {
                    return Err(EngineError::Closed);
                };
                roster.client.connection_failure.check()?;
                let container = roster.reserve_container()?;
                let options = CreateContainerOptionsBuilder::new().name(&container.name).build();
                if let Err(error) = roster
                    .client
                    .call(Step::Create, Box::pin(docker.create_container(Some(options), *body)))
                    .await
                {
                    if matches!(error, EngineError::TimedOut { .. }) {
                        roster.remove_later(container.name.clone());
                    }
                    return Err(error);
                }
                let options = AttachContainerOptionsBuilder::new()
                    .stream(true)
                    .stdin(true)
                    .stdout(true)
                    .stderr(true)
                    .build();
                let attached = roster
                    .client
                    .call(Step::Attach, docker.attach_container(&container.name, Some(options)))
                    .await?;
                roster
                    .client
                    .call(
                        Step::Start,
                        docker.start_container(&container.name, None::<StartContainerOptions>),
                    )
                    .await?;
                Ok((container, Streams::attached(attached)))
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
        let mut counts = self.counts.lock();
        if counts.closed {
            return Err(EngineError::Closed);
        }
        if counts.alive >= self.capacity {
            return Err(EngineError::TooMany { count: counts.alive });
        }
        counts.alive += 1;
        let name = self.new_name();
        Ok(Container { roster: Arc::clone(self), name, is_removing: false })
    }

    fn new_name(&self) -> String {
        let number = CONTAINERS.fetch_add(1, Ordering::Relaxed);
        format!("manifold-{}-{number}", self.owner.name())
    }

    /// Removes a container in the background, and kills it if it has not ended within `patience`.
    /// The returned task ends when the container is removed, or when its removal has failed for
    /// now.
    fn dispose(self: &Arc<Self>, name: String, patience: Duration) -> JoinHandle<()> {
        self.counts.lock().removing += 1;
        let roster = Arc::clone(self);
        self.client.handle().spawn(async move {
            if !patience.is_zero()
                && let Ok(docker) = roster.client.docker().await
            {
                wait_for_end(&docker, &name, patience).await;
            }
            let removed = retrying(|| roster.remove(&name)).await;
            roster.counts.lock().removing -= 1;
            match removed {
                Ok(()) => roster.count_removed(),
                Err(error) => {
                    tracing::warn!("cannot remove container {name}, will retry: {error}");
                    roster.changed.notify_all();
                    tokio::spawn(keep_removing(Arc::downgrade(&roster), name));
                }
            }
        })
    }

    /// Removes a container whose creation timed out, in case the engine creates it later.
    fn remove_later(self: &Arc<Self>, name: String) {
        let roster = Arc::clone(self);
        self.client.handle().spawn(async move {
            tokio::time::sleep(roster.client.deadline).await;
            let _ = roster.remove(&name).await;
        });
    }

    /// Counts a container as being started until the returned value is dropped.
    fn count_starting(self: &Arc<Self>) -> Starting {
        self.counts.lock().starting += 1;
        Starting(Arc::clone(self))
    }

    /// Counts a container as removed.
    fn count_removed(&self) {
        self.counts.lock().alive -= 1;
        self.changed.notify_all();
    }

    async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let docker = self.client.docker().await?;
        let Ok(_turn) = self.removals.acquire().await else { return Err(EngineError::Closed) };
        self.client.removal_failure.check()?;
        self.client.force_removal(&docker, name).await
    }

    /// Removes all remaining containers of this connection. Does nothing if the engine was never
    /// reached.
    pub(super) async fn remove_own(&self) -> Result<(), EngineError> {
        let Some(docker) = self.client.connected().await else { return Ok(()) };
        let own = self.labels();
        self.client
            .sweep(&docker, |labels| {
                own.iter().all(|(name, value)| labels.get(name) == Some(value))
            })
            .await
    }

    /// Blocks until no container is being started or removed, or until `patience` has passed.
    pub(crate) fn wait_until_idle(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut counts = self.counts.lock();
        while counts.removing + counts.starting > 0
            && !self.changed.wait_until(&mut counts, deadline).timed_out()
        {}
    }
}

/// Retries the removal of a container at growing intervals, until the connection is closed, which
/// removes what remains.
async fn keep_removing(roster: Weak<Roster>, name: String) {
    let (mut pause, longest) = REMOVAL_PAUSES;
    loop {
        tokio::time::sleep(pause).await;
        let Some(roster) = roster.upgrade() else { return };
        if roster.counts.lock().closed {
            return;
        }
        if roster.remove(&name).await.is_ok() {
            return roster.count_removed();
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
struct Starting(Arc<Roster>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.counts.lock().starting -= 1;
        self.0.changed.notify_all();
    }
}

/// A container of this process. Dropping it kills and removes the container in the background.
pub(crate) struct Container {
    roster: Arc<Roster>,
    name: String,
    is_removing: bool,
}

/// A running container and its standard streams.
pub(crate) type Launched = Result<(Container, Streams), EngineError>;

impl Container {
    /// Waits until the container ends, and returns how it ended; `None` if it has not ended within
    /// `patience`.
    pub(crate) async fn wait_for_exit(
        &self,
        patience: Duration,
    ) -> Result<Option<Exit>, EngineError> {
        let (client, name) = (Arc::clone(&self.roster.client), self.name.clone());
        self.roster
            .client
            .spawn(async move {
                let docker = client.docker().await?;
                wait_for_end(&docker, &name, patience).await;
                let container =
                    client.call(Step::Inspect, docker.inspect_container(&name, None)).await?;
                Ok(Exit::of(container.state.unwrap_or_default()))
            })
            .await
    }

    /// Removes the container in the background, and kills it if it has not ended within `patience`.
    /// Waiting for a container that is about to end saves the engine the process that it starts to
    /// kill one. The returned task ends when the container is removed, or when its removal has
    /// failed for now.
    pub(crate) fn remove(mut self, patience: Duration) -> JoinHandle<()> {
        self.is_removing = true;
        self.roster.dispose(std::mem::take(&mut self.name), patience)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.is_removing {
            self.roster.dispose(std::mem::take(&mut self.name), Duration::ZERO);
        }
    }
}
