//! Description of a container: image, memory, isolation and host module, and the engine's request
//! to create it.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount, MountType, ResourcesUlimits,
};
use manifold_runtime_api::ObjectRef;

use crate::init::{self, Place};
use crate::limits::{Isolation, SERVING_FACTOR, Seccomp};

/// Description of a container. Containers with equal specs are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Spec {
    /// The engine's name of the image.
    pub(crate) image: Arc<str>,
    /// Memory of one job, in bytes.
    pub(crate) memory_bytes: u64,
    pub(crate) isolation: Arc<Isolation>,
    /// The program of the image and its arguments.
    pub(crate) command: Arc<[String]>,
    /// The module that a host runs. Modules may have different authors, so they do not share a
    /// host.
    pub(crate) hosted: Option<ObjectRef>,
}

/// Path of the host's socket in a container that serves many jobs.
const SOCKET: &str = "/run/manifold/socket";
const SOCKET_DIRECTORY: &str = "/run/manifold";

/// Period over which a container gets its share of the processors, in microseconds.
const CPU_PERIOD: i64 = 100_000;

impl Spec {
    /// Returns the request to create a container for one job at a time. Its first process is the
    /// init at `place`, which communicates over its standard streams.
    pub(crate) fn for_one_job_at_a_time(&self, place: &Place) -> Box<ContainerCreateBody> {
        let (image, init) = match place {
            Place::Mounted(init) => (&self.image, Some(init.as_str())),
            Place::Image(image) => (image, None),
        };
        Box::new(ContainerCreateBody {
            image: Some(image.to_string()),
            entrypoint: Some(vec![init::PATH.to_owned()]),
            cmd: Some(self.command.to_vec()),
            ..self.body(Role::Alone { init })
        })
    }

    /// Returns the request to create a container for many jobs, which connects to the socket in the
    /// directory `served_from` of this machine.
    pub(crate) fn for_many_jobs(&self, served_from: &str) -> Box<ContainerCreateBody> {
        let env = vec![format!("MANIFOLD_SOCKET={SOCKET}")];
        Box::new(ContainerCreateBody {
            env: Some(env),
            ..self.body(Role::Serving { directory: served_from })
        })
    }

    fn body(&self, role: Role<'_>) -> ContainerCreateBody {
        ContainerCreateBody {
            image: Some(self.image.to_string()),
            // Otherwise the engine would choose a random name, which the guest could observe.
            hostname: Some("manifold".to_owned()),
            user: Some(self.isolation.user.clone()),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            // The guest reads the end of its input when this process ends.
            stdin_once: Some(true),
            tty: Some(false),
            // Otherwise the engine would run the image's health check at intervals in the
            // container.
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            host_config: Some(host_config(&self.isolation, self.memory_bytes, role)),
            ..ContainerCreateBody::default()
        }
    }
}

/// What a container is for, and what of this machine is mounted in it.
#[derive(Clone, Copy)]
enum Role<'a> {
    /// One job at a time, which the program `init` starts, or one that the image has.
    Alone { init: Option<&'a str> },
    /// Many jobs, over the socket in `directory`.
    Serving { directory: &'a str },
}

/// Returns the engine's configuration of a container.
fn host_config(isolation: &Isolation, memory_bytes: u64, role: Role<'_>) -> HostConfig {
    let serving = matches!(role, Role::Serving { .. });
    let (source, target) = match role {
        Role::Alone { init } => (init, init::PATH),
        Role::Serving { directory } => (Some(directory), SOCKET_DIRECTORY),
    };
    let mount = source.map(|source| Mount {
        target: Some(target.to_owned()),
        source: Some(source.to_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Mount::default()
    });
    let memory =
        if serving { memory_bytes.saturating_mul(SERVING_FACTOR.into()) } else { memory_bytes };
    let memory = i64::try_from(memory).unwrap_or(i64::MAX);
    let processes = if serving { isolation.serving_processes() } else { isolation.processes };
    let millicores = if serving {
        isolation.millicores.saturating_mul(SERVING_FACTOR)
    } else {
        isolation.millicores
    };
    let mut security = Vec::new();
    if !isolation.gains_privileges {
        security.push("no-new-privileges".to_owned());
    }
    match &isolation.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => security.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(profile) => security.push(format!("seccomp={profile}")),
    }
    let scratch = format!("rw,noexec,nosuid,nodev,size={},mode=1777", isolation.scratch_bytes);
    let has_scratch = isolation.scratch_bytes > 0 && !serving;
    let ulimit = |name: &str, bound: u32| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(bound.into()),
        hard: Some(bound.into()),
    };
    HostConfig {
        memory: Some(memory),
        memory_swap: Some(memory),
        // Unlike `nano_cpus`, this form is accepted by an engine with fewer cores.
        cpu_period: Some(CPU_PERIOD),
        cpu_quota: Some(i64::from(millicores) * CPU_PERIOD / 1000),
        pids_limit: Some(processes.into()),
        ulimits: Some(vec![
            ulimit("nofile", isolation.open_files),
            ulimit("core", 0),
            ulimit("msgqueue", 0),
        ]),
        // No System V IPC objects, because one job could leave data in them for the next, and their
        // ids tell of those that were removed.
        sysctls: Some(
            [("kernel.shmmni", "0"), ("kernel.msgmni", "0"), ("kernel.sem", "0 0 0 0")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        ),
        readonly_rootfs: Some(!isolation.writable_root),
        tmpfs: has_scratch.then(|| HashMap::from([("/tmp".to_owned(), scratch)])),
        mounts: Some(mount.into_iter().collect()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: (!isolation.capabilities.is_empty()).then(|| isolation.capabilities.clone()),
        security_opt: Some(security),
        network_mode: Some(isolation.network.clone().unwrap_or_else(|| "none".to_owned())),
        // In the host's cgroup namespace a guest could observe the container's random id.
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        // No shared memory in /dev/shm.
        ipc_mode: Some("none".to_owned()),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    }
}
