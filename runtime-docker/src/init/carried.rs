//! Images that carry the init, for engines that do not see the files of this machine.
//!
//! Such an image is the original one with one more layer, in which the init is where it would be
//! mounted. The engine keeps it, so that it is made once.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::{ContainerConfig, ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use sha2::{Digest, Sha256};
use tar::EntryType;

use super::{PATH, program};
use crate::engine::{Client, EngineError, Step};
use crate::images::archive::header;
use crate::images::{INIT_LABEL, hex};

/// Returns the name of an image that is `image` with the init in it. Makes it if the engine does not
/// have it, with the help of a container with `labels`, which is called `container` and never runs.
///
/// # Errors
/// The error of the engine.
pub(crate) async fn image_with_init(
    client: &Arc<Client>,
    image: &str,
    container: &str,
    labels: HashMap<String, String>,
) -> Result<Arc<str>, EngineError> {
    let docker = client.docker().await?;
    let original = client.call(Step::InspectImage, docker.inspect_image(image)).await?;
    let id = original.id.unwrap_or_else(|| image.to_owned());
    let program = program().map_err(|error| EngineError::NotServing {
        image: image.to_owned(),
        problem: format!("cannot be started without its init: {error}"),
        status: manifold_runtime_api::Status::Permanent,
    })?;
    let mut digest = Sha256::new();
    digest.update(&id);
    digest.update(program);
    let (repository, tag) = ("manifold-init", hex(&digest.finalize()));
    let name: Arc<str> = format!("{repository}:{tag}").into();
    match client.call(Step::InspectImage, docker.inspect_image(&name)).await {
        Ok(_) => return Ok(name),
        Err(EngineError::Refused { code: 404, .. }) => {}
        Err(error) => return Err(error),
    }

    let options = CreateContainerOptionsBuilder::new().name(container).build();
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec![PATH.to_owned()]),
        labels: Some(labels),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    client.call(Step::Create, docker.create_container(Some(options), body)).await?;
    let made = async {
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let layer = bollard::body_full(layer(program).into());
        let upload = docker.upload_to_container(container, Some(options), layer);
        client.call(Step::AddInit, upload).await?;
        let label = format!("LABEL {INIT_LABEL}={tag}");
        let options = CommitContainerOptionsBuilder::new()
            .container(container)
            .repo(repository)
            .tag(&tag)
            .changes(&label)
            .build();
        let commit = docker.commit_container(options, ContainerConfig::default());
        client.call(Step::AddInit, commit).await.map(drop)
    };
    let made = made.await;
    let removed = client.force_removal(&docker, container).await;
    made?;
    removed?;
    Ok(name)
}

/// Returns an archive with the init.
fn layer(program: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let path = PATH.trim_start_matches('/');
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut append = |kind, path: &str, mode, content: &[u8]| {
        let mut header = header(kind, mode, content.len() as u64);
        archive.append_data(&mut header, path, content)
    };
    // Writing to memory does not fail.
    let _ = append(EntryType::Directory, directory, 0o755, b"");
    let _ = append(EntryType::Regular, path, 0o555, program);
    archive.into_inner().unwrap_or_default()
}
