//! One job in a container, in each mode, beside the engine's calls alone. Needs a container engine:
//! `cargo xtask docker cargo bench --package manifold-benches --bench container`.
#![allow(missing_docs, reason = "criterion's macros define functions")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bollard::Docker;
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use manifold_benches::{
    Language, OURS, Setting, all_cores, container_engine, container_job, file_count_answers,
};
use manifold_dispatcher::{Invocation, Policy};
use manifold_runtime_docker::EngineOptions;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs an image with `docker run --rm`.
fn docker_run(image: &str) {
    let mut client = Command::new("docker")
        .args(["run", "--rm", "--interactive", "--network", "none", image])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(file_count_answers().as_bytes()).unwrap();
    assert!(client.wait().unwrap().success());
}

fn jobs(criterion: &mut Criterion) {
    let runtime = all_cores().unwrap();
    let Some(engine) = runtime.block_on(container_engine()) else { return };
    let docker = Docker::connect_with_host(&EngineOptions::default().endpoint).unwrap();
    let mut group = criterion.benchmark_group("container job, file-count of a file");
    group.sample_size(20).sampling_mode(SamplingMode::Flat);

    let mut image = String::new();
    for (language, pause) in [
        (Language::Fresh, Duration::ZERO),
        // The pause between jobs lets the pool fill.
        (Language::Parked, Duration::from_millis(600)),
        (Language::Recycled, Duration::from_millis(5)),
        (Language::Serving, Duration::from_millis(5)),
    ] {
        let setting = Setting::with_containers(&engine, language).unwrap();
        let args = setting.leaf().unwrap();
        let invocation =
            setting.invocation("file-count", language, args).unwrap().policy(Policy::Recompute);
        let job = |invocation: &Invocation| {
            let start = Instant::now();
            runtime.block_on(setting.dispatcher.run(invocation.clone())).unwrap();
            start.elapsed()
        };
        job(&invocation);
        image = format!("manifold-image:{}", setting.container_module("file-count").unwrap());
        group.bench_function(format!("{OURS}, {}", language.as_str()), |bencher| {
            bencher.iter_custom(|count| {
                (0..count)
                    .map(|_| {
                        std::thread::sleep(pause);
                        job(&invocation)
                    })
                    .sum()
            })
        });
    }
    group.bench_function("floor: the engine's calls alone", |bencher| {
        bencher.iter(|| runtime.block_on(container_job(&docker, &image)).unwrap())
    });
    if Command::new("docker")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        group
            .bench_function("peer: docker run --rm", |bencher| bencher.iter(|| docker_run(&image)));
    } else {
        eprintln!(
            "SKIPPED: `docker run --rm` is not measured: there is no docker command. Install it, \
             for example from Debian's package docker.io."
        );
    }
    group.finish();
    engine.close().unwrap();
}

criterion_group!(benches, jobs);
criterion_main!(benches);
