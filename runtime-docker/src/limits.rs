//! What bounds a guest: the isolation and limits of its container. The default is strict.

use manifold_runtime_api::HostImageBuilder;

/// The environment and limits of a guest's process. A guest can observe every setting, so all of
/// them are part of the host image.
///
/// The default drops all capabilities, forbids gaining privileges, keeps the engine's seccomp
/// profile, mounts the root file system read-only, provides 64 MiB of scratch space in `/tmp`, runs
/// as user 65534, and has no network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Isolation {
    /// Memory of a container, in bytes, including its scratch space. Swap is not used. A job's own
    /// limit may be lower. A container that serves many jobs gets four times as much. Default: 256
    /// MiB.
    pub memory_bytes: u64,
    /// Share of the processors, in thousandths of a core. A container that serves many jobs gets
    /// four times as much. Default: 1000.
    pub millicores: u32,
    /// Maximum number of processes and threads at one time. A container that serves many jobs gets
    /// four times as many. Default: 128.
    pub processes: u32,
    /// Maximum number of open files per process. Default: 1024.
    pub open_files: u32,
    /// Size of the scratch space in `/tmp`, in bytes; 0 for none. A container that serves many jobs
    /// never has any, so that no job can leave data for the next. Default: 64 MiB.
    pub scratch_bytes: u64,
    /// Whether the root file system is writable. Default: false.
    pub writable_root: bool,
    /// User and group, in the engine's syntax. Default: `65534:65534`.
    pub user: String,
    /// Capabilities that are kept, such as `CHOWN`. Default: none.
    pub capabilities: Vec<String>,
    /// Whether programs may gain privileges, as with set-user-id bits. Default: false.
    pub gains_privileges: bool,
    /// Which system calls are allowed. Default: [`Seccomp::Default`].
    pub seccomp: Seccomp,
    /// Name of the engine's network that the container joins. Default: `None`, for no network. With
    /// a network, an outcome can depend on more than the request. The embedder that sets it has to
    /// accept that.
    pub network: Option<String>,
}

impl Isolation {
    /// Sets [`Isolation::memory_bytes`](#structfield.memory_bytes).
    #[must_use]
    pub const fn memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.memory_bytes = memory_bytes;
        self
    }

    /// Sets [`Isolation::millicores`](#structfield.millicores).
    #[must_use]
    pub const fn millicores(mut self, millicores: u32) -> Self {
        self.millicores = millicores;
        self
    }

    /// Sets [`Isolation::processes`](#structfield.processes).
    #[must_use]
    pub const fn processes(mut self, processes: u32) -> Self {
        self.processes = processes;
        self
    }

    /// Sets [`Isolation::open_files`](#structfield.open_files).
    #[must_use]
    pub const fn open_files(mut self, open_files: u32) -> Self {
        self.open_files = open_files;
        self
    }

    /// Sets [`Isolation::scratch_bytes`](#structfield.scratch_bytes).
    #[must_use]
    pub const fn scratch_bytes(mut self, scratch_bytes: u64) -> Self {
        self.scratch_bytes = scratch_bytes;
        self
    }

    /// Sets [`Isolation::writable_root`](#structfield.writable_root).
    #[must_use]
    pub const fn writable_root(mut self, writable_root: bool) -> Self {
        self.writable_root = writable_root;
        self
    }

    /// Sets [`Isolation::user`](#structfield.user).
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets [`Isolation::capabilities`](#structfield.capabilities).
    #[must_use]
    pub fn capabilities(mut self, capabilities: Vec<String>) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Sets [`Isolation::gains_privileges`](#structfield.gains_privileges).
    #[must_use]
    pub const fn gains_privileges(mut self, gains_privileges: bool) -> Self {
        self.gains_privileges = gains_privileges;
        self
    }

    /// Sets [`Isolation::seccomp`](#structfield.seccomp).
    #[must_use]
    pub fn seccomp(mut self, seccomp: Seccomp) -> Self {
        self.seccomp = seccomp;
        self
    }

    /// Sets [`Isolation::network`](#structfield.network).
    #[must_use]
    pub fn network(mut self, network: Option<String>) -> Self {
        self.network = network;
        self
    }
}

/// The seccomp profile of a container: which system calls are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Seccomp {
    /// The engine's own profile.
    #[default]
    Default,
    /// No profile: all system calls are allowed.
    Unconfined,
    /// A custom profile, as JSON text.
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

/// Version of everything that a guest can observe and that is not a setting: host name, `/tmp`
/// without execution, signals, sysctls. It must be incremented with any change in `spec.rs` that a
/// guest can observe.
const REVISION: u32 = 2;

/// Factor by which a container that serves many jobs gets more memory, processes and processors.
pub(crate) const SERVING_FACTOR: u32 = 4;

impl Isolation {
    /// Returns the default isolation, see [`Isolation`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the settings to a host image.
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

    /// Returns whether everything that a job leaves in a container can be removed or found.
    pub(crate) fn leaves_nothing(&self) -> bool {
        self.leak_between_jobs().is_none()
            && self.network.is_none()
            && self.capabilities.is_empty()
            && !self.gains_privileges
            && self.seccomp == Seccomp::Default
    }

    /// Returns the setting with which one job of a serving container could leave data for the next;
    /// `None` if there is none.
    pub(crate) fn leak_between_jobs(&self) -> Option<&'static str> {
        let user = self.user.split(':').next().unwrap_or_default();
        // A name means what the image's `/etc/passwd` says, which can be root.
        let is_surely_not_root = user.parse::<u32>().is_ok_and(|user| user > 0);
        if self.writable_root {
            Some("a writable root file system")
        } else if !is_surely_not_root {
            Some("a user that can be root, who can write to /dev (name it by a number above 0)")
        } else if self.seccomp == Seccomp::Unconfined {
            Some("unconfined system calls, which include the kernel's key rings")
        } else {
            None
        }
    }

    /// Returns how many processes a container that serves many jobs may have.
    pub(crate) fn serving_processes(&self) -> u32 {
        self.processes.saturating_mul(SERVING_FACTOR)
    }
}
