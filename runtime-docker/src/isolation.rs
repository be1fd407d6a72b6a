//! What a container may do. Strict unless loosened.

use std::collections::HashMap;

use bollard::models::{
    HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountType, ResourcesUlimits,
};
use manifold_runtime_api::HostImageBuilder;

/// What surrounds a guest's process. Everything here can change what a guest sees, so all of it is part of the host image.
///
/// The default drops all capabilities, forbids gaining privileges, keeps the engine's seccomp profile, mounts the root file system
/// read-only, gives 64 MiB of scratch in `/tmp`, runs as user 65534, and has no network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Isolation {
    /// Memory of a container, in bytes, its scratch included; swap is not used. A job's own limit may be tighter. A container that serves
    /// many jobs may have four times that. Default: 256 MiB.
    pub memory_bytes: u64,
    /// Computing time in thousandths of a core; four times that for a container that serves many jobs. Default: 1000.
    pub millicores: u32,
    /// Processes and threads at one time. A container that serves many jobs may have four times that. Default: 128.
    pub processes: u32,
    /// Open files of a process. Default: 1024.
    pub open_files: u32,
    /// Scratch in `/tmp`, in bytes; none when 0. A container that serves many jobs never has any, so that nothing that one job
    /// writes is there for the next. Default: 64 MiB.
    pub scratch_bytes: u64,
    /// Whether the root file system can be written. Default: no.
    pub writable_root: bool,
    /// The user and group, as the engine takes them. Default: `65534:65534`.
    pub user: String,
    /// Capabilities that are kept, such as `CHOWN`. Default: none.
    pub capabilities: Vec<String>,
    /// Whether programs may gain privileges (set-user-id bits). Default: no.
    pub gains_privileges: bool,
    /// Which system calls are allowed.
    pub seccomp: Seccomp,
    /// The engine's network that the container is in. Default: none at all. With a network, results are functions of more than
    /// the request, and that is on whoever chooses it.
    pub network: Option<String>,
}

/// Which system calls are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Seccomp {
    /// The engine's own profile.
    #[default]
    Default,
    /// All of them.
    Unconfined,
    /// A profile of one's own, in JSON.
    Profile(String),
}

impl Default for Isolation {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            memory_bytes: 256 * MIB,
            millicores: 1000,
            processes: 128,
            open_files: 1024,
            scratch_bytes: 64 * MIB,
            writable_root: false,
            user: "65534:65534".to_owned(),
            capabilities: Vec::new(),
            gains_privileges: false,
            seccomp: Seccomp::Default,
            network: None,
        }
    }
}

/// Where a container that serves many jobs finds the host's socket.
pub(crate) const SOCKET: &str = "/run/manifold/socket";
const SOCKET_DIRECTORY: &str = "/run/manifold";

/// What containers are given that is no setting: the name of the host, `/tmp` without execution, signals, sysctls. It goes up with any
/// change that a guest can see.
const REVISION: u32 = 1;

/// In what time a container gets its share of the cores, in microseconds.
const CPU_PERIOD: i64 = 100_000;

/// How much more a container that serves many jobs may have.
const SERVING_SHARE: u32 = 4;

impl Isolation {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lists the settings in a host image.
    pub(crate) fn describe(&self, image: HostImageBuilder) -> HostImageBuilder {
        let seccomp = match &self.seccomp {
            Seccomp::Default => "the engine's",
            Seccomp::Unconfined => "unconfined",
            Seccomp::Profile(profile) => profile,
        };
        image
            .with("revision", REVISION)
            .with("architecture", std::env::consts::ARCH)
            .with("memory", self.memory_bytes)
            .with("millicores", self.millicores)
            .with("processes", self.processes)
            .with("open-files", self.open_files)
            .with("scratch", self.scratch_bytes)
            .with("writable-root", self.writable_root)
            .with("user", &self.user)
            .with("capabilities", self.capabilities.join(","))
            .with("gains-privileges", self.gains_privileges)
            .with("seccomp", seccomp)
            .with("network", self.network.as_deref().unwrap_or("none"))
    }

    /// Why a container cannot serve many jobs with this: one of them could leave something for the next.
    pub(crate) fn leak_between_jobs(&self) -> Option<&'static str> {
        let user = self.user.split(':').next().unwrap_or_default();
        if self.writable_root {
            Some("a root file system that can be written")
        } else if user == "root" || user.chars().all(|digit| digit == '0') {
            Some("root, who can write to /dev,")
        } else if self.seccomp == Seccomp::Unconfined {
            Some("unconfined system calls, among them the kernel's key rings,")
        } else {
            None
        }
    }

    /// How many processes a container that serves many jobs may have.
    pub(crate) fn serving_processes(&self) -> u32 {
        self.processes.saturating_mul(SERVING_SHARE)
    }

    /// What the engine is told. `served_from` is the directory with the socket of a container that serves many jobs.
    pub(crate) fn host_config(&self, memory_bytes: u64, served_from: Option<&str>) -> HostConfig {
        let serving = served_from.is_some();
        let memory =
            if serving { memory_bytes.saturating_mul(SERVING_SHARE.into()) } else { memory_bytes };
        let memory = i64::try_from(memory).unwrap_or(i64::MAX);
        let processes = if serving { self.serving_processes() } else { self.processes };
        let millicores =
            if serving { self.millicores.saturating_mul(SERVING_SHARE) } else { self.millicores };
        let mut security = Vec::new();
        if !self.gains_privileges {
            security.push("no-new-privileges".to_owned());
        }
        match &self.seccomp {
            Seccomp::Default => {}
            Seccomp::Unconfined => security.push("seccomp=unconfined".to_owned()),
            Seccomp::Profile(profile) => security.push(format!("seccomp={profile}")),
        }
        let scratch = format!("rw,noexec,nosuid,nodev,size={},mode=1777", self.scratch_bytes);
        let has_scratch = self.scratch_bytes > 0 && !serving;
        let ulimit = |name: &str, bound: u32| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(bound.into()),
            hard: Some(bound.into()),
        };
        HostConfig {
            memory: Some(memory),
            memory_swap: Some(memory),
            // In this form an engine with fewer cores takes it, too.
            cpu_period: Some(CPU_PERIOD),
            cpu_quota: Some(i64::from(millicores) * CPU_PERIOD / 1000),
            pids_limit: Some(processes.into()),
            ulimits: Some(vec![
                ulimit("nofile", self.open_files),
                ulimit("core", 0),
                ulimit("msgqueue", 0),
            ]),
            // What one job leaves there would be there for the next.
            sysctls: serving.then(|| {
                [("kernel.shmmni", "0"), ("kernel.msgmni", "0"), ("kernel.sem", "0 0 0 0")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into()
            }),
            readonly_rootfs: Some(!self.writable_root),
            tmpfs: has_scratch.then(|| HashMap::from([("/tmp".to_owned(), scratch)])),
            mounts: served_from.map(|directory| {
                vec![Mount {
                    target: Some(SOCKET_DIRECTORY.to_owned()),
                    source: Some(directory.to_owned()),
                    typ: Some(MountType::BIND),
                    read_only: Some(true),
                    ..Mount::default()
                }]
            }),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: (!self.capabilities.is_empty()).then(|| self.capabilities.clone()),
            security_opt: Some(security),
            network_mode: Some(self.network.clone().unwrap_or_else(|| "none".to_owned())),
            // With the host's, the container's random id would be seen.
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            // Without shared memory in /dev/shm.
            ipc_mode: Some("none".to_owned()),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }
    }
}
