//! Objects that are written can be read.

use std::sync::Arc;

use manifold_dispatcher::Store;
use manifold_runtime_api::{EntryMode, ObjectId};

use super::{StoreFixture, request, write, write_samples};
use crate::check::{Step, ensure_eq, violation};
use crate::content::{
    Known, ensure_found, ensure_ranges, ensure_size, ensure_unknown, neighbor, samples, succeeds,
    tree, unknown_id,
};

/// > After `write` returns an id, `read` finds the object under that id.
///
/// Writes and reads blobs and trees of every form. The id is the one that git computes.
pub(super) fn written_objects_are_read(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    for known in samples()? {
        write(&*store, &known)?;
        ensure_found(&store, &known)?;
    }
    write_samples(&*store)?.iter().try_for_each(|known| ensure_found(&store, known))
}

/// > Reads the bytes in `range` of an object's content. The part of `range` beyond the end is
/// > ignored.
///
/// Reads sizes and ranges of blobs and trees.
pub(super) fn written_objects_have_ranges(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    for known in write_samples(&*store)? {
        ensure_size(&store, &known)?;
        ensure_ranges(&store, &known)?;
    }
    Ok(())
}

/// > After `write` returns an id, `read` finds the object under that id.
///
/// Writes a blob of more than 1 MiB that does not compress, and a tree of 10,000 entries.
pub(super) fn large_objects_are_read(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    // A linear congruential generator, whose upper bits are random enough.
    let mut state = 1u64;
    let noise = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let blob = Known::blob(noise.take((1 << 20) + 1).collect::<Vec<_>>());
    let names: Vec<String> = (0..10_000).map(|number| format!("entry {number:05}")).collect();
    let entries = names.iter().map(|name| (name.as_str(), EntryMode::Blob, blob.id));
    for known in [tree(entries)?, blob] {
        write(&*store, &known)?;
        ensure_found(&store, &known)?;
        ensure_size(&store, &known)?;
        ensure_ranges(&store, &known)?;
    }
    Ok(())
}

/// > Stores an object and returns its id. Has no effect if the object is already there.
///
/// Writes all objects twice.
pub(super) fn an_object_is_written_twice(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    let samples = write_samples(&*store)?;
    for known in samples.iter().rev() {
        write(&*store, known)?;
        ensure_found(&store, known)?;
    }
    samples.iter().try_for_each(|known| ensure_found(&store, known))
}

/// > Reads an object. Returns `None` if the source does not have it.
///
/// Reads ids that were never written, one of which is similar to that of an object, and one that
/// is a request in the memo and in the pins.
pub(super) fn unknown_ids_are_not_found(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    ensure_unknown(&store, "an id in an empty store", unknown_id())?;
    let samples = write_samples(&*store)?;
    let request = unknown_id();
    for known in &samples {
        succeeds("`record`", store.record(request, known.reference()))?;
        succeeds("`pin`", store.pin(request, known.reference()))?;
        ensure_unknown(&store, "an id that differs in one bit", neighbor(known.id))?;
    }
    ensure_unknown(&store, "an id that is only a request", request)
}

const THREADS: usize = 8;
const OBJECTS_OF_A_THREAD: usize = 50;

/// > Methods may block for as long as a disk access takes, and may be called from any thread.
///
/// Eight threads write, read, record and pin at once. Half of what they write is the same.
pub(super) fn threads_write_and_read_at_once(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || work(&*store, thread))
        })
        .collect();
    for thread in threads {
        let ended = thread.join();
        ended.map_err(|_| violation("no method of the store to panic", "a panic"))??;
    }
    for (thread, number) in numbers() {
        ensure_work(&*store, thread, number)?;
    }
    ensure_eq("the number of pins", succeeds("`pins`", store.pins())?.len(), numbers().count())
}

fn numbers() -> impl Iterator<Item = (usize, usize)> {
    (0..THREADS).flat_map(|thread| (0..OBJECTS_OF_A_THREAD).map(move |number| (thread, number)))
}

/// Returns the object that a thread writes, and the id of its request. Objects with even numbers
/// are the same for all threads.
fn objects(thread: usize, number: usize) -> (Known, ObjectId) {
    let owner = if number.is_multiple_of(2) { THREADS } else { thread };
    let known = Known::blob(format!("object {number} of {owner}").repeat(50));
    (known, request(thread * OBJECTS_OF_A_THREAD + number))
}

fn work(store: &dyn Store, thread: usize) -> Step {
    for number in 0..OBJECTS_OF_A_THREAD {
        let (known, request) = objects(thread, number);
        write(store, &known)?;
        succeeds("`record`", store.record(request, known.reference()))?;
        succeeds("`pin`", store.pin(request, known.reference()))?;
        ensure_work(store, thread, number)?;
    }
    Ok(())
}

fn ensure_work(store: &dyn Store, thread: usize, number: usize) -> Step {
    let (known, request) = objects(thread, number);
    let read = succeeds("`read`", store.read(known.id))?;
    ensure_eq("an object that a thread wrote", read.as_ref(), Some(&known.object))?;
    let entry = succeeds("`look_up`", store.look_up(request))?;
    ensure_eq("an entry that a thread recorded", entry, Some(known.reference()))?;
    let pin = succeeds("`pinned`", store.pinned(request))?;
    ensure_eq("a pin that a thread set", pin, Some(known.reference()))
}
