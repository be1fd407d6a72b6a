//! Timestamps that a wrong clock wrote.

use std::path::Path;
use std::time::Duration;

use manifold_dispatcher::api::{ObjectId, ObjectRef};
use manifold_dispatcher::{DurableStore, Keep, Store};

use crate::{blob, change_stamp, lazy, request, tamper};

/// A timestamp in the year 2060, as a wrong clock would write it, in minutes since 1970.
const IN_2060: [u8; 4] = (90 * 365 * 24 * 60_u32).to_le_bytes();

/// Sets the timestamp of a pin to the year 2060, and updates its checksum.
fn misdate_pin(directory: &Path, request: ObjectId) {
    tamper(directory, "pins", |key, value| {
        value[1..5].copy_from_slice(&IN_2060);
        let checked = [request.as_bytes(), &value[..5], &value[9..]].concat();
        value[5..9].copy_from_slice(&crc32fast::hash(&checked).to_le_bytes());
        key == request.as_bytes()
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
        for id in [object.id(), request(name)] {
            change_stamp(directory.path(), id, |stamp| *stamp = IN_2060);
        }
    }
    misdate_pin(directory.path(), request("pinned"));

    let store = DurableStore::open(directory.path()).unwrap();
    store.write(used.clone()).unwrap();
    assert!(store.look_up(request("used")).unwrap().is_some());
    drop(store);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 60;
    let mut stamps = Vec::new();
    change_stamp(directory.path(), used.id(), |stamp| stamps.push(u32::from_le_bytes(*stamp)));
    // The request has the same id, so the newest two are those of the object and of the entry.
    assert!(stamps[..2].iter().all(|stamp| u64::from(*stamp) <= now), "{stamps:?}");

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
    tamper(directory.path(), "pins", |_, value| {
        assert!(u64::from(u32::from_le_bytes(value[1..5].try_into().unwrap())) <= now + 1);
        true
    });
}

/// A use renews the timestamps of what another opener has replaced or removed meanwhile.
#[test]
fn a_renewal_undoes_no_change_of_another_opener() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::open(directory.path()).unwrap();
    let [old, new] = ["old", "new"].map(|text| ObjectRef::blob(store.write(blob(text)).unwrap()));
    for name in ["replaced", "removed", "used"] {
        store.record(request(name), old).unwrap();
        store.pin(request(name), old).unwrap();
    }
    drop(store);
    for name in ["replaced", "removed", "used"] {
        change_stamp(directory.path(), request(name), |stamp| *stamp = IN_2060);
        misdate_pin(directory.path(), request(name));
    }

    let (one, two) = (lazy(directory.path()), lazy(directory.path()));
    for name in ["replaced", "removed", "used"] {
        assert_eq!(one.look_up(request(name)).unwrap(), Some(old));
        assert_eq!(one.pinned(request(name)).unwrap(), Some(old));
    }
    two.record(request("replaced"), new).unwrap();
    two.pin(request("replaced"), new).unwrap();
    assert!(two.unpin(request("removed")).unwrap());
    two.flush().unwrap();
    one.flush().unwrap();
    drop((one, two));
    let store = DurableStore::open(directory.path()).unwrap();
    let found = ["replaced", "removed", "used"]
        .map(|name| (store.look_up(request(name)).unwrap(), store.pinned(request(name)).unwrap()));
    assert_eq!(found, [(Some(new), Some(new)), (Some(old), None), (Some(old), Some(old))]);
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let pinned_at = store.pinned_at(request("used")).unwrap().unwrap();
    assert!(pinned_at < std::time::SystemTime::now() + year, "it was renewed: {pinned_at:?}");
}
