//! The suite on the toy runtime, which passes all of it.

mod toy_runtime;

use std::sync::Arc;

use manifold_conformance::{Report, RuntimeFixture, Verdict, runtime_checks};
use toy_runtime::ToyFixture;

mod with_blobs {
    use super::ToyFixture;

    manifold_conformance::runtime_tests!(ToyFixture::new());
}

mod with_trees {
    use super::ToyFixture;

    manifold_conformance::runtime_tests!(ToyFixture::with_trees());
}

/// A fixture without guests.
struct NoGuests(ToyFixture);

impl RuntimeFixture for NoGuests {
    fn runtime(&self) -> Arc<dyn manifold_runtime_api::Runtime> {
        self.0.runtime()
    }

    fn module(&self, _: manifold_conformance::Program) -> Option<manifold_conformance::Module> {
        None
    }

    fn skip_reason(&self, check: &str) -> Option<String> {
        (check == "the_host_image_is_constant").then(|| "it has an exemption".to_owned())
    }
}

#[test]
fn checks_without_their_programs_are_skipped() {
    let fixture: Arc<dyn RuntimeFixture> = Arc::new(NoGuests(ToyFixture::new()));
    let report = Report::run(&runtime_checks(), &fixture);
    assert!(report.has_passed(), "{report}");
    let text = report.to_string();
    assert!(text.starts_with(
        "skipped  the_host_image_is_constant: it has an exemption\n\
         passed   capabilities_are_constant\n\
         skipped  an_argument_can_be_the_outcome: \
         the fixture has no module for Program::Echo\n"
    ));
    let passed =
        report.results().iter().filter(|result| result.result == Ok(Verdict::Passed)).count();
    assert_eq!(passed, 1, "{report}");
    assert!(text.ends_with(&format!("1 passed, {} skipped, 0 failed", runtime_checks().len() - 1)));
}

/// The toy runtime supports what every check needs, so that each of them is tested.
#[test]
fn no_check_is_skipped() {
    let fixture: Arc<dyn RuntimeFixture> = Arc::new(ToyFixture::new());
    let skipped: Vec<_> = Report::run(&runtime_checks(), &fixture)
        .results()
        .iter()
        .filter(|result| result.result != Ok(Verdict::Passed))
        .cloned()
        .collect();
    assert_eq!(skipped, []);
}
