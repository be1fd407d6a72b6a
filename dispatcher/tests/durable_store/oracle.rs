//! Random operations, compared with maps in memory.

use std::collections::{BTreeMap, BTreeSet};

use manifold_dispatcher::api::{Object, ObjectId, ObjectRef};
use manifold_dispatcher::{DurableStore, ObjectSource, RunRecord, Store};
use proptest::prelude::*;

use crate::{lazy, nothing_but_pins, request};

#[derive(Debug, Clone)]
enum Operation {
    /// Writes a blob with this number, of this size.
    Write(u8, usize),
    /// Records the blob with the second number as the outcome of the request with the first.
    Record(u8, u8),
    /// Records a run of the request with the first number, with the outcome as above if it is stated.
    /// The record of the run has the last number and this size.
    RecordRun(u8, Option<u8>, u8, usize),
    Pin(u8, u8),
    Unpin(u8),
    Flush,
    /// Keeps only what pins reach.
    Collect,
    Reopen,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let size = prop_oneof![8 => 0..200usize, 1 => 10_000..40_000usize];
    let operation = prop_oneof![
        12 => (any::<u8>(), size.clone()).prop_map(|(number, size)| Operation::Write(number, size)),
        8 => (0..40u8, any::<u8>()).prop_map(|(name, number)| Operation::Record(name, number)),
        8 => (0..40u8, any::<Option<u8>>(), any::<u8>(), size.clone()).prop_map(
            |(name, outcome, number, size)| Operation::RecordRun(name, outcome, number, size)
        ),
        2 => (0..40u8, any::<u8>()).prop_map(|(name, number)| Operation::Pin(name, number)),
        1 => (0..40u8).prop_map(Operation::Unpin),
        6 => Just(Operation::Flush),
        1 => Just(Operation::Collect),
        1 => Just(Operation::Reopen),
    ];
    prop::collection::vec(operation, 1..120)
}

/// What the store has to contain.
#[derive(Default)]
struct Expected {
    /// The last blob of each number.
    numbers: BTreeMap<u8, ObjectId>,
    objects: BTreeMap<ObjectId, Object>,
    memo: BTreeMap<ObjectId, ObjectRef>,
    runs: BTreeMap<ObjectId, RunRecord>,
    pins: BTreeMap<ObjectId, ObjectRef>,
}

impl Expected {
    fn outcome(&self, number: u8) -> Option<ObjectRef> {
        self.numbers
            .get(&number)
            .filter(|id| self.objects.contains_key(id))
            .copied()
            .map(ObjectRef::blob)
    }

    fn collect(&mut self) {
        let kept: BTreeSet<_> = self.pins.values().map(|outcome| outcome.id).collect();
        let of_memo = self.memo.iter().filter(|(request, _)| self.pins.contains_key(request));
        let kept: BTreeSet<_> =
            kept.into_iter().chain(of_memo.map(|(_, outcome)| outcome.id)).collect();
        self.objects.retain(|id, _| kept.contains(id));
        self.memo.retain(|request, _| self.pins.contains_key(request));
        self.runs.retain(|request, _| self.pins.contains_key(request));
    }

    /// Returns how many memo entries there are. One may have a record of a run only.
    fn entries(&self) -> usize {
        self.memo.keys().chain(self.runs.keys()).collect::<BTreeSet<_>>().len()
    }

    fn check(&self, store: &DurableStore) {
        for (id, object) in &self.objects {
            assert_eq!(store.read(*id).unwrap().as_ref(), Some(object), "object {id}");
            assert_eq!(store.size(*id).unwrap(), Some(object.content.len() as u64));
        }
        for name in 0..40 {
            let request = request(&name.to_string());
            assert_eq!(store.look_up(request).unwrap(), self.memo.get(&request).copied());
            assert_eq!(store.run_record(request).unwrap().as_ref(), self.runs.get(&request));
            assert_eq!(store.pinned(request).unwrap(), self.pins.get(&request).copied());
        }
        let entries = store.entries().unwrap().into_iter().collect::<BTreeMap<_, _>>();
        assert_eq!(entries, self.memo);
        let runs = store.run_records().unwrap().into_iter().collect::<BTreeMap<_, _>>();
        assert_eq!(runs, self.runs);
        let gone = self.numbers.values().filter(|id| !self.objects.contains_key(*id));
        for id in gone {
            assert_eq!(store.read(*id).unwrap(), None, "object {id}");
        }
    }
}

fn run(operations: &[Operation]) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = lazy(directory.path());
    let mut expected = Expected::default();
    for operation in operations {
        match operation {
            Operation::Write(number, size) => {
                let object = Object::blob(format!("{number} ").repeat(1 + size / 3));
                let id = store.write(object.clone()).unwrap();
                expected.numbers.insert(*number, id);
                expected.objects.insert(id, object);
            }
            Operation::Record(name, number) => {
                let Some(outcome) = expected.outcome(*number) else { continue };
                let request = request(&name.to_string());
                store.record(request, outcome).unwrap();
                expected.memo.insert(request, outcome);
            }
            Operation::RecordRun(name, number, of_run, size) => {
                let outcome = number.and_then(|number| expected.outcome(number));
                let request = request(&name.to_string());
                let text =
                    format!("{} ", of_run % 3).repeat(40) + &of_run.to_string().repeat(*size);
                let run = RunRecord { bytes: text.into(), common: 80 };
                store.record_run(request, outcome, run.clone()).unwrap();
                expected.runs.insert(request, run);
                if let Some(outcome) = outcome {
                    expected.memo.insert(request, outcome);
                }
            }
            Operation::Pin(name, number) => {
                let Some(outcome) = expected.outcome(*number) else { continue };
                let request = request(&name.to_string());
                store.pin(request, outcome).unwrap();
                expected.pins.insert(request, outcome);
            }
            Operation::Unpin(name) => {
                let request = request(&name.to_string());
                let was_pinned = expected.pins.remove(&request).is_some();
                assert_eq!(store.unpin(request).unwrap(), was_pinned);
            }
            Operation::Flush => store.flush().unwrap(),
            Operation::Collect => {
                let collected = store.collect(&nothing_but_pins(), |_| ()).unwrap();
                expected.collect();
                let kept = [collected.kept_objects, collected.kept_entries, collected.kept_pins];
                let maps = [expected.objects.len(), expected.entries(), expected.pins.len()];
                assert_eq!(kept, maps.map(|count| count as u64), "{collected:?}");
            }
            Operation::Reopen => {
                drop(store);
                store = lazy(directory.path());
            }
        }
    }
    expected.check(&store);
    drop(store);
    let store = lazy(directory.path());
    expected.check(&store);
    let verified = store.verify(|_| ()).unwrap();
    assert_eq!(verified.damages, []);
    assert_eq!(verified.objects, expected.objects.len() as u64);
    assert_eq!(verified.entries, expected.entries() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_store_agrees_with_maps_in_memory(operations in operations()) {
        run(&operations);
    }
}

/// More commits than are merged at once, several times over.
#[test]
fn everything_is_found_after_many_commits() {
    let commits = (0..200u8).flat_map(|number| {
        [Operation::Write(number, 50), Operation::Record(number % 40, number), Operation::Flush]
    });
    run(&commits.collect::<Vec<_>>());
}
