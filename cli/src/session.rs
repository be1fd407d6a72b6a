//! A dispatcher with everything that the command needs.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manifold::guests::{self, ContainerPrograms, Hosts};
use manifold_dispatcher::{
    Dispatcher, DispatcherBuilder, Event, Held, Invocation, ObjectSource, Policy, Store,
};
use manifold_runtime_api::{
    EntryMode, Object, ObjectId, ObjectKind, Result as ApiResult, Runtime, TreeEntry,
};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_runtime_wasm::WasmRuntime;
use parking_lot::Mutex;

use crate::args::{ContainerArgs, LimitArgs, UseArgs};
use crate::error::CliError;
use crate::say::{say, warn};
use crate::shown::shown_in_line;

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
    /// Whether what guests log is shown.
    pub(crate) shows_log: bool,
    /// How many bytes the code of a module may have.
    pub(crate) largest_module: u64,
    /// What was stored for calls to come, so that they find it whatever happens to the store.
    held: Mutex<Vec<Held>>,
}

/// What a session does as its command's options say.
#[derive(Default)]
pub(crate) struct Options {
    containers: ContainerArgs,
    limits: LimitArgs,
    log: bool,
}

impl UseArgs {
    pub(crate) fn session(&self) -> Options {
        Options { containers: self.containers, limits: self.limits.clone(), log: self.log }
    }
}

impl Session {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        mut sources: Vec<Arc<dyn ObjectSource>>,
        options: &Options,
    ) -> Result<Self, CliError> {
        let limits = options.limits.limits();
        let elements = usize::try_from(limits.table_elements).unwrap_or(usize::MAX);
        let wasm = Arc::new(WasmRuntime::builder().max_table_elements(elements).build()?);
        let engine = engine()?;
        let mode = if options.containers.fresh { Mode::Fresh } else { Mode::Parked };
        let docker = Arc::new(DockerRuntime::builder().mode(mode).build(&engine)?);
        let serving = Arc::new(DockerRuntime::builder().mode(Mode::Serving).build(&engine)?);
        let mut hosts = Hosts {
            wasm: Some(wasm.host_image().id()),
            typescript: None,
            container: Some(docker.host_image().id()),
            serving: Some(serving.host_image().id()),
        };
        let mut builder =
            Dispatcher::builder().store(store).limits(limits).budget(options.limits.budget());
        let says_that_there_is_no_pool = AtomicBool::new(!wasm.has_pool());
        if options.log || !wasm.has_pool() {
            let shows_log = options.log;
            builder = builder.observer(Arc::new(move |event: &Event<'_>| match event {
                Event::Logged { request, message } if shows_log => show_log(*request, message),
                Event::Started { runtime: "wasmtime", .. }
                    if says_that_there_is_no_pool.swap(false, Ordering::Relaxed) =>
                {
                    warn("there is too little address space for a pool of wasm instances; without, each takes some 20 µs more");
                }
                _ => {}
            }));
        }
        let builder = builder
            .runtime(wasm)
            .containers(Arc::clone(&docker) as _)
            .runtime(docker)
            .runtime(serving);
        let builder = with_v8(builder, &mut hosts)?;
        sources.push(Arc::new(ContainerPrograms));
        let dispatcher =
            sources.into_iter().fold(builder, |builder, source| builder.source(source)).build()?;
        let std = guests::install(&dispatcher, hosts)?;
        let (allow_tags, shows_log) = (options.containers.allow_tags, options.log);
        let largest_module = limits.module_bytes;
        let held = Mutex::default();
        let session =
            Self { dispatcher, hosts, std, engine, allow_tags, shows_log, largest_module, held };
        session.hold(std)?;
        Ok(session)
    }

    /// Keeps what `id` reaches until the command ends.
    pub(crate) fn hold(&self, id: ObjectId) -> Result<(), CliError> {
        let held = self.dispatcher.hold(id)?;
        self.held.lock().push(held);
        Ok(())
    }

    /// The call of `image` on `args`, as the user wants it.
    pub(crate) fn invocation(
        &self,
        image: &str,
        args: ObjectId,
        salt: &str,
        using: &UseArgs,
    ) -> Invocation {
        let mut invocation = Invocation::new(image, args).salt(salt).std(self.std);
        invocation.pin = !using.no_pin;
        if let Some(time) = using.deadline {
            // The command gives up in time whatever it does. A call that does so first can say what it was at.
            invocation = invocation.budget(using.limits.budget().deadline(time));
        }
        invocation.policy(if using.recompute { Policy::RecomputeAll } else { Policy::Reuse })
    }

    /// Stores an arguments tree and keeps it.
    pub(crate) fn arguments(
        &self,
        entries: impl IntoIterator<Item = TreeEntry>,
    ) -> Result<ObjectId, CliError> {
        let args = self.dispatcher.put_tree(entries)?;
        self.hold(args)?;
        Ok(args)
    }

    /// Stores `text` and answers the entry of an arguments tree for it.
    pub(crate) fn text_argument(&self, name: &str, text: &str) -> Result<TreeEntry, CliError> {
        let id = self.dispatcher.put_blob(text.as_bytes().to_vec())?;
        Ok(TreeEntry::new(name, EntryMode::Blob, id))
    }
}

/// Shows what a guest logs, line by line.
fn show_log(request: ObjectId, message: &str) {
    const SHORT: usize = 12;
    let request = request.to_string();
    let mut lines = message.lines();
    // An empty message is an empty line.
    let first = lines.next().unwrap_or_default();
    for line in std::iter::once(first).chain(lines) {
        say(&format!("{} {}", &request[..SHORT], shown_in_line(line)));
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
        warn(&format!(
            "containers may be left: {error}; the next command that uses the engine removes them"
        ));
    }
}

/// Has another process take away the containers that this one leaves behind because it ends at once.
pub(crate) fn leave_containers_to_others() {
    if ENGINE.get().is_none_or(|engine| !engine.has_containers()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut sweep = Command::new(program);
    sweep.arg("sweep-containers").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // In a group of its own, for the next interrupt is not meant for it. If it cannot start, the next command sweeps.
    let _ = sweep.process_group(0).spawn();
}

/// Waits a moment for the process that began this one to be gone, and removes its containers.
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

/// A container may have been on its way when its process ended.
const SWEEPS: usize = 5;

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
