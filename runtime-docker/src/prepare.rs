//! From code to something that can run: chooses a job's container, and makes sure that the engine
//! has its image.
//!
//! `docs/images.md` documents the forms of images that are kept in the store. Each is loaded
//! into the engine once, as `manifold-image:<tree id>`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    Code, Error, Host, ImageRef, Limits, ObjectId, ObjectKind, Reason, Result, Status,
};
use parking_lot::Mutex;

use crate::engine::{Client, EngineError, RecentFailure, Step, retrying};
use crate::images::TREE_LABEL;
use crate::images::archive::{Archive, Objects, Purpose, archive_error};
use crate::images::engine::fetch;
use crate::limits::Isolation;
use crate::spec::Spec;

/// Describes the containers of jobs, and loads or looks up each image once.
pub(crate) struct Preparer {
    client: Arc<Client>,
    isolation: Arc<Isolation>,
    /// Maximum size of an image in the store, in bytes.
    image_bytes: u64,
    images: Mutex<HashMap<Source, Arc<Image>>>,
}

/// Where a container image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    /// A tree in the store.
    Tree(ObjectId),
    /// The engine, which has an image of this name.
    Engine(String),
}

/// A container image that the engine has.
#[derive(Clone)]
struct Found {
    /// Its name in the engine.
    name: Arc<str>,
    /// Its program and the program's arguments.
    command: Arc<[String]>,
}

/// A container image that is loaded or looked up once.
#[derive(Default)]
struct Image {
    /// Set once the engine is known to have it.
    found: tokio::sync::OnceCell<Found>,
    /// The last transient failure to load it or look it up.
    recent_failure: RecentFailure<Error>,
}

impl Preparer {
    pub(crate) fn new(client: Arc<Client>, isolation: Isolation, image_bytes: u64) -> Self {
        Self { client, isolation: Arc::new(isolation), image_bytes, images: Mutex::default() }
    }

    /// Describes the container in which `code` runs, and makes sure that the engine has its image.
    pub(crate) async fn prepare(
        &self,
        code: &Code,
        limits: &Limits,
        host: &dyn Host,
    ) -> Result<Spec> {
        let source = match code {
            Code::Module(module) if module.kind == ObjectKind::Tree => Source::Tree(module.id),
            Code::Module(module) => {
                Source::Engine(reference(module.id, &host.get(module.id).await?)?)
            }
            Code::Container(container) | Code::Hosted { host: container, .. } => {
                Source::Engine(container.as_str().to_owned())
            }
            _ => return Err(Error::runtime("the runtime for containers does not know this code")),
        };
        let memory_bytes = self.isolation.memory_bytes.min(limits.memory_bytes);
        let Found { name: image, command } = self.image(source, host).await?;
        let hosted = match code {
            Code::Hosted { module, .. } => Some(*module),
            _ => None,
        };
        Ok(Spec { image, memory_bytes, isolation: Arc::clone(&self.isolation), command, hosted })
    }

    /// Finds an image in the engine. Loads the image or looks it up once, and again after a failure.
    async fn image(&self, source: Source, host: &dyn Host) -> Result<Found> {
        let image = Arc::clone(self.images.lock().entry(source.clone()).or_default());
        let found = image.found.get_or_try_init(|| async {
            image.recent_failure.check()?;
            let found = match &source {
                Source::Tree(tree) => load(&self.client, *tree, host, self.image_bytes).await,
                Source::Engine(name) => look_up(&self.client, name).await,
            };
            if let Err(error) = &found
                && error.status() == Status::Transient
            {
                image.recent_failure.record(error);
            }
            found
        });
        found.await.cloned()
    }

    /// Makes the next job load an image or look it up again, because the engine may have lost it.
    pub(crate) fn forget(&self, image: &str) {
        self.images
            .lock()
            .retain(|_, kept| kept.found.get().is_none_or(|found| *found.name != *image));
    }
}

/// Parses the image reference in a module that is a blob.
///
/// # Errors
/// [`Reason::BadModule`] if the blob is not the text `docker://<digest>`.
fn reference(module: ObjectId, text: &[u8]) -> Result<String> {
    let bad = |problem: String| Error::new(Reason::BadModule { module, problem });
    let text = text
        .to_str()
        .map_err(|_| bad("it is not UTF-8 text; expected docker://<digest>".to_owned()))?;
    match ImageRef::parse(text) {
        Ok(ImageRef::Docker(container)) if container.is_by_digest() => {
            Ok(container.as_str().to_owned())
        }
        _ => Err(bad("a module that is a blob must be the text docker://<digest>".to_owned())),
    }
}

/// What the engine reports about an image.
struct Inspected {
    tree: Option<String>,
    volumes: Vec<String>,
    command: Arc<[String]>,
}

impl Inspected {
    /// Errors if the image has no program.
    fn found(self, name: Arc<str>) -> Result<Found> {
        if self.command.is_empty() {
            let problem =
                format!("image {name} names no program: it has no entry point and no command");
            return Err(Error::runtime(problem));
        }
        Ok(Found { name, command: self.command })
    }
}

async fn inspect(client: &Arc<Client>, name: &str) -> Result<Inspected, EngineError> {
    let inspected = retrying(|| {
        let (shared, name) = (Arc::clone(client), name.to_owned());
        client.spawn(async move {
            let docker = shared.docker().await?;
            shared.call(Step::InspectImage, docker.inspect_image(&name)).await
        })
    });
    let config = inspected.await?.config.unwrap_or_default();
    let tree = config.labels.and_then(|mut labels| labels.remove(TREE_LABEL));
    let command = [config.entrypoint, config.cmd].into_iter().flatten().flatten().collect();
    Ok(Inspected { tree, volumes: config.volumes.unwrap_or_default(), command })
}

/// Finds an image of the engine. Errors if it declares volumes, which would escape the isolation.
async fn look_up(client: &Arc<Client>, name: &str) -> Result<Found> {
    let reference = format!("docker://{name}");
    let known = inspect(client, name).await.map_err(|error| error.of_job(&reference))?;
    if known.volumes.is_empty() {
        return known.found(name.into());
    }
    Err(Error::runtime(format!(
        "image {reference} declares volumes ({}), to which guests could write without limit; build \
         it without volumes",
        known.volumes.join(", ")
    )))
}

/// Loads the image that is kept in `tree` into the engine, unless the engine has it.
///
/// # Errors
/// - [`Reason::BadModule`] if the tree is not a container image.
/// - [`Limit::Module`](manifold_runtime_api::Limit::Module) if the image is larger than `bound`
///   bytes.
/// - [`Reason::RuntimeFailed`] if the archive cannot be written or the engine does not load it.
async fn load(client: &Arc<Client>, tree: ObjectId, host: &dyn Host, bound: u64) -> Result<Found> {
    let name: Arc<str> = format!("manifold-image:{tree}").into();
    match inspect(client, &name).await {
        Ok(known) if known.tree.as_deref() == Some(tree.to_string().as_str()) => {
            return known.found(name);
        }
        Ok(_) | Err(EngineError::Refused { code: 404, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let archive = Archive::new(Objects::Host(host), tree, Purpose::Guests, bound);
    let file = tempfile::tempfile().map_err(archive_error)?;
    let archive =
        archive.write(Some(&name), file, async |below, bound| fetch(client, below, bound).await);
    let mut archive = archive.await?;
    let bytes = archive.stream_position().map_err(archive_error)?;
    // Allows for 10 MB per second, for a disk that is busy.
    let patience = client.deadline + Duration::from_secs(bytes / 10_000_000);
    let archive = Arc::new(archive);
    let loaded = retrying(|| {
        let (shared, archive) = (Arc::clone(client), Arc::clone(&archive));
        client.spawn(async move {
            let docker = shared.docker().await?;
            let options = ImportImageOptionsBuilder::new().quiet(true).build();
            let loading = docker.import_image_stream(options, stream_file(archive), None);
            shared.call_within(patience, Step::Load, loading.try_for_each(async |_| Ok(()))).await
        })
    });
    loaded.await?;
    inspect(client, &name).await?.found(name)
}

/// Streams a file from its beginning. Several streams of one file are independent, because each
/// keeps its own offset.
fn stream_file(file: Arc<File>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    const PIECE_BYTES: usize = 1 << 18;
    futures_util::stream::try_unfold(0, move |offset| {
        let file = Arc::clone(&file);
        async move {
            let reading = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE_BYTES];
                let bytes = file.read_at(&mut piece, offset)?;
                piece.truncate(bytes);
                io::Result::Ok(piece)
            });
            let piece = reading.await.map_err(io::Error::other)??;
            let next = offset + piece.len() as u64;
            Ok((!piece.is_empty()).then(|| (Bytes::from(piece), next)))
        }
    })
}
