//! All benchmarks in one run, and a report.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::commands::{selection, setup};
use crate::docker;
use crate::packages;
use crate::process::{Result, cargo, root, run, target};

pub(crate) fn bench(arguments: &[OsString]) -> Result {
    let renews_readme = match arguments {
        [] => false,
        [option] if option == "--readme" => true,
        _ => return Err("usage: cargo xtask bench [--readme]".to_owned()),
    };
    setup()?;
    let engine = docker::engine()?;
    let redis = Redis::start();
    let (results, output) = (target().join("criterion"), target().join("bench"));
    let scales = output.join("scale.jsonl");
    // What an earlier run has left is not of this one.
    for old in [&results, &output] {
        if old.exists() {
            fs::remove_dir_all(old)
                .map_err(|error| format!("{} cannot be removed: {error}", old.display()))?;
        }
    }
    fs::create_dir_all(&output)
        .map_err(|error| format!("{} cannot be made: {error}", output.display()))?;

    let mut ours = cargo();
    ours.args(["bench", "--package", "manifold-benches"]).args(selection()?);
    let mut peers = cargo();
    peers.args(["bench", "--manifest-path", "benches/peers/Cargo.toml"]);
    // Two lock files, and features of their own: the two do not share what they build.
    peers.env("CARGO_TARGET_DIR", target().join("peers"));
    for benchmarks in [&mut ours, &mut peers] {
        benchmarks.env("CRITERION_HOME", &results).env("MANIFOLD_BENCH_OUT", &scales);
        if let Some(engine) = &engine {
            engine.reveal(benchmarks);
        }
        match &redis {
            Ok(redis) => drop(benchmarks.env("MANIFOLD_BENCH_REDIS", redis.socket())),
            Err(problem) => {
                eprintln!("\nSKIPPED: Redis is not measured beside the memo: {problem}\n")
            }
        }
        run(benchmarks)?;
    }

    let mut report = cargo();
    report
        .args(["run", "--quiet", "--release", "--package", "manifold-benches", "--bin", "report"])
        .args(selection()?);
    report.arg("--").args([&results, &scales, &output]);
    if renews_readme {
        report.arg(root().join("README.md"));
    }
    run(&mut report)
}

/// A Redis of this process's own, on a socket in a directory of its own.
struct Redis {
    server: Child,
    directory: PathBuf,
}

impl Redis {
    fn start() -> Result<Self> {
        packages::install(&["redis-server"], &["redis-server"])?;
        let directory = std::env::temp_dir().join(format!("manifold-redis-{}", std::process::id()));
        fs::create_dir_all(&directory)
            .map_err(|error| format!("{} cannot be made: {error}", directory.display()))?;
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(socket_in(&directory))
            .current_dir(&directory)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server cannot be started: {error}"))?;
        let redis = Self { server, directory };
        for _ in 0..100 {
            if redis.socket().exists() {
                return Ok(redis);
            }
            sleep(Duration::from_millis(50));
        }
        Err("redis-server made no socket within 5 s".to_owned())
    }

    fn socket(&self) -> PathBuf {
        socket_in(&self.directory)
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("socket")
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
