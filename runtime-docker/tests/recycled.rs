//! Recycled containers: what a job leaves does not reach the next one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_dispatcher::native::argument;
use manifold_dispatcher::{DirectoryObjects, Invocation};
use manifold_runtime_api::{EntryMode, Limit, ObjectRef, Status};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Isolation, Mode};
use manifold_testing::containers::{ContainerFixture, engine, own_containers_of, python_image};
use manifold_testing::{VECTORS, Vector, store_chain, store_fixture};

/// Whether a container is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Again,
    ThrownAway,
    /// Depends on how long the cleaning takes.
    Either,
}
use Then::{Again, Either, ThrownAway};

/// What a job attempts, the beginning of what comes of it, and what becomes of its container.
/// `docs/containers.md` has the same list.
const ATTEMPTS: [(&str, &str, Then); 37] = [
    ("nothing", "nothing", Again),
    ("processes", "started", Again),
    ("forks", "forking", Either),
    ("files", "written", Again),
    ("many-files", "written", Either),
    ("deep-directories", "written", Either),
    ("locked-directories", "locked", Again),
    ("full-scratch-space", "full", Either),
    ("open-files", "open", Again),
    ("limits", "0", ThrownAway),
    ("priority", "0", ThrownAway),
    ("policy", "0", ThrownAway),
    ("processors", "0", ThrownAway),
    ("io-priority", "0", ThrownAway),
    ("time-slice", "0", Either),
    ("autogroup", "", Either),
    ("signals", "1031 sent", Again),
    ("memory-of-init", "ptrace: Operation not permitted", Again),
    (
        "descriptors-of-init",
        "Err(PermissionDenied) Err(PermissionDenied) Err(PermissionDenied)",
        Again,
    ),
    ("out-of-memory-score", "error: Permission denied", Again),
    ("shared-memory", "error: ", Again),
    ("semaphores", "error: ", Again),
    ("messages", "error: ", Again),
    ("posix-messages", "error: ", Again),
    ("keys", "error: Operation not permitted", Again),
    ("connections", "connected", ThrownAway),
    ("unroutable", "sent", ThrownAway),
    ("flow-labels", "", Either),
    ("sockets-in-flight", "1", Either),
    ("abstract-sockets", "bound", Again),
    ("locks", "locked", Again),
    ("terminals", "opened", Again),
    ("host-name", "error: Operation not permitted", Again),
    ("clocks", "error: Operation not permitted", Again),
    ("namespaces", "error: Operation not permitted", Again),
    ("mounts", "error: Operation not permitted", Again),
    ("root", "error: ", Again),
];

fn recycled(engine: &ContainerEngine) -> ContainerFixture {
    ContainerFixture::new(engine, DockerRuntime::builder().mode(Mode::Recycled))
}

/// Returns the containers once there are so many.
async fn containers(engine: &ContainerEngine, count: usize) -> Vec<String> {
    let start = Instant::now();
    loop {
        let mut containers = own_containers_of(engine).await;
        containers.sort();
        if containers.len() == count || start.elapsed() > Duration::from_secs(10) {
            return containers;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_sees_the_same_in_a_container_that_had_another_as_in_a_fresh_one() {
    let Some(engine) = engine().await else { return };
    sees_the_same(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_sees_the_same_where_images_carry_the_init() {
    if engine().await.is_some() {
        let options = EngineOptions::default().shares_files(Some(false));
        sees_the_same(ContainerEngine::new(options).unwrap()).await;
    }
}

/// Masks the id and the name of the container, which Podman shows in the names of cgroups and in
/// `/etc/hosts`.
fn without_ids(dump: &str) -> String {
    let is_end = |letter: char| !letter.is_ascii_alphanumeric() && letter != '-';
    let words = dump.split_inclusive(is_end).map(|word| {
        let name = word.trim_end_matches(is_end);
        let id = name.strip_prefix("libpod-").unwrap_or(name);
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id || name.starts_with("manifold-") {
            word.replace(name, "ID")
        } else {
            word.to_owned()
        }
    });
    words.collect()
}

async fn sees_the_same(engine: ContainerEngine) {
    let fresh = {
        let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Fresh));
        let image = fixture.program("strange", &[]);
        without_ids(&fixture.run(&image, &[("do", "dump")]).await.unwrap())
    };
    assert!(fresh.contains("== files\n") && fresh.contains("== mounts\n"), "{fresh}");
    let fixture = recycled(&engine);
    let image = fixture.program("strange", &[]);
    fixture.run(&image, &[("do", "leave"), ("what", "nothing"), ("first", "")]).await.unwrap();
    let mut late = Vec::new();
    for (what, result, then) in ATTEMPTS {
        let before = containers(&engine, 1).await;
        let found = fixture.run(&image, &[("do", "leave"), ("what", what)]).await.unwrap();
        assert!(found.starts_with(result), "{what}: {found}");
        let dump = fixture.run(&image, &[("do", "dump"), ("after", what)]).await.unwrap();
        let dump = without_ids(&dump);
        let differ = fresh.lines().zip(dump.lines()).find(|(fresh, dump)| fresh != dump);
        assert!(dump == fresh, "{what}: {differ:?}");
        let after = containers(&engine, 1).await;
        assert_eq!((before.len(), after.len()), (1, 1), "{what}");
        match then {
            Again if before != after => late.push(what),
            Again | Either => {}
            ThrownAway => assert_ne!(before, after, "{what}"),
        }
    }
    // On a busy machine a container may not be clean in time.
    assert!(late.len() < 5, "{late:?}");
    engine.close().unwrap();
}

/// Interpreters and scripts are ordinary programs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_in_python_runs_in_recycled_containers() {
    let Some(engine) = engine().await else { return };
    let Some(python) = python_image() else { return };
    let objects = DirectoryObjects::scan(python.join("layer00").as_ref()).unwrap();
    let layer = objects.root().id;
    let builder = DockerRuntime::builder().mode(Mode::Recycled);
    let fixture = ContainerFixture::with_sources(&engine, builder, vec![Arc::new(objects)]);
    let blob = |text: &str| fixture.dispatcher.put_blob(text.to_owned()).unwrap();
    let script = blob(include_str!("../../fold-guests/python/standalone.py"));
    let script = fixture.tree(&[("visitor.py", EntryMode::Blob, script)]);
    let config = serde_json::json!({
        "config": { "Entrypoint": ["python3", "-I", "-B", "/visitor.py"] }
    });
    let module = fixture.tree(&[
        ("config.json", EntryMode::Blob, blob(&config.to_string())),
        ("layer00", EntryMode::Tree, layer),
        ("layer01", EntryMode::Tree, script),
    ]);
    let visitor = fixture.dispatcher.put_image(fixture.host, ObjectRef::tree(module)).unwrap();
    for name in VECTORS {
        let vector = Vector::read(name);
        let root = ObjectRef::tree(store_fixture(&fixture.dispatcher, name));
        let post = ObjectRef::blob(blob(&visitor.to_string()));
        let args = [argument("in", root), argument("post", post)];
        let args = fixture.dispatcher.put_tree(args).unwrap();
        let fold = Invocation::new(fixture.image("fold")).args(args);
        let completion = fixture.dispatcher.run(fold).await.unwrap();
        let result = fixture.dispatcher.read(completion.outcome.id).unwrap();
        assert_eq!(result.content, vector.result_text.as_bytes(), "{name}");
    }
    engine.close().unwrap();
}

/// A script that replaces itself by another program, and does not read its input to the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_script_runs_in_recycled_containers() {
    let Some(engine) = engine().await else { return };
    let Some(python) = python_image() else { return };
    let Ok(shell) = std::fs::read("/bin/dash") else {
        eprintln!("SKIPPED: shell scripts are not tested without /bin/dash. apt-get install dash");
        return;
    };
    // It has the libraries of the shell.
    let objects = DirectoryObjects::scan(python.join("layer00").as_ref()).unwrap();
    let libraries = objects.root().id;
    let builder = DockerRuntime::builder().mode(Mode::Recycled);
    let fixture = ContainerFixture::with_sources(&engine, builder, vec![Arc::new(objects)]);
    let blob = |content: Vec<u8>| fixture.dispatcher.put_blob(content).unwrap();
    let first = r#"
        echo '{"op":"put_blob","bytes_b64":"c2hlbGwK"}'
        read -r response
        hash=${response#*\"hash\":\"}
        exec /sh /second "${hash%%\"*}"
    "#;
    let second = r#"echo "{\"op\":\"out\",\"kind\":\"blob\",\"hash\":\"$1\"}""#;
    let scripts = fixture.tree(&[
        ("first", EntryMode::Blob, blob(first.into())),
        ("second", EntryMode::Blob, blob(second.into())),
        ("sh", EntryMode::Executable, blob(shell)),
    ]);
    let config = serde_json::json!({ "config": { "Entrypoint": ["/sh", "/first"] } });
    let module = fixture.tree(&[
        ("config.json", EntryMode::Blob, blob(config.to_string().into())),
        ("layer00", EntryMode::Tree, libraries),
        ("layer01", EntryMode::Tree, scripts),
    ]);
    let image = fixture.dispatcher.put_image(fixture.host, ObjectRef::tree(module)).unwrap();
    for number in 0..3 {
        let call = Invocation::new(image).arg("number", number.to_string());
        let completion = fixture.dispatcher.run(call).await.unwrap();
        assert_eq!(completion.text().unwrap(), "shell\n");
    }
    engine.close().unwrap();
}

/// Images share what is kept. What fits is not started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_many_images_are_kept_up_to_a_number() {
    let Some(engine) = engine().await else { return };
    // On a busy machine a container may not be clean in time.
    for (warm, started) in [(16, 10..=15), (3, 20..=35)] {
        let builder = DockerRuntime::builder().mode(Mode::Recycled).warm(warm);
        let fixture = ContainerFixture::new(&engine, builder);
        let images: Vec<_> = (0..10)
            .map(|number| fixture.program("strange", &["probe", &number.to_string()]))
            .collect();
        let mut seen = BTreeSet::new();
        for round in ["1", "2", "3"] {
            for image in &images {
                fixture.run(image, &[("do", "log"), ("round", round)]).await.unwrap();
                seen.extend(own_containers_of(&engine).await);
            }
        }
        assert!(started.contains(&seen.len()), "{warm}: {}", seen.len());
        assert_eq!(containers(&engine, warm.min(10)).await.len(), warm.min(10));
        drop(fixture);
        containers(&engine, 0).await;
    }
    engine.close().unwrap();
}

/// A frame that waits for nested runs keeps its container, so a recursion is bounded by how many
/// there may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_container_frames_completes_within_the_bound_and_fails_beyond_it() {
    let Some(_engine) = engine().await else { return };
    for (bound, completes) in [(210, true), (10, false)] {
        let engine = ContainerEngine::new(EngineOptions::default().containers(bound)).unwrap();
        let fixture = recycled(&engine);
        let root = ObjectRef::tree(store_chain(&fixture.dispatcher, 200));
        let start = Instant::now();
        let result = fixture.try_fold("fold.docker", root, &[("post", "file-count")]).await;
        if completes {
            assert_eq!(result.unwrap(), "1\n");
        } else {
            let error = result.unwrap_err();
            assert_eq!(error.status(), Status::Transient, "{error:?}");
            let text = format!("{error:?}");
            assert!(text.contains("already has 10 containers, the maximum at one time"), "{text}");
            assert!(start.elapsed() < Duration::from_secs(60));
        }
        engine.close().unwrap();
    }
}

/// A breach, a cancelled job and the bound on jobs each end a container.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_replaced_after_a_breach_and_after_a_number_of_jobs() {
    let Some(engine) = engine().await else { return };
    let builder = DockerRuntime::builder().mode(Mode::Recycled).jobs(3);
    let fixture = ContainerFixture::new(&engine, builder);
    let image = fixture.program("strange", &[]);
    let mut seen = Vec::new();
    for number in 0..30 {
        let number = number.to_string();
        fixture.run(&image, &[("do", "log"), ("number", &number)]).await.unwrap();
        for container in own_containers_of(&engine).await {
            if !seen.contains(&container) {
                seen.push(container);
            }
        }
    }
    // Ten, the next one, and some that were not clean in time, as on a busy machine. With two jobs each
    // there would be fifteen.
    assert!((10..15).contains(&seen.len()), "{seen:?}");
    let hungry = fixture.program("strange", &["memory"]);
    let error = fixture.run(&hungry, &[]).await.unwrap_err();
    assert!(matches!(error.breached_limit(), Some(Limit::Memory { .. })), "{error:?}");
    engine.close().unwrap();
}

/// With a writable root file system, a job could leave what cannot be removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolation_that_lets_jobs_leave_something_recycles_no_containers() {
    let Some(engine) = engine().await else { return };
    let isolation = Isolation::default().writable_root(true);
    let builder = DockerRuntime::builder().mode(Mode::Recycled).isolation(isolation).parked(1);
    let fixture = ContainerFixture::new(&engine, builder);
    let image = fixture.program("strange", &[]);
    let mut seen = Vec::new();
    for number in ["1", "2", "3"] {
        fixture.run(&image, &[("do", "log"), ("number", number)]).await.unwrap();
        seen.extend(own_containers_of(&engine).await);
    }
    seen.sort();
    seen.dedup();
    assert!(seen.len() >= 3, "{seen:?}");
    engine.close().unwrap();
}
