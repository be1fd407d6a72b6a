//! The runtime passes the conformance suite.

use std::sync::Arc;

use manifold_conformance::{Module, ModuleFile, Program, RuntimeFixture};
use manifold_runtime_api::Runtime;
use manifold_runtime_v8::V8Runtime;

const PROGRAMS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../fold-guests/typescript/conformance");

struct Fixture;

impl RuntimeFixture for Fixture {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(V8Runtime::new().unwrap())
    }

    fn module(&self, program: Program) -> Option<Module> {
        let file = |path: &str, name: &str| {
            ModuleFile::new(path, std::fs::read(format!("{PROGRAMS}/{name}.ts")).unwrap())
        };
        Some(Module::tree([file("main.ts", program.name()), file("sdk.ts", "sdk")]))
    }

    fn unloadable_module(&self) -> Option<Module> {
        Some(Module::blob("export default ("))
    }
}

manifold_conformance::runtime_tests!(Fixture);
