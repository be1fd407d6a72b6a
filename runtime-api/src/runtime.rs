//! What runs guests.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::host::Host;
use crate::host_image::HostImage;
use crate::image::Code;
use crate::limits::Limits;
use crate::meter::Meter;
use crate::object::{ObjectId, ObjectKind};
use crate::request::Outcome;

/// One execution of a request.
#[derive(Debug, Clone)]
pub struct Job {
    /// The request's id.
    pub request: ObjectId,
    /// The running image as it stands in the request, so that a recursive guest needs no name for itself.
    pub image: Arc<str>,
    /// The guest's code.
    pub code: Code,
    /// The arguments tree.
    pub args: ObjectId,
    /// The tree of named images.
    pub std: Option<ObjectId>,
    /// The request's salt.
    pub salt: Arc<str>,
    /// What the guest may use up.
    pub limits: Limits,
    /// What it may use up together with the other frames of the same call from outside.
    pub meter: Arc<Meter>,
}

/// What a runtime can do, for errors before a job is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whether a module may be a blob.
    pub blob_modules: bool,
    /// Whether a module may be a tree.
    pub tree_modules: bool,
    /// Whether it gets containers: [`Code::Container`] and [`Code::Hosted`].
    pub containers: bool,
    /// Whether fuel is measured: [`Limits::fuel`] kept, and [`Meter::burn`] called.
    pub fuel: bool,
}

impl Capabilities {
    /// For a runtime whose modules are blobs.
    pub const fn blob_modules() -> Self {
        Self { blob_modules: true, tree_modules: false, containers: false, fuel: false }
    }

    /// Also takes modules that are trees.
    #[must_use]
    pub const fn and_tree_modules(mut self) -> Self {
        self.tree_modules = true;
        self
    }

    /// Also takes containers, as guests and as hosts of modules.
    #[must_use]
    pub const fn and_containers(mut self) -> Self {
        self.containers = true;
        self
    }

    /// Also measures fuel.
    #[must_use]
    pub const fn and_fuel(mut self) -> Self {
        self.fuel = true;
        self
    }

    /// Whether a module of `kind` can be run.
    pub const fn accepts(&self, kind: ObjectKind) -> bool {
        match kind {
            ObjectKind::Blob => self.blob_modules,
            ObjectKind::Tree => self.tree_modules,
        }
    }
}

/// A backend that runs guests: wasmtime, V8, containers, or your own.
///
/// # Behavior
/// - What a guest can see is a function of its [`Job`] and of what [`Host`] answers, and of nothing else.
/// - Any number of jobs may be under way at once. A job that awaits its host holds no OS thread and no slot that another
///   job needs, so that a guest may call itself to any depth.
/// - Dropping the future of `run` stops the guest.
/// - A hostile guest gets an error; it neither ends nor blocks the process.
///
/// # Example
/// A runtime whose modules are texts, and whose guests answer the module's text:
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use manifold_runtime_api::{Capabilities, Host, HostImage, Job, Outcome, Result, Runtime};
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
///     async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<Outcome> {
///         let text = host.get(job.code.own_module()?.id).await?;
///         Ok(Outcome::blob(host.put_blob(text).await?))
///     }
/// }
/// # let _ = Echo(HostImage::new("echo").with("version", 1).seal()?);
/// # Ok::<(), manifold_runtime_api::TreeError>(())
/// ```
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Who this runtime is. The same at every call.
    fn host_image(&self) -> &HostImage;

    /// What this runtime can do. The same at every call.
    fn capabilities(&self) -> Capabilities;

    /// Makes a later `run` of `code` faster: reads, checks, compiles. Doing nothing is fine.
    ///
    /// # Errors
    /// `BadModule` when no job of the module can run; what `host` answered when the module cannot be read.
    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        let _ = (code, limits, host);
        Ok(())
    }

    /// Runs one job to its outcome. The dispatcher checks that the outcome's object exists, and adds the frame to an error.
    ///
    /// # Errors
    /// The guest's failure, a breached limit, or a failure of the runtime itself.
    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<Outcome>;
}
