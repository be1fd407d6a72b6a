//! Objects, memo entries and pins outlive the store that wrote them.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::api::{Object, ObjectKind, ObjectRef};
use manifold_dispatcher::layers::Overlaid;
use manifold_dispatcher::{DurableStore, Keep, MemoryStore, ObjectSource, OpenError, Store};

use crate::{blob, lazy, request};

#[test]
fn a_reopened_store_has_its_objects_entries_and_pins() {
    let directory = tempfile::tempdir().unwrap();
    let long = Object::blob(vec![7; 300_000]);
    let store = DurableStore::open(directory.path()).unwrap();
    let short = store.write(blob("short")).unwrap();
    assert_eq!(store.write(long.clone()).unwrap(), long.id());
    store.record(request("a"), ObjectRef::blob(short)).unwrap();
    store.pin(request("a"), ObjectRef::blob(short)).unwrap();
    drop(store);

    let store = DurableStore::open(directory.path()).unwrap();
    assert_eq!(store.read(short).unwrap(), Some(blob("short")));
    assert_eq!(store.kind(long.id()).unwrap(), Some(ObjectKind::Blob));
    assert_eq!(store.read(long.id()).unwrap(), Some(long));
    assert_eq!(store.look_up(request("a")).unwrap(), Some(ObjectRef::blob(short)));
    assert_eq!(store.look_up(request("b")).unwrap(), None);
    assert_eq!(store.pinned(request("a")).unwrap(), Some(ObjectRef::blob(short)));
    assert_eq!(store.pins().unwrap().len(), 1);
    assert!(store.unpin(request("a")).unwrap());
    assert!(!store.unpin(request("a")).unwrap());
    assert_eq!(store.pins().unwrap(), []);
}

#[test]
fn objects_entries_and_pins_are_found_before_they_are_committed() {
    let directory = tempfile::tempdir().unwrap();
    let store =
        DurableStore::options().group_time(Duration::from_secs(3600)).hot_bytes(0).hot_entries(0);
    let store = store.open(directory.path()).unwrap();
    let id = store.write(blob("fresh")).unwrap();
    store.record(request("a"), ObjectRef::blob(id)).unwrap();
    store.pin(request("a"), ObjectRef::blob(id)).unwrap();
    for _ in 0..2 {
        assert_eq!(store.read(id).unwrap(), Some(blob("fresh")));
        assert_eq!(store.kind(id).unwrap(), Some(ObjectKind::Blob));
        assert_eq!(store.look_up(request("a")).unwrap(), Some(ObjectRef::blob(id)));
        assert_eq!(store.pinned(request("a")).unwrap(), Some(ObjectRef::blob(id)));
        // The second iteration reads all of them from the file.
        store.flush().unwrap();
    }
}

#[test]
fn a_too_large_object_is_an_error_and_does_not_affect_other_writes() {
    let directory = tempfile::tempdir().unwrap();
    let store = lazy(directory.path());
    // The pages of the object are never touched, so it takes no memory.
    let error = store.write(Object::blob(vec![0; (3 << 30) + 1])).unwrap_err();
    assert!(error.to_string().contains("over the store's limit of"), "{error}");
    store.write(blob("small")).unwrap();
    store.flush().unwrap();
}

#[test]
fn concurrent_writes_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let options = DurableStore::options()
        .group_time(Duration::from_millis(1))
        .group_bytes(2000)
        .pending_bytes(4000);
    let store = Arc::new(options.hot_bytes(10_000).open(directory.path()).unwrap());
    let threads = (0..4).map(|thread| {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            for number in 0..500 {
                let text = format!("{thread}/{number}");
                let id = store.write(blob(&text)).unwrap();
                store.record(request(&text), ObjectRef::blob(id)).unwrap();
                assert_eq!(store.read(id).unwrap(), Some(blob(&text)));
                assert_eq!(store.look_up(request(&text)).unwrap(), Some(ObjectRef::blob(id)));
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    drop(store);
    let verified = DurableStore::open(directory.path()).unwrap().verify(|_| ()).unwrap();
    assert_eq!(
        (verified.objects, verified.entries, verified.entries_without_object),
        (2000, 2000, 0)
    );
    assert_eq!(verified.damages, []);
}

#[test]
fn a_read_only_store_can_be_read_and_rejects_writes() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::open(directory.path()).unwrap();
    let id = store.write(blob("there")).unwrap();
    store.record(request("a"), ObjectRef::blob(id)).unwrap();
    store.pin(request("a"), ObjectRef::blob(id)).unwrap();
    drop(store);

    let store = DurableStore::options().read_only(true).open(directory.path()).unwrap();
    assert!(store.is_read_only());
    assert_eq!(store.read(id).unwrap(), Some(blob("there")));
    assert_eq!(store.look_up(request("a")).unwrap(), Some(ObjectRef::blob(id)));
    assert_eq!(store.pins().unwrap().len(), 1);
    assert_eq!(store.verify(|_| {}).unwrap().damages, []);
    for refused in [
        store.write(blob("more")).map(drop),
        store.record(request("b"), ObjectRef::blob(id)),
        store.pin(request("b"), ObjectRef::blob(id)),
        store.unpin(request("a")).map(drop),
        store.collect(&Keep::default(), |_| {}).map(drop),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("open read-only"), "{error}");
    }

    // With a memory store over it, it can be written to.
    let both = Overlaid::new(MemoryStore::new(), store);
    let more = both.write(blob("more")).unwrap();
    both.record(request("b"), ObjectRef::blob(more)).unwrap();
    both.pin(request("b"), ObjectRef::blob(more)).unwrap();
    assert_eq!(both.read(id).unwrap(), Some(blob("there")));
    assert_eq!(both.read(more).unwrap(), Some(blob("more")));
    assert_eq!(both.look_up(request("a")).unwrap(), Some(ObjectRef::blob(id)));
    assert_eq!(both.look_up(request("b")).unwrap(), Some(ObjectRef::blob(more)));
    assert_eq!(both.pins().unwrap().len(), 2);

    let nothing = tempfile::tempdir().unwrap();
    let error = DurableStore::options().read_only(true).open(nothing.path()).err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    assert!(fs::read_dir(nothing.path()).unwrap().next().is_none(), "no file was created");
}

/// Operations on a closed store return errors and do not open the file again.
#[test]
fn a_store_can_be_closed_while_it_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let store = lazy(directory.path());
    let id = store.write(blob("kept")).unwrap();
    store.close();
    let reader = DurableStore::options().read_only(true).open(directory.path()).unwrap();
    assert!(reader.read(id).unwrap().is_some(), "what was pending is written");
    drop(reader);
    for _ in 0..3 {
        assert!(store.write(blob("late")).is_err());
        assert!(store.read(request("another")).is_err());
        assert!(store.look_up(request("another")).is_err());
    }
    store.close();
    drop(store);
    assert!(DurableStore::options().read_only(true).open(directory.path()).is_ok());
}
