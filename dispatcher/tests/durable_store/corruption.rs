//! Truncated files and flipped bits never lead to wrong results.

use std::fs;
use std::sync::LazyLock;

use manifold_dispatcher::api::{Object, ObjectId, ObjectRef};
use manifold_dispatcher::{DurableStore, ObjectSource, RunRecord, Store};
use proptest::prelude::*;

use crate::{blob, lazy, request};

/// The bytes of a store's file, and the requests in it with the objects of their outcomes.
type Sample = (Vec<u8>, Vec<(ObjectId, Object)>);

/// Returns the record of the run with this number.
fn run(number: usize) -> String {
    "common".repeat(10) + &number.to_string()
}

/// Creates a store with a hundred outcomes.
fn sample() -> Sample {
    let directory = tempfile::tempdir().unwrap();
    let store = lazy(directory.path());
    let mut objects = Vec::new();
    for number in 0..100usize {
        let object = Object::blob(number.to_string().repeat(1 + number * 7));
        let id = store.write(object.clone()).unwrap();
        let run = RunRecord { bytes: run(number).into(), common: 60 };
        store.record_run(request(&number.to_string()), Some(ObjectRef::blob(id)), run).unwrap();
        objects.push((request(&number.to_string()), object));
        if number % 20 == 0 {
            store.flush().unwrap();
        }
    }
    let file = store.file().to_owned();
    drop(store);
    (fs::read(file).unwrap(), objects)
}

/// Opens a store with the file `bytes` and asserts that everything it returns is right, and that
/// losses are reported.
fn assert_never_wrong(bytes: &[u8], objects: &[(ObjectId, Object)], check_up_to: u64) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("manifold.redb"), bytes).unwrap();
    let Ok(store) = DurableStore::options().check_up_to(check_up_to).open(directory.path()) else {
        return;
    };
    let mut lost = false;
    for (number, (request, object)) in objects.iter().enumerate() {
        match store.run_record(*request) {
            Ok(Some(found)) => assert_eq!(found.bytes, run(number), "a wrong record of a run"),
            Ok(None) => lost = true,
            Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
        }
        match store.look_up(*request) {
            Ok(Some(outcome)) => {
                assert_eq!(outcome, ObjectRef::of(object), "a wrong outcome");
                match store.read(outcome.id) {
                    Ok(Some(found)) => assert_eq!(&found, object, "a wrong object"),
                    Ok(None) => lost = true,
                    Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
                }
            }
            Ok(None) => lost = true,
            Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
        }
    }
    let reported = store.verify(|_| ()).map_or(true, |verified| !verified.damages.is_empty());
    assert!(reported || !lost, "something is lost, and the verification finds no damage");
    let _ = store.write(blob("more")).and_then(|_| store.flush());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_truncated_or_corrupted_file_never_returns_wrong_results(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        check in any::<bool>(),
    ) {
        static SAMPLE: LazyLock<Sample> = LazyLock::new(sample);
        let (bytes, objects) = &*SAMPLE;
        let mut bytes = bytes.clone();
        for (index, bit) in flips {
            *index.get_mut(&mut bytes) ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        assert_never_wrong(&bytes, objects, if check { u64::MAX } else { 0 });
    }
}
