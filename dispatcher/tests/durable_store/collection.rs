//! Garbage collection keeps what pins reach and what was used or written recently.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::api::{EntryMode, Object, ObjectId, ObjectKind, ObjectRef};
use manifold_dispatcher::{
    Dispatcher, DurableStore, Keep, MemoryStore, ObjectSource, RunRecord, Store,
};

use crate::{blob, lazy, nothing_but_pins, request, tree};

/// Runs of the index are merged meanwhile, so that both entries come to be in one.
#[test]
fn an_entry_that_was_replaced_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = lazy(directory.path());
    let mut last = None;
    for number in 0..40 {
        let outcome = ObjectRef::blob(store.write(blob(&number.to_string())).unwrap());
        let run = RunRecord { bytes: number.to_string().into(), common: 0 };
        store.record_run(request("one"), Some(outcome), run.clone()).unwrap();
        store.flush().unwrap();
        last = Some((outcome, run));
    }
    let (outcome, run) = last.unwrap();
    assert_eq!(store.entries().unwrap(), [(request("one"), outcome)]);
    assert_eq!(store.run_records().unwrap(), [(request("one"), run.clone())]);
    store.collect(&Keep::default(), |_| ()).unwrap();
    assert_eq!(store.look_up(request("one")).unwrap(), Some(outcome));
    assert_eq!(store.run_record(request("one")).unwrap(), Some(run));
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

/// An image on the image that `base` names.
fn curried(store: &DurableStore, base: &str, args: ObjectId) -> ObjectId {
    let (marker, base) = (store.write(blob("1")).unwrap(), store.write(blob(base)).unwrap());
    let entries = [
        (".caos-curry", EntryMode::Blob, marker),
        ("args", EntryMode::Tree, args),
        ("base", EntryMode::Blob, base),
    ];
    store.write(tree(&entries)).unwrap()
}

#[test]
fn a_collection_keeps_pinned_and_named_images_with_those_they_refer_to() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(lazy(directory.path()));
    let image = |code: &str| {
        let module = store.write(blob(code)).unwrap();
        let marker = store.write(blob(&request("host").to_string())).unwrap();
        let entries =
            [(".caos-runtime", EntryMode::Blob, marker), ("module", EntryMode::Blob, module)];
        store.write(tree(&entries)).unwrap()
    };
    let (below, bound, named, other) = (image("1"), image("2"), image("3"), image("4"));
    // An image can be named in an argument, with the line feed that `echo` writes.
    let post = store.write(blob(&format!("{bound}\n"))).unwrap();
    let args = store.write(tree(&[("post", EntryMode::Blob, post)])).unwrap();
    let inner = curried(&store, &below.to_string(), args);
    let outer = curried(&store, &inner.to_string(), args);
    let reference = store.write(blob(&named.to_string())).unwrap();
    let names = store.write(tree(&[("mine", EntryMode::Blob, reference)])).unwrap();
    let dispatcher = Dispatcher::builder().store(Arc::clone(&store)).build().unwrap();
    assert_eq!(dispatcher.named_images().unwrap(), None);
    dispatcher.pin(outer).unwrap();
    dispatcher.set_named_images(names).unwrap();
    assert_eq!(dispatcher.named_images().unwrap(), Some(names));
    let pins = dispatcher.pins().unwrap();
    assert!(pins.iter().all(|pin| !pin.is_of_request()), "{pins:?}");
    assert_eq!(pins.iter().filter(|pin| pin.is_of_named_images()).count(), 1);

    // Only pins of requests grow old.
    let mut keep = nothing_but_pins();
    keep.pinned_within = Some(Duration::ZERO);
    let collected = store.collect(&keep, |_| ()).unwrap();
    assert_eq!((collected.kept_pins, collected.dropped_pins), (2, 0));
    for (id, stays) in
        [(outer, true), (inner, true), (below, true), (bound, true), (named, true), (other, false)]
    {
        assert_eq!(store.read(id).unwrap().is_some(), stays, "{id}");
    }
    assert!(dispatcher.unpin(outer).unwrap());
    store.collect(&keep, |_| ()).unwrap();
    assert!(store.read(below).unwrap().is_none() && store.read(named).unwrap().is_some());
}

#[test]
fn a_pinned_image_is_copied_from_sources_with_those_it_refers_to() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(lazy(directory.path()));
    let elsewhere = Arc::new(MemoryStore::new());
    let below =
        elsewhere.write(tree(&[("x", EntryMode::Blob, ObjectId::of(ObjectKind::Blob, b"x"))]));
    let below = below.unwrap();
    elsewhere.write(blob("x")).unwrap();
    let base = elsewhere.write(blob(&below.to_string())).unwrap();
    let image = elsewhere.write(tree(&[("base", EntryMode::Blob, base)])).unwrap();
    let dispatcher =
        Dispatcher::builder().store(Arc::clone(&store)).source(elsewhere).build().unwrap();
    dispatcher.pin(image).unwrap();
    for id in [image, base, below, ObjectId::of(ObjectKind::Blob, b"x")] {
        assert!(store.read(id).unwrap().is_some(), "{id}");
    }
    let error = dispatcher.pin(request("nothing")).unwrap_err();
    assert!(error.to_string().contains(&request("nothing").to_string()), "{error}");
}
