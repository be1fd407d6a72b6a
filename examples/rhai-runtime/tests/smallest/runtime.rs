//! A runtime whose guests return their argument `in`, whatever their code is.

use std::sync::Arc;

use manifold_runtime_api::{
    Capabilities, Error, Host, HostImage, Job, Limit, ObjectRef, Result, Runtime, async_trait,
};

/// Runs guests that return their argument `in`.
#[derive(Debug)]
pub struct EchoRuntime {
    host_image: HostImage,
}

impl EchoRuntime {
    /// Creates a runtime.
    ///
    /// # Errors
    /// Returns an error if the host image is invalid.
    pub fn new() -> Result<Self> {
        Ok(Self { host_image: HostImage::new("echo").with("version", 1).seal()? })
    }
}

#[async_trait]
impl Runtime for EchoRuntime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules()
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        // The code of the guest. This runtime ignores it, but a module that is missing or too large
        // is an error all the same.
        let module = job.code.own_module()?.id;
        let (found, bytes) = (host.size(module).await?, job.limits.module_bytes);
        if found > bytes {
            return Err(Limit::Module { bytes, found }.into());
        }
        let _code = host.get(module).await?;
        let args = host.tree(job.args).await?;
        let object = args
            .get("in")
            .and_then(|entry| Some(ObjectRef { kind: entry.mode.object_kind()?, id: entry.id }));
        object.ok_or_else(|| Error::guest_failed("there is no argument `in`"))
    }
}
