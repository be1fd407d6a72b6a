//! The runtime passes the conformance suite.

use std::sync::Arc;

use example_rhai_runtime::RhaiRuntime;
use manifold::Runtime;
use manifold_conformance::{Module, Program, RuntimeFixture};

struct Fixture;

impl RuntimeFixture for Fixture {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(RhaiRuntime::new().unwrap())
    }

    fn module(&self, program: Program) -> Option<Module> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests");
        std::fs::read(format!("{folder}/{program}.rhai")).ok().map(Module::blob)
    }

    fn unloadable_module(&self) -> Option<Module> {
        Some(Module::blob("let = 1;"))
    }
}

manifold_conformance::runtime_tests!(Fixture);
