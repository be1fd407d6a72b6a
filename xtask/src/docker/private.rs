//! A private Docker Engine: without network or TCP, with its data in memory and all files in one
//! directory.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::responds;
use crate::process::{Result, is_root, is_runnable, run};

/// A private engine. It is stopped when this value is dropped. The kernel stops it if this process
/// ends without dropping it.
pub(crate) struct PrivateEngine {
    directory: PathBuf,
    stopping: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

/// The programs that an engine consists of.
pub(super) const PROGRAMS: [&str; 2] = ["dockerd", "crun"];
/// The prefix of the names of engines' directories. The directories are not below the target
/// directory, because a socket's path may have at most 107 bytes.
const PREFIX: &str = "manifold-docker-";
/// The time within which the engine has to respond after its start, and to stop.
const TIMEOUT: Duration = Duration::from_secs(60);

impl PrivateEngine {
    /// Starts an engine and waits until it responds.
    ///
    /// # Errors
    /// Returns an error if the user is not root, if the engine is not installed, or if it does not
    /// respond within [`TIMEOUT`].
    pub(crate) fn start() -> Result<Self> {
        if !is_root() {
            return Err("only root can start a container engine".to_owned());
        }
        if let Some(missing) = PROGRAMS.into_iter().find(|program| !is_runnable(program)) {
            return Err(format!("{missing} is not installed"));
        }
        remove_leftovers();
        let directory = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        let problem = |error| format!("cannot set up {}: {error}", directory.display());
        // `create` fails if the directory exists: it would not be this process's.
        DirBuilder::new().mode(0o700).create(&directory).map_err(problem)?;
        let mut started =
            Self { directory: directory.clone(), stopping: Arc::default(), keeper: None };
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4g,mode=711", "tmpfs"])
            .arg(&directory))?;
        // crun starts a container in two thirds of the time that the default runtime takes.
        let config = r#"{"runtimes": {"crun": {"path": "crun"}}, "default-runtime": "crun"}"#;
        fs::write(directory.join("daemon.json"), config).map_err(problem)?;
        let log = File::create(directory.join("log")).map_err(problem)?;
        let stopping = Arc::clone(&started.stopping);
        started.keeper = Some(std::thread::spawn(move || keep(&directory, &log, &stopping)));
        started.wait_until_ready()?;
        Ok(started)
    }

    /// Returns the engine's endpoint, in the form of `DOCKER_HOST`.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.directory.join("docker.sock").display())
    }

    fn wait_until_ready(&self) -> Result {
        let start = Instant::now();
        while !responds(&self.endpoint()) {
            if self.keeper.as_ref().is_none_or(JoinHandle::is_finished) || start.elapsed() > TIMEOUT
            {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(8)..].join("\n");
                return Err(format!("the engine does not respond; its log ends with:\n{last}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// How many times the engine is started, the restarts after it has ended included.
const RESTARTS: u32 = 8;
/// The time to wait after the engine was killed, until its containerd has ended too.
const CONTAINERD_EXIT: Duration = Duration::from_millis(500);
/// The interval between checks whether the engine has ended.
const INTERVAL: Duration = Duration::from_millis(20);

/// Runs the engine until `stopping` is set. An engine that ends before that is started again, as
/// the tests that kill it expect. The kernel terminates the engine when this thread ends.
fn keep(directory: &Path, log: &File, stopping: &AtomicBool) {
    for _ in 0..RESTARTS {
        let (Ok(output), Ok(errors)) = (log.try_clone(), log.try_clone()) else { return };
        let mut command = engine_command(directory);
        let Ok(mut engine) = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn()
        else {
            return;
        };
        while matches!(engine.try_wait(), Ok(None)) {
            if stopping.load(Ordering::Relaxed) {
                return stop(&mut engine);
            }
            std::thread::sleep(INTERVAL);
        }
        if stopping.load(Ordering::Relaxed) {
            return;
        }
        // The engine's containerd ends a moment after it. The next engine must not try to use it.
        std::thread::sleep(CONTAINERD_EXIT);
        let _ = fs::remove_file(directory.join("exec/containerd/containerd.pid"));
    }
}

fn stop(engine: &mut Child) {
    let sent = Command::new("kill").args(["-TERM", &engine.id().to_string()]).status();
    let start = Instant::now();
    while sent.is_ok() && start.elapsed() < TIMEOUT && matches!(engine.try_wait(), Ok(None)) {
        std::thread::sleep(INTERVAL);
    }
    // Has no effect on an engine that has stopped.
    let _ = engine.kill();
    let _ = engine.wait();
}

/// Returns the command that runs the engine. The kernel terminates the engine with its parent. It
/// runs in its own mount name space, without the second cgroup mount, which `crun` cannot handle.
fn engine_command(directory: &Path) -> Command {
    let script = "\
        if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; \
        exec dockerd \"$@\"";
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "TERM",
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "sh",
        "-c",
        script,
        "dockerd",
    ]);
    command.arg("--host").arg(format!("unix://{}", directory.join("docker.sock").display()));
    for (option, file) in [
        ("--config-file", "daemon.json"),
        ("--data-root", "data"),
        ("--exec-root", "exec"),
        ("--pidfile", "docker.pid"),
    ] {
        command.arg(option).arg(directory.join(file));
    }
    command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
    command
}

/// Removes the directories of engines whose process ended without removing them.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|pid| pid.parse::<u32>().ok());
        let engine = fs::read_to_string(entry.path().join("docker.pid")).unwrap_or_default();
        let lives = |pid: &str| !pid.is_empty() && Path::new("/proc").join(pid).exists();
        if owner.is_some_and(|owner| !lives(&owner.to_string())) && !lives(engine.trim()) {
            remove(&entry.path());
        }
    }
}

/// Kills the helper processes that an engine has left behind. An engine that was killed while it
/// started a container does not know the container's shim any more, nor the shim's children.
fn end_helpers(directory: &Path) {
    let own = directory.join("exec");
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let words = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if words.split('\0').any(|word| Path::new(word).starts_with(&own)) {
            let _ = Command::new("kill").arg("-KILL").arg(process.file_name()).status();
        }
    }
}

fn remove(directory: &Path) {
    end_helpers(directory);
    // Unmount what the engine mounted in the directory, inner mounts before outer ones.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let inside = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let inside: Vec<&Path> = inside.filter(|mount| mount.starts_with(directory)).collect();
    for mount in inside.iter().rev() {
        let _ = Command::new("umount").arg(mount).status();
    }
    let _ = fs::remove_dir_all(directory);
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
        remove(&self.directory);
    }
}
