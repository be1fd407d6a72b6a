//! What the engine itself takes for a job in a container.

use std::error::Error;

use bollard::Docker;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use manifold_runtime_docker::Isolation;
use tokio::io::AsyncWriteExt;

/// What a host would answer `file-count` about a file, so that it runs without one.
pub fn file_count_answers() -> String {
    const ANSWERS: [&str; 4] = [
        r#"{"args":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","std":"","salt":"","image":"","stack":""}"#,
        r#"{"entries":[{"name":"in","kind":"blob","hash":"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391","mode":"100644"}]}"#,
        r#"{"hash":"d00491fd7e5bb6fa28c517a0bb32b8b506539d4d"}"#,
        "{}",
    ];
    ANSWERS.join("\n") + "\n"
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Create, attach, start, one exchange, wait, remove: what a fresh container cannot do without.
///
/// # Errors
/// What the engine answers, and when the guest does not do its work.
pub async fn container_job(docker: &Docker, image: &str) -> Result<()> {
    // Hardened as jobs are, for every name space and limit takes the engine time.
    let body = Isolation::default().job_container(image);
    let id = docker.create_container(None, body).await?.id;
    let options = AttachContainerOptionsBuilder::new()
        .stream(true)
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .build();
    let mut attached = docker.attach_container(&id, Some(options)).await?;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    attached.input.write_all(file_count_answers().as_bytes()).await?;
    let mut said = String::new();
    while let Some(output) = attached.output.try_next().await? {
        said += &String::from_utf8_lossy(&output.into_bytes());
    }
    // A status other than 0 is an error here.
    docker.wait_container(&id, None::<WaitContainerOptions>).try_collect::<Vec<_>>().await?;
    if !said.contains(r#""op":"out""#) {
        return Err(format!("a container has no outcome, but {said:?}").into());
    }
    Ok(docker
        .remove_container(&id, Some(RemoveContainerOptionsBuilder::new().force(true).build()))
        .await?)
}

/// So many of them, a few at a time.
///
/// # Errors
/// As [`container_job`].
pub async fn container_jobs(docker: &Docker, image: &str, count: u64) -> Result<()> {
    // More do not make it faster on two cores.
    const AT_A_TIME: usize = 4;
    let jobs = stream::iter(0..count).map(|_| container_job(docker, image));
    jobs.buffer_unordered(AT_A_TIME).try_collect().await
}
