//! The runtime and its builder.

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, Job, Limits, ObjectRef, Result, Runtime, TreeError,
    abi, async_trait,
};

use crate::containers::{Containers, Mode};
use crate::engine::ContainerEngine;
use crate::job;
use crate::limits::Isolation;
use crate::prepare::Preparer;

/// Runs guests in containers.
///
/// Registered under its own host image, it runs modules: a module is the tree of a container image,
/// or a blob with the text `docker://<digest>`. Passed to the dispatcher's builder as `containers`,
/// it runs container images (`docker://<digest>`), and keeps the containers warm that are hosts of
/// modules.
pub struct DockerRuntime {
    host_image: HostImage,
    capabilities: Capabilities,
    preparer: Preparer,
    containers: Arc<Containers>,
}

/// Builder for a [`DockerRuntime`].
#[derive(Debug, Clone)]
pub struct DockerRuntimeBuilder {
    mode: Mode,
    isolation: Isolation,
    parked: usize,
    jobs: u32,
    warm: usize,
    idle: Duration,
    image_bytes: u64,
}

impl Default for DockerRuntimeBuilder {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            isolation: Isolation::default(),
            parked: 4,
            jobs: 1000,
            warm: std::thread::available_parallelism().map_or(2, NonZero::get) * 8,
            idle: Duration::from_secs(60),
            image_bytes: 1 << 30,
        }
    }
}

impl DockerRuntimeBuilder {
    /// Sets how jobs get their containers. Default: [`Mode::Recycled`].
    ///
    /// Fresh, parked and recycled containers do not differ in anything that a guest can observe, so
    /// they share a host image. Serving containers have their own.
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

    /// Sets how many started containers of an image wait for jobs in [`Mode::Parked`], at least 1.
    /// Default: 4.
    #[must_use]
    pub fn parked(mut self, count: usize) -> Self {
        self.parked = count.max(1);
        self
    }

    /// Sets how many jobs a container may have in [`Mode::Recycled`], at least 1. Then it is replaced.
    /// Default: 1000.
    #[must_use]
    pub fn jobs(mut self, count: u32) -> Self {
        self.jobs = count.max(1);
        self
    }

    /// Sets how many containers without a job are kept in [`Mode::Recycled`], of all images together.
    /// If there are more, the one that was unused for the longest time is removed. Default: 8 for
    /// each core.
    ///
    /// How many containers of an image there are is decided by the jobs: one is started when a job
    /// finds none free, and is kept for later ones.
    #[must_use]
    pub fn warm(mut self, count: usize) -> Self {
        self.warm = count;
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
    /// [`Reason::RuntimeFailed`](manifold_runtime_api::Reason::RuntimeFailed) if the mode is
    /// [`Mode::Serving`] and the isolation lets one job of a container leave data for the next:
    /// with a writable root file system, as root, or with unconfined system calls.
    pub fn build(self, engine: &ContainerEngine) -> Result<DockerRuntime> {
        if let (Mode::Serving, Some(leak)) = (self.mode, self.isolation.leak_between_jobs()) {
            let problem = format!(
                "cannot use serving containers with {leak}: one job could leave data for the next"
            );
            return Err(Error::runtime(problem));
        }
        let host_image = self.host_image()?;
        let capabilities = self.capabilities();
        let roster = Arc::clone(&engine.roster);
        let client = Arc::clone(&roster.client);
        let preparer = Preparer::new(Arc::clone(&client), self.isolation, self.image_bytes);
        let containers = Containers::new(roster, self.mode, self.parked, self.jobs, self.warm);
        client.handle().spawn(reap(Arc::downgrade(&containers), self.idle));
        Ok(DockerRuntime { host_image, capabilities, preparer, containers })
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::blob_modules().and_tree_modules();
        // The key of a request for `docker://…` does not contain the mode or isolation, so there
        // must be only one way to run it.
        let plain = self.mode != Mode::Serving && self.isolation == Isolation::default();
        if plain { capabilities.and_containers() } else { capabilities }
    }

    fn host_image(&self) -> Result<HostImage, TreeError> {
        let process = match self.mode {
            Mode::Fresh | Mode::Parked | Mode::Recycled => "started by an init",
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

#[async_trait]
impl Runtime for DockerRuntime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        self.containers.warm(self.preparer.prepare(code, limits, host).await?).await
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        job::run(&self.preparer, &self.containers, job, host).await
    }
}

/// Periodically removes containers that were unused for `idle`, until the runtime is dropped.
async fn reap(containers: Weak<Containers>, idle: Duration) {
    loop {
        tokio::time::sleep((idle / 4).max(Duration::from_millis(10))).await;
        let Some(containers) = containers.upgrade() else { return };
        containers.remove_idle(idle);
    }
}

/// Maximum time that dropping a runtime waits.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

impl Drop for DockerRuntime {
    /// Removes the containers that wait for jobs, and waits up to 5 seconds for that.
    /// [`ContainerEngine::close`] waits longer.
    fn drop(&mut self) {
        self.containers.close(DROP_TIMEOUT);
    }
}
