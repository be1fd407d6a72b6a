//! A container engine that closes the connection, or does not respond, at each of its requests.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use manifold_runtime_api::{ErrorKind, Status};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_testing::containers::{ContainerFixture, engine};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};

/// A fault for requests whose first line contains a given text.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    BreaksOff,
    Hangs,
}

/// The current fault, and the number of requests that met it.
#[derive(Debug, Default)]
struct Faults {
    now: Option<(&'static str, Fault)>,
    met: usize,
}

/// A proxy between this process and the engine. Every request has its own connection.
struct Proxy {
    endpoint: String,
    faults: Arc<Mutex<Faults>>,
    _directory: tempfile::TempDir,
}

impl Proxy {
    fn new() -> Option<Self> {
        let engine = EngineOptions::default().endpoint.strip_prefix("unix://")?.to_owned();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let faults = Arc::<Mutex<Faults>>::default();
        let given = Arc::clone(&faults);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, engine.clone(), Arc::clone(&given)));
            }
        });
        Some(Self { endpoint: format!("unix://{}", path.display()), faults, _directory: directory })
    }

    fn begin(&self, part: &'static str, fault: Fault) {
        *self.faults.lock().unwrap() = Faults { now: Some((part, fault)), met: 0 };
    }

    /// Waits until a request has met the fault, and ends it.
    async fn end(&self) {
        let start = Instant::now();
        while self.faults.lock().unwrap().met == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "no request has met {:?}",
                self.faults.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.faults.lock().unwrap().now = None;
    }
}

/// Forwards a connection to the engine, unless its request meets a fault.
async fn pass(mut client: UnixStream, engine: String, faults: Arc<Mutex<Faults>>) {
    let mut request = Vec::new();
    while !request.contains(&b'\n') {
        if client.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
    let fault = {
        let mut faults = faults.lock().unwrap();
        let fault = faults.now.filter(|(part, _)| line.contains(part));
        faults.met += usize::from(fault.is_some());
        fault
    };
    match fault {
        Some((_, Fault::BreaksOff)) => return,
        Some((_, Fault::Hangs)) => tokio::time::sleep(Duration::from_secs(600)).await,
        None => {}
    }
    let Ok(mut engine) = UnixStream::connect(engine).await else { return };
    if engine.write_all(&request).await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}

/// The steps of a job in its own container: a part of the request's first line, and of the error's
/// message.
const STEPS: [(&str, &str); 5] = [
    ("/images/manifold", "inspect an image"),
    ("/images/load", "load an image"),
    ("/containers/create", "create a container"),
    ("/attach", "attach to a container"),
    ("/start", "start a container"),
];

const REMOVAL: &str = "DELETE /";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_step_is_an_error_that_names_the_step_in_bounded_time() {
    let Some(_engine) = engine().await else { return };
    let Some(proxy) = Proxy::new() else {
        eprintln!("SKIPPED: this engine has no unix socket.");
        return;
    };
    for mode in [Mode::Fresh, Mode::Parked, Mode::Recycled, Mode::Serving] {
        let mut options = EngineOptions::default();
        options.endpoint = proxy.endpoint.clone();
        options.deadline = Duration::from_secs(3);
        let engine = ContainerEngine::new(options).unwrap();
        // Containers are idle at once, so that each job needs a new one.
        let builder = DockerRuntime::builder().mode(mode).parked(1).idle(Duration::ZERO);
        let fixture = ContainerFixture::new(&engine, builder);
        let mut number = 0;
        let mut job = async || {
            number += 1;
            let image =
                fixture.program("strange", &["probe", mode_word(mode), &number.to_string()]);
            fixture.run(&image, &[("do", "log")]).await
        };
        assert_eq!(job().await.unwrap(), "logged", "{mode:?}");
        for fault in [Fault::BreaksOff, Fault::Hangs] {
            for (part, words) in STEPS {
                // The engine is not contacted for a while after a failure.
                tokio::time::sleep(Duration::from_millis(600)).await;
                proxy.begin(part, fault);
                let start = Instant::now();
                let error = job().await.unwrap_err();
                let took = start.elapsed();
                assert!(error.to_string().contains(words), "{mode:?} {fault:?} {part}: {error:?}");
                assert_eq!(
                    (error.kind(), error.status()),
                    (ErrorKind::Runtime, Status::Transient),
                    "{error:?}"
                );
                assert!(took < Duration::from_secs(15), "{mode:?} {fault:?} {part}: {took:?}");
                proxy.end().await;
                tokio::time::sleep(Duration::from_millis(600)).await;
                assert_eq!(job().await.unwrap(), "logged", "{mode:?} after {fault:?} {part}");
            }
        }
        // The last two requests come after the outcome, so the job succeeds.
        let last = [("/wait", Fault::BreaksOff), ("/wait", Fault::Hangs)]
            .into_iter()
            .filter(|_| mode == Mode::Fresh);
        for (part, fault) in last.chain([(REMOVAL, Fault::BreaksOff), (REMOVAL, Fault::Hangs)]) {
            proxy.begin(part, fault);
            let start = Instant::now();
            assert_eq!(job().await.unwrap(), "logged", "{mode:?} {part}");
            assert!(
                start.elapsed() < Duration::from_secs(15),
                "{mode:?} {fault:?} {part}: {:?}",
                start.elapsed()
            );
            proxy.end().await;
            assert_eq!(job().await.unwrap(), "logged", "{mode:?} after {fault:?} {part}");
        }
        // Closing the engine removes the containers that could not be removed before.
        engine.close().unwrap();
        let left = manifold_testing::containers::own_containers_of(&engine).await;
        assert_eq!(left, Vec::<String>::new(), "{mode:?}");
    }
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Fresh => "fresh",
        Mode::Parked => "parked",
        Mode::Recycled => "recycled",
        Mode::Serving => "serving",
    }
}
