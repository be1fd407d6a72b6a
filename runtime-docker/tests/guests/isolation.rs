//! What containers may do, by default and with looser settings.

use manifold_runtime_api::Runtime;
use manifold_runtime_docker::{DockerRuntime, Isolation, Mode, Seccomp};
use manifold_testing::containers::{ContainerFixture, engine};

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
    for mode in [Mode::Parked, Mode::Recycled, Mode::Fresh, Mode::Serving] {
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
