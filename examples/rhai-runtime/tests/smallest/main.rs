//! The smallest runtime of the guide `docs/writing-a-runtime.md` passes the conformance suite, and
//! the guide shows the code that is tested.
#![allow(unreachable_pub, reason = "the guide's code is that of a library")]

mod runtime;

use std::path::Path;
use std::sync::Arc;

use manifold_conformance::api::Runtime;
use manifold_conformance::{Module, Program, RuntimeFixture};
use runtime::EchoRuntime;

struct Fixture;

impl RuntimeFixture for Fixture {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(EchoRuntime::new().unwrap())
    }

    fn module(&self, program: Program) -> Option<Module> {
        (program == Program::Echo).then(|| Module::blob("return the argument `in`"))
    }
}

manifold_conformance::runtime_tests!(Fixture);

/// A block after `<!-- from: PATH -->` is a part of the file at PATH.
#[test]
fn the_guide_shows_code_that_is_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let guide = read("docs/writing-a-runtime.md");
    let mut blocks = 0;
    for part in guide.split("<!-- from: ").skip(1) {
        let (path, rest) = part.split_once(" -->").unwrap();
        let (_, block) = rest.split_once("```").unwrap();
        let (_, block) = block.split_once('\n').unwrap();
        let (block, _) = block.split_once("```").unwrap();
        let text =
            read(path).replace("{{name}}", "words-runtime").replace("{{crate}}", "words_runtime");
        // A block may be indented less than in the file.
        let lines = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
        assert!(lines(&text).contains(lines(block).trim_end()), "{path} has not:\n{block}");
        blocks += 1;
    }
    assert!(blocks > 5, "{blocks} blocks");
}
