//! Containers: their isolation, guests that misbehave, images, and the removal of containers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::query_parameters::{KillContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use manifold_dispatcher::native::argument;
use manifold_dispatcher::{DirectoryObjects, Invocation};
use manifold_runtime_api::{
    EntryMode, Error, HostRef, ImageProblem, Limit, Limits, ObjectRef, Reason, Runtime,
    RuntimeNode, Status,
};
use manifold_runtime_docker::{
    ContainerEngine, DockerRuntime, EngineOptions, Isolation, Mode, Seccomp,
};
use manifold_testing::containers::{ContainerFixture, docker, engine, own_containers_of};
use manifold_testing::{VECTORS, Vector, built, store_fixture};

async fn probe(fixture: &ContainerFixture, what: &str, path: &str) -> String {
    let image = fixture.program("strange", &["probe"]);
    fixture.run(&image, &[("do", what), ("path", path)]).await.unwrap()
}

fn line<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_else(|| panic!("{key} in {text}"));
    line.trim_start_matches(':').trim()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_isolated_by_default() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Fresh, Mode::Serving] {
        let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(mode).parked(1));
        let status = probe(&fixture, "status", "").await;
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(line(&status, set), "0000000000000000", "{mode:?} {set}");
        }
        assert_eq!((line(&status, "NoNewPrivs"), line(&status, "Seccomp")), ("1", "2"), "{mode:?}");
        assert!(line(&status, "Uid").split_whitespace().all(|id| id == "65534"), "{status}");
        assert!(line(&status, "Gid").split_whitespace().all(|id| id == "65534"), "{status}");

        let network = probe(&fixture, "network", "").await;
        assert!(network.lines().skip(2).all(|line| line.trim().starts_with("lo:")), "{network}");
        let limits = probe(&fixture, "limits", "").await;
        assert!(limits.contains("Max open files            1024                 1024"), "{limits}");

        for place in [
            "/scratch",
            "/etc/hostname",
            "/dev/scratch",
            "/dev/shm/scratch",
            "/run/scratch",
            "/run/manifold/scratch",
        ] {
            assert!(probe(&fixture, "write", place).await.starts_with("error"), "{mode:?} {place}");
        }
        let written = probe(&fixture, "write", "/tmp/scratch").await;
        assert_eq!(written == "written", mode != Mode::Serving, "{mode:?}: {written}");
        if mode != Mode::Serving {
            assert_eq!(
                probe(&fixture, "exists", "/tmp/scratch").await,
                "false",
                "the scratch directory of another job"
            );
            let filled = probe(&fixture, "fill", "/tmp/scratch").await;
            assert_eq!(filled, "64 MiB");
        }
        let children: u32 = probe(&fixture, "fork-bomb", "")
            .await
            .strip_suffix(" children")
            .unwrap()
            .parse()
            .unwrap();
        assert!(children < if mode == Mode::Serving { 512 } else { 128 }, "{mode:?}: {children}");
        let environment = probe(&fixture, "environment", "").await;
        let mut names: Vec<_> =
            environment.lines().map(|line| line.split_once('=').unwrap().0).collect();
        names.retain(|name| *name != "MANIFOLD_SOCKET");
        names.sort_unstable();
        assert_eq!(names, ["HOME", "HOSTNAME", "PATH"], "{mode:?}");
        assert_eq!(line(&environment, "HOSTNAME="), "manifold");
    }
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_restriction_can_be_loosened_and_is_part_of_the_host_image() {
    let Some(engine) = engine().await else { return };
    let strict = DockerRuntime::builder().build(&engine).unwrap();
    assert!(strict.capabilities().containers);
    type Loosen = fn(&mut Isolation);
    let looser: [(&str, Loosen, &str, &str, &str); 6] = [
        (
            "writable root",
            |isolation| {
                isolation.writable_root = true;
                isolation.user = "0:0".to_owned()
            },
            "write",
            "/scratch",
            "written",
        ),
        (
            "user",
            |isolation| isolation.user = "1000:1000".to_owned(),
            "status",
            "",
            "Uid:\t1000\t1000",
        ),
        (
            "seccomp",
            |isolation| isolation.seccomp = Seccomp::Unconfined,
            "status",
            "",
            "Seccomp:\t0",
        ),
        (
            "privileges",
            |isolation| isolation.gains_privileges = true,
            "status",
            "",
            "NoNewPrivs:\t0",
        ),
        ("scratch", |isolation| isolation.scratch_bytes = 8 << 20, "fill", "/tmp/x", "8 MiB"),
        (
            "capabilities",
            |isolation| isolation.capabilities = vec!["CHOWN".to_owned()],
            "status",
            "",
            "CapBnd:\t0000000000000001",
        ),
    ];
    let mut hosts = vec![strict.host_image().id()];
    for (name, loosen, what, path, expected) in looser {
        let mut isolation = Isolation::new();
        loosen(&mut isolation);
        let builder = DockerRuntime::builder().isolation(isolation).parked(1);
        let runtime = builder.clone().build(&engine).unwrap();
        // The key of a request for `docker://…` does not contain the isolation, so a runtime with
        // another isolation must not run it.
        assert!(!runtime.capabilities().containers, "{name}");
        hosts.push(runtime.host_image().id());
        let fixture = ContainerFixture::new(&engine, builder);
        let answer = probe(&fixture, what, path).await;
        assert!(answer.contains(expected), "{name}: {answer}");
    }
    hosts.push(
        DockerRuntime::builder().mode(Mode::Serving).build(&engine).unwrap().host_image().id(),
    );
    let distinct: std::collections::BTreeSet<_> = hosts.iter().collect();
    assert_eq!(distinct.len(), hosts.len());
    // Fresh and parked containers are created from the same description.
    let fresh = DockerRuntime::builder().mode(Mode::Fresh).build(&engine).unwrap();
    assert_eq!(fresh.host_image().id(), strict.host_image().id());
    let mut writable = Isolation::new();
    writable.writable_root = true;
    let mut as_root = Isolation::new();
    as_root.user = "0:0".to_owned();
    let mut unconfined = Isolation::new();
    unconfined.seccomp = Seccomp::Unconfined;
    for leaky in [writable, as_root, unconfined] {
        assert!(
            DockerRuntime::builder().mode(Mode::Serving).isolation(leaky).build(&engine).is_err()
        );
    }
    engine.close().unwrap();
}

/// Runs `strange WORD` with low limits.
async fn misbehave(
    fixture: &ContainerFixture,
    word: &str,
    args: &[(&str, &str)],
) -> Result<String, Error> {
    let image = fixture.program("strange", &[word]);
    let entries = args.iter().map(|(name, text)| {
        let id = fixture.dispatcher.put_blob((*text).to_owned()).unwrap();
        manifold_runtime_api::TreeEntry::new(*name, EntryMode::Blob, id)
    });
    let args = fixture.dispatcher.put_tree(entries).unwrap();
    let mut limits = Limits::default();
    limits.compute_time = Duration::from_secs(2);
    limits.guest_request_bytes = 8 << 20;
    limits.memory_bytes = 64 << 20;
    let completion = fixture
        .dispatcher
        .run(Invocation::new(image).args(args).std(fixture.std).limits(limits))
        .await?;
    Ok(String::from_utf8_lossy(&fixture.dispatcher.read(completion.outcome.id)?.content)
        .into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misbehaviour_is_a_typed_error_and_the_next_job_succeeds() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Fresh] {
        let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(mode).parked(1));
        type Expected = fn(&Reason) -> bool;
        let cases: [(&str, Expected); 9] = [
            ("garbage", |reason| matches!(reason, Reason::AbiViolation { .. })),
            ("gigabyte", |reason| {
                matches!(reason, Reason::LimitBreached(Limit::GuestRequest { .. }))
            }),
            ("half-line", |reason| matches!(reason, Reason::AbiViolation { .. })),
            ("nothing", |reason| matches!(reason, Reason::NoOutcome)),
            (
                "status-3",
                |reason| matches!(reason, Reason::Trapped { trap } if trap.ends_with("status 3")),
            ),
            (
                "killed-by-itself",
                |reason| matches!(reason, Reason::Trapped { trap } if trap.contains("by signal")),
            ),
            ("never-ends", |reason| {
                matches!(reason, Reason::LimitBreached(Limit::ComputeTime { .. }))
            }),
            ("ignores-stdin", |reason| matches!(reason, Reason::LimitBreached(_))),
            ("memory", |reason| matches!(reason, Reason::LimitBreached(Limit::Memory { .. }))),
        ];
        for (word, expected) in cases {
            let start = Instant::now();
            let error = misbehave(&fixture, word, &[]).await.unwrap_err();
            assert!(expected(error.reason()), "{mode:?} {word}: {error:?}");
            assert!(error.frame().is_some_and(|frame| frame.runtime == "docker"), "{error:?}");
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{mode:?} {word}: {:?}",
                start.elapsed()
            );
        }
        for word in ["noise", "out-and-garbage", "out-and-stay"] {
            let start = Instant::now();
            assert_eq!(
                misbehave(&fixture, word, &[]).await.unwrap(),
                "an answer",
                "{mode:?} {word}"
            );
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{mode:?} {word}: {:?}",
                start.elapsed()
            );
        }
        let error = misbehave(&fixture, "probe", &[("do", "panic")]).await.unwrap_err();
        assert!(error.to_string().starts_with("the guest panicked: as asked at "), "{error}");
        let error = misbehave(&fixture, "probe", &[("do", "dance")]).await.unwrap_err();
        assert!(
            matches!(
                error.reason(),
                Reason::GuestFailed { message } if message == "unknown action `dance`"
            ),
            "{error}"
        );
    }
    engine.close().unwrap();
    assert_eq!(own_containers_of(&engine).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misbehaviour_in_a_serving_container_ends_one_job() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Serving));
    let ask = |what: &'static str| misbehave_owned(&fixture, what);
    let slow = misbehave(&fixture, "probe", &[("do", "sleep"), ("ms", "1500")]);
    let wrong = async {
        assert_eq!(
            ask("exit").await.unwrap_err().to_string(),
            "the guest's process ended with status 7, without an outcome"
        );
        assert!(
            ask("panic").await.unwrap_err().to_string().starts_with("the guest panicked: as asked")
        );
        let spun = ask("spin").await.unwrap_err();
        assert!(
            matches!(spun.reason(), Reason::LimitBreached(Limit::ComputeTime { .. })),
            "{spun:?}"
        );
        assert_eq!(ask("log").await.unwrap(), "logged");
    };
    let (slow, ()) = tokio::join!(slow, wrong);
    assert_eq!(slow.unwrap(), "slept");
    // This program does not serve jobs: it never connects.
    let start = Instant::now();
    let error = misbehave(&fixture, "nothing", &[]).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::RuntimeFailed { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(30));
    engine.close().unwrap();
    assert_eq!(own_containers_of(&engine).await, Vec::<String>::new());
}

async fn misbehave_owned(fixture: &ContainerFixture, what: &str) -> Result<String, Error> {
    misbehave(fixture, "probe", &[("do", what)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_container_is_replaced() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Serving] {
        let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(mode).parked(1));
        assert_eq!(misbehave(&fixture, "probe", &[("do", "log")]).await.unwrap(), "logged");
        let job = misbehave(&fixture, "probe", &[("do", "sleep"), ("ms", "1200")]);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(600)).await;
            let options = KillContainerOptionsBuilder::new().signal("KILL").build();
            for container in own_containers_of(&engine).await {
                let _ = docker().kill_container(&container, Some(options.clone())).await;
            }
        };
        let (answer, ()) = tokio::join!(job, kill);
        assert_eq!(answer.unwrap(), "slept", "{mode:?}");
        // Containers that are removed while they are idle are replaced as well.
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        for container in own_containers_of(&engine).await {
            let _ = docker().remove_container(&container, Some(options.clone())).await;
        }
        assert_eq!(
            misbehave(&fixture, "probe", &[("do", "network")]).await.unwrap().lines().count(),
            3,
            "{mode:?}"
        );
        // A job whose containers are killed again and again ends with a transient error.
        let job = misbehave(&fixture, "probe", &[("do", "sleep"), ("ms", "1900")]);
        let killing = async {
            let options = KillContainerOptionsBuilder::new().signal("KILL").build();
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                for container in own_containers_of(&engine).await {
                    let _ = docker().kill_container(&container, Some(options.clone())).await;
                }
            }
        };
        let error =
            tokio::select! { answer = job => answer.unwrap_err(), () = killing => unreachable!() };
        assert_eq!(error.status(), Status::Transient, "{mode:?}: {error:?}");
        assert!(matches!(error.reason(), Reason::RuntimeFailed { .. }), "{mode:?}: {error:?}");
    }
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_killed_before_it_serves_is_replaced() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(Mode::Serving));
    let job = misbehave(&fixture, "slow-start", &[("do", "log")]);
    let kill = async {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        let mut killed = false;
        while !killed {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for container in own_containers_of(&engine).await {
                killed |= docker().kill_container(&container, Some(options.clone())).await.is_ok();
            }
        }
    };
    let (answer, ()) = tokio::join!(job, kill);
    assert_eq!(answer.unwrap(), "logged");
    engine.close().unwrap();
}

/// A guest that ends while it waits for a response may have been stopped by an engine that was
/// restarted. The job is run again in another container.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_ends_while_it_waits_for_a_response_is_run_again() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().parked(1));
    let slow = fixture.program("strange", &["probe"]);
    let blob = |text: &str| fixture.dispatcher.put_blob(text.to_owned()).unwrap();
    let args = [
        argument("do", ObjectRef::blob(blob("sleep"))),
        argument("ms", ObjectRef::blob(blob("1500"))),
    ];
    let args = argument("args", ObjectRef::tree(fixture.dispatcher.put_tree(args).unwrap()));
    let entries = [
        argument("do", ObjectRef::blob(blob("nest-and-leave"))),
        argument("image", ObjectRef::blob(blob(&slow))),
        args,
    ];
    let invocation = Invocation::new(&slow).args(fixture.dispatcher.put_tree(entries).unwrap());
    // The second container does not wait as long, because the nested run is in the memo by then.
    let completion = fixture.dispatcher.run(invocation).await.unwrap();
    assert_eq!(
        fixture.dispatcher.read(completion.outcome.id).unwrap().content,
        "stayed".as_bytes()
    );
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_leaves_no_process() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Serving] {
        let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().mode(mode).parked(1));
        let job = misbehave(&fixture, "probe", &[("do", "spin")]);
        assert!(tokio::time::timeout(Duration::from_millis(1500), job).await.is_err(), "{mode:?}");
        drop(fixture);
        let start = Instant::now();
        while !own_containers_of(&engine).await.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "{mode:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_run_by_digest_and_tags_are_refused() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().parked(1));
    // An image that was loaded from the store has a digest in the engine, by which it can be named.
    let image = fixture.program("strange", &["probe"]);
    fixture.run(&image, &[("do", "log")]).await.unwrap();
    let node = fixture.dispatcher.read_tree(image.parse().unwrap()).unwrap();
    let name = format!("manifold-image:{}", node.get("module").unwrap().id);
    let digest = engine.digest(&name).await.unwrap();
    let reference = format!("docker://{digest}");
    assert_eq!(fixture.run(&reference, &[("do", "log")]).await.unwrap(), "logged");
    // It can also be named as a module of the docker runtime.
    let text = fixture.dispatcher.put_blob(reference.clone()).unwrap();
    let module = ObjectRef::blob(text);
    let image = fixture.dispatcher.put_image(fixture.host, module).unwrap().to_string();
    assert_eq!(fixture.run(&image, &[("do", "log")]).await.unwrap(), "logged");

    let problem = |error: Error| match error.root_cause().reason() {
        Reason::BadImage { problem, .. } => problem.clone(),
        other => panic!("{other}"),
    };
    let error = fixture.run(&format!("docker://{name}"), &[]).await.unwrap_err();
    assert!(matches!(problem(error), ImageProblem::MovingTag));
    let error = fixture.run(&format!("docker://sha256:{}", "0".repeat(64)), &[]).await.unwrap_err();
    assert!(matches!(problem(error), ImageProblem::NotInEngine { .. }));
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_can_be_a_tree_in_the_store() {
    let Some(engine) = engine().await else { return };
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder().parked(1));
    let blob = |text: &str| fixture.dispatcher.put_blob(text.to_owned()).unwrap();
    let node =
        fixture.dispatcher.read_tree(fixture.program("strange", &[]).parse().unwrap()).unwrap();
    let layers = fixture.dispatcher.read_tree(node.get("module").unwrap().id).unwrap();
    let layer = fixture.dispatcher.read_tree(layers.get("layer00").unwrap().id).unwrap();
    let program = layer.get("guest").unwrap().id;
    let image =
        |id| fixture.dispatcher.put_image(fixture.host, ObjectRef::tree(id)).unwrap().to_string();

    // A root file system with a symbolic link and long names.
    let long = "n".repeat(200);
    let etc = fixture.tree(&[(&long, EntryMode::Blob, blob("long\n"))]);
    let etc = fixture.tree(&[(&long, EntryMode::Tree, etc), ("here", EntryMode::Blob, blob(""))]);
    let root = fixture.tree(&[
        ("guest", EntryMode::Executable, program),
        ("etc", EntryMode::Tree, etc),
        ("link", EntryMode::Symlink, blob(&format!("etc/{long}/{long}"))),
    ]);
    assert_eq!(
        fixture.run(&image(root), &[("do", "exists"), ("path", "/link")]).await.unwrap(),
        "true"
    );

    // Layers, of which later ones overlay earlier ones, and a whiteout, which removes a file.
    let config = blob(
        "{\"config\":{\"Entrypoint\":[\"/bin/guest\"],\"Env\":[\"GREETING=hello\"],\"WorkingDir\":\"/bin\"}}",
    );
    let bin = fixture.tree(&[("guest", EntryMode::Executable, program)]);
    let lower =
        fixture.tree(&[("bin", EntryMode::Tree, bin), ("gone", EntryMode::Blob, blob("x"))]);
    let upper = fixture
        .tree(&[(".wh.gone", EntryMode::Blob, blob("")), ("new", EntryMode::Blob, blob("y"))]);
    let layered = image(fixture.tree(&[
        ("config.json", EntryMode::Blob, config),
        ("layer00", EntryMode::Tree, lower),
        ("layer01", EntryMode::Tree, upper),
    ]));
    assert_eq!(fixture.run(&layered, &[("do", "exists"), ("path", "/new")]).await.unwrap(), "true");
    assert_eq!(
        fixture.run(&layered, &[("do", "exists"), ("path", "/gone")]).await.unwrap(),
        "false"
    );
    assert!(
        fixture.run(&layered, &[("do", "environment")]).await.unwrap().contains("GREETING=hello")
    );

    let foreign = blob("{\"architecture\":7,\"config\":{}}");
    for (name, tree, words) in [
        (
            "no architecture",
            fixture.tree(&[("config.json", EntryMode::Blob, foreign)]),
            "is not a string",
        ),
        (
            "no object",
            fixture.tree(&[("config.json", EntryMode::Blob, blob("[]"))]),
            "is not an object",
        ),
        (
            "no JSON",
            fixture.tree(&[("config.json", EntryMode::Blob, blob("{"))]),
            "config.json: EOF",
        ),
        (
            "other entries",
            fixture.tree(&[
                ("config.json", EntryMode::Blob, config),
                ("layer0", EntryMode::Tree, lower),
            ]),
            "layer<NN>",
        ),
    ] {
        let error = fixture.run(&image(tree), &[]).await.unwrap_err();
        assert!(
            matches!(error.reason(), Reason::BadModule { problem, .. } if problem.contains(words)),
            "{name}: {error:?}"
        );
    }
    // The image contains no program.
    let error = fixture
        .run(&image(fixture.tree(&[("x", EntryMode::Blob, blob("x"))])), &[])
        .await
        .unwrap_err();
    assert_eq!(
        (error.status(), error.kind().as_str()),
        (Status::Permanent, "runtime"),
        "{error:?}"
    );
    engine.close().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_containers_are_removed() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Serving] {
        let idle = Duration::from_millis(400);
        let fixture = ContainerFixture::new(
            &engine,
            DockerRuntime::builder().mode(mode).parked(2).idle(idle),
        );
        assert_eq!(misbehave(&fixture, "probe", &[("do", "log")]).await.unwrap(), "logged");
        let start = Instant::now();
        while !own_containers_of(&engine).await.is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "{mode:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(
            !misbehave(&fixture, "probe", &[("do", "status")]).await.unwrap().is_empty(),
            "{mode:?}"
        );
    }
    engine.close().unwrap();
    let error = ContainerEngine::version(&engine).await;
    assert!(error.is_ok(), "a closed engine still returns its version");
}

/// Creates a container that belongs to a process that does not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_dead_process_are_removed() {
    let Some(first) = engine().await else { return };
    let fixture = ContainerFixture::new(&first, DockerRuntime::builder().parked(1));
    misbehave(&fixture, "probe", &[("do", "log")]).await.unwrap();
    let node = fixture
        .dispatcher
        .read_tree(fixture.program("strange", &["probe"]).parse().unwrap())
        .unwrap();
    let mut labels = first.labels();
    let owner = labels.get_mut("io.manifold.owner").unwrap();
    let (living, _) = owner.rsplit_once('/').unwrap();
    *owner = format!("{living}/1");
    let body = bollard::models::ContainerCreateBody {
        image: Some(format!("manifold-image:{}", node.get("module").unwrap().id)),
        labels: Some(labels),
        ..Default::default()
    };
    let orphan = docker().create_container(None, body).await.unwrap().id;
    let second = ContainerEngine::new(EngineOptions::default()).unwrap();
    second.version().await.unwrap();
    let gone = docker().inspect_container(&orphan, None).await.unwrap_err().to_string();
    assert!(gone.contains("No such container") || gone.contains("no such container"), "{gone}");
    assert!(
        !own_containers_of(&first).await.is_empty(),
        "the containers of a living process are kept"
    );
    first.close().unwrap();
    second.close().unwrap();
}

#[tokio::test]
async fn without_an_engine_a_job_is_a_transient_error() {
    let mut options = EngineOptions::default();
    options.endpoint = "unix:///nowhere/docker.sock".to_owned();
    let engine = ContainerEngine::new(options).unwrap();
    let fixture = ContainerFixture::new(&engine, DockerRuntime::builder());
    let error = fixture.run(&fixture.image("file-count.docker"), &[]).await.unwrap_err();
    assert_eq!(error.status(), Status::Transient, "{error:?}");
    assert!(error.to_string().contains("/nowhere/docker.sock"), "{error}");
    engine.close().unwrap();
}

/// A container that is a host: it runs many Python modules at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_in_python_runs_a_fold_visitor() {
    let Some(engine) = engine().await else { return };
    let image = built("python");
    if !image.is_dir() {
        eprintln!(
            "SKIPPED: there is no image with Python; `cargo xtask test` builds one on Debian."
        );
        return;
    }
    let objects = DirectoryObjects::scan(image.as_ref()).unwrap();
    let module = ObjectRef::tree(objects.root().id);
    let fixture = ContainerFixture::with_sources(
        &engine,
        DockerRuntime::builder().mode(Mode::Fresh),
        vec![Arc::new(objects)],
    );
    // Preparing the image loads it into the engine, where it gets a digest.
    let image = fixture.dispatcher.put_image(fixture.host, module).unwrap().to_string();
    fixture.dispatcher.prepare(&image, None).await.unwrap();
    let host = format!(
        "docker://{}",
        engine.digest(&format!("manifold-image:{}", module.id)).await.unwrap()
    );

    let hosted = |code: &str| {
        let module = ObjectRef::blob(fixture.dispatcher.put_blob(code.to_owned()).unwrap());
        let node = RuntimeNode { host: HostRef::parse(&host).unwrap(), module };
        fixture.dispatcher.put_node(node.encode().unwrap()).unwrap().to_string()
    };
    let visitor = hosted(include_str!("../../fold-guests/python/file-count.py"));
    for name in VECTORS {
        let vector = Vector::read(name);
        let root = ObjectRef::tree(store_fixture(&fixture.dispatcher, name));
        let post = fixture.dispatcher.put_blob(visitor.clone()).unwrap();
        let args = [argument("in", root), argument("post", ObjectRef::blob(post))];
        let args = fixture.dispatcher.put_tree(args).unwrap();
        let start = Instant::now();
        let completion = fixture
            .dispatcher
            .run(Invocation::new(fixture.image("fold")).args(args))
            .await
            .unwrap();
        eprintln!("{name} with a visitor in Python: {:?}", start.elapsed());
        let result = fixture.dispatcher.read(completion.outcome.id).unwrap();
        assert_eq!(result.content, vector.result_text.as_bytes(), "{name}");
    }
    assert_eq!(own_containers_of(&engine).await.len(), 1, "one container runs all visits");

    // Exceptions that look like a lost connection or the end of the process fail only their job.
    // There are more of them than connections.
    for (code, words) in [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ConnectionError('mine')", "ConnectionError: mine"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return 'text'", "TypeError: a bytes-like object is required, not 'str'"),
        ("raise Failure('as it is')", "as it is"),
    ] {
        let error =
            fixture.run(&hosted(&format!("def run(job):\n    {code}\n")), &[]).await.unwrap_err();
        assert_eq!(error.to_string(), words);
    }
    // A job that waits for other jobs of the same host does not block them.
    let chain = hosted(
        "def run(job):\n    args = job.args()\n    if 'n' not in args: return b'end'\n    \
         nested = job.run(job.fields['image'], args['n'].hash)\n    return b'<' + job.get(nested.hash)\n",
    );
    let empty = fixture.tree(&[]);
    let args = (0..12).fold(empty, |args, _| fixture.tree(&[("n", EntryMode::Tree, args)]));
    let completion = fixture.dispatcher.run(Invocation::new(&chain).args(args)).await.unwrap();
    assert_eq!(
        fixture.dispatcher.read(completion.outcome.id).unwrap().content,
        "<<<<<<<<<<<<end".as_bytes()
    );
    engine.close().unwrap();
}
