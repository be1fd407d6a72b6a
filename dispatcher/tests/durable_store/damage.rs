//! Files that are not stores, and damaged values in stores.

use std::fs;

use manifold_dispatcher::api::{Object, ObjectRef};
use manifold_dispatcher::{Damage, DurableStore, ObjectSource, OpenError, Store};

use crate::{blob, flip_in_chunk, nothing_but_pins, request, tamper};

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

#[test]
fn a_damaged_value_is_reported_and_not_returned_and_can_be_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let long = Object::blob(vec![7; 50_000]);
    let store = DurableStore::open(directory.path()).unwrap();
    let short = store.write(blob("short")).unwrap();
    store.write(long.clone()).unwrap();
    let intact = store.write(blob("intact")).unwrap();
    store.record(request("a"), ObjectRef::blob(intact)).unwrap();
    store.record(request("b"), ObjectRef::blob(intact)).unwrap();
    store.pin(request("a"), ObjectRef::blob(intact)).unwrap();
    store.pin(request("b"), ObjectRef::blob(long.id())).unwrap();
    drop(store);
    flip_in_chunk(directory.path(), short, 5);
    flip_in_chunk(directory.path(), request("a"), 10);
    tamper(directory.path(), "contents", |_, content| {
        content[100] ^= 1;
        true
    });
    tamper(directory.path(), "pins", |key, pin| {
        pin[20] ^= 1;
        key == request("a").as_bytes()
    });

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

#[test]
fn a_malformed_chunk_is_reported_and_what_is_left_of_it_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::open(directory.path()).unwrap();
    let [lost, intact] = ["lost", "intact"].map(|text| store.write(blob(text)).unwrap());
    store.pin(request("a"), ObjectRef::blob(intact)).unwrap();
    drop(store);
    // The kind of the object, which is neither that of a blob nor of a tree.
    flip_in_chunk(directory.path(), lost, 0);

    let store = DurableStore::open(directory.path()).unwrap();
    assert!(store.read(lost).unwrap_err().to_string().contains("is damaged"));
    let verified = store.verify(|_| ()).unwrap();
    assert!(matches!(&verified.damages[..], [Damage::Chunk { .. }]), "{:?}", verified.damages);
    // It could be a tree that a pin reaches, and that keeps others.
    let error = store.collect(&nothing_but_pins(), |_| ()).unwrap_err();
    assert!(error.to_string().contains("`manifold verify --repair`"), "{error}");
    store.drop_damaged(&verified).unwrap();
    assert_eq!(store.verify(|_| ()).unwrap().damages, []);
    assert_eq!(store.collect(&nothing_but_pins(), |_| ()).unwrap().kept_objects, 1);
    assert_eq!(store.read(lost).unwrap(), None);
    assert_eq!(store.read(intact).unwrap(), Some(blob("intact")));
}
