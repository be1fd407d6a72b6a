//! A dispatcher with everything that the command needs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manifold::guests::{self, ContainerPrograms, Hosts};
use manifold_dispatcher::{Budget, Dispatcher, DispatcherBuilder, Invocation, ObjectSource, Policy, Store};
use manifold_runtime_api::{EntryMode, Limits, Object, ObjectId, ObjectKind, Result as ApiResult, Runtime, TreeEntry};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_runtime_wasm::WasmRuntime;

use crate::args::{ContainerArgs, UseArgs};
use crate::error::CliError;

pub(crate) struct Session {
    pub(crate) dispatcher: Dispatcher,
    /// The runtimes, for images made on the spot.
    pub(crate) hosts: Hosts,
    /// The standard tree.
    pub(crate) std: ObjectId,
    /// What runs containers, once one is to be run.
    pub(crate) engine: ContainerEngine,
    /// Whether a container image may be named by a tag, which is looked up once.
    pub(crate) allow_tags: bool,
}

impl Session {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        mut sources: Vec<Arc<dyn ObjectSource>>,
        containers: ContainerArgs,
    ) -> Result<Self, CliError> {
        let wasm = Arc::new(WasmRuntime::new()?);
        let engine = engine()?;
        let mode = if containers.fresh { Mode::Fresh } else { Mode::Parked };
        let docker = Arc::new(DockerRuntime::builder().mode(mode).build(&engine)?);
        let serving = Arc::new(DockerRuntime::builder().mode(Mode::Serving).build(&engine)?);
        let mut hosts = Hosts {
            wasm: Some(wasm.host_image().id()),
            typescript: None,
            container: Some(docker.host_image().id()),
            serving: Some(serving.host_image().id()),
        };
        let builder = Dispatcher::builder().store(store).limits(limits()).budget(budget());
        let builder = builder.runtime(wasm).containers(Arc::clone(&docker) as _).runtime(docker).runtime(serving);
        let builder = with_v8(builder, &mut hosts)?;
        sources.push(Arc::new(ContainerPrograms));
        let dispatcher = sources.into_iter().fold(builder, |builder, source| builder.source(source)).build()?;
        let std = guests::install(&dispatcher, hosts)?;
        Ok(Self { dispatcher, hosts, std, engine, allow_tags: containers.allow_tags })
    }

    /// The call of `image` on `args`, as the user wants it.
    pub(crate) fn invocation(&self, image: &str, args: ObjectId, salt: &str, using: &UseArgs) -> Invocation {
        let mut invocation = Invocation::new(image, args).salt(salt).std(self.std);
        invocation.pin = !using.no_pin;
        if let Some(time) = using.deadline {
            invocation = invocation.budget(budget().deadline(time));
        }
        invocation.policy(if using.recompute { Policy::RecomputeAll } else { Policy::Reuse })
    }

    /// Stores `text` and answers the entry of an arguments tree for it.
    pub(crate) fn text_argument(&self, name: &str, text: &str) -> Result<TreeEntry, CliError> {
        let id = self.dispatcher.put_blob(text.as_bytes().to_vec())?;
        Ok(TreeEntry::new(name, EntryMode::Blob, id))
    }
}

/// The engine of this process.
fn engine() -> Result<ContainerEngine, CliError> {
    if let Some(engine) = ENGINE.get() {
        return Ok(engine.clone());
    }
    let engine = ContainerEngine::new(EngineOptions::default()).map_err(CliError::NoThreads)?;
    Ok(ENGINE.get_or_init(|| engine).clone())
}

static ENGINE: OnceLock<ContainerEngine> = OnceLock::new();

/// Leaves no containers behind.
pub(crate) fn close_containers() {
    if let Some(Err(error)) = ENGINE.get().map(ContainerEngine::close) {
        eprintln!("warning: containers may be left: {error}; the next command that uses the engine removes them");
    }
}

#[cfg(feature = "v8")]
fn with_v8(builder: DispatcherBuilder, hosts: &mut Hosts) -> Result<DispatcherBuilder, CliError> {
    let v8 = Arc::new(manifold_runtime_v8::V8Runtime::new()?);
    hosts.typescript = Some(v8.host_image().id());
    Ok(builder.runtime(v8))
}

#[cfg(not(feature = "v8"))]
#[expect(clippy::unnecessary_wraps, reason = "as with V8")]
fn with_v8(builder: DispatcherBuilder, _: &mut Hosts) -> Result<DispatcherBuilder, CliError> {
    Ok(builder)
}

/// A directory may hold large files, and the user means them. In base64 a response of 1 GiB is a file of 768 MiB.
fn limits() -> Limits {
    const GIB: u64 = 1 << 30;
    let mut limits = Limits::default();
    limits.memory_bytes = 4 * GIB;
    limits.response_bytes = GIB;
    limits.guest_request_bytes = GIB;
    limits
}

/// Whoever sits at the terminal decides how long a fold may take.
fn budget() -> Budget {
    Budget::new().deadline(Duration::MAX)
}

/// A source that is known later than the dispatcher: empty until it is set.
#[derive(Default)]
pub(crate) struct LateSource(OnceLock<Arc<dyn ObjectSource>>);

impl LateSource {
    /// Sets the source. The first one stays.
    pub(crate) fn set(&self, source: Arc<dyn ObjectSource>) {
        let _ = self.0.set(source);
    }
}

impl ObjectSource for LateSource {
    fn read(&self, id: ObjectId) -> ApiResult<Option<Object>> {
        self.0.get().map_or(Ok(None), |source| source.read(id))
    }

    fn kind(&self, id: ObjectId) -> ApiResult<Option<ObjectKind>> {
        self.0.get().map_or(Ok(None), |source| source.kind(id))
    }
}
