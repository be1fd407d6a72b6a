//! Files that are not stores, and damaged values in stores.

use std::fs;

use manifold_dispatcher::api::{Object, ObjectRef};
use manifold_dispatcher::{Damage, DurableStore, ObjectSource, OpenError, Store};

use crate::{blob, nothing_but_pins, request, tamper};

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
