//! Processes that are measured.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// The largest resident memory.
    pub(crate) peak_bytes: u64,
    /// What it made the kernel write to disks.
    pub(crate) written_bytes: u64,
}

/// How often it is looked what a process has used.
const PERIOD: Duration = Duration::from_millis(25);

fn command() -> Result<Command> {
    let program = std::env::var_os("MANIFOLD_BENCH_COMMAND")
        .ok_or("set MANIFOLD_BENCH_COMMAND to the path of the command")?;
    let mut command = Command::new(program);
    command.env_remove("MANIFOLD_STORE").env_remove("MANIFOLD_CACHE").env_remove("MANIFOLD_NATS");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// Runs the command. Returns how long it takes, in seconds.
///
/// # Errors
/// Errors if it fails.
pub(crate) fn manifold(arguments: &[&OsStr]) -> Result<f64> {
    let mut command = command()?;
    time(command.args(arguments))
}

/// Runs git. Returns how long it takes, in seconds.
///
/// # Errors
/// Errors if it fails.
pub(crate) fn git<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<f64> {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=bench", "-c", "user.email=bench@example.com"]).args(arguments);
    time(git.stdout(Stdio::null()))
}

fn time(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    let time = start.elapsed();
    if status.success() {
        Ok(time.as_secs_f64())
    } else {
        Err(format!("{command:?} failed").into())
    }
}

fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("cannot start {}: {error}", command.get_program().display())
}

/// Runs the command, and looks meanwhile at what it has used.
///
/// # Errors
/// Errors if it fails.
pub(crate) fn with_use(arguments: &[&OsStr]) -> Result<(f64, Used)> {
    let mut command = command()?;
    let start = Instant::now();
    let process = command.args(arguments).spawn();
    let mut process = process.map_err(|error| cannot_start(&command, &error))?;
    let mut used = Used::default();
    let directory: OsString = format!("/proc/{}/", process.id()).into();
    let status = loop {
        if let Some(status) = process.try_wait()? {
            break status;
        }
        let value = |file: &str, name: &str| {
            let mut path = directory.clone();
            path.push(file);
            // It is gone once the process has ended.
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let peak = value("status", "VmHWM:").unwrap_or_default() * 1024;
        used.peak_bytes = used.peak_bytes.max(peak);
        used.written_bytes =
            used.written_bytes.max(value("io", "write_bytes:").unwrap_or_default());
        sleep(PERIOD);
    };
    let time = start.elapsed().as_secs_f64();
    if status.success() { Ok((time, used)) } else { Err(format!("{command:?} failed").into()) }
}
