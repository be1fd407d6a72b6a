//! The checks of a source.

use std::sync::Arc;

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::{ObjectId, Reason, Result};

use super::SourceFixture;
use crate::check::{Step, ensure, ensure_eq, short, skip, violation};
use crate::content::{
    Known, ensure_found, ensure_ranges, ensure_size, ensure_unknown, neighbor, succeeds, unknown_id,
};

/// Returns the fixture's source and its objects, or skips the check.
fn parts(fixture: &dyn SourceFixture) -> Step<(Arc<dyn ObjectSource>, Vec<Known>)> {
    let objects = fixture.objects();
    if objects.is_empty() {
        return skip("the fixture names no objects of the source");
    }
    Ok((fixture.source(), objects.into_iter().map(Known::new).collect()))
}

/// > An object that is read by an id always has that id.
///
/// Reads all objects of the fixture, and computes their ids. A source that does not verify its data
/// passes this check on intact data.
pub(super) fn supplied_objects_have_their_ids(fixture: &dyn SourceFixture) -> Step {
    let (source, objects) = parts(fixture)?;
    for known in &objects {
        let found = succeeds(&format!("`read` of {known}"), source.read(known.id))?;
        let found = found.ok_or_else(|| violation(format!("`read` to return {known}"), "None"))?;
        let found = Known::new(found);
        let expected = format!("`read` to return an object with the id {}", known.id);
        ensure(found.id == known.id, expected, || found.to_string())?;
        ensure_found(&source, known)?;
    }
    Ok(())
}

/// > Returns the kind of an object, or `None` if the source does not have the object.
pub(super) fn kinds_are_those_of_the_objects(fixture: &dyn SourceFixture) -> Step {
    let (source, objects) = parts(fixture)?;
    for known in &objects {
        let what = format!("`kind` of {known}");
        let kind = succeeds(&what, source.kind(known.id))?;
        ensure_eq(&what, kind, Some(known.object.kind))?;
    }
    Ok(())
}

/// > Returns the length of an object's content in bytes, or `None` if the source does not have the
/// > object.
///
/// For a tree, that is the length of its encoding.
pub(super) fn sizes_are_those_of_the_objects(fixture: &dyn SourceFixture) -> Step {
    let (source, objects) = parts(fixture)?;
    objects.iter().try_for_each(|known| ensure_size(&source, known))
}

/// > Reads the bytes in `range` of an object's content. The part of `range` beyond the end is
/// > ignored.
pub(super) fn ranges_are_parts_of_the_objects(fixture: &dyn SourceFixture) -> Step {
    let (source, objects) = parts(fixture)?;
    objects.iter().try_for_each(|known| ensure_ranges(&source, known))
}

/// > Reads an object. Returns `None` if the source does not have it.
///
/// Reads unknown ids, some of which are similar to those of objects.
pub(super) fn objects_that_a_source_lacks_are_not_found(fixture: &dyn SourceFixture) -> Step {
    let (source, objects) = parts(fixture)?;
    ensure_unknown(&source, "an unknown id", unknown_id())?;
    for known in &objects {
        let similar = neighbor(known.id);
        ensure_unknown(&source, "an id that differs from an object's in one bit", similar)?;
    }
    Ok(())
}

/// > [`Reason::WrongKind`] if `id` names an object that is neither a blob nor a tree.
pub(super) fn objects_of_other_kinds_are_errors(fixture: &dyn SourceFixture) -> Step {
    let Some(id) = fixture.object_of_another_kind() else {
        return skip("the fixture names no object that is neither a blob nor a tree");
    };
    let source = fixture.source();
    is_wrong_kind("`read`", id, source.read(id))?;
    is_wrong_kind("`kind`", id, source.kind(id))?;
    is_wrong_kind("`size`", id, source.size(id))?;
    is_wrong_kind("`read_range`", id, source.read_range(id, 0..1))
}

fn is_wrong_kind<T: std::fmt::Debug>(method: &str, id: ObjectId, result: Result<T>) -> Step {
    let is_right = matches!(
        &result,
        Err(error) if matches!(error.reason(), Reason::WrongKind { id: named, .. } if *named == id)
    );
    let expected = format!("{method} to fail with Reason::WrongKind, which names the object");
    ensure(is_right, expected, || short(&result))
}

/// > Methods may block for as long as a disk access takes, and may be called from any thread.
///
/// Eight threads read all objects at once, each in another order.
pub(super) fn threads_read_at_once(fixture: &dyn SourceFixture) -> Step {
    const THREADS: usize = 8;
    let (source, objects) = parts(fixture)?;
    let objects = Arc::new(objects);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (source, objects) = (Arc::clone(&source), Arc::clone(&objects));
            std::thread::spawn(move || -> Step {
                let (before, after) = objects.split_at(thread * objects.len() / THREADS);
                for known in after.iter().chain(before) {
                    ensure_found(&source, known)?;
                    ensure_size(&source, known)?;
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        let ended = thread.join();
        ended.map_err(|_| violation("no method of the source to panic", "a panic"))??;
    }
    Ok(())
}
