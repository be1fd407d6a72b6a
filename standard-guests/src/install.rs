use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{EntryMode, Error, ObjectId, ObjectRef, Result, TreeEntry};

use crate::{CONTAINER_GUESTS, EmbeddedGuests, TYPESCRIPT_FILES, WASM_GUESTS};

/// The TypeScript guests, and the files that each imports besides its own.
const TYPESCRIPT_GUESTS: [(&str, &[&str]); 11] = [
    ("dirs-only", &["sdk"]),
    ("duplicate-files", &["sdk", "visitor"]),
    ("file-count", &["sdk", "visitor"]),
    ("fold", &["sdk"]),
    ("grep", &["sdk", "visitor"]),
    ("largest-files", &["sdk", "visitor"]),
    ("licenses", &["sdk", "visitor"]),
    ("line-count", &["sdk", "visitor"]),
    ("lines-by-language", &["languages", "sdk", "visitor"]),
    ("todo-comments", &["sdk", "visitor"]),
    ("total-size", &["sdk", "visitor"]),
];

/// The configuration of the container guests' images.
const CONFIG: &str = "{\"config\":{\"Entrypoint\":[\"/guest\"]}}\n";

/// The host image hashes of the runtimes to install guests for. Guests of a runtime that is `None`
/// are not installed.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Hosts {
    /// The host image hash of the wasm runtime.
    pub wasm: Option<ObjectId>,
    /// The host image hash of the V8 runtime.
    pub typescript: Option<ObjectId>,
    /// The host image hash of the container runtime.
    pub container: Option<ObjectId>,
    /// The host image hash of the container runtime whose containers serve many jobs.
    pub serving: Option<ObjectId>,
}

impl Hosts {
    /// Sets the wasm runtime.
    #[must_use]
    pub fn wasm(mut self, host: ObjectId) -> Self {
        self.wasm = Some(host);
        self
    }

    /// Sets the V8 runtime.
    #[must_use]
    pub fn typescript(mut self, host: ObjectId) -> Self {
        self.typescript = Some(host);
        self
    }

    /// Sets the container runtime.
    #[must_use]
    pub fn container(mut self, host: ObjectId) -> Self {
        self.container = Some(host);
        self
    }

    /// Sets the container runtime whose containers serve many jobs.
    #[must_use]
    pub fn serving(mut self, host: ObjectId) -> Self {
        self.serving = Some(host);
        self
    }

    /// Finds the runtimes that are registered in `dispatcher`, by the names of their host images.
    pub fn of(dispatcher: &Dispatcher) -> Self {
        let mut hosts = Self::default();
        for host in dispatcher.runtimes() {
            let slot = match host.name() {
                "wasmtime" => &mut hosts.wasm,
                "v8" => &mut hosts.typescript,
                "docker" => &mut hosts.container,
                "docker-serving" => &mut hosts.serving,
                _ => continue,
            };
            *slot = Some(host.id());
        }
        hosts
    }
}

/// Installs the guests for every runtime that is registered in `dispatcher` and has some. Returns
/// the id of the tree of named images in which `/cas/std/<name>` finds them.
///
/// A name is that of the guest for wasm, and has an ending for other runtimes: `fold`, `fold.ts`,
/// `fold.docker`, `fold.serving`.
///
/// # Errors
/// - [`Reason::RuntimeFailed`] if a runtime is registered whose guests this program was built
///   without.
/// - [`Reason::StoreFailed`] if the store fails.
///
/// [`Reason::RuntimeFailed`]: manifold_runtime_api::Reason::RuntimeFailed
/// [`Reason::StoreFailed`]: manifold_runtime_api::Reason::StoreFailed
pub fn install(dispatcher: &Dispatcher) -> Result<ObjectId> {
    install_for(dispatcher, Hosts::of(dispatcher))
}

/// Installs the guests for `hosts`. Like [`install`] otherwise.
///
/// # Errors
/// As [`install`].
pub fn install_for(dispatcher: &Dispatcher, hosts: Hosts) -> Result<ObjectId> {
    let mut entries = Vec::new();
    if hosts.wasm.or(hosts.container).or(hosts.serving).is_some() {
        dispatcher.add_source(EmbeddedGuests);
    }
    if let Some(host) = hosts.wasm {
        if WASM_GUESTS.is_empty() {
            return Err(built_without());
        }
        for (name, hex, _) in WASM_GUESTS {
            let module = ObjectRef::blob(ObjectId::from_hex(hex).map_err(Error::runtime)?);
            let image = dispatcher.put_image(host, module)?;
            entries.push(TreeEntry::new(*name, EntryMode::Tree, image));
            if *name == "fold" {
                // The fold of the original system looks itself up under this name.
                entries.push(TreeEntry::new("fold-wasm", EntryMode::Tree, image));
            }
        }
    }
    if let Some(host) = hosts.typescript {
        for (name, imported) in TYPESCRIPT_GUESTS {
            let mut files = vec![file(dispatcher, "main.ts", name)?];
            for name in imported {
                files.push(file(dispatcher, &format!("{name}.ts"), name)?);
            }
            let module = ObjectRef::tree(dispatcher.put_tree(files)?);
            let image = dispatcher.put_image(host, module)?;
            entries.push(TreeEntry::new(format!("{name}.ts"), EntryMode::Tree, image));
        }
    }
    let containers = [("docker", hosts.container), ("serving", hosts.serving)];
    let containers: Vec<_> =
        containers.into_iter().filter_map(|(kind, host)| Some((kind, host?))).collect();
    if !containers.is_empty() {
        let config = dispatcher.put_blob(CONFIG)?;
        for (name, hex, _) in CONTAINER_GUESTS {
            let program = ObjectId::from_hex(hex).map_err(Error::runtime)?;
            let module = ObjectRef::tree(put_container(dispatcher, config, program)?);
            for (kind, host) in &containers {
                let image = dispatcher.put_image(*host, module)?;
                entries.push(TreeEntry::new(format!("{name}.{kind}"), EntryMode::Tree, image));
            }
        }
    }
    dispatcher.put_tree(entries)
}

/// Stores the TypeScript file `name` and returns its entry at `path`.
fn file(dispatcher: &Dispatcher, path: &str, name: &str) -> Result<TreeEntry> {
    let (_, text) =
        TYPESCRIPT_FILES.iter().find(|(file, _)| *file == name).ok_or_else(built_without)?;
    Ok(TreeEntry::new(path, EntryMode::Blob, dispatcher.put_blob(text.as_bytes())?))
}

fn built_without() -> Error {
    Error::runtime(
        "this program was built without guests; run `cargo xtask setup` and build it again",
    )
}

/// Stores a container image of `config` and `program`, which are in the store or a source already.
fn put_container(dispatcher: &Dispatcher, config: ObjectId, program: ObjectId) -> Result<ObjectId> {
    let layer = dispatcher.put_tree([TreeEntry::new("guest", EntryMode::Executable, program)])?;
    dispatcher.put_tree([
        TreeEntry::new("config.json", EntryMode::Blob, config),
        TreeEntry::new("layer00", EntryMode::Tree, layer),
    ])
}
