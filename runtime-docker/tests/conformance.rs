//! The runtime passes the conformance suite, in each mode.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use manifold_conformance::{Module, ModuleFile, Program, RuntimeFixture};
use manifold_runtime_api::{EntryMode, Runtime};
use manifold_runtime_docker::{ContainerEngine, DockerRuntime, EngineOptions, Mode};
use manifold_testing::{built, containers};

/// Returns the container engine of the tests, if there is one.
fn engine() -> Option<&'static ContainerEngine> {
    static ENGINE: OnceLock<Option<ContainerEngine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        // On a thread of its own, because the caller may be in a tokio runtime.
        let find = || tokio::runtime::Runtime::new().unwrap().block_on(containers::engine());
        std::thread::spawn(find).join().unwrap()
    });
    engine.as_ref()
}

/// Returns the same engine, which pretends not to see the files of this machine.
fn engine_elsewhere() -> &'static ContainerEngine {
    static ENGINE: OnceLock<ContainerEngine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        ContainerEngine::new(EngineOptions::default().shares_files(Some(false))).unwrap()
    })
}

struct Fixture(Mode, Place);

/// Whether the engine sees the files of this machine.
#[derive(PartialEq)]
enum Place {
    Here,
    Elsewhere,
}
use Place::{Elsewhere, Here};

impl RuntimeFixture for Fixture {
    fn runtime(&self) -> Arc<dyn Runtime> {
        let engine = match self.1 {
            Here => engine().expect("the checks are skipped without an engine"),
            Elsewhere => engine_elsewhere(),
        };
        Arc::new(DockerRuntime::builder().mode(self.0).parked(2).build(engine).unwrap())
    }

    fn module(&self, program: Program) -> Option<Module> {
        let code = std::fs::read(built("conformance-guest.linux"))
            .expect("the guests are built by `cargo xtask setup`");
        let config = serde_json::json!({ "config": { "Entrypoint": ["/guest", program.name()] } });
        Some(Module::tree([
            ModuleFile::new("config.json", config.to_string()),
            ModuleFile::new("layer00/guest", code).mode(EntryMode::Executable),
        ]))
    }

    fn unloadable_module(&self) -> Option<Module> {
        Some(Module::blob("neither an image nor a reference to one"))
    }

    fn skip_reason(&self, check: &str) -> Option<String> {
        let reason = match (check, self.0) {
            _ if engine().is_none() => "there is no container engine",
            ("a_missing_module_is_an_error", _) => {
                "an image that the engine has from an earlier check is not read again"
            }
            ("a_module_over_its_limit_is_an_error", _) => {
                "the runtime has a limit of its own for the size of images"
            }
            ("memory_is_limited" | "a_breach_of_memory_cannot_be_caught", Mode::Serving) => {
                "the jobs of a serving container share one limit, and which of them exceeded it is \
                 not known"
            }
            _ => return None,
        };
        Some(reason.to_owned())
    }

    // Each of these jobs needs a container.
    fn waiting_jobs(&self) -> usize {
        8
    }

    fn recursion_depth(&self) -> usize {
        12
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

mod parked {
    use super::{Fixture, Here, Mode};

    manifold_conformance::runtime_tests!(Fixture(Mode::Parked, Here));
}

mod recycled {
    use super::{Fixture, Here, Mode};

    manifold_conformance::runtime_tests!(Fixture(Mode::Recycled, Here));
}

mod recycled_elsewhere {
    use super::{Elsewhere, Fixture, Mode};

    manifold_conformance::runtime_tests!(Fixture(Mode::Recycled, Elsewhere));
}

mod serving {
    use super::{Fixture, Here, Mode};

    manifold_conformance::runtime_tests!(Fixture(Mode::Serving, Here));
}
