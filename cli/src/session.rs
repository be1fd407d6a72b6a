//! The dispatcher of the command, with its runtimes, sources and the standard tree.

use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manifold_cache_reapi::CacheTier;
use manifold_dispatcher::{
    Completion, Dispatcher, DispatcherBuilder, Event, Held, Invocation, ObjectSource, Observer,
    Policy, Store,
};
use manifold_nodes::Node;
use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{
    EntryMode, Object, ObjectId, ObjectKind, Result as ApiResult, Runtime, TreeEntry,
};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests::{self as guests, Hosts};
use parking_lot::Mutex;

use crate::args::{ContainerArgs, LimitArgs, UseArgs};
use crate::error::CliError;
use crate::names;
use crate::say::{say, warn};
use crate::shown::shown_in_line;
use crate::tracing::Tracing;

/// A dispatcher, and what the command needs beside it.
pub(crate) struct Session {
    pub(crate) dispatcher: Dispatcher,
    /// The host image hashes of the runtimes, for images of the user's files.
    pub(crate) hosts: Hosts,
    /// The id of the tree of named images for calls: the standard ones and the user's own, unless
    /// the user chose another tree.
    pub(crate) std: ObjectId,
    /// The id of the tree of the standard images.
    pub(crate) standard: ObjectId,
    /// The container engine. It is not contacted before a container is needed.
    pub(crate) engine: ContainerEngine,
    /// Whether a container image may be named by a tag, which is resolved to its digest once.
    pub(crate) allow_tags: bool,
    /// Whether the log of guests is shown.
    pub(crate) shows_log: bool,
    /// The maximum size in bytes of a module's code.
    pub(crate) largest_module: u64,
    /// Keeps the objects that later calls need in memory, so that they survive a collection or the
    /// loss of the store.
    held: Mutex<Vec<Held>>,
    /// The trace that is being recorded.
    pub(crate) tracing: Tracing,
    /// The other machines that take runs over.
    pub(crate) node: Option<Arc<Node>>,
    /// The cache that other machines share.
    pub(crate) cache: Option<CacheTier>,
}

/// The options of a command that concern its session.
#[derive(Default)]
pub(crate) struct Options {
    containers: ContainerArgs,
    limits: LimitArgs,
    log: bool,
    /// Where compiled modules are kept.
    artifacts: Option<PathBuf>,
    /// The tree of named images that the user chose.
    std: Option<ObjectId>,
    /// The file of the trace.
    trace: Option<PathBuf>,
    /// Whether the store keeps what each request was.
    provenance: bool,
    /// Whether other machines may take runs over.
    shares_runs: bool,
    /// A further observer of the dispatcher.
    observer: Option<Arc<dyn Observer>>,
}

impl Options {
    /// Returns the options of a command that runs no guests but may look at containers.
    pub(crate) fn for_containers(containers: ContainerArgs) -> Self {
        Self { containers, ..Self::default() }
    }

    /// Keeps what each request was, until the command ends if there is no store.
    pub(crate) fn record(&mut self) {
        self.provenance = true;
    }

    /// Lets other machines take runs over.
    pub(crate) fn share_runs(&mut self) {
        self.shares_runs = true;
    }

    /// Adds an observer.
    pub(crate) fn observe(&mut self, observer: Arc<dyn Observer>) {
        self.observer = Some(observer);
    }
}

impl UseArgs {
    /// Returns whether the store keeps what each request was.
    pub(crate) fn keeps_provenance(&self) -> bool {
        !self.no_provenance && !self.no_store
    }

    pub(crate) fn session(&self) -> Options {
        // Beside the store, so that a command without a store leaves no files behind.
        let artifacts = self.store.directory().ok().filter(|_| !self.no_store);
        Options {
            containers: self.containers,
            limits: self.limits.clone(),
            log: self.log,
            artifacts,
            std: self.std,
            trace: self.trace.clone(),
            provenance: self.keeps_provenance(),
            shares_runs: false,
            observer: None,
        }
    }
}

impl Session {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        sources: Vec<Arc<dyn ObjectSource>>,
        options: &Options,
    ) -> Result<Self, CliError> {
        let limits = options.limits.limits();
        let elements = usize::try_from(limits.table_elements).unwrap_or(usize::MAX);
        let mut wasm =
            WasmRuntime::builder().max_table_elements(elements).on_no_pool(warn_about_pool);
        if let Some(directory) = &options.artifacts {
            wasm = wasm.artifacts_in(directory);
        }
        let wasm = Arc::new(wasm.build()?);
        // The process is about to end when the session is. Giving back the pool would take longer
        // than a hit.
        std::mem::forget(Arc::clone(&wasm));
        let engine = engine()?;
        let mode = if options.containers.fresh { Mode::Fresh } else { Mode::Recycled };
        let docker = Arc::new(DockerRuntime::builder().mode(mode).build(&engine)?);
        let serving = Arc::new(DockerRuntime::builder().mode(Mode::Serving).build(&engine)?);
        let mut hosts = Hosts::default()
            .wasm(wasm.host_image().id())
            .container(docker.host_image().id())
            .serving(serving.host_image().id());
        let mut builder = Dispatcher::builder()
            .store(store)
            .limits(limits)
            .budget(options.limits.budget())
            .provenance(options.provenance)
            .shares_runs(options.shares_runs);
        if options.log {
            builder = builder.on_event(|event: &Event<'_>| {
                if let Event::Logged { request, message } = event {
                    show_log(*request, message);
                }
            });
        }
        if let Some(observer) = &options.observer {
            builder = builder.observer(Arc::clone(observer));
        }
        let tracing = Tracing::begin(options.trace.clone())?;
        let builder = tracing.observe(builder);
        let builder =
            builder.runtime(wasm).containers(Arc::clone(&docker)).runtime(docker).runtime(serving);
        let builder = with_v8(builder, &mut hosts)?;
        let dispatcher =
            sources.into_iter().fold(builder, |builder, source| builder.source(source)).build()?;
        let standard = guests::install_for(&dispatcher, hosts)?;
        let std = match (options.std, dispatcher.named_images()?) {
            (Some(std), _) => std,
            (None, Some(own)) => names::merged(&dispatcher, standard, own)?,
            (None, None) => standard,
        };
        let (allow_tags, shows_log) = (options.containers.allow_tags, options.log);
        let largest_module = limits.module_bytes;
        let held = Mutex::default();
        let session = Self {
            dispatcher,
            hosts,
            std,
            standard,
            engine,
            allow_tags,
            shows_log,
            largest_module,
            held,
            tracing,
            node: None,
            cache: None,
        };
        session.tracing.name_images(&session.dispatcher, &[std, standard])?;
        // The user's own images are pinned, and can be too large to be held.
        session.hold(standard)?;
        Ok(session)
    }

    /// Runs a call here, or with the other nodes. If it was looked up in the cache, and its outcome
    /// arrives meanwhile, the run ends with that.
    pub(crate) async fn run(&self, invocation: Invocation) -> ApiResult<Completion> {
        match &self.cache {
            Some(cache) => {
                let run = self.run_uncached(invocation.clone());
                Box::pin(cache.run_beside(&self.dispatcher, &invocation, run)).await
            }
            None => self.run_uncached(invocation).await,
        }
    }

    async fn run_uncached(&self, invocation: Invocation) -> ApiResult<Completion> {
        match &self.node {
            Some(node) => node.run(invocation).await,
            None => self.dispatcher.run(invocation).await,
        }
    }

    /// Keeps `id` and all objects it reaches until the command ends.
    pub(crate) fn hold(&self, id: ObjectId) -> Result<(), CliError> {
        let held = self.dispatcher.hold(id)?;
        self.held.lock().push(held);
        Ok(())
    }

    /// Creates the root call of `image` on `args`, with the user's options.
    pub(crate) fn invocation(
        &self,
        image: &str,
        args: ObjectId,
        salt: &str,
        using: &UseArgs,
    ) -> Invocation {
        let mut invocation = Invocation::new(image).args(args).salt(salt).std(self.std);
        invocation.pin = !using.no_pin;
        if let Some(time) = using.deadline {
            // The call begins later than the command, which therefore waits for it a little longer:
            // the error of the call names the frame.
            invocation = invocation.budget(using.limits.budget().deadline(time));
        }
        invocation.policy(if using.recompute { Policy::RecomputeAll } else { Policy::Reuse })
    }

    /// Puts an arguments tree and keeps it until the command ends.
    pub(crate) fn arguments(
        &self,
        entries: impl IntoIterator<Item = TreeEntry>,
    ) -> Result<ObjectId, CliError> {
        let args = self.dispatcher.put_tree(entries)?;
        self.hold(args)?;
        Ok(args)
    }

    /// Puts `text` and returns an entry for it in an arguments tree.
    pub(crate) fn text_argument(&self, name: &str, text: &str) -> Result<TreeEntry, CliError> {
        let id = self.dispatcher.put_blob(text.as_bytes().to_vec())?;
        Ok(TreeEntry::new(name, EntryMode::Blob, id))
    }
}

fn warn_about_pool() {
    warn(
        "the address space is too small for the pool of wasm instances; without it, each instance \
         takes some 20 µs more",
    );
}

/// Prints a log message of a guest, each line after the start of its request's id.
fn show_log(request: ObjectId, message: &str) {
    const ID_DIGITS: usize = 12;
    let request = request.to_string();
    let mut lines = message.lines();
    // An empty message is shown as an empty line.
    let first = lines.next().unwrap_or_default();
    for line in std::iter::once(first).chain(lines) {
        say(&format!("{} {}", &request[..ID_DIGITS], shown_in_line(line)));
    }
}

/// Returns the container engine of this process, and creates it on the first call.
fn engine() -> Result<ContainerEngine, CliError> {
    if let Some(engine) = ENGINE.get() {
        return Ok(engine.clone());
    }
    let engine = ContainerEngine::new(EngineOptions::default()).map_err(CliError::NoThreads)?;
    Ok(ENGINE.get_or_init(|| engine).clone())
}

static ENGINE: OnceLock<ContainerEngine> = OnceLock::new();

/// Removes the containers of this process.
pub(crate) fn close_containers() {
    if let Some(Err(error)) = ENGINE.get().map(ContainerEngine::close) {
        warn(&format!(
            "containers may be left: {error}; the next command that uses the engine removes them"
        ));
    }
}

/// Starts a process that removes the containers of this process, which is about to exit.
pub(crate) fn spawn_container_sweep() {
    if ENGINE.get().is_none_or(|engine| !engine.has_containers()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut sweep = Command::new(program);
    sweep.arg("sweep-containers").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // In a process group of its own, so that a further interrupt does not reach it. If it cannot
    // start, the next command removes the containers.
    let _ = sweep.process_group(0).spawn();
}

/// Waits for the process that started this one to exit, and removes its containers.
pub(crate) fn sweep_containers() -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::NoThreads)?;
    for _ in 0..SWEEPS {
        std::thread::sleep(Duration::from_millis(200));
        let engine = ContainerEngine::new(EngineOptions::default()).map_err(CliError::NoThreads)?;
        runtime.block_on(engine.version()).map_err(CliError::Engine)?;
    }
    Ok(())
}

/// The number of sweeps. Several are needed because the engine may still be creating a container
/// when its process has exited.
const SWEEPS: usize = 5;

/// Adds the V8 runtime.
#[cfg(feature = "v8")]
fn with_v8(builder: DispatcherBuilder, hosts: &mut Hosts) -> Result<DispatcherBuilder, CliError> {
    let v8 = Arc::new(manifold_runtime_v8::V8Runtime::new()?);
    hosts.typescript = Some(v8.host_image().id());
    Ok(builder.runtime(v8))
}

/// Returns the builder unchanged, because this program was built without V8.
#[cfg(not(feature = "v8"))]
#[expect(clippy::unnecessary_wraps, reason = "the signature is the same with V8")]
fn with_v8(builder: DispatcherBuilder, _: &mut Hosts) -> Result<DispatcherBuilder, CliError> {
    Ok(builder)
}

/// A source that is set after the dispatcher is built. It is empty until then.
#[derive(Default)]
pub(crate) struct LateSource(OnceLock<Arc<dyn ObjectSource>>);

impl LateSource {
    /// Sets the source. Later calls have no effect.
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

    fn kind_in_memory(&self, id: ObjectId) -> Option<ObjectKind> {
        self.0.get()?.kind_in_memory(id)
    }

    fn size(&self, id: ObjectId) -> ApiResult<Option<u64>> {
        self.0.get().map_or(Ok(None), |source| source.size(id))
    }

    fn read_range(&self, id: ObjectId, range: Range<u64>) -> ApiResult<Option<Bytes>> {
        self.0.get().map_or(Ok(None), |source| source.read_range(id, range))
    }
}
