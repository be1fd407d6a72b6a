//! The runtime passes the conformance suite.

use std::sync::{Arc, OnceLock};

use manifold_conformance::{Module, Program, RuntimeFixture};
use manifold_runtime_api::Runtime;
use manifold_runtime_wasm::WasmRuntime;
use manifold_testing::built;

/// What the module of `fold-guests/conformance-guest` contains in place of a program's name.
const PLACEHOLDER: &[u8; 32] = b"<name of the program to run>    ";

/// Returns the module that contains all programs, and where the placeholder is.
fn programs() -> &'static (Vec<u8>, usize) {
    static PROGRAMS: OnceLock<(Vec<u8>, usize)> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let code = std::fs::read(built("conformance-guest.wasm"))
            .expect("the guests are built by `cargo xtask setup`");
        let places: Vec<_> = code
            .windows(PLACEHOLDER.len())
            .enumerate()
            .filter_map(|(place, bytes)| (bytes == PLACEHOLDER).then_some(place))
            .collect();
        assert_eq!(places.len(), 1, "the module contains the placeholder once");
        (code, places[0])
    })
}

struct Fixture;

impl RuntimeFixture for Fixture {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(WasmRuntime::new().unwrap())
    }

    fn module(&self, program: Program) -> Option<Module> {
        let (code, place) = programs();
        let name = format!("{:width$}", program.name(), width = PLACEHOLDER.len());
        let mut code = code.clone();
        code[*place..][..name.len()].copy_from_slice(name.as_bytes());
        Some(Module::blob(code))
    }

    fn unloadable_module(&self) -> Option<Module> {
        Some(Module::blob("\0asm\u{1}\0\0\0 and then nonsense"))
    }
}

manifold_conformance::runtime_tests!(Fixture);
