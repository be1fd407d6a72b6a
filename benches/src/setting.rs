//! A dispatcher with Manifold's built-in guests in every language.

use std::path::Path;
use std::sync::Arc;

use manifold_dispatcher::native::{NativeRuntime, argument};
use manifold_dispatcher::{DirectoryObjects, Dispatcher, DispatcherBuilder, Invocation};
use manifold_runtime_api::{EntryMode, Error, ObjectId, ObjectRef, Result, Runtime, TreeEntry};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests::{self as guests, Hosts};

/// The language that a guest is written in, and the runtime that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// A Rust closure in this process. Measures the cost of everything but the guests.
    Native,
    /// Rust, compiled to WebAssembly.
    Wasm,
    /// TypeScript, on V8.
    TypeScript,
    /// Rust, in a container that has one job at a time.
    Recycled,
    /// Rust, in a container for each job that is started in advance.
    Parked,
    /// Rust, in a container for each job that is started for it.
    Fresh,
    /// Rust, in one container that forks a process for each job.
    Serving,
    /// Python, in a container that has one job at a time. Only the visitor.
    Python,
}

impl Language {
    /// Returns the name that tables and benchmark ids show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Wasm => "wasm",
            Self::TypeScript => "TypeScript",
            Self::Recycled => "container, recycled",
            Self::Parked => "container, parked",
            Self::Fresh => "container, fresh",
            Self::Serving => "container, serving",
            Self::Python => "Python, recycled",
        }
    }

    /// Returns whether guests run in containers.
    pub const fn is_container(self) -> bool {
        matches!(self, Self::Recycled | Self::Parked | Self::Fresh | Self::Serving | Self::Python)
    }

    const fn mode(self) -> Option<Mode> {
        match self {
            Self::Recycled | Self::Python => Some(Mode::Recycled),
            Self::Parked => Some(Mode::Parked),
            Self::Fresh => Some(Mode::Fresh),
            Self::Serving => Some(Mode::Serving),
            Self::Native | Self::Wasm | Self::TypeScript => None,
        }
    }
}

/// Connects to the container engine. Returns `None` if there is none, and prints a message if the
/// engine does not respond.
pub async fn container_engine() -> Option<ContainerEngine> {
    let engine = ContainerEngine::new(EngineOptions::default()).ok()?;
    match engine.version().await {
        Ok(_) => Some(engine),
        Err(problem) => {
            eprintln!(
                "SKIPPED: containers are not measured: {problem}\nStart Docker, set DOCKER_HOST, \
                 or run `cargo xtask bench`."
            );
            None
        }
    }
}

/// A dispatcher with the built-in guests, and the images of these guests.
#[derive(Debug)]
pub struct Setting {
    /// The dispatcher to measure.
    pub dispatcher: Dispatcher,
    std: ObjectId,
    native: ObjectId,
    /// The host image hash of the runtime for containers.
    container: Option<ObjectId>,
}

/// The directory with the image of Python, which `cargo xtask bench` builds.
pub const PYTHON: &str = "MANIFOLD_BENCH_PYTHON";

impl Setting {
    /// Creates a dispatcher with native and wasm guests, and with TypeScript guests if the feature
    /// `v8` is enabled.
    ///
    /// # Errors
    /// Returns an error if a runtime cannot start, or if `cargo xtask setup` has not built the
    /// guests.
    pub fn new() -> Result<Self> {
        Self::with(|builder| builder)
    }

    /// Like [`Setting::new`], with a builder that `more` changes before it builds the dispatcher.
    ///
    /// # Errors
    /// As [`Setting::new`].
    pub fn with(more: impl FnOnce(DispatcherBuilder) -> DispatcherBuilder) -> Result<Self> {
        Self::with_v8(Hosts::default(), more)
    }

    /// Creates a dispatcher with native and wasm guests only, and a pool of four wasm instances.
    /// Tools such as valgrind cannot handle the address space of a thousand instances.
    ///
    /// # Errors
    /// As [`Setting::new`].
    pub fn small() -> Result<Self> {
        Self::build(WasmRuntime::builder().pool_size(4).build()?, Hosts::default(), |builder| {
            builder
        })
    }

    /// Creates a dispatcher with native and wasm guests only, with a builder that `more` changes.
    ///
    /// # Errors
    /// As [`Setting::new`].
    pub fn without_v8(more: impl FnOnce(DispatcherBuilder) -> DispatcherBuilder) -> Result<Self> {
        Self::build(WasmRuntime::new()?, Hosts::default(), more)
    }

    /// Like [`Setting::new`], and with container guests in the mode that `language` selects.
    ///
    /// # Errors
    /// As [`Setting::new`], and if `language` does not run in containers.
    pub fn with_containers(engine: &ContainerEngine, language: Language) -> Result<Self> {
        let mode =
            language.mode().ok_or_else(|| Error::runtime("this language has no containers"))?;
        let docker = Arc::new(DockerRuntime::builder().mode(mode).build(engine)?);
        let hosts = Hosts::default().container(docker.host_image().id());
        Self::with_v8(hosts, |builder| builder.runtime(docker))
    }

    /// Like [`Setting::new`], with a single V8 thread. The thread creates the next guest's globals
    /// while the dispatcher works, and not while another guest runs.
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
        let hosts = hosts.typescript(v8.host_image().id());
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
            .guest("empty", async |guest| Ok(ObjectRef::tree(guest.job().args)));
        let native = guests::native_guests(native).build()?;
        let native_host = native.host_image().id();
        let hosts = hosts.wasm(wasm.host_image().id());
        let builder = Dispatcher::builder().runtime(native).runtime(wasm);
        let dispatcher = more(builder).build()?;
        let std = guests::install_for(&dispatcher, hosts)?;
        Ok(Self { dispatcher, std, native: native_host, container: hosts.container })
    }

    /// Returns the image reference of the guest `name` in `language`.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub fn image(&self, name: &str, language: Language) -> Result<String> {
        Ok(match language {
            Language::Native => {
                let module = ObjectRef::blob(self.dispatcher.put_blob(name.to_owned())?);
                self.dispatcher.put_image(self.native, module)?.to_string()
            }
            Language::Wasm => format!("/cas/std/{name}"),
            Language::TypeScript => format!("/cas/std/{name}.ts"),
            Language::Recycled | Language::Parked | Language::Fresh | Language::Serving => {
                format!("/cas/std/{name}.docker")
            }
            Language::Python => self.python_visitor()?.to_string(),
        })
    }

    /// Puts an image of the visitor `file-count` as a script, on the image of Python.
    fn python_visitor(&self) -> Result<ObjectId> {
        let missing = || Error::runtime(format!("{PYTHON} names no image of Python"));
        let image = std::env::var_os(PYTHON).ok_or_else(missing)?;
        let objects = DirectoryObjects::scan(&Path::new(&image).join("layer00"))
            .map_err(|error| Error::runtime(error.to_string()))?;
        let layer = objects.root().id;
        self.dispatcher.add_source(objects);
        let blob = |text: &str| self.dispatcher.put_blob(text.to_owned());
        let entry = |name: &str, mode, id| TreeEntry::new(name, mode, id);
        let script = blob(include_str!("../../fold-guests/python/standalone.py"))?;
        let script = self.dispatcher.put_tree([entry("visitor.py", EntryMode::Blob, script)])?;
        let config = r#"{"config": {"Entrypoint": ["python3", "-I", "-B", "/visitor.py"]}}"#;
        let image = self.dispatcher.put_tree([
            entry("config.json", EntryMode::Blob, blob(config)?),
            entry("layer00", EntryMode::Tree, layer),
            entry("layer01", EntryMode::Tree, script),
        ])?;
        let host = self.container.ok_or_else(|| Error::runtime("there are no containers"))?;
        self.dispatcher.put_image(host, ObjectRef::tree(image))
    }

    /// Returns the id of the tree that is the container image of the guest `name`.
    ///
    /// # Errors
    /// Returns an error if there is no such guest, or if the store fails.
    pub fn container_module(&self, name: &str) -> Result<ObjectId> {
        let entry = |tree: ObjectId, name: &str| {
            let entry = self.dispatcher.read_tree(tree)?.get(name).map(|entry| entry.id);
            entry.ok_or_else(|| Error::runtime(format!("the tree has no entry {name}")))
        };
        entry(entry(self.std, &format!("{name}.docker"))?, "module")
    }

    /// Returns an invocation of the guest `name` in `language` with `args`. It sets no pin, so that
    /// pins are not measured.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub fn invocation(&self, name: &str, language: Language, args: ObjectId) -> Result<Invocation> {
        Ok(Invocation::new(self.image(name, language)?).args(args).std(self.std).unpinned())
    }

    /// Returns an invocation that folds `root` with the visitor `file-count`.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub fn fold(&self, root: ObjectId, fold: Language, visitor: Language) -> Result<Invocation> {
        let post = self.dispatcher.put_blob(self.image("file-count", visitor)?)?;
        let args = self.dispatcher.put_tree([
            argument("in", ObjectRef::tree(root)),
            argument("post", ObjectRef::blob(post)),
        ])?;
        self.invocation("fold", fold, args)
    }

    /// Stores the arguments of a visitor for a single file, and returns the tree's id.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub fn leaf(&self) -> Result<ObjectId> {
        let file = ObjectRef::blob(self.dispatcher.put_blob("a file\n")?);
        let none = ObjectRef::tree(self.dispatcher.put_tree([])?);
        self.dispatcher.put_tree([argument("children", none), argument("in", file)])
    }
}
