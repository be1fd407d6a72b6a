//! The runtime keeps its contract: one test for each sentence of it.
//!
//! `tests/guests` has a guest for each program of the suite that the language can express. A check
//! whose program is missing is skipped, and says so on standard error.

use std::sync::Arc;

use manifold_conformance::api::Runtime;
use manifold_conformance::{Module, Program, RuntimeFixture};
use {{crate}}::WordsRuntime;

struct Fixture;

impl RuntimeFixture for Fixture {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(WordsRuntime::new().unwrap())
    }

    fn module(&self, program: Program) -> Option<Module> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests");
        std::fs::read(format!("{folder}/{program}.words"))
            .ok()
            .map(Module::blob)
    }

    fn unloadable_module(&self) -> Option<Module> {
        Some(Module::blob("no such word"))
    }
}

manifold_conformance::runtime_tests!(Fixture);
