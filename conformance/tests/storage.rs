//! The suites on stores and on a source, which pass all of them.

mod test_storage;

use std::sync::Arc;

use manifold_conformance::{
    Report, SourceFixture, StoreFixture, Verdict, source_checks, store_checks,
};
use manifold_dispatcher::{MemoryStore, Store};
use test_storage::{TestSource, TestStores};

/// A store in memory. It keeps its data when it is reopened, and has nothing to collect.
struct Memory;

impl StoreFixture for Memory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }

    fn reopen(&self, store: Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        Some(store)
    }

    fn collect(&self, _: &Arc<dyn Store>) -> bool {
        true
    }
}

mod memory {
    manifold_conformance::store_tests!(super::Memory);
}

mod collecting {
    manifold_conformance::store_tests!(super::TestStores::new());
}

mod list {
    manifold_conformance::source_tests!(super::TestSource::new());
}

#[test]
fn no_check_is_skipped() {
    let memory: Arc<dyn StoreFixture> = Arc::new(Memory);
    let list: Arc<dyn SourceFixture> = Arc::new(TestSource::new());
    let reports = [Report::run(&store_checks(), &memory), Report::run(&source_checks(), &list)];
    for report in reports {
        let all = report.results().iter().all(|result| result.result == Ok(Verdict::Passed));
        assert!(all, "{report}");
    }
}

/// A store that is lost when it is closed, and has no collection.
struct Transient;

impl StoreFixture for Transient {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }
}

#[test]
fn checks_that_need_a_restart_or_a_collection_are_skipped() {
    let fixture: Arc<dyn StoreFixture> = Arc::new(Transient);
    let report = Report::run(&store_checks(), &fixture);
    assert!(report.has_passed(), "{report}");
    assert!(report.to_string().ends_with("5 skipped, 0 failed"), "{report}");
}
