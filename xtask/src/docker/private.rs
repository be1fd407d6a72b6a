//! A Docker Engine of this process's own: no network, no TCP, data in memory, everything in one directory.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::answers;
use crate::packages;
use crate::process::{Result, output, run};

/// A private engine. It is stopped when this is dropped, and by the kernel when this process ends in another way.
pub(crate) struct PrivateEngine {
    directory: PathBuf,
    stopping: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

/// The beginning of the directories' names. A socket's path may have 107 bytes, so it is not below the target directory.
const PREFIX: &str = "manifold-docker-";
/// How long the engine may take to answer, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

impl PrivateEngine {
    pub(crate) fn start() -> Result<Self> {
        if output(Command::new("id").arg("-u"))?.trim() != "0" {
            return Err("Only root can start an engine.".to_owned());
        }
        packages::install(&["dockerd", "crun"], &["docker.io", "crun"])?;
        remove_leftovers();
        let directory = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        let problem = |error| format!("{} cannot be used: {error}", directory.display());
        // Whatever is there already is not this process's.
        DirBuilder::new().mode(0o700).create(&directory).map_err(problem)?;
        let mut started =
            Self { directory: directory.clone(), stopping: Arc::default(), keeper: None };
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4g,mode=711", "tmpfs"])
            .arg(&directory))?;
        // crun starts a container in two thirds of the time.
        let config = r#"{"runtimes": {"crun": {"path": "crun"}}, "default-runtime": "crun"}"#;
        fs::write(directory.join("daemon.json"), config).map_err(problem)?;
        let log = File::create(directory.join("log")).map_err(problem)?;
        let stopping = Arc::clone(&started.stopping);
        started.keeper = Some(std::thread::spawn(move || keep(&directory, &log, &stopping)));
        started.wait_for_answer()?;
        Ok(started)
    }

    /// Where it answers, as `DOCKER_HOST` names it.
    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.directory.join("docker.sock").display())
    }

    fn wait_for_answer(&self) -> Result {
        let start = Instant::now();
        while !answers(&self.endpoint()) {
            if self.keeper.as_ref().is_none_or(JoinHandle::is_finished)
                || start.elapsed() > PATIENCE
            {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(8)..].join("\n");
                return Err(format!("the engine did not come to answer. Its last words:\n{last}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// How often an engine that ends is started again.
const RESTARTS: u32 = 8;
/// How long what belongs to an engine that was killed may outlive it.
const LAST_BREATH: Duration = Duration::from_millis(500);
/// How often is looked whether it has.
const INTERVAL: Duration = Duration::from_millis(20);

/// Runs the engine until it is to stop. One that ends before that is started again, as the tests that kill it expect. The kernel
/// ends it with this very thread.
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
        // Its containerd ends with it, a moment later; the next engine must not take it for one that it can use.
        std::thread::sleep(LAST_BREATH);
        let _ = fs::remove_file(directory.join("exec/containerd/containerd.pid"));
    }
}

fn stop(engine: &mut Child) {
    let asked = Command::new("kill").args(["-TERM", &engine.id().to_string()]).status();
    let start = Instant::now();
    while asked.is_ok() && start.elapsed() < PATIENCE && matches!(engine.try_wait(), Ok(None)) {
        std::thread::sleep(INTERVAL);
    }
    // Too late for one that has stopped.
    let _ = engine.kill();
    let _ = engine.wait();
}

/// The engine, ended by the kernel with its parent, in a mount name space where `crun` does not meet a second cgroup mount.
fn engine_command(directory: &Path) -> Command {
    let script = "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; exec dockerd \"$@\"";
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

/// Takes away what the engines of processes that ended in another way have left.
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

/// Ends the helpers that an engine has left: one that was killed while a container was started does not know of its shim any more, nor
/// of what the shim had started.
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
    // What the engine mounted there first, the inner ones before the outer ones.
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
