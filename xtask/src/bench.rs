//! `cargo xtask bench`: runs all benchmarks, with their peers, and writes a report.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::docker;
use crate::guests::{self, Wanted};
use crate::install::{Installing, Need, provide};
use crate::process::{Result, cargo, is_runnable, root, run, target};
use crate::python;
use crate::skip::skip;
use crate::toolchain;
use crate::v8::workspace_selection;

/// Runs the benchmarks of `manifold-benches` and of the peers, and the program `report` on their
/// results.
pub(crate) fn bench(arguments: &[OsString], installing: Installing) -> Result {
    let update_readme = match arguments {
        [] => false,
        [option] if option == "--readme" => true,
        _ => return Err("usage: cargo xtask bench [--readme]".to_owned()),
    };
    let redis_server = || Need::apt_get(&["redis-server"], "measured as a peer of the memo");
    let redis_need = (!is_runnable("redis-server")).then(redis_server);
    let needs = toolchain::needs(Wanted::All.targets())?
        .into_iter()
        .chain(docker::need())
        .chain(python::need())
        .chain(redis_need);
    provide(needs, installing);
    guests::build(Wanted::All)?;
    let engine = docker::engine()?;
    python::build()?;
    let python = python::built();
    let redis = match Redis::start() {
        Ok(redis) => Some(redis),
        Err(problem) => {
            let part = "Redis is not measured as a peer of the memo";
            skip("redis", part, &problem, &redis_server().how_to())?;
            None
        }
    };
    let (results, output) = (target().join("criterion"), target().join("bench"));
    let [scales, cores, waits] =
        ["scale", "cores", "waits"].map(|name| output.join(name).with_extension("jsonl"));
    // The report must not contain results of an earlier run.
    for old in [&results, &output] {
        if old.exists() {
            fs::remove_dir_all(old)
                .map_err(|error| format!("cannot remove {}: {error}", old.display()))?;
        }
    }
    fs::create_dir_all(&output)
        .map_err(|error| format!("cannot create {}: {error}", output.display()))?;

    let mut command = cargo();
    command.args(["build", "--quiet", "--release", "--workspace", "--bin", "manifold"]);
    run(command.args(workspace_selection()?))?;

    let mut ours = cargo();
    // The selection of the tests, so that their build of the engines is used again.
    ours.args(["bench", "--workspace", "--bench", "*"]).args(workspace_selection()?);
    let mut peers = cargo();
    peers.args(["bench", "--manifest-path", "benches/peers/Cargo.toml"]);
    // The peers have their own lock file and features, so a shared target directory would only make
    // the two workspaces replace each other's builds.
    peers.env("CARGO_TARGET_DIR", target().join("peers"));
    for benchmarks in [&mut ours, &mut peers] {
        benchmarks.env("CRITERION_HOME", &results).env("MANIFOLD_BENCH_OUT", &scales);
        benchmarks.env("MANIFOLD_BENCH_CORES", &cores).env("MANIFOLD_BENCH_WAITS", &waits);
        benchmarks.env("MANIFOLD_BENCH_COMMAND", target().join("release/manifold"));
        if let Some(engine) = &engine {
            engine.reveal(benchmarks);
            if let Some(python) = &python {
                benchmarks.env("MANIFOLD_BENCH_PYTHON", python);
            }
        }
        if let Some(redis) = &redis {
            benchmarks.env("MANIFOLD_BENCH_REDIS", redis.socket());
        }
        run(benchmarks)?;
    }

    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "--workspace", "--bin", "report"]);
    run(build.args(workspace_selection()?))?;
    let mut report = Command::new(target().join("release/report"));
    report.args([&results, &scales, &cores, &waits, &output]);
    if update_readme {
        report.arg(root().join("README.md"));
    }
    run(&mut report)
}

/// A private Redis server, on a unix socket in a temporary directory. Stopped when this is dropped.
struct Redis {
    server: Child,
    directory: PathBuf,
}

impl Redis {
    fn start() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("manifold-redis-{}", std::process::id()));
        fs::create_dir_all(&directory)
            .map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(socket_in(&directory))
            .current_dir(&directory)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start redis-server: {error}"))?;
        let redis = Self { server, directory };
        for _ in 0..100 {
            if redis.socket().exists() {
                return Ok(redis);
            }
            sleep(Duration::from_millis(50));
        }
        Err("redis-server did not create its socket within 5 s".to_owned())
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
