//! A dispatcher with the guests that come with Manifold.

use std::sync::Arc;

use manifold::guests::{self, ContainerPrograms, Hosts};
use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{Dispatcher, DispatcherBuilder, Invocation};
use manifold_runtime_api::{Error, Module, ObjectId, ObjectKind, Outcome, Result, Runtime};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_runtime_wasm::WasmRuntime;

/// What a guest is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// A closure of this process: what everything but the guests costs.
    Native,
    /// Rust, compiled to WebAssembly.
    Wasm,
    /// TypeScript, on V8.
    TypeScript,
    /// Rust, in a container for each job, started ahead.
    Parked,
    /// Rust, in a container for each job.
    Fresh,
    /// Rust, in one container that forks a process for each job.
    Serving,
}

impl Language {
    /// Its name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Wasm => "wasm",
            Self::TypeScript => "TypeScript",
            Self::Parked => "container, parked",
            Self::Fresh => "container, fresh",
            Self::Serving => "container, serving",
        }
    }

    /// Whether it runs in containers.
    pub const fn is_container(self) -> bool {
        matches!(self, Self::Parked | Self::Fresh | Self::Serving)
    }

    const fn mode(self) -> Option<Mode> {
        match self {
            Self::Parked => Some(Mode::Parked),
            Self::Fresh => Some(Mode::Fresh),
            Self::Serving => Some(Mode::Serving),
            Self::Native | Self::Wasm | Self::TypeScript => None,
        }
    }
}

/// The container engine; `None`, and a line that says so, where there is none.
pub async fn container_engine() -> Option<ContainerEngine> {
    let engine = ContainerEngine::new(EngineOptions::default()).ok()?;
    match engine.version().await {
        Ok(_) => Some(engine),
        Err(problem) => {
            eprintln!(
                "SKIPPED: containers, for {problem}\nStart Docker, name one in DOCKER_HOST, or run `cargo xtask bench`."
            );
            None
        }
    }
}

/// A dispatcher, and the names of its guests.
pub struct Setting {
    /// The dispatcher.
    pub dispatcher: Dispatcher,
    std: ObjectId,
    native: ObjectId,
}

impl Setting {
    /// A dispatcher with native and wasm guests, and TypeScript if this was built with it.
    ///
    /// # Errors
    /// When a runtime cannot start, or the set-up has not built the guests.
    pub fn new() -> Result<Self> {
        Self::with(|builder| builder)
    }

    /// The same, with more said to the builder.
    ///
    /// # Errors
    /// As [`Setting::new`].
    pub fn with(more: impl FnOnce(DispatcherBuilder) -> DispatcherBuilder) -> Result<Self> {
        Self::with_v8(Hosts::default(), more)
    }

    /// A dispatcher with native and wasm guests only, and room for a few instances: tools that watch a whole process cannot take the
    /// address space of a thousand.
    ///
    /// # Errors
    /// As [`Setting::new`].
    pub fn small() -> Result<Self> {
        Self::build(WasmRuntime::builder().pool_size(4).build()?, Hosts::default(), |builder| {
            builder
        })
    }

    /// The same, and containers as `language` says.
    ///
    /// # Errors
    /// As [`Setting::new`], and when `language` has no containers.
    pub fn with_containers(engine: &ContainerEngine, language: Language) -> Result<Self> {
        let mode =
            language.mode().ok_or_else(|| Error::runtime("this language has no containers"))?;
        let docker = Arc::new(DockerRuntime::builder().mode(mode).build(engine)?);
        let hosts = Hosts { container: Some(docker.host_image().id()), ..Hosts::default() };
        Self::with_v8(hosts, |builder| builder.runtime(docker).source(Arc::new(ContainerPrograms)))
    }

    /// A dispatcher whose V8 has one thread only: globals are made ahead while the dispatcher has its turn, and not beside a guest.
    ///
    /// # Errors
    /// As [`Setting::new`].
    #[cfg(feature = "v8")]
    pub fn with_one_v8_thread() -> Result<Self> {
        let v8 = manifold_runtime_v8::V8Runtime::builder().threads(1).build()?;
        Self::with_this_v8(v8, Hosts::default(), |builder| builder)
    }

    #[cfg(feature = "v8")]
    fn with_v8(
        hosts: Hosts,
        more: impl FnOnce(DispatcherBuilder) -> DispatcherBuilder,
    ) -> Result<Self> {
        Self::with_this_v8(manifold_runtime_v8::V8Runtime::new()?, hosts, more)
    }

    #[cfg(feature = "v8")]
    fn with_this_v8(
        v8: manifold_runtime_v8::V8Runtime,
        hosts: Hosts,
        more: impl FnOnce(DispatcherBuilder) -> DispatcherBuilder,
    ) -> Result<Self> {
        let v8 = Arc::new(v8);
        let hosts = Hosts { typescript: Some(v8.host_image().id()), ..hosts };
        Self::build(WasmRuntime::new()?, hosts, |builder| more(builder.runtime(v8)))
    }

    #[cfg(not(feature = "v8"))]
    fn with_v8(
        hosts: Hosts,
        more: impl FnOnce(DispatcherBuilder) -> DispatcherBuilder,
    ) -> Result<Self> {
        Self::build(WasmRuntime::new()?, hosts, more)
    }

    fn build(
        wasm: WasmRuntime,
        hosts: Hosts,
        more: impl FnOnce(DispatcherBuilder) -> DispatcherBuilder,
    ) -> Result<Self> {
        let native = NativeRuntime::builder("bench", "1")
            .guest("empty", async |guest| Ok(Outcome::tree(guest.job().args)))
            .fold_guests()
            .build()?;
        let native_host = native.host_image().id();
        let hosts = Hosts { wasm: Some(wasm.host_image().id()), ..hosts };
        let builder = Dispatcher::builder().runtime(Arc::new(native)).runtime(Arc::new(wasm));
        let dispatcher = more(builder).build()?;
        let std = guests::install(&dispatcher, hosts)?;
        Ok(Self { dispatcher, std, native: native_host })
    }

    /// The reference of the guest `name` in `language`.
    ///
    /// # Errors
    /// What the store answers.
    pub fn image(&self, name: &str, language: Language) -> Result<String> {
        Ok(match language {
            Language::Native => {
                let module = Module {
                    kind: ObjectKind::Blob,
                    id: self.dispatcher.put_blob(name.to_owned())?,
                };
                self.dispatcher.put_image(self.native, module)?.to_string()
            }
            Language::Wasm => format!("/cas/std/{name}"),
            Language::TypeScript => format!("/cas/std/{name}.ts"),
            Language::Parked | Language::Fresh | Language::Serving => {
                format!("/cas/std/{name}.docker")
            }
        })
    }

    /// The tree that is the container image of the guest `name`.
    ///
    /// # Errors
    /// When there is no such guest.
    pub fn container_module(&self, name: &str) -> Result<ObjectId> {
        let entry = |tree: ObjectId, name: &str| {
            let entry = self.dispatcher.read_tree(tree)?.get(name).map(|entry| entry.id);
            entry.ok_or_else(|| Error::runtime(format!("there is no {name}")))
        };
        entry(entry(self.std, &format!("{name}.docker"))?, "module")
    }

    /// A run of the guest `name` in `language` on `args`. Nothing is pinned, for a pin is not what is measured.
    ///
    /// # Errors
    /// What the store answers.
    pub fn invocation(&self, name: &str, language: Language, args: ObjectId) -> Result<Invocation> {
        Ok(Invocation::new(self.image(name, language)?, args).std(self.std).unpinned())
    }

    /// A fold of `root` over the visitor `file-count`.
    ///
    /// # Errors
    /// What the store answers.
    pub fn fold(&self, root: ObjectId, fold: Language, visitor: Language) -> Result<Invocation> {
        let post = self.dispatcher.put_blob(self.image("file-count", visitor)?)?;
        let args = self.dispatcher.put_tree([
            argument("in", Outcome::tree(root)),
            argument("post", Outcome::blob(post)),
        ])?;
        self.invocation("fold", fold, args)
    }

    /// The arguments of one visitor that is asked about a file.
    ///
    /// # Errors
    /// What the store answers.
    pub fn leaf(&self) -> Result<ObjectId> {
        let file = Outcome::blob(self.dispatcher.put_blob("a file\n")?);
        let none = Outcome::tree(self.dispatcher.put_tree([])?);
        self.dispatcher.put_tree([argument("children", none), argument("in", file)])
    }
}
