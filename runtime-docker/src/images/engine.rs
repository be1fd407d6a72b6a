//! Images of the engine: those on which others are based, and those that were loaded from trees.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Seek, Write};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ImageSummary;
use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptions};
use bytes::Bytes;
use futures_util::StreamExt;
use manifold_runtime_api::{DockerReference, Error, Limit, ObjectId, ObjectKind, Result};
use serde_json::{Map, Value};

use super::archive::{Archive, EngineImage, Layer, Objects, Purpose};
use super::error::ImportError;
use super::manifest;
use super::members::{Members, decompressed};
use super::{INIT_LABEL, TREE_LABEL, import};
use crate::engine::{Client, ContainerEngine, EngineError, Step};

/// Gets an image from the engine, of at most `bound` bytes.
pub(crate) async fn fetch(
    client: &Arc<Client>,
    image: &DockerReference,
    bound: u64,
) -> Result<EngineImage> {
    let reference = format!("docker://{image}");
    let name = image.as_str().to_owned();
    let saved = client.spawn({
        let client = Arc::clone(client);
        async move {
            let docker = client.docker().await?;
            let found = client.call(Step::InspectImage, docker.inspect_image(&name)).await?;
            let bytes = found.size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
            // Allows for 10 MB per second, for a disk that is busy.
            let patience = client.deadline + Duration::from_secs(bytes / 10_000_000);
            let mut pieces = Box::pin(docker.export_image(&name));
            client
                .call_within(patience, Step::Save, async {
                    let mut file = tempfile::tempfile()?;
                    let mut left = bound;
                    while let Some(piece) = pieces.next().await {
                        let piece = piece?;
                        let Some(rest) = left.checked_sub(piece.len() as u64) else {
                            return Ok(None);
                        };
                        left = rest;
                        file.write_all(&piece)?;
                    }
                    file.rewind()?;
                    Ok(Some(file))
                })
                .await
        }
    });
    let Some(archive) = saved.await.map_err(|error| error.of_job(&reference))? else {
        return Err(Limit::Module { bytes: bound, found: bound.saturating_add(1) }.into());
    };
    read(&archive, bound).map_err(|error| {
        Error::runtime(format!(
            "cannot read the image {reference}, as the engine saved it: {error}"
        ))
    })
}

/// Reads the image in an archive that the engine wrote.
fn read(archive: &File, bound: u64) -> Result<EngineImage, ImportError> {
    let members = Members::copy(archive, bound)?;
    let found = manifest::find(&members, None, &import::own_platform())?;
    let (name, config) = found.config;
    let config: Value = manifest::parse(&name, &config)?;
    let Value::Object(config) = config else {
        let problem = "it is not an object".to_owned();
        return Err(ImportError::Malformed { name, problem });
    };
    let layers = found.layers.iter().map(|name| {
        let (layer, _) = members.reader(name)?;
        let plain = decompressed(BufReader::new(layer)).map_err(ImportError::reading)?;
        Ok(Layer::copy(plain)?)
    });
    Ok(EngineImage { config, layers: layers.collect::<Result<_, ImportError>>()? })
}

/// Checks that the tree `image` is a container image that an engine can load: its configuration, its
/// layers and their attributes, and those of the trees on which it is based. `read` returns the
/// content of an object of a kind. No engine is asked about an image on which it is based.
///
/// # Errors
/// - [`Reason::BadModule`](manifold_runtime_api::Reason::BadModule) if the tree is not a container
///   image, with what is wrong.
/// - [`Reason::RuntimeFailed`](manifold_runtime_api::Reason::RuntimeFailed) if a temporary file cannot
///   be written.
/// - The error of `read`.
pub async fn check_image(
    image: ObjectId,
    read: &(dyn Fn(ObjectId, ObjectKind) -> Result<Bytes> + Send + Sync),
) -> Result<()> {
    let archive = Archive::new(Objects::Read(read), image, Purpose::Guests, u64::MAX);
    let below = || {
        let config = Map::from_iter([("config".to_owned(), Value::Object(Map::new()))]);
        EngineImage { config, layers: Vec::new() }
    };
    archive.write(None, io::sink(), async |_, _| Ok(below())).await.map(drop)
}

impl ContainerEngine {
    /// Writes the image in the tree `image` to `out`, in the format of `docker load`. The engine is
    /// asked for an image on which it is based, and otherwise not contacted. `read` returns the
    /// content of an object of a kind, and `name` is what engines call the image, such as
    /// `example:1`.
    ///
    /// # Errors
    /// - [`Reason::BadModule`](manifold_runtime_api::Reason::BadModule) if the tree is not a
    ///   container image.
    /// - [`Reason::RuntimeFailed`](manifold_runtime_api::Reason::RuntimeFailed) if the archive cannot
    ///   be written, or the engine does not save the image below.
    /// - The error of `read`.
    pub async fn export_image<W: Write>(
        &self,
        image: ObjectId,
        name: Option<&str>,
        read: &(dyn Fn(ObjectId, ObjectKind) -> Result<Bytes> + Send + Sync),
        out: W,
    ) -> Result<W> {
        let archive = Archive::new(Objects::Read(read), image, Purpose::Export, u64::MAX);
        let client = &self.roster.client;
        archive.write(name, out, async |below, bound| fetch(client, below, bound).await).await
    }

    /// Removes the images from the engine that were loaded from trees, that no container uses, and
    /// for whose tree `is_kept` returns false. Returns the ids of their trees. Images that other
    /// programs loaded stay.
    ///
    /// # Errors
    /// Returns an error if the engine cannot be reached, does not respond, or refuses to list or
    /// remove images.
    pub async fn remove_images(
        &self,
        is_kept: impl Fn(ObjectId) -> bool,
    ) -> Result<Vec<ObjectId>, EngineError> {
        let client = Arc::clone(&self.roster.client);
        let mut removed = BTreeSet::new();
        // Those that carry the init first, because they extend others.
        for label in [INIT_LABEL, TREE_LABEL] {
            for image in list(&client, label).await? {
                let tree = image.labels.get(TREE_LABEL).map(|tree| ObjectId::from_hex(tree));
                let tree = tree.and_then(Result::ok);
                if tree.is_some_and(&is_kept) || (tree.is_none() && label == TREE_LABEL) {
                    continue;
                }
                let shared = Arc::clone(&client);
                let removal = client.spawn(async move {
                    let docker = shared.docker().await?;
                    // By its id, because Podman lists it under a longer name.
                    let removal = docker.remove_image(&image.id, None::<RemoveImageOptions>, None);
                    shared.call(Step::RemoveImage, removal).await
                });
                match removal.await {
                    Ok(_) => removed.extend(tree.filter(|_| label == TREE_LABEL)),
                    // Another program has removed it, or a container uses it.
                    Err(EngineError::Refused { code: 404 | 409, .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(removed.into_iter().collect())
    }
}

/// Lists the images with a label.
async fn list(client: &Arc<Client>, label: &'static str) -> Result<Vec<ImageSummary>, EngineError> {
    let shared = Arc::clone(client);
    client
        .spawn(async move {
            let docker = shared.docker().await?;
            let filters = HashMap::from([("label", vec![label])]);
            let options = ListImagesOptionsBuilder::new().filters(&filters).build();
            shared.call(Step::ListImages, docker.list_images(Some(options))).await
        })
        .await
}
