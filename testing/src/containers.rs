//! A dispatcher with containers for tests, which are skipped if there is no container engine.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptionsBuilder;
use manifold_dispatcher::{Dispatcher, Invocation, ObjectSource};
use manifold_runtime_api::{EntryMode, ObjectId, ObjectRef, Result, Runtime, TreeEntry};
use manifold_runtime_docker::{
    ContainerEngine, DockerRuntime, DockerRuntimeBuilder, EngineOptions,
};
use manifold_runtime_wasm::WasmRuntime;
use manifold_standard_guests::{self as guests, Hosts};

use crate::{Journal, built, fold_args, is_required};

/// Returns the container engine of the tests. If there is none, prints a message and returns
/// `None`, and the test is skipped.
pub async fn engine() -> Option<ContainerEngine> {
    let options = EngineOptions::default();
    let endpoint = options.endpoint.clone();
    let engine = ContainerEngine::new(options).unwrap();
    match engine.version().await {
        Ok(_) => Some(engine),
        Err(error) => {
            assert!(!is_required("docker"), "MANIFOLD_REQUIRE requires Docker: {error}");
            eprintln!(
                "SKIPPED: no container engine at {endpoint}. Start Docker, name one in DOCKER_HOST, or run \
                 `cargo xtask docker cargo test …` as root on Debian."
            );
            None
        }
    }
}

/// Returns the directory with the image of Python. If there is none, prints a message and returns
/// `None`, and the test is skipped.
pub fn python_image() -> Option<PathBuf> {
    let image = built("python");
    if image.is_dir() {
        return Some(image);
    }
    eprintln!("SKIPPED: there is no image with Python; `cargo xtask test` builds one on Debian.");
    None
}

#[derive(Debug)]
pub struct ContainerFixture {
    pub dispatcher: Dispatcher,
    pub journal: Arc<Journal>,
    pub std: ObjectId,
    /// The host image hash of the container runtime.
    pub host: ObjectId,
    pub engine: ContainerEngine,
}

impl ContainerFixture {
    /// Creates a dispatcher with the container runtime that `containers` builds, and the other
    /// runtimes.
    pub fn new(engine: &ContainerEngine, containers: DockerRuntimeBuilder) -> Self {
        Self::with_sources(engine, containers, Vec::new())
    }

    /// Like [`Self::new`], with additional sources.
    pub fn with_sources(
        engine: &ContainerEngine,
        containers: DockerRuntimeBuilder,
        sources: Vec<Arc<dyn ObjectSource>>,
    ) -> Self {
        let journal = Arc::new(Journal::default());
        let wasm = Arc::new(WasmRuntime::new().unwrap());
        let docker: Arc<DockerRuntime> = Arc::new(containers.build(engine).unwrap());
        let host = docker.host_image().id();
        let hosts = Hosts::default().wasm(wasm.host_image().id()).container(host);
        let builder = Dispatcher::builder().runtime(wasm).observer(Arc::clone(&journal));
        #[cfg(feature = "v8")]
        let (hosts, builder) = {
            let v8 = Arc::new(manifold_runtime_v8::V8Runtime::new().unwrap());
            (hosts.typescript(v8.host_image().id()), builder.runtime(v8))
        };
        let builder = match docker.capabilities().containers {
            true => builder.containers(Arc::clone(&docker)),
            false => builder,
        };
        let builder = builder.runtime(docker);
        let dispatcher = sources
            .into_iter()
            .fold(builder, |builder, source| builder.source(source))
            .build()
            .unwrap();
        let std = guests::install_for(&dispatcher, hosts)
            .expect("the guests are built by `cargo xtask setup`");
        Self { dispatcher, journal, std, host, engine: engine.clone() }
    }

    pub fn image(&self, name: &str) -> String {
        self.dispatcher.read_tree(self.std).unwrap().get(name).unwrap().id.to_string()
    }

    pub async fn try_fold(
        &self,
        fold: &str,
        root: ObjectRef,
        visitors: &[(&str, &str)],
    ) -> Result<String> {
        let args = fold_args(&self.dispatcher, root, visitors);
        let completion =
            self.dispatcher.run(Invocation::new(self.image(fold)).args(args).std(self.std)).await?;
        Ok(String::from_utf8(self.dispatcher.read(completion.outcome.id).unwrap().content.to_vec())
            .unwrap())
    }

    pub async fn fold(&self, fold: &str, root: ObjectRef, visitors: &[(&str, &str)]) -> String {
        self.try_fold(fold, root, visitors).await.unwrap()
    }

    /// Puts an image of the program in `target/guests`, with these arguments on its command line.
    pub fn program(&self, program: &str, words: &[&str]) -> String {
        let code = std::fs::read(built(&format!("{program}.linux")))
            .expect("the guests are built by `cargo xtask setup`");
        let entrypoint: Vec<&str> = [&["/guest"], words].concat();
        let config = serde_json::json!({ "config": { "Entrypoint": entrypoint } }).to_string();
        let code = self.dispatcher.put_blob(code).unwrap();
        let layer = self.tree(&[("guest", EntryMode::Executable, code)]);
        let config = self.dispatcher.put_blob(config).unwrap();
        let id = self
            .tree(&[("config.json", EntryMode::Blob, config), ("layer00", EntryMode::Tree, layer)]);
        self.dispatcher.put_image(self.host, ObjectRef::tree(id)).unwrap().to_string()
    }

    pub fn tree(&self, entries: &[(&str, EntryMode, ObjectId)]) -> ObjectId {
        let entries = entries.iter().map(|(name, mode, id)| TreeEntry::new(*name, *mode, *id));
        self.dispatcher.put_tree(entries).unwrap()
    }

    /// Runs an image on arguments that are texts.
    pub async fn run(&self, image: &str, args: &[(&str, &str)]) -> Result<String> {
        let entries = args.iter().map(|(name, text)| {
            TreeEntry::new(
                *name,
                EntryMode::Blob,
                self.dispatcher.put_blob((*text).to_owned()).unwrap(),
            )
        });
        let args = self.dispatcher.put_tree(entries).unwrap();
        let completion =
            self.dispatcher.run(Invocation::new(image).args(args).std(self.std)).await?;
        Ok(String::from_utf8_lossy(&self.dispatcher.read(completion.outcome.id)?.content)
            .into_owned())
    }

    /// Returns the requests for an image that were run so far.
    pub fn requests_for(&self, image: &str) -> BTreeSet<ObjectId> {
        let started = self.journal.started.lock().unwrap();
        started
            .iter()
            .filter(|(_, started)| started == image)
            .map(|(request, _)| *request)
            .collect()
    }

    pub fn runs(&self) -> usize {
        self.journal.started.lock().unwrap().len()
    }
}

/// Returns a separate client of the engine.
pub fn docker() -> Docker {
    Docker::connect_with_host(&EngineOptions::default().endpoint).unwrap()
}

/// Returns the ids of the containers created through `engine`. Other tests have their own.
pub async fn own_containers_of(engine: &ContainerEngine) -> Vec<String> {
    let all = match list_containers(&["created", "running", "paused", "exited"]).await {
        // Podman counts containers with a further status as exited, and bollard cannot parse it.
        Err(_) => list_containers(&["created", "running", "paused"]).await.unwrap(),
        Ok(all) => all,
    };
    let label = engine.labels();
    let mine = |labels: HashMap<String, String>| {
        label.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    all.into_iter()
        .filter(|container| container.labels.clone().is_some_and(mine))
        .filter_map(|container| container.id)
        .collect()
}

async fn list_containers(
    statuses: &[&str],
) -> std::result::Result<Vec<ContainerSummary>, bollard::errors::Error> {
    let filters = HashMap::from([("status", statuses.to_vec())]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    docker().list_containers(Some(options)).await
}
