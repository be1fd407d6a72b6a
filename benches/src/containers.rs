//! What the engine itself takes for a job in a container.

use std::error::Error;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, ResourcesUlimits,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt, stream};
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
    // What jobs get by default, for every namespace and limit takes the engine time.
    let ulimit =
        |name: &str, bound| ResourcesUlimits { name: Some(name.to_owned()), soft: Some(bound), hard: Some(bound) };
    let strict = HostConfig {
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        ulimits: Some(vec![ulimit("nofile", 1024), ulimit("core", 0), ulimit("msgqueue", 0)]),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        memory_swap: Some(256 << 20),
        network_mode: Some("none".to_owned()),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        memory: Some(256 << 20),
        pids_limit: Some(128),
        cpu_period: Some(100_000),
        cpu_quota: Some(100_000),
        tmpfs: Some([("/tmp".to_owned(), "size=64m".to_owned())].into()),
        ipc_mode: Some("none".to_owned()),
        ..HostConfig::default()
    };
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        user: Some("65534:65534".to_owned()),
        hostname: Some("manifold".to_owned()),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        host_config: Some(strict),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None, body).await?.id;
    let options = AttachContainerOptionsBuilder::new().stream(true).stdin(true).stdout(true).stderr(true).build();
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
    Ok(docker.remove_container(&id, Some(RemoveContainerOptionsBuilder::new().force(true).build())).await?)
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
