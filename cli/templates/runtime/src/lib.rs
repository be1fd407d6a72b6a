//! A runtime for Manifold. Its guests are programs in a language of words, see [`machine`].

mod machine;

use std::sync::Arc;

use manifold_runtime_api::abi::{self, Session};
use manifold_runtime_api::{
    Capabilities, Code, Error, Host, HostImage, Job, Limit, Limits, ObjectRef, Reason, Result,
    Runtime, async_trait,
};

use machine::Machine;

/// Runs guests in the language of words.
#[derive(Debug)]
pub struct WordsRuntime {
    host_image: HostImage,
}

impl WordsRuntime {
    /// Creates a runtime.
    ///
    /// # Errors
    /// Returns an error if the host image is invalid.
    pub fn new() -> Result<Self> {
        // Everything that can change an outcome: the versions of the language and of the ABI.
        let host_image = HostImage::new("{{name}}")
            .with("language", machine::LANGUAGE)
            .with("abi-revision", abi::REVISION)
            .seal()?;
        Ok(Self { host_image })
    }
}

#[async_trait]
impl Runtime for WordsRuntime {
    fn host_image(&self) -> &HostImage {
        &self.host_image
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules()
            .and_fuel()
            .and_computes_only_when_polled()
    }

    async fn prepare(&self, code: &Code, limits: &Limits, host: &dyn Host) -> Result<()> {
        load(code, limits, host).await.map(drop)
    }

    async fn run(&self, job: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        let program = load(&job.code, &job.limits, &*host).await?;
        let session = Session::new(job, host);
        let end = Machine::new(&session).run(&program).await;
        session.finish(end)
    }
}

/// Reads a module and checks it. A runtime whose modules take longer to load than these keeps the
/// loaded ones in a cache, by the module's id.
async fn load(code: &Code, limits: &Limits, host: &dyn Host) -> Result<String> {
    let module = code.own_module()?.id;
    let (found, bytes) = (host.size(module).await?, limits.module_bytes);
    if found > bytes {
        return Err(Limit::Module { bytes, found }.into());
    }
    let bad = |problem| Error::new(Reason::BadModule { module, problem });
    let text = String::from_utf8(host.get(module).await?.to_vec());
    let text = text.map_err(|error| bad(error.to_string()))?;
    match text.split_whitespace().find(|word| !machine::is_word(word)) {
        Some(unknown) => Err(bad(format!("unknown word `{unknown}`"))),
        None => Ok(text),
    }
}
