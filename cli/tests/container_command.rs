//! The command with guests in containers.

#[path = "command/changes.rs"]
mod changes;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions};
use manifold_testing::containers::{ContainerFixture, docker, engine};

fn manifold() -> Command {
    Command::new(env!("CARGO_BIN_EXE_manifold"))
}

/// Returns whether the command succeeded, its standard output and its standard error.
fn output(command: &mut Command) -> (bool, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn small_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("d")).unwrap();
    for file in ["a", "b", "d/c"] {
        std::fs::write(directory.path().join(file), file).unwrap();
    }
    directory
}

fn fold(path: &Path, options: &[&str]) -> (bool, String, String) {
    output(manifold().arg("fold").arg(path).args(["--no-store", "--json"]).args(options))
}

/// Loads the program `strange` into the engine. Returns the tag of its image.
async fn tagged_probe(engine: &ContainerEngine) -> String {
    let fixture = ContainerFixture::new(engine, DockerRuntime::builder().parked(1));
    let image = fixture.program("strange", &["probe"]);
    fixture.run(&image, &[("do", "log")]).await.unwrap();
    let module =
        fixture.dispatcher.read_tree(image.parse().unwrap()).unwrap().get("module").unwrap().id;
    format!("docker://manifold-image:{module}")
}

#[tokio::test]
async fn all_kinds_of_guests_and_mixes_of_them_return_the_same_result() {
    let Some(_engine) = engine().await else { return };
    let directory = small_directory();
    for options in [
        &["--guest", "wasm,docker,serving"][..],
        &["--guest", "docker", "--fresh-containers"],
        &["--post", "file-count.docker"],
        &["--post", "file-count.serving"],
        &["--guest", "docker", "--post", "file-count.wasm"],
    ] {
        let (success, out, err) = fold(directory.path(), options);
        assert!(success, "{options:?}: {err}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        let reports = report["guests"].as_array().cloned().unwrap_or_else(|| vec![report.clone()]);
        assert!(
            reports.iter().all(|report| report["result"]["text"] == "3\n"),
            "{options:?}: {out}"
        );
        assert_eq!(err, "", "{options:?}");
    }
}

#[tokio::test]
async fn an_image_named_by_a_tag_requires_allow_tags() {
    let Some(engine) = engine().await else { return };
    let tag = tagged_probe(&engine).await;
    let run = |options: &[&str]| {
        output(manifold().args(["run", &tag, "--text", "do=log", "--no-store"]).args(options))
    };
    let (success, _, err) = run(&[]);
    assert!(!success && err.contains("--allow-tags"), "{err}");
    let (success, out, err) = run(&["--allow-tags", "--raw"]);
    assert!(success && out == "logged", "{out} {err}");
    engine.close().unwrap();
}

#[tokio::test]
async fn an_audit_finds_a_guest_that_reads_the_clock() {
    let Some(engine) = engine().await else { return };
    let tag = tagged_probe(&engine).await;
    let place = tempfile::tempdir().unwrap();
    let store = place.path().join("store");
    for what in ["do=clock", "do=log"] {
        let mut run = manifold();
        run.args(["run", &tag, "--allow-tags", "--text", what, "--store"]).arg(&store);
        let (success, _, err) = output(&mut run);
        assert!(success, "{err}");
    }
    let audit = |options: &[&str]| {
        output(manifold().args(["audit", "--share", "100%", "--store"]).arg(&store).args(options))
    };
    let (success, out, err) = audit(&["--json"]);
    assert!(!success && err.contains("no pure functions"), "{out} {err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["same"], &report["differ"]), (&1.into(), &1.into()), "{report}");
    assert_eq!(report["requests"][0]["log"], serde_json::json!(["it reads the clock"]), "{report}");
    let (_, out, _) = audit(&[]);
    assert!(out.contains("-SystemTime") && out.contains("+SystemTime"), "{out}");
    engine.close().unwrap();
}

#[tokio::test]
async fn explanations_name_exactly_what_changed() {
    let Some(_engine) = engine().await else { return };
    changes::check_all("docker");
    changes::check_engine("docker", "abi-revision").await;
    // The same program in containers of another kind.
    changes::Change {
        old_options: &["--post", "file-count.docker"],
        new_options: &["--post", "file-count.serving"],
        differences: &[
            "post host image: docker-serving name docker → docker-serving",
            "post host image: docker-serving process started by an init → forked for each job",
        ],
        ..changes::Change::NONE
    }
    .check();
}

#[tokio::test]
async fn a_trace_shows_how_each_container_waits_starts_and_computes() {
    let Some(_engine) = engine().await else { return };
    let (directory, place) = (small_directory(), tempfile::tempdir().unwrap());
    let trace = place.path().join("trace");
    let mut fold = manifold();
    fold.arg("fold").arg(directory.path()).args(["--no-store", "--json", "--trace"]).arg(&trace);
    let (success, out, err) = output(fold.args(["--post", "file-count.docker"]));
    assert!(success, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let seconds = report["repeats"][0]["seconds"].as_f64().unwrap();
    let view = |option: &str| {
        let mut command = manifold();
        command.arg("trace").arg(&trace).args([option, "--json", "--store"]);
        let (success, out, err) = output(command.arg(place.path().join("none")));
        assert!(success, "{err}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap()
    };
    let rows = view("--waterfall")["waterfall"].as_array().unwrap().clone();
    let call = rows[0]["seconds"].as_f64().unwrap();
    assert!((call - seconds).abs() < seconds * 0.1 + 0.005, "{call} of {seconds}");
    let visits: Vec<_> = rows.iter().filter(|row| row["image"] == "file-count.docker").collect();
    assert_eq!(visits.len(), 5, "three files and two directories: {rows:?}");
    for visit in visits {
        for phase in ["queue", "start", "compute"] {
            assert!(visit["phases"][phase].as_f64().unwrap() > 0.0, "{phase}: {visit}");
        }
        assert_eq!(visit["runtime"], "docker");
    }
}

#[test]
fn without_an_engine_container_guests_fail_and_other_guests_run() {
    let directory = small_directory();
    let without = |options: &[&str]| {
        let mut command = manifold();
        command.env("DOCKER_HOST", "unix:///nowhere/docker.sock").arg("fold").arg(directory.path());
        output(command.args(["--no-store"]).args(options))
    };
    let (success, _, err) = without(&["--guest", "docker"]);
    assert!(
        !success && err.contains("/nowhere/docker.sock") && err.contains("is it running?"),
        "{err}"
    );
    assert!(without(&[]).0);
}

/// An interrupted command removes its containers itself, or starts a process that does.
#[tokio::test]
async fn an_interrupt_leaves_no_containers() {
    let Some(_engine) = engine().await else { return };
    let (mut folding, prefix) = fold_in_containers().await;
    interrupt(&folding);
    let status = tokio::task::spawn_blocking(move || folding.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(130));
    let start = Instant::now();
    loop {
        let after = container_names().await;
        if !after.iter().any(|name| name.starts_with(&prefix)) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{after:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A second interrupt while the command removes its containers ends it at once. The next process
/// removes them.
#[tokio::test]
async fn a_second_interrupt_exits_at_once_and_the_next_process_sweeps() {
    let Some(_engine) = engine().await else { return };
    let (mut folding, prefix) = fold_in_containers().await;
    interrupt(&folding);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = folding.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(1)).await;
        interrupt(&folding);
    };
    assert_eq!(status.code(), Some(130));
    let next = ContainerEngine::new(EngineOptions::default()).unwrap();
    next.version().await.unwrap();
    // The engine may still have been creating one.
    while container_names().await.iter().any(|name| name.starts_with(&prefix)) {
        assert!(start.elapsed() < Duration::from_secs(30));
        let another = ContainerEngine::new(EngineOptions::default()).unwrap();
        another.version().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Starts a fold and waits until it has containers. Returns the prefix of their names as well.
async fn fold_in_containers() -> (Child, String) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let folding = manifold()
        .args(["fold", source, "--no-store", "--guest", "docker"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let prefix = format!("/manifold-{}-", folding.id());
    while !container_names().await.iter().any(|name| name.starts_with(&prefix)) {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (folding, prefix)
}

fn interrupt(command: &Child) {
    assert!(
        Command::new("kill").args(["-INT", &command.id().to_string()]).status().unwrap().success()
    );
}

async fn container_names() -> Vec<String> {
    let options = bollard::query_parameters::ListContainersOptionsBuilder::new().all(true).build();
    let all = docker().list_containers(Some(options)).await.unwrap();
    all.into_iter().flat_map(|container| container.names.unwrap_or_default()).collect()
}

#[tokio::test]
async fn an_imported_image_is_a_visitor_and_gc_removes_it_from_the_engine() {
    let Some(engine) = engine().await else { return };
    let place = small_directory();
    let image = place.path().join("image");
    std::fs::create_dir_all(image.join("layer00")).unwrap();
    let guest = image.join("layer00/guest");
    std::fs::copy(manifold_testing::built("file-count.linux"), &guest).unwrap();
    std::fs::set_permissions(&guest, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(image.join("config.json"), r#"{"config": {"Entrypoint": ["/guest"]}}"#).unwrap();
    let command = |arguments: &[&str]| {
        let (success, out, err) =
            output(manifold().args(arguments).args(["--store", "s"]).current_dir(place.path()));
        assert!(success, "{arguments:?}: {err}");
        out.trim_end().to_owned()
    };
    let id = command(&["image", "import", "image", "--name", "counted"]);
    for post in ["counted", &id] {
        let report = command(&["fold", "d", "--post", post, "--json"]);
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["result"]["text"], "1\n");
    }
    let loaded = || async { docker().inspect_image(&format!("manifold-image:{id}")).await.is_ok() };
    let gc = || command(&["gc", "--used-within", "0s", "--written-within", "0s", "--json"]);
    gc();
    assert!(loaded().await, "the store has the image");
    command(&["std", "rm", "counted"]);
    for pin in command(&["pins"]).lines() {
        command(&["unpin", pin.split(' ').next().unwrap()]);
    }
    let report: serde_json::Value = serde_json::from_str(&gc()).unwrap();
    assert!(report["images"]["dropped"].as_u64() >= Some(1), "{report}");
    assert!(!loaded().await);
    engine.close().unwrap();
}
