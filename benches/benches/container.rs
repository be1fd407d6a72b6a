//! What a job in a container costs, in each way to run it, beside what the engine itself takes; as a Markdown table.
//!
//! `cargo xtask docker cargo run --release --package manifold --example container_modes`

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt;
use manifold::guests::{self, ContainerPrograms, Hosts};
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{Dispatcher, Invocation};
use manifold_runtime_api::{EntryMode, ObjectId, Outcome, Runtime, TreeEntry};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_runtime_wasm::WasmRuntime;
use tokio::io::AsyncWriteExt;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a host would answer `file-count` about a file, so that a container runs it without one.
const ANSWERS: &str = r#"{"args":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","std":"","salt":"","image":"","stack":""}
{"entries":[{"name":"in","kind":"blob","hash":"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391","mode":"100644"}]}
{"hash":"d00491fd7e5bb6fa28c517a0bb32b8b506539d4d"}
{}
"#;
const NODES: usize = 160;

struct Bench {
    dispatcher: Dispatcher,
    std: ObjectId,
    salt: u64,
}

impl Bench {
    fn new(engine: &ContainerEngine, mode: Mode) -> Result<Self> {
        let docker = DockerRuntime::builder().mode(mode).build(engine)?;
        let wasm = WasmRuntime::new()?;
        let hosts =
            Hosts { wasm: Some(wasm.host_image().id()), container: Some(docker.host_image().id()), ..Hosts::default() };
        let builder = Dispatcher::builder().runtime(Arc::new(wasm)).runtime(Arc::new(docker));
        let dispatcher = builder.source(Arc::new(ContainerPrograms)).build()?;
        let std = guests::install(&dispatcher, hosts)?;
        Ok(Self { dispatcher, std, salt: 0 })
    }

    async fn run(&mut self, image: &str, args: ObjectId) -> Result<Duration> {
        self.salt += 1;
        let invocation = Invocation::new(format!("/cas/std/{image}"), args).std(self.std).salt(self.salt.to_string());
        let start = Instant::now();
        self.dispatcher.run(invocation).await?;
        Ok(start.elapsed())
    }

    /// One job: `file-count` of a file. The pool is given time to fill between jobs.
    async fn jobs(&mut self, count: usize, pause: Duration) -> Result<Vec<Duration>> {
        let file = Outcome::blob(self.dispatcher.put_blob("")?);
        let args = self.dispatcher.put_tree([argument("in", file)])?;
        self.run("file-count.docker", args).await?;
        let mut times = Vec::new();
        for _ in 0..count {
            tokio::time::sleep(pause).await;
            times.push(self.run("file-count.docker", args).await?);
        }
        Ok(times)
    }

    /// The bench fixture, folded by `fold` over container visitors.
    async fn fold(&mut self, fold: &str) -> Result<Duration> {
        let root = Outcome::tree(directory(&self.dispatcher, "tree", 3)?);
        let post = self.dispatcher.put_blob("/cas/std/file-count.docker")?;
        let args = self.dispatcher.put_tree([argument("in", root), argument("post", Outcome::blob(post))])?;
        self.run(fold, args).await
    }
}

fn directory(dispatcher: &Dispatcher, path: &str, levels: usize) -> Result<ObjectId> {
    let mut entries = Vec::new();
    for number in 1..=3 {
        let file = dispatcher.put_blob(format!("{path}/f{number}.txt\n"))?;
        entries.push(TreeEntry::new(format!("f{number}.txt"), EntryMode::Blob, file));
        if levels > 0 {
            let below = directory(dispatcher, &format!("{path}/d{number}"), levels - 1)?;
            entries.push(TreeEntry::new(format!("d{number}"), EntryMode::Tree, below));
        }
    }
    Ok(dispatcher.put_tree(entries)?)
}

/// `docker run --rm` of an image.
fn docker_run(image: &str) -> Result<Duration> {
    let start = Instant::now();
    let mut client = Command::new("docker")
        .args(["run", "--rm", "--interactive", "--network", "none", image])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    if let Some(mut input) = client.stdin.take() {
        input.write_all(ANSWERS.as_bytes())?;
    }
    let status = client.wait()?;
    if status.success() { Ok(start.elapsed()) } else { Err(format!("docker run: {status}").into()) }
}

/// Create, attach, start, one exchange, wait, remove: what a fresh container cannot do without.
async fn engine_calls(docker: &Docker, image: &str) -> Result<Duration> {
    let start = Instant::now();
    let strict = HostConfig {
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
        open_stdin: Some(true),
        stdin_once: Some(true),
        host_config: Some(strict),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None, body).await?.id;
    let options = AttachContainerOptionsBuilder::new().stream(true).stdin(true).stdout(true).build();
    let mut attached = docker.attach_container(&id, Some(options)).await?;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    attached.input.write_all(ANSWERS.as_bytes()).await?;
    while attached.output.next().await.is_some() {}
    docker.wait_container(&id, None::<WaitContainerOptions>).next().await;
    docker.remove_container(&id, Some(RemoveContainerOptionsBuilder::new().force(true).build())).await?;
    Ok(start.elapsed())
}

/// Median, and the range of the middle half.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 4].as_secs_f64() * 1e3;
    format!("{:.2} ms ({:.2} to {:.2})", at(2), at(1), at(3))
}

#[tokio::main]
async fn main() -> Result<()> {
    let engine = ContainerEngine::new(EngineOptions::default())?;
    let docker = Docker::connect_with_host(&EngineOptions::default().endpoint)?;
    let version = engine.version().await?;

    // Loads the image.
    let mut fresh = Bench::new(&engine, Mode::Fresh)?;
    fresh.jobs(1, Duration::ZERO).await?;
    let node = fresh.dispatcher.read_tree(fresh.std)?.get("file-count.docker").ok_or("no guest")?.id;
    let module = fresh.dispatcher.read_tree(node)?.get("module").ok_or("no module")?.id;
    let image = format!("manifold-image:{module}");

    let mut rows = Vec::new();
    let has_client = ["/usr/bin/docker", "/usr/local/bin/docker"].iter().any(|path| Path::new(path).exists());
    if has_client {
        let times = (0..20).map(|_| docker_run(&image)).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        for _ in 0..NODES {
            docker_run(&image)?;
        }
        rows.push(("`docker run --rm`, one after the other", summary(times), start.elapsed(), None));
    }
    // In turns, so that a mood of the machine meets both.
    let (mut calls, mut jobs) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        calls.push(engine_calls(&docker, &image).await?);
        jobs.extend(fresh.jobs(1, Duration::ZERO).await?);
    }
    let start = Instant::now();
    for _ in 0..NODES {
        engine_calls(&docker, &image).await?;
    }
    rows.push(("the engine's calls alone, one after the other", summary(calls), start.elapsed(), None));
    rows.push(("fresh", summary(jobs), fresh.fold("fold").await?, Some(fresh.fold("fold.docker").await?)));
    for (name, mode, pause, count) in [
        ("parked", Mode::Parked, Duration::from_millis(600), 40),
        ("serving", Mode::Serving, Duration::from_millis(5), 400),
    ] {
        let mut bench = Bench::new(&engine, mode)?;
        let times = bench.jobs(count, pause).await?;
        bench.fold("fold.docker").await?;
        rows.push((name, summary(times), bench.fold("fold").await?, Some(bench.fold("fold.docker").await?)));
    }

    println!("Engine: {version}\n");
    println!(
        "| a job in a container | per job, median (middle half) | 160 visitors of the bench fixture | container fold, too (200 jobs) |"
    );
    println!("|---|---|---|---|");
    for (name, per_job, visitors, all) in rows {
        let all = all.map_or_else(|| "–".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()));
        println!("| {name} | {per_job} | {:.2} s | {all} |", visitors.as_secs_f64());
    }
    engine.close()?;
    Ok(())
}
