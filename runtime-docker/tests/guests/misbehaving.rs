//! Guests that misbehave: each ends with a typed error, and the next job succeeds.

use std::time::{Duration, Instant};

use manifold_runtime_api::{Error, Limit, Reason};
use manifold_runtime_docker::{DockerRuntime, Mode};
use manifold_testing::containers::{ContainerFixture, engine, own_containers_of};

use crate::misbehave;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misbehaviour_is_a_typed_error_and_the_next_job_succeeds() {
    let Some(engine) = engine().await else { return };
    for mode in [Mode::Parked, Mode::Recycled, Mode::Fresh] {
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
    let slow = misbehave(&fixture, "probe", &[("do", "sleep"), ("ms", "800")]);
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
