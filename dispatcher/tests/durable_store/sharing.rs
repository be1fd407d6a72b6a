//! Several openers of one file, in the same way as several processes.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_dispatcher::api::{EntryMode, ObjectRef};
use manifold_dispatcher::{DurableStore, Keep, ObjectSource, RunRecord, Store};

use crate::{blob, lazy, nothing_but_pins, request, tree};

/// The time after which a store sees the changes of another opener.
const REFRESH_TIME: Duration = Duration::from_millis(1100);

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

/// Both write several runs of the index, alone and after each other, so that they are merged, and look up
/// all that was written.
#[test]
fn openers_that_write_in_turn_find_everything() {
    let directory = tempfile::tempdir().unwrap();
    let stores = [lazy(directory.path()), lazy(directory.path())];
    let outcome = |number: usize| blob(&format!("outcome {number}"));
    let mut written = 0;
    for (turn, commits) in [3, 3, 1, 12, 1, 1, 12, 4].into_iter().enumerate() {
        for _ in 0..commits {
            let store = &stores[turn % 2];
            let id = store.write(outcome(written)).unwrap();
            let run = RunRecord { bytes: written.to_string().into(), common: 0 };
            let request = request(&written.to_string());
            store.record_run(request, Some(ObjectRef::blob(id)), run).unwrap();
            store.flush().unwrap();
            written += 1;
        }
        if turn == 5 {
            // Everything was used recently.
            stores[0].collect(&Keep::default(), |_| ()).unwrap();
        }
        std::thread::sleep(REFRESH_TIME);
        // A further one has nothing in memory.
        for store in [&stores[0], &stores[1], &lazy(directory.path())] {
            for number in 0..written {
                let request = request(&number.to_string());
                let found = store.look_up(request).unwrap();
                assert_eq!(found, Some(ObjectRef::of(&outcome(number))), "{number} in turn {turn}");
                assert!(store.run_record(request).unwrap().is_some());
            }
            assert_eq!(store.look_up(request("another")).unwrap(), None);
            assert_eq!(store.entries().unwrap().len(), written);
        }
    }
    let verified = stores[0].verify(|_| ()).unwrap();
    assert_eq!((verified.damages.len(), verified.objects), (0, written as u64), "none twice");
}

#[test]
fn a_replaced_outcome_is_seen_by_another_opener() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (lazy(directory.path()), lazy(directory.path()));
    for text in ["old", "new"] {
        let outcome = ObjectRef::blob(one.write(blob(text)).unwrap());
        one.record(request("a"), outcome).unwrap();
        one.pin(request("a"), outcome).unwrap();
        one.flush().unwrap();
        let start = Instant::now();
        while [two.look_up(request("a")).unwrap(), two.pinned(request("a")).unwrap()]
            != [Some(outcome), Some(outcome)]
        {
            assert!(start.elapsed() < Duration::from_secs(20), "{text} is not seen");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The outcome is neither in the memory tier nor on disk when it is pinned.
#[test]
fn a_pin_is_checked_below_what_is_not_cached() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableStore::options().group_time(Duration::MAX).hot_bytes(0);
    let store = store.open(directory.path()).unwrap();
    let leaf = blob("leaf").id();
    let outcome = store.write(tree(&[("leaf", EntryMode::Blob, leaf)])).unwrap();
    store.pin(request("a"), ObjectRef::tree(outcome)).unwrap();
    let error = store.flush().unwrap_err();
    assert!(error.to_string().contains("is not pinned"), "{error}");
    assert_eq!(store.pinned(request("a")).unwrap(), None);
    store.write(blob("leaf")).unwrap();
    store.pin(request("a"), ObjectRef::tree(outcome)).unwrap();
    store.flush().unwrap();
    assert_eq!(store.pinned(request("a")).unwrap(), Some(ObjectRef::tree(outcome)));
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
