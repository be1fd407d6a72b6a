//! Prepares modules: validates, compiles and links each once, and caches the result by module id
//! and [`Target`]. Different modules compile concurrently.

use std::sync::Arc;

use manifold_runtime_api::{
    Error, Host, JobPhase, Limit, Limits, ObjectId, Reason, Report, Result, Status,
};
use quick_cache::sync::Cache;
use wasmtime::{ExternType, InstancePre, Linker, Module, ModuleExport};

use crate::artifacts::Artifacts;
use crate::engines::{Engines, Placement, Target};
use crate::guest_state::GuestState;
use crate::{imports, wasi};

/// A compiled and linked module, ready to be instantiated.
pub(crate) struct Compiled {
    pub(crate) instance: InstancePre<GuestState>,
    /// The export `caos_run`, resolved once because a lookup by name in every instance takes
    /// longer.
    pub(crate) entry: ModuleExport,
    /// The export `_initialize` of a WASI reactor, which must be called before any other export.
    pub(crate) initialize: Option<ModuleExport>,
}

/// A cache entry. A failure to compile is cached too, so that later frames do not try again.
type CompiledOrNot = Result<Arc<Compiled>>;

/// Maximum number of cached modules.
const MAX_CACHED: usize = 256;

pub(crate) struct ModuleCache {
    engines: Arc<Engines>,
    /// Where compiled modules are kept on disk.
    artifacts: Option<Arc<Artifacts>>,
    compiled: Arc<Cache<(ObjectId, Target), CompiledOrNot>>,
}

impl ModuleCache {
    pub(crate) fn new(engines: Arc<Engines>, artifacts: Option<Artifacts>) -> Self {
        let artifacts = artifacts.map(Arc::new);
        Self { engines, artifacts, compiled: Arc::new(Cache::new(MAX_CACHED)) }
    }

    pub(crate) fn engines(&self) -> &Arc<Engines> {
        &self.engines
    }

    /// Returns the module compiled for `target`. Compiles it first if it is not in the cache.
    ///
    /// # Errors
    /// - [`Limit::Module`] if the module is larger than `limits` allow.
    /// - [`Reason::BadModule`] if the code is not a module that this runtime can run.
    /// - [`Reason::RuntimeFailed`] if the compilation fails for another reason.
    /// - The error of `host` if it cannot supply the module.
    pub(crate) async fn get(
        &self,
        module: ObjectId,
        target: Target,
        limits: &Limits,
        host: &dyn Host,
    ) -> Result<Arc<Compiled>> {
        let key = (module, target);
        if let Some(compiled) = self.compiled.get(&key) {
            return compiled;
        }
        host.report(Report::Phase(JobPhase::Prepare));
        let code = host.get(module).await?;
        if code.len() as u64 > limits.module_bytes {
            return Err(
                Limit::Module { bytes: limits.module_bytes, found: code.len() as u64 }.into()
            );
        }
        let cache = Arc::clone(&self.compiled);
        let (engines, artifacts) = (Arc::clone(&self.engines), self.artifacts.clone());
        // A separate task, so that the compilation finishes for other waiters and later jobs if
        // this job is cancelled.
        let task = tokio::spawn(async move {
            let placeholder = match cache.get_value_or_guard_async(&key).await {
                Ok(compiled) => return Ok(compiled),
                Err(placeholder) => placeholder,
            };
            let compile = tokio::task::spawn_blocking(move || {
                compile(&engines, artifacts.as_deref(), target, module, &code)
            });
            let compiled = compile.await?.map(Arc::new);
            // A failure of the machine is not cached, because another attempt may succeed. For the
            // pool every failure is cached: the module is compiled for the heap instead.
            let lasts = compiled.as_ref().err().is_none_or(Error::is_function_of_request);
            if lasts || target.placement == Placement::Pool {
                // This fails if the placeholder was removed in the meantime. The next job then
                // compiles again.
                let _ = placeholder.insert(compiled.clone());
            }
            Ok::<_, tokio::task::JoinError>(compiled)
        });
        let lost = |error| {
            Error::runtime(format!("the task that compiles module {module} failed: {error}"))
        };
        task.await.map_err(lost)?.map_err(lost)?
    }
}

/// Validates, compiles and links `code`.
fn compile(
    engines: &Engines,
    artifacts: Option<&Artifacts>,
    target: Target,
    id: ObjectId,
    code: &[u8],
) -> Result<Compiled> {
    let no_pool = || Error::runtime("cannot compile for the pool: this machine has none");
    let engine = engines.get(target, code)?.ok_or_else(no_pool)?;
    let bad = |problem: String| Error::new(Reason::BadModule { module: id, problem });
    let module = match artifacts.and_then(|artifacts| artifacts.load(engine, id, target)) {
        Some(module) => module,
        None => {
            if let Some(found) = describe_non_module(code) {
                return Err(bad(found.to_owned()));
            }
            Module::validate(engine, code).map_err(|error| bad(format!("{error:#}")))?;
            let module = Module::from_binary(engine, code).map_err(|error| {
                let problem = format!("cannot compile module {id}: {error:#}");
                Error::new(Reason::RuntimeFailed { problem, status: Status::Transient })
            })?;
            if let Some(artifacts) = artifacts {
                artifacts.save(&module, id, target);
            }
            module
        }
    };

    let entry = |name: &str| match module.get_export(name) {
        Some(ExternType::Func(function))
            if function.params().len() == 0 && function.results().len() == 0 =>
        {
            module.get_export_index(name)
        }
        _ => None,
    };
    let Some(run) = entry("caos_run") else {
        return Err(bad(
            "it does not export a function `caos_run` without parameters and results".to_owned()
        ));
    };
    let initialize = entry("_initialize");
    let memory = module.get_export("memory");
    if !matches!(memory, Some(ExternType::Memory(memory)) if !memory.is_64()) {
        return Err(bad("it does not export a 32-bit `memory`".to_owned()));
    }

    let mut linker = Linker::new(engine);
    let linked = imports::link(&mut linker).and_then(|()| wasi::link(&mut linker, engine));
    linked.map_err(|error| Error::runtime(format!("cannot link the host functions: {error:#}")))?;
    let instance = linker.instantiate_pre(&module).map_err(|error| bad(format!("{error:#}")))?;
    Ok(Compiled { instance, entry: run, initialize })
}

/// Returns a description of `code` if it does not begin like a core module. Common mistakes are
/// recognized, and the text says what to do.
///
/// The first bytes of a module are defined by the
/// [WebAssembly binary format](https://webassembly.github.io/spec/core/binary/modules.html#binary-module).
fn describe_non_module(code: &[u8]) -> Option<&'static str> {
    const MAGIC: &[u8] = b"\0asm";
    const CORE: &[u8] = &[1, 0, 0, 0];
    const COMPONENT_LAYER: &[u8] = &[1, 0];
    if let Some(version) = code.strip_prefix(MAGIC) {
        return match (version.get(..4), version.get(2..4)) {
            (Some(CORE), _) => None,
            (_, Some(COMPONENT_LAYER)) => Some(
                "it is a WebAssembly component; build it as a core module, for \
                 wasm32-unknown-unknown or wasm32-wasip1",
            ),
            (None, _) => Some("it is a WebAssembly module that is cut short: it has no version"),
            _ => Some("it is a WebAssembly module of another version; expected version 1"),
        };
    }
    let text = || std::str::from_utf8(code).ok().map(str::trim_start);
    Some(match code {
        [] => "it is empty; expected a WebAssembly module",
        [0x1f, 0x8b, ..] => "it is compressed with gzip; decompress it first",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed with zstd; decompress it first",
        [0x7f, b'E', b'L', b'F', ..] => {
            "it is a program for this machine (ELF); build it for wasm32-unknown-unknown or \
             wasm32-wasip1"
        }
        _ if text().is_some_and(|text| {
            text.starts_with("(module") || text.starts_with(";;") || text.starts_with("(;")
        }) =>
        {
            "it is WebAssembly as text (wat); convert it to binary first, with `wat2wasm` or \
             `wasm-tools parse`"
        }
        _ if text().is_some_and(|text| text.starts_with("(component")) => {
            "it is a WebAssembly component as text; build it as a core module, for \
             wasm32-unknown-unknown or wasm32-wasip1"
        }
        _ => "it is no WebAssembly module: it does not begin with `\\0asm`",
    })
}
