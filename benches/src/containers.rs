//! The floor of container jobs: the same work with the container engine's calls alone.

use std::collections::HashMap;
use std::error::Error;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    ResourcesUlimits,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use manifold_runtime_docker::Isolation;
use tokio::io::AsyncWriteExt;

/// Returns the responses of a host to the guest `file-count` for a file, one a line, so that the
/// guest can run without a host.
pub fn file_count_answers() -> String {
    const RESPONSES: [&str; 2] = [
        r#"{"args":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","std":"","salt":"","image":"","stack":"","entries":[{"name":"in","kind":"blob","hash":"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391","mode":"100644"}]}"#,
        "{}",
    ];
    RESPONSES.join("\n") + "\n"
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs `file-count` in a fresh container with the least number of engine calls: create, attach,
/// start, exchange the guest's requests and responses, wait, remove.
///
/// # Errors
/// Returns an error if a call to the engine fails, or if the guest does not report an outcome.
pub async fn container_job(docker: &Docker, image: &str) -> Result<()> {
    let id = docker.create_container(None, job_container(image)).await?.id;
    let options = AttachContainerOptionsBuilder::new()
        .stream(true)
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .build();
    let mut attached = docker.attach_container(&id, Some(options)).await?;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    attached.input.write_all(file_count_answers().as_bytes()).await?;
    let mut printed = String::new();
    while let Some(output) = attached.output.try_next().await? {
        printed += &String::from_utf8_lossy(&output.into_bytes());
    }
    // Errors if the exit status is not 0.
    docker.wait_container(&id, None::<WaitContainerOptions>).try_collect::<Vec<_>>().await?;
    if !printed.contains(r#""op":"out_blob""#) {
        return Err(format!("the container reported no outcome; its output is {printed:?}").into());
    }
    Ok(docker
        .remove_container(&id, Some(RemoveContainerOptionsBuilder::new().force(true).build()))
        .await?)
}

/// Returns the request to create a container with the hardening of a job's, because every name
/// space and limit takes the engine time. It follows `runtime-docker/src/spec.rs`.
fn job_container(image: &str) -> ContainerCreateBody {
    let isolation = Isolation::default();
    let memory = i64::try_from(isolation.memory_bytes).ok();
    let ulimit = |name: &str, bound: u32| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(bound.into()),
        hard: Some(bound.into()),
    };
    let scratch = format!("rw,noexec,nosuid,nodev,size={},mode=1777", isolation.scratch_bytes);
    let host_config = HostConfig {
        memory,
        memory_swap: memory,
        cpu_period: Some(100_000),
        cpu_quota: Some(i64::from(isolation.millicores) * 100),
        pids_limit: Some(isolation.processes.into()),
        ulimits: Some(vec![
            ulimit("nofile", isolation.open_files),
            ulimit("core", 0),
            ulimit("msgqueue", 0),
        ]),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), scratch)])),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        network_mode: Some("none".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        ipc_mode: Some("none".to_owned()),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: Some("manifold".to_owned()),
        user: Some(isolation.user),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        tty: Some(false),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

/// Runs `count` [`container_job`]s, four at a time.
///
/// # Errors
/// Returns the first error of a [`container_job`].
pub async fn container_jobs(docker: &Docker, image: &str, count: u64) -> Result<()> {
    // More at a time are not faster on two cores.
    const AT_A_TIME: usize = 4;
    let jobs = stream::iter(0..count).map(|_| container_job(docker, image));
    jobs.buffer_unordered(AT_A_TIME).try_collect().await
}
