//! The durable store: persistence, sharing between openers, detection of damage, and collection.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use manifold_dispatcher::api::{
    EntryMode, Object, ObjectId, ObjectKind, ObjectRef, Tree, TreeEntry,
};
use manifold_dispatcher::layers::Overlaid;
use manifold_dispatcher::{
    Damage, DurableStore, Keep, MemoryStore, ObjectSource, OpenError, Store,
};
use proptest::prelude::*;
use redb::ReadableTable;

fn blob(text: &str) -> Object {
    Object::blob(text.to_owned())
}

fn request(name: &str) -> ObjectId {
    ObjectId::of(ObjectKind::Blob, name.as_bytes())
}

/// Opens a store that commits only when it is flushed, so that tests control the commits.
fn lazy(directory: &Path) -> DurableStore {
    DurableStore::options().group_time(Duration::MAX).open(directory).unwrap()
}

/// The time after which a store sees the changes of another opener.
const REFRESH_TIME: Duration = Duration::from_millis(1100);

/// Returns the options of a collection that keeps only what pins reach.
fn nothing_but_pins() -> Keep {
    let mut keep = Keep::default();
    keep.used_within = Duration::ZERO;
    keep.written_within = Duration::ZERO;
    keep
}

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
fn two_openers_see_each_others_commits() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (lazy(directory.path()), lazy(directory.path()));
    let id = one.write(blob("shared")).unwrap();
    one.record(request("a"), ObjectRef::blob(id)).unwrap();
    assert_eq!(two.look_up(request("a")).unwrap(), None, "not committed yet");
    one.flush().unwrap();
    std::thread::sleep(REFRESH_TIME);
    assert_eq!(two.look_up(request("a")).unwrap(), Some(ObjectRef::blob(id)));
    assert_eq!(two.read(id).unwrap(), Some(blob("shared")));
    two.write(blob("back")).unwrap();
    two.flush().unwrap();
    drop(two);
    one.flush().unwrap();
    drop(one);
    assert_eq!(DurableStore::open(directory.path()).unwrap().verify(|_| ()).unwrap().objects, 2);
}

#[test]
fn a_collection_by_another_opener_leaves_no_pin_dangling() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (lazy(directory.path()), lazy(directory.path()));
    let leaf = one.write(blob("leaf")).unwrap();
    let outcome = one.write(tree(&[("leaf", EntryMode::Blob, leaf)])).unwrap();
    one.record(request("a"), ObjectRef::tree(outcome)).unwrap();
    one.flush().unwrap();
    two.collect(&nothing_but_pins(), |_| ()).unwrap();
    // The first opener has all of them in memory, and does not know of the collection yet.
    one.write(blob("leaf")).unwrap();
    one.record(request("b"), ObjectRef::tree(outcome)).unwrap();
    one.pin(request("b"), ObjectRef::tree(outcome)).unwrap();
    one.flush().unwrap();
    let verified = DurableStore::open(directory.path()).unwrap().verify(|_| ()).unwrap();
    assert_eq!(
        (verified.damages, verified.pins, verified.entries_without_object),
        (Vec::new(), 1, 0)
    );

    std::thread::sleep(REFRESH_TIME);
    assert_eq!(one.look_up(request("a")).unwrap(), None, "it has seen the collection");
    two.unpin(request("b")).unwrap();
    two.flush().unwrap();
    std::thread::sleep(REFRESH_TIME);
    assert_eq!(one.pinned(request("b")).unwrap(), None);
}

#[test]
fn a_store_whose_file_is_deleted_creates_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = lazy(directory.path());
    let id = store.write(blob("gone")).unwrap();
    store.record(request("a"), ObjectRef::blob(id)).unwrap();
    store.flush().unwrap();
    fs::remove_file(store.file()).unwrap();
    std::thread::sleep(REFRESH_TIME);
    assert_eq!(store.look_up(request("a")).unwrap(), None);
    store.write(blob("gone")).unwrap();
    store.record(request("a"), ObjectRef::blob(id)).unwrap();
    store.flush().unwrap();
    drop(store);
    let store = DurableStore::open(directory.path()).unwrap();
    assert_eq!(store.look_up(request("a")).unwrap(), Some(ObjectRef::blob(id)));
    assert_eq!(store.read(id).unwrap(), Some(blob("gone")));
}

#[test]
fn several_threads_can_create_a_store_at_the_same_time() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let openers = (0..4).map(|number: u32| {
            let directory = directory.path().to_owned();
            std::thread::spawn(move || {
                let store = lazy(&directory);
                store.write(blob(&number.to_string())).unwrap();
                store.flush().unwrap();
            })
        });
        openers.collect::<Vec<_>>().into_iter().for_each(|opener| opener.join().unwrap());
        assert_eq!(lazy(directory.path()).verify(|_| ()).unwrap().objects, 4);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no other file is left");
    }
}

#[test]
fn a_verification_during_writes_finds_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(
        DurableStore::options()
            .group_time(Duration::from_millis(1))
            .open(directory.path())
            .unwrap(),
    );
    let writer = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            for number in 0..2000 {
                let text = number.to_string();
                let id = store.write(blob(&text)).unwrap();
                store.record(request(&text), ObjectRef::blob(id)).unwrap();
                store.pin(request(&text), ObjectRef::blob(id)).unwrap();
            }
        })
    };
    let other = DurableStore::open(directory.path()).unwrap();
    while !writer.is_finished() {
        let verified = other.verify(|_| ()).unwrap();
        assert_eq!((verified.damages, verified.entries_without_object), (Vec::new(), 0));
    }
    writer.join().unwrap();
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
fn a_file_that_is_not_a_store_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("manifold.redb");
    fs::write(&file, "this is a text file and not a database, in spite of its name").unwrap();
    let error = DurableStore::open(directory.path()).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("delete it"), "{error}");

    fs::write(&file, "").unwrap();
    assert!(
        matches!(DurableStore::open(directory.path()).err().unwrap(), OpenError::Damaged { .. }),
        "an empty file is an error, because pins may be lost"
    );
    let error = DurableStore::open(file).err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

#[test]
fn a_store_of_another_format_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let meta: redb::TableDefinition<'_, &str, &str> = redb::TableDefinition::new("meta");
    let database = redb::Database::create(directory.path().join("manifold.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(meta).unwrap().insert("format", "manifold-store-99").unwrap();
    transaction.commit().unwrap();

    let error = DurableStore::open(directory.path()).err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    drop(database);
    let error = DurableStore::open(directory.path()).err().unwrap();
    assert!(
        matches!(&error, OpenError::Format { found, .. } if found == "manifold-store-99"),
        "{error:?}"
    );
}

/// Changes the value of `key` in `table` with redb alone, without the store's checks.
fn tamper(directory: &Path, table: &str, key: ObjectId, change: impl FnOnce(&mut Vec<u8>)) {
    let table: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new(table);
    let database = redb::Database::create(directory.join("manifold.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(table).unwrap();
        let mut value = table.get(key.as_bytes()).unwrap().unwrap().value().to_vec();
        change(&mut value);
        table.insert(key.as_bytes(), &*value).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_damaged_value_is_reported_and_not_returned_and_can_be_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let long = Object::blob(vec![7; 5000]);
    let store = DurableStore::open(directory.path()).unwrap();
    let short = store.write(blob("short")).unwrap();
    store.write(long.clone()).unwrap();
    let intact = store.write(blob("intact")).unwrap();
    store.record(request("a"), ObjectRef::blob(intact)).unwrap();
    store.record(request("b"), ObjectRef::blob(intact)).unwrap();
    store.pin(request("a"), ObjectRef::blob(intact)).unwrap();
    store.pin(request("b"), ObjectRef::blob(long.id())).unwrap();
    drop(store);
    let flip = |value: &mut Vec<u8>| *value.last_mut().unwrap() ^= 1;
    tamper(directory.path(), "objects", short, flip);
    tamper(directory.path(), "contents", long.id(), flip);
    tamper(directory.path(), "memo", request("a"), flip);
    tamper(directory.path(), "pins", request("a"), flip);

    let store = DurableStore::open(directory.path()).unwrap();
    for error in [
        store.read(short).unwrap_err(),
        store.read(long.id()).unwrap_err(),
        store.look_up(request("a")).unwrap_err(),
        store.pinned(request("a")).unwrap_err(),
    ] {
        assert!(error.to_string().contains("is damaged"), "{error}");
    }
    assert!(store.pins().is_err(), "a list without the damaged pin would be wrong");
    assert!(
        store.collect(&nothing_but_pins(), |_| ()).is_err(),
        "it is not known what the damaged pin keeps"
    );
    assert_eq!(store.look_up(request("b")).unwrap(), Some(ObjectRef::blob(intact)));
    let verified = store.verify(|_| ()).unwrap();
    let mut expected = vec![
        Damage::Object { id: short },
        Damage::Object { id: long.id() },
        Damage::Entry { request: request("a") },
        Damage::Pin { request: request("a") },
        Damage::Incomplete { request: request("b"), missing: long.id() },
    ];
    let sort = |damages: &mut Vec<Damage>| damages.sort_by_key(ToString::to_string);
    let mut found = verified.damages.clone();
    sort(&mut expected);
    sort(&mut found);
    assert_eq!(found, expected);

    store.drop_damaged(&verified).unwrap();
    assert_eq!(store.verify(|_| ()).unwrap().damages, []);
    assert_eq!(store.read(short).unwrap(), None);
    assert_eq!(store.look_up(request("a")).unwrap(), None);
    store.write(blob("short")).unwrap();
    store.flush().unwrap();
    assert_eq!(store.read(short).unwrap(), Some(blob("short")));
}

fn tree(entries: &[(&str, EntryMode, ObjectId)]) -> Object {
    Tree::new(entries.iter().map(|(name, mode, id)| TreeEntry::new(*name, *mode, *id)))
        .unwrap()
        .to_object()
}

#[test]
fn a_collection_keeps_what_pins_reach() {
    let directory = tempfile::tempdir().unwrap();
    let store = lazy(directory.path());
    let leaf = store.write(blob("leaf")).unwrap();
    let inner = store.write(tree(&[("leaf", EntryMode::Blob, leaf)])).unwrap();
    let outer = store.write(tree(&[("inner", EntryMode::Tree, inner)])).unwrap();
    let garbage = store.write(Object::blob(vec![1; 2_000_000])).unwrap();
    let module = store.write(blob("code")).unwrap();
    let marker = store.write(blob(&request("host").to_string())).unwrap();
    let image = [(".caos-runtime", EntryMode::Blob, marker), ("module", EntryMode::Blob, module)];
    let image = store.write(tree(&image)).unwrap();
    let std = store.write(tree(&[("name", EntryMode::Tree, image)])).unwrap();
    let (image_text, std_text) = (blob(&image.to_string()), blob(&std.to_string()));
    let empty = store.write(blob("")).unwrap();
    let wanted = tree(&[
        ("args", EntryMode::Tree, inner),
        ("image", EntryMode::Blob, store.write(image_text).unwrap()),
        ("salt", EntryMode::Blob, empty),
        ("std", EntryMode::Blob, store.write(std_text).unwrap()),
    ]);
    let wanted = store.write(wanted).unwrap();
    store.pin(wanted, ObjectRef::tree(outer)).unwrap();
    store.record(wanted, ObjectRef::tree(outer)).unwrap();
    store.record(request("forgotten"), ObjectRef::blob(garbage)).unwrap();

    let collected = store.collect(&nothing_but_pins(), |_| ()).unwrap();
    assert_eq!((collected.dropped_objects, collected.dropped_entries), (1, 1), "{collected:?}");
    assert_eq!((collected.kept_entries, collected.kept_pins), (1, 1));
    assert!(collected.compacted);
    assert!(fs::metadata(store.file()).unwrap().len() < 1_000_000);
    for id in [leaf, inner, outer, wanted, image, module, marker, std] {
        assert!(store.read(id).unwrap().is_some(), "{id}");
    }
    assert_eq!(store.read(garbage).unwrap(), None);
    assert_eq!(store.look_up(request("forgotten")).unwrap(), None);
    assert_eq!(store.verify(|_| ()).unwrap().damages, []);

    store.unpin(wanted).unwrap();
    store.collect(&nothing_but_pins(), |_| ()).unwrap();
    assert_eq!(store.read(leaf).unwrap(), None);
    assert_eq!(store.verify(|_| ()).unwrap().objects, 0);
}

#[test]
fn a_collection_keeps_recently_used_entries_up_to_a_size() {
    let directory = tempfile::tempdir().unwrap();
    let store = lazy(directory.path());
    for number in 0..10u8 {
        let id = store.write(Object::blob(vec![number; 1000])).unwrap();
        store.record(request(&number.to_string()), ObjectRef::blob(id)).unwrap();
    }
    let mut keep = nothing_but_pins();
    keep.used_within = Duration::from_secs(3600);
    assert_eq!(store.collect(&keep, |_| ()).unwrap().dropped_objects, 0);
    keep.at_most_bytes = Some(3500);
    let collected = store.collect(&keep, |_| ()).unwrap();
    assert_eq!((collected.kept_objects, collected.kept_entries), (3, 3));
    // Memo entries and their objects are collected together.
    let verified = store.verify(|_| ()).unwrap();
    assert_eq!((verified.objects, verified.entries, verified.entries_without_object), (3, 3, 0));
    keep.pinned_within = Some(Duration::ZERO);
    store.pin(request("p"), ObjectRef::blob(ObjectId::empty_tree())).unwrap();
    assert_eq!(store.collect(&keep, |_| ()).unwrap().dropped_pins, 1);
    assert_eq!(store.pins().unwrap(), []);
}

#[test]
fn a_collection_keeps_recently_written_objects() {
    let directory = tempfile::tempdir().unwrap();
    let store = lazy(directory.path());
    let id = store.write(blob("about to be named")).unwrap();
    let mut keep = nothing_but_pins();
    keep.written_within = Duration::from_secs(3600);
    store.collect(&keep, |_| ()).unwrap();
    assert!(store.read(id).unwrap().is_some());
}

/// The bytes of a store's file, and the requests in it with the objects of their outcomes.
type Sample = (Vec<u8>, Vec<(ObjectId, Object)>);

/// Creates a store with a hundred outcomes.
fn sample() -> Sample {
    let directory = tempfile::tempdir().unwrap();
    let store = lazy(directory.path());
    let mut objects = Vec::new();
    for number in 0..100usize {
        let object = Object::blob(number.to_string().repeat(1 + number * 7));
        let id = store.write(object.clone()).unwrap();
        store.record(request(&number.to_string()), ObjectRef::blob(id)).unwrap();
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
    for (request, object) in objects {
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

/// A timestamp in the year 2060, as a wrong clock would write it, in minutes since 1970.
const IN_2060: [u8; 4] = (90 * 365 * 24 * 60_u32).to_le_bytes();

/// Returns the timestamp of an object, in minutes since 1970.
fn stamp_of_object(directory: &Path, id: ObjectId) -> u32 {
    let mut stamp = 0;
    tamper(directory, "objects", id, |value| {
        stamp = u32::from_le_bytes(value[2..6].try_into().unwrap())
    });
    stamp
}

/// Sets the timestamp of a memo entry or pin to the year 2060, and updates its checksum.
fn misdate(directory: &Path, table: &str, request: ObjectId) {
    tamper(directory, table, request, |value| {
        value[1..5].copy_from_slice(&IN_2060);
        let checked = [request.as_bytes(), &value[..5], &value[9..]].concat();
        value[5..9].copy_from_slice(&crc32fast::hash(&checked).to_le_bytes());
    });
}

#[test]
fn timestamps_in_the_future_are_corrected_by_use_and_do_not_keep_anything() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::open(directory.path()).unwrap();
    let (used, unused, pinned) = (blob("used"), blob("unused"), blob("pinned"));
    for (name, object) in [("used", &used), ("unused", &unused), ("pinned", &pinned)] {
        store.write(object.clone()).unwrap();
        store.record(request(name), ObjectRef::blob(object.id())).unwrap();
    }
    store.pin(request("pinned"), ObjectRef::blob(pinned.id())).unwrap();
    drop(store);
    for (name, object) in [("used", &used), ("unused", &unused), ("pinned", &pinned)] {
        tamper(directory.path(), "objects", object.id(), |value| {
            value[2..6].copy_from_slice(&IN_2060)
        });
        misdate(directory.path(), "memo", request(name));
    }
    misdate(directory.path(), "pins", request("pinned"));

    let store = DurableStore::open(directory.path()).unwrap();
    store.write(used.clone()).unwrap();
    assert!(store.look_up(request("used")).unwrap().is_some());
    drop(store);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 60;
    assert!(u64::from(stamp_of_object(directory.path(), used.id())) <= now);

    let store = DurableStore::open(directory.path()).unwrap();
    let mut keep = Keep::default();
    keep.pinned_within = Some(Duration::from_secs(24 * 60 * 60));
    let collected = store.collect(&keep, |_| {}).unwrap();
    assert_eq!((collected.kept_objects, collected.dropped_objects), (2, 1), "{collected:?}");
    assert!(store.look_up(request("used")).unwrap().is_some());
    assert!(store.look_up(request("unused")).unwrap().is_none());
    // The pin is kept, and its age counts from now on.
    assert_eq!(store.pins().unwrap().len(), 1);
    drop(store);
    tamper(directory.path(), "pins", request("pinned"), |value| {
        assert!(u64::from(u32::from_le_bytes(value[1..5].try_into().unwrap())) <= now + 1);
    });
}

#[test]
fn waiting_for_a_lock_reports_the_process_that_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    drop(DurableStore::open(directory.path()).unwrap());
    // Another opener of the file, like another process, in a long write transaction.
    let mut builder = redb::Builder::new();
    builder.set_concurrency_mode(redb::ConcurrencyMode::MultiWriter);
    let other = builder.open(directory.path().join("manifold.redb")).unwrap();
    let writing = other.begin_write().unwrap();
    let (sender, waits) = std::sync::mpsc::channel();
    let path = directory.path().to_owned();
    let waiting = std::thread::spawn(move || {
        let sender = std::sync::Mutex::new(sender);
        let options = DurableStore::options()
            .on_wait(move |waits| sender.lock().unwrap().send(waits.clone()).unwrap());
        options.open(path).map(drop)
    });
    let waits = waits.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(waits.file, directory.path().join("manifold.redb"));
    if cfg!(target_os = "linux") {
        assert_eq!(waits.holder, Some(std::process::id()));
        assert!(waits.to_string().contains(&format!("process {}", std::process::id())), "{waits}");
    }
    assert!(!waiting.is_finished());
    drop(writing);
    waiting.join().unwrap().unwrap();
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
