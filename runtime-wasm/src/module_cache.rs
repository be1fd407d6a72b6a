//! Compiled modules, by id. One compilation at a time for each module, and none waits for another's.

use std::sync::Arc;

use manifold_runtime_api::{Error, Host, Limit, Limits, ObjectId, Reason, Result, Status};
use quick_cache::sync::Cache;
use wasmtime::{ExternType, InstancePre, Linker, Module, ModuleExport};

use crate::engines::{Engines, Placement, Target};
use crate::guest_state::GuestState;
use crate::{imports, wasi};

/// A module ready to be instantiated.
pub(crate) struct Compiled {
    pub(crate) instance: InstancePre<GuestState>,
    /// `caos_run`, found already: looking it up by its name in every instance takes longer.
    pub(crate) entry: ModuleExport,
    /// A WASI reactor's `_initialize`, which comes before any other export.
    pub(crate) initialize: Option<ModuleExport>,
}

/// A module that cannot be compiled is remembered too, or every frame that wants it would try again.
type CompiledOrNot = Result<Arc<Compiled>>;

/// How many compiled modules are kept.
const KEPT: usize = 256;

pub(crate) struct ModuleCache {
    engines: Arc<Engines>,
    compiled: Arc<Cache<(ObjectId, Target), CompiledOrNot>>,
}

impl ModuleCache {
    pub(crate) fn new(engines: Arc<Engines>) -> Self {
        Self { engines, compiled: Arc::new(Cache::new(KEPT)) }
    }

    pub(crate) fn engines(&self) -> &Engines {
        &self.engines
    }

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
        let code = host.get(module).await?;
        if code.len() as u64 > limits.module_bytes {
            return Err(
                Limit::Module { bytes: limits.module_bytes, found: code.len() as u64 }.into()
            );
        }
        let cache = Arc::clone(&self.compiled);
        let engines = Arc::clone(&self.engines);
        // A task of its own: a job that is cancelled leaves the compilation to those who wait for it, and to later jobs.
        let task = tokio::spawn(async move {
            let place = match cache.get_value_or_guard_async(&key).await {
                Ok(compiled) => return Ok(compiled),
                Err(place) => place,
            };
            let compile =
                tokio::task::spawn_blocking(move || compile(&engines, target, module, &code));
            let compiled = compile.await?.map(Arc::new);
            // A failure of the machine says nothing about the module. What does not fit the pool goes to the heap.
            let lasts = compiled.as_ref().err().is_none_or(Error::is_function_of_request);
            if lasts || target.placement == Placement::Pool {
                // It fails if the place was taken away in the meantime, and then the next job compiles again.
                let _ = place.insert(compiled.clone());
            }
            Ok::<_, tokio::task::JoinError>(compiled)
        });
        let lost =
            |error| Error::runtime(format!("the compilation of module {module} was lost: {error}"));
        task.await.map_err(lost)?.map_err(lost)?
    }
}

fn compile(engines: &Engines, target: Target, id: ObjectId, code: &[u8]) -> Result<Compiled> {
    let no_pool = || Error::runtime("there is no pool on this machine");
    let engine = engines.get(target)?.ok_or_else(no_pool)?;
    let bad = |problem: String| Error::new(Reason::BadModule { module: id, problem });
    if let Some(found) = what_else(code) {
        return Err(bad(found.to_owned()));
    }
    Module::validate(engine, code).map_err(|error| bad(format!("{error:#}")))?;
    let module = Module::from_binary(engine, code).map_err(|error| {
        let problem = format!("module {id} cannot be compiled: {error:#}");
        Error::new(Reason::RuntimeFailed { problem, status: Status::Transient })
    })?;

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
            "it exports no function `caos_run` without parameters and results".to_owned()
        ));
    };
    let initialize = entry("_initialize");
    let memory = module.get_export("memory");
    if !matches!(memory, Some(ExternType::Memory(memory)) if !memory.is_64()) {
        return Err(bad("it exports no 32-bit `memory`".to_owned()));
    }

    let mut linker = Linker::new(engine);
    let linked = imports::link(&mut linker).and_then(|()| wasi::link(&mut linker, engine));
    linked.map_err(|error| {
        Error::runtime(format!("the host functions cannot be linked: {error:#}"))
    })?;
    let instance = linker.instantiate_pre(&module).map_err(|error| bad(format!("{error:#}")))?;
    Ok(Compiled { instance, entry: run, initialize })
}

/// What `code` is, if it is no core module: the usual mistakes, each with the way out. The first bytes are those of the
/// [WebAssembly binary format](https://webassembly.github.io/spec/core/binary/modules.html#binary-module).
fn what_else(code: &[u8]) -> Option<&'static str> {
    const MAGIC: &[u8] = b"\0asm";
    const CORE: &[u8] = &[1, 0, 0, 0];
    const COMPONENT_LAYER: &[u8] = &[1, 0];
    if let Some(version) = code.strip_prefix(MAGIC) {
        return match (version.get(..4), version.get(2..4)) {
            (Some(CORE), _) => None,
            (_, Some(COMPONENT_LAYER)) => Some(
                "it is a WebAssembly component; build it as a core module, for wasm32-unknown-unknown or wasm32-wasip1",
            ),
            (None, _) => Some("it is a WebAssembly module that is cut short"),
            _ => Some("it is a WebAssembly module of another version than 1"),
        };
    }
    let text = || std::str::from_utf8(code).ok().map(str::trim_start);
    Some(match code {
        [] => "it is empty; expected a WebAssembly module",
        [0x1f, 0x8b, ..] => "it is compressed with gzip; decompress it first",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed with zstd; decompress it first",
        [0x7f, b'E', b'L', b'F', ..] => {
            "it is a program for this machine (ELF); build it for wasm32-unknown-unknown or wasm32-wasip1"
        }
        _ if text().is_some_and(|text| {
            text.starts_with("(module") || text.starts_with(";;") || text.starts_with("(;")
        }) =>
        {
            "it is WebAssembly as text (wat); make it binary first, with `wat2wasm` or `wasm-tools parse`"
        }
        _ if text().is_some_and(|text| text.starts_with("(component")) => {
            "it is a WebAssembly component as text; build it as a core module, for wasm32-unknown-unknown or wasm32-wasip1"
        }
        _ => "it is no WebAssembly module: it does not begin with `\\0asm`",
    })
}
