//! What outlives the store, and what outlives a collection.

use std::sync::Arc;

use manifold_dispatcher::Store;
use manifold_runtime_api::{EntryMode, ObjectRef};

use super::{StoreFixture, request, write, write_samples};
use crate::check::{Step, ensure, ensure_eq, skip};
use crate::content::{Known, describe, ensure_found, succeeds, tree};

/// Closes and reopens a store, or skips the check.
fn reopen(fixture: &dyn StoreFixture, store: Arc<dyn Store>) -> Step<Arc<dyn Store>> {
    match fixture.reopen(store) {
        Some(store) => Ok(store),
        None => skip("the fixture does not reopen stores"),
    }
}

/// > Makes everything that was written so far durable, as far as the store supports it.
///
/// Flushes a store, reopens it, and finds all objects, entries and pins.
pub(super) fn flushed_data_is_kept(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    let samples = write_samples(&*store)?;
    for (number, known) in samples.iter().enumerate() {
        succeeds("`record`", store.record(request(number), known.reference()))?;
        succeeds("`pin`", store.pin(request(number), known.reference()))?;
    }
    succeeds("`unpin`", store.unpin(request(0)))?;
    succeeds("`flush`", store.flush())?;
    let store = reopen(fixture, store)?;
    for (number, known) in samples.iter().enumerate() {
        ensure_found(&store, known)?;
        let expected = Some(known.reference());
        let entry = succeeds("`look_up`", store.look_up(request(number)))?;
        ensure_eq("an entry after `flush` and a restart", entry, expected)?;
        let pin = succeeds("`pinned`", store.pinned(request(number)))?;
        let expected = expected.filter(|_| number != 0);
        ensure_eq("a pin after `flush` and a restart", pin, expected)?;
    }
    let pins = succeeds("`pins`", store.pins())?.len();
    ensure_eq("the number of pins after `flush` and a restart", pins, samples.len() - 1)
}

/// The number of requests in the checks of what is durable without `flush`.
const REQUESTS: usize = 100;

/// The object of a request in these checks: a tree, and the blob in it.
fn objects(number: usize) -> Step<[Known; 2]> {
    let blob = Known::blob(format!("content {number}"));
    let tree = tree([("content", EntryMode::Blob, blob.id)])?;
    Ok([blob, tree])
}

/// Ensures that a store which was reopened has the objects of a request. `mark` is the entry or the
/// pin.
fn ensure_complete(store: &dyn Store, mark: &str, number: usize, outcome: ObjectRef) -> Step {
    let [blob, tree] = objects(number)?;
    ensure_eq(&format!("the outcome of the {mark}"), outcome, tree.reference())?;
    for known in [tree, blob] {
        let found = succeeds("`read`", store.read(known.id))?;
        ensure(
            found.as_ref() == Some(&known.object),
            format!("a {mark} after a restart to have its objects, for example {known}"),
            || describe(found),
        )?;
    }
    Ok(())
}

/// > When `record` or `pin` returns, all objects written before are at least as durable as the
/// > entry or pin.
///
/// Writes objects, records entries, and reopens the store without a flush. Entries may be lost, and
/// those that are found must have their objects.
pub(super) fn an_entry_comes_after_its_objects(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    for number in 0..REQUESTS {
        let [blob, tree] = objects(number)?;
        write(&*store, &blob)?;
        write(&*store, &tree)?;
        succeeds("`record`", store.record(request(number), tree.reference()))?;
    }
    let store = reopen(fixture, store)?;
    for number in 0..REQUESTS {
        if let Some(outcome) = succeeds("`look_up`", store.look_up(request(number)))? {
            ensure_complete(&*store, "memo entry", number, outcome)?;
        }
    }
    Ok(())
}

/// > When `record` or `pin` returns, all objects written before are at least as durable as the
/// > entry or pin.
///
/// Writes objects, sets pins, and reopens the store without a flush. Pins may be lost, and those
/// that are found must have their objects.
pub(super) fn a_pin_comes_after_its_objects(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    for number in 0..REQUESTS {
        let [blob, tree] = objects(number)?;
        write(&*store, &blob)?;
        write(&*store, &tree)?;
        succeeds("`pin`", store.pin(request(number), tree.reference()))?;
    }
    let store = reopen(fixture, store)?;
    for number in 0..REQUESTS {
        if let Some(outcome) = succeeds("`pinned`", store.pinned(request(number)))? {
            ensure_complete(&*store, "pin", number, outcome)?;
        }
    }
    Ok(())
}

/// > No eviction or collection removes an object that a pin reaches.
///
/// Pins a chain of nested trees and a single blob, and collects twice.
pub(super) fn what_a_pin_reaches_survives_a_collection(fixture: &dyn StoreFixture) -> Step {
    const LEVELS: usize = 50;
    let store = fixture.store();
    let mut reached = Vec::new();
    let mut below = Known::blob("the bottom");
    for level in 0..LEVELS {
        let file = Known::blob(format!("file of level {level}"));
        let mode = EntryMode::plain(below.object.kind);
        let tree = tree([("below", mode, below.id), ("file", EntryMode::Blob, file.id)])?;
        reached.extend([file, below]);
        below = tree;
    }
    reached.push(below.clone());
    let single = Known::blob("a single blob");
    reached.push(single.clone());
    reached.iter().try_for_each(|known| write(&*store, known))?;
    succeeds("`pin`", store.pin(request(0), below.reference()))?;
    succeeds("`pin`", store.pin(request(1), single.reference()))?;
    write_samples(&*store)?;
    for _ in 0..2 {
        if !fixture.collect(&store) {
            return skip("the fixture has no eviction and no collection");
        }
        reached.iter().try_for_each(|known| ensure_found(&store, known))?;
        let pins = succeeds("`pins`", store.pins())?.len();
        ensure_eq("the number of pins after a collection", pins, 2)?;
    }
    Ok(())
}

/// > Returns whether only the embedder removes objects from this store, and no other process or
/// > collection does.
///
/// If the store claims so, a collection removes nothing.
pub(super) fn a_store_that_keeps_everything_does(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    if !store.keeps_everything() {
        return skip("the store does not claim to keep everything");
    }
    let samples = write_samples(&*store)?;
    if !fixture.collect(&store) {
        return skip("the fixture has no eviction and no collection");
    }
    samples.iter().try_for_each(|known| ensure_found(&store, known))?;
    ensure(store.keeps_everything(), "the store to claim so after a collection, too", || {
        "that it does not keep everything".to_owned()
    })
}
