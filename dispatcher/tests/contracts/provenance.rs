//! What requests were and what their runs wanted is recorded, found, and collected with them.

use std::sync::Arc;
use std::time::Duration;

use manifold_dispatcher::api::{Error, ObjectId, ObjectRef, Result};
use manifold_dispatcher::native::{NativeGuest, NativeRuntime, argument};
use manifold_dispatcher::{
    Dispatcher, DurableStore, Invocation, Keep, MemoryStore, Policy, Provenance, RunRecord, Store,
};

/// Runs itself on the rest of the text, and fails at an `x`.
async fn eat(guest: NativeGuest) -> Result<ObjectRef> {
    let text = guest.text("in").await?;
    match text.chars().next() {
        None => guest.blob("done").await,
        Some('x') => Err(Error::guest_failed("an x")),
        Some(_) => {
            let rest = argument("in", guest.blob(text[1..].to_owned()).await?);
            let args = guest.put_tree([rest]).await?;
            let image = guest.job().image.to_string();
            guest.run(&image, args).await?;
            guest.run(&image, args).await
        }
    }
}

fn dispatcher(store: impl Store, provenance: bool) -> (Dispatcher, ObjectId) {
    let guests = NativeRuntime::builder("eaters", "1").guest("eat", eat).build().unwrap();
    let builder = Dispatcher::builder().store(store).provenance(provenance);
    let dispatcher = builder.build().unwrap();
    let host = dispatcher.add_runtime(guests).unwrap();
    let image = dispatcher.install(host, "eat").unwrap();
    (dispatcher, image)
}

fn check_chain(dispatcher: &Dispatcher, image: ObjectId, from: ObjectId, length: usize) {
    let mut next = from;
    for place in 0..length {
        let found = dispatcher.provenance(next).unwrap().unwrap();
        assert_eq!((found.id, &*found.request.image), (next, &*image.to_string()));
        assert_eq!((&*found.request.salt, found.request.std), ("salty", None));
        assert_eq!(found.request_node().unwrap().id(), next, "the record is the request");
        assert_eq!(found.host, dispatcher.runtimes()[0].id());
        assert_eq!(found.error, None);
        if place + 1 == length {
            assert_eq!(found.wanted, []);
        } else {
            assert_eq!(found.wanted, [found.wanted[0]; 2], "wanted twice");
            next = found.wanted[0];
        }
    }
}

#[tokio::test]
async fn the_record_of_each_request_names_what_it_wanted() {
    let (dispatcher, image) = dispatcher(MemoryStore::new(), true);
    let call = Invocation::new(image).arg("in", "abc").salt("salty");
    let completion = dispatcher.run(call).await.unwrap();
    check_chain(&dispatcher, image, completion.request, 4);
    let all = dispatcher.provenances().unwrap();
    assert_eq!(all.len(), 4);
    assert!(all.iter().any(|record| record.id == completion.request));
    // The memo lists outcomes, and no records.
    let memo = dispatcher.memo().unwrap();
    assert_eq!(memo.len(), 4);
    assert!(memo.iter().all(|(_, outcome)| *outcome == completion.outcome));
}

#[tokio::test]
async fn a_failed_request_has_a_record_with_its_error() {
    let (dispatcher, image) = dispatcher(MemoryStore::new(), true);
    let call = Invocation::new(image).arg("in", "ax");
    let error = dispatcher.run(call.clone()).await.unwrap_err();
    let request = dispatcher.request(&call).unwrap();
    let outer = dispatcher.provenance(request).unwrap().unwrap();
    assert_eq!(outer.error.as_deref(), Some(&*error.root_cause().to_string()));
    let inner = dispatcher.provenance(outer.wanted[0]).unwrap().unwrap();
    assert!(inner.error.unwrap().contains("an x"));
    assert_eq!(dispatcher.memo().unwrap(), [], "nothing is memoized");
}

#[tokio::test]
async fn without_the_option_and_for_private_runs_nothing_is_recorded() {
    let (quiet, image) = dispatcher(MemoryStore::new(), false);
    let completion = quiet.run(Invocation::new(image).arg("in", "ab")).await.unwrap();
    assert_eq!(quiet.provenance(completion.request).unwrap(), None);
    assert_eq!(quiet.provenances().unwrap(), []);
    let (dispatcher, image) = dispatcher(MemoryStore::new(), true);
    let private = Invocation::new(image).arg("in", "").policy(Policy::DoNotCache);
    let completion = dispatcher.run(private).await.unwrap();
    assert_eq!(dispatcher.provenance(completion.request).unwrap(), None);
}

#[tokio::test]
async fn a_record_is_collected_with_its_request() {
    let place = tempfile::tempdir().unwrap();
    let store = Arc::new(DurableStore::open(place.path()).unwrap());
    let (dispatcher, image) = dispatcher(Arc::clone(&store), true);
    let kept = dispatcher.run(Invocation::new(image).arg("in", "ab").salt("salty")).await.unwrap();
    let lost = Invocation::new(image).arg("in", "cde").unpinned();
    let lost = dispatcher.run(lost).await.unwrap();
    for completion in [&kept, &lost] {
        dispatcher.set_note(completion.request, "an old note").unwrap();
        dispatcher.set_note(completion.request, "a note\nof two lines").unwrap();
    }
    let note = |request| dispatcher.note(request).unwrap();
    let records = || -> Vec<Provenance> { dispatcher.provenances().unwrap() };
    assert_eq!(records().len(), 3 + 4);

    // Everything is recent.
    store.collect(&Keep::default().written_within(Duration::ZERO), |_| {}).unwrap();
    assert_eq!(records().len(), 3 + 4);
    check_chain(&dispatcher, image, kept.request, 3);
    assert_eq!(note(lost.request).as_deref(), Some("a note\nof two lines"));
    assert!(store.verify(|_| {}).unwrap().damages.is_empty());

    // Only the pinned request stays, and its record and note with it.
    let nothing = Keep::default().used_within(Duration::ZERO).written_within(Duration::ZERO);
    store.collect(&nothing, |_| {}).unwrap();
    let left = records();
    assert_eq!(left.iter().map(|record| record.id).collect::<Vec<_>>(), [kept.request]);
    assert_eq!(dispatcher.provenance(lost.request).unwrap(), None);
    assert_eq!(note(kept.request).as_deref(), Some("a note\nof two lines"));
    assert_eq!(note(lost.request), None);
    assert_eq!(dispatcher.memo().unwrap(), [(kept.request, kept.outcome)]);
    // Collections and pins count the same hour.
    let age = dispatcher.pinned_at(kept.request).unwrap().unwrap().elapsed().unwrap_or_default();
    assert!(age < Duration::from_secs(2 * 60 * 60), "{age:?}");
    assert_eq!(dispatcher.pinned_at(lost.request).unwrap(), None);
}

#[tokio::test]
async fn a_damaged_record_is_none() {
    let store = Arc::new(MemoryStore::new());
    let (dispatcher, image) = dispatcher(Arc::clone(&store), true);
    let completion = dispatcher.run(Invocation::new(image).arg("in", "")).await.unwrap();
    let found = dispatcher.provenance(completion.request).unwrap();
    assert!(found.is_some());
    let record = store.run_record(completion.request).unwrap().unwrap();
    for length in 0..record.bytes.len() {
        let bytes = record.bytes.slice(..length);
        store.record_run(completion.request, None, RunRecord { bytes, common: 7 }).unwrap();
        assert_eq!(dispatcher.provenance(completion.request).unwrap(), None, "{length}");
        assert_eq!(dispatcher.provenances().unwrap(), []);
    }
    store.record_run(completion.request, None, record).unwrap();
    assert_eq!(dispatcher.provenance(completion.request).unwrap(), found);
}
