//! The [`Runtime`] trait, the [`Job`] that it runs, and its [`Capabilities`].

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::host::Host;
use crate::host_image::HostImage;
use crate::image::Code;
use crate::limits::Limits;
use crate::meter::Meter;
use crate::object::{ObjectId, ObjectKind, ObjectRef};

/// One unit of work for a runtime: a single execution of a request.
///
/// [`Job::new`] creates one with default limits. Set the other fields afterwards.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Job {
    /// The request's id, which is the memo key.
    pub request: ObjectId,
    /// The image reference in the request. A guest that calls itself passes it to
    /// [`Host::run`](crate::Host::run), so it needs no name for itself.
    pub image: Arc<str>,
    /// The guest's code.
    pub code: Code,
    /// The tree of arguments.
    pub args: ObjectId,
    /// The tree of named images, or `None` if the request has none.
    pub std: Option<ObjectId>,
    /// The request's salt.
    pub salt: Arc<str>,
    /// The limits of this frame. The runtime enforces them.
    pub limits: Limits,
    /// The budget for fuel and memory that this frame shares with all other frames of the same root
    /// call. The runtime charges it.
    pub meter: Arc<Meter>,
}

impl Job {
    /// Creates a job without named images and salt, with the default limits and an unlimited meter.
    pub fn new(request: ObjectId, image: impl Into<Arc<str>>, code: Code, args: ObjectId) -> Self {
        Self {
            request,
            image: image.into(),
            code,
            args,
            std: None,
            salt: Arc::from(""),
            limits: Limits::default(),
            meter: Arc::new(Meter::unlimited()),
        }
    }

    /// Sets the tree of named images.
    #[must_use]
    pub fn std(mut self, std: Option<ObjectId>) -> Self {
        self.std = std;
        self
    }

    /// Sets the salt.
    #[must_use]
    pub fn salt(mut self, salt: impl Into<Arc<str>>) -> Self {
        self.salt = salt.into();
        self
    }

    /// Sets the limits of the frame.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the meter that the frame shares with the other frames of its root call.
    #[must_use]
    pub fn meter(mut self, meter: Arc<Meter>) -> Self {
        self.meter = meter;
        self
    }
}

/// The kinds of jobs that a runtime supports.
///
/// The dispatcher checks them before it starts a job, and returns an error for a job that the
/// runtime does not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whether a module may be a blob.
    pub blob_modules: bool,
    /// Whether a module may be a tree.
    pub tree_modules: bool,
    /// Whether the runtime runs [`Code::Container`] and [`Code::Hosted`].
    pub containers: bool,
    /// Whether the runtime measures fuel: it enforces [`Limits::fuel`] and calls [`Meter::burn`].
    pub fuel: bool,
    /// Whether a guest computes only while the future that [`Runtime::run`] returns is polled.
    ///
    /// If so, a guest that awaits something other than its host, such as a timer or a socket, holds
    /// no run permit meanwhile.
    pub computes_only_when_polled: bool,
}

impl Capabilities {
    /// Creates the capabilities of a runtime whose modules are blobs.
    pub const fn blob_modules() -> Self {
        Self {
            blob_modules: true,
            tree_modules: false,
            containers: false,
            fuel: false,
            computes_only_when_polled: false,
        }
    }

    /// Adds support for modules that are trees.
    #[must_use]
    pub const fn and_tree_modules(mut self) -> Self {
        self.tree_modules = true;
        self
    }

    /// Adds support for containers, both as guests and as hosts of modules.
    #[must_use]
    pub const fn and_containers(mut self) -> Self {
        self.containers = true;
        self
    }

    /// Adds support for measuring fuel.
    #[must_use]
    pub const fn and_fuel(mut self) -> Self {
        self.fuel = true;
        self
    }

    /// States that guests compute only while their future is polled. See
    /// [`Capabilities::computes_only_when_polled`].
    #[must_use]
    pub const fn and_computes_only_when_polled(mut self) -> Self {
        self.computes_only_when_polled = true;
        self
    }

    /// Returns whether a module of `kind` is supported.
    pub const fn accepts(&self, kind: ObjectKind) -> bool {
        match kind {
            ObjectKind::Blob => self.blob_modules,
            ObjectKind::Tree => self.tree_modules,
        }
    }
}

/// A backend that runs guests, for example on wasmtime, on V8, or in containers.
///
/// # Behavior
/// - What a guest observes depends only on its [`Job`] and on the results of its [`Host`] calls.
/// - Any number of jobs may run concurrently. A job that waits for its host holds no OS thread and
///   no slot that another job needs, so a guest may call itself to any depth.
/// - Dropping the future that `run` returns stops the guest.
/// - A hostile guest causes an error. It can neither terminate nor block the process.
///
/// # Example
/// A runtime whose guests return the content of their module:
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use manifold_runtime_api::{Capabilities, Host, HostImage, Job, ObjectRef, Result, Runtime};
///
/// struct Echo(HostImage);
///
/// #[async_trait]
/// impl Runtime for Echo {
///     fn host_image(&self) -> &HostImage {
///         &self.0
///     }
///     fn capabilities(&self) -> Capabilities {
///         Capabilities::blob_modules()
///     }
///     async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
///         let text = host.get(job.code.own_module()?.id).await?;
///         Ok(ObjectRef::blob(host.put_blob(text).await?))
///     }
/// }
/// # let _ = Echo(HostImage::new("echo").with("version", 1).seal()?);
/// # Ok::<(), manifold_runtime_api::TreeError>(())
/// ```
///
/// # Building blocks
/// - [`Session`](crate::abi::Session) performs the operations of a guest and determines the result
///   of its job, so that all runtimes behave alike.
/// - [`Stopwatch`](crate::Stopwatch) measures computing time.
/// - [`MemoryReservation`](crate::MemoryReservation) charges memory to the job's meter.
/// - [`TestHost`](crate::TestHost) is a host for tests, and the crate `manifold-conformance` has a
///   test for each bullet under "Behavior".
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Returns the host image that identifies this runtime. Every call returns the same one.
    fn host_image(&self) -> &HostImage;

    /// Returns what this runtime supports. Every call returns the same value.
    fn capabilities(&self) -> Capabilities;

    /// Prepares `code` so that a later [`run`](Self::run) starts faster, for example by reading,
    /// validating and compiling its module. The default implementation does nothing.
    ///
    /// # Errors
    /// - [`Reason::BadModule`](crate::Reason::BadModule) if the module cannot be loaded, so that no
    ///   job could run it.
    /// - The error that `host` returns if the module cannot be read.
    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        let _ = (code, limits, host);
        Ok(())
    }

    /// Runs one job and returns its outcome.
    ///
    /// The dispatcher checks that the outcome's object exists. If this returns an error, the
    /// dispatcher adds the [`Frame`](crate::Frame).
    ///
    /// # Errors
    /// Returns an error if the guest fails, if it exceeds a limit, or if the runtime itself fails.
    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef>;
}

#[async_trait]
impl<T: Runtime + ?Sized> Runtime for Arc<T> {
    fn host_image(&self) -> &HostImage {
        (**self).host_image()
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        (**self).prepare(code, limits, host).await
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        (**self).run(job, host).await
    }
}
