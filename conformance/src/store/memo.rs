//! The memo.

use manifold_dispatcher::RunRecord;
use manifold_runtime_api::bytes::Bytes;

use super::{StoreFixture, request, write, write_samples};
use crate::check::{Step, ensure_eq};
use crate::content::{Known, neighbor, succeeds, unknown_id};

/// > Records the outcome of `request` in the memo. Replaces an earlier entry.
///
/// Records outcomes of every form for some requests, and replaces one of them several times.
pub(super) fn entries_are_recorded_and_replaced(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    let samples = write_samples(&*store)?;
    for (number, known) in samples.iter().enumerate() {
        succeeds("`record`", store.record(request(number), known.reference()))?;
    }
    for known in &samples {
        succeeds("`record`", store.record(request(0), known.reference()))?;
        let found = succeeds("`look_up`", store.look_up(request(0)))?;
        ensure_eq("an entry that was replaced", found, Some(known.reference()))?;
    }
    for (number, known) in samples.iter().enumerate().skip(1) {
        let found = succeeds("`look_up`", store.look_up(request(number)))?;
        ensure_eq("an entry beside one that was replaced", found, Some(known.reference()))?;
    }
    Ok(())
}

/// > Looks up the memoized outcome of `request`.
///
/// Looks up requests without an entry: in an empty store, one that is an object of the store, and
/// one that is similar to a request with an entry.
pub(super) fn unknown_requests_have_no_entry(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    let look_up = |request| succeeds("`look_up`", store.look_up(request));
    ensure_eq("the entry of a request in an empty store", look_up(unknown_id())?, None)?;
    let known = Known::blob("hello");
    write(&*store, &known)?;
    ensure_eq("the entry of a request that is only an object", look_up(known.id)?, None)?;
    let request = unknown_id();
    succeeds("`record`", store.record(request, known.reference()))?;
    ensure_eq("the entry of a similar request", look_up(neighbor(request))?, None)?;
    ensure_eq("the entry of the outcome's id", look_up(known.id)?, None)
}

/// > Replaces an earlier record of a run of this request.
///
/// Records runs with and without an outcome. The outcomes are entries. The records are found, or none is
/// if the store keeps none.
pub(super) fn runs_are_recorded(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    let known = Known::blob("hello");
    write(&*store, &known)?;
    let outcome = Some(known.reference());
    let run = |text: &'static str| RunRecord { bytes: Bytes::from(text), common: 5 };
    let [first, second] = [run("first run"), run("first, and a second run")];
    let record = |outcome, run: &RunRecord| {
        succeeds("`record_run`", store.record_run(request(0), outcome, run.clone()))
    };
    let entry = || succeeds("`look_up`", store.look_up(request(0)));
    let found = || succeeds("`run_record`", store.run_record(request(0)));
    record(None, &first)?;
    ensure_eq("the entry of a run without an outcome", entry()?, None)?;
    let keeps = found()?.is_some();
    let kept = |run: &RunRecord| keeps.then(|| run.clone());
    ensure_eq("the record of a run without an outcome", found()?, kept(&first))?;
    record(outcome, &second)?;
    ensure_eq("the entry of a run with an outcome", entry()?, outcome)?;
    ensure_eq("the record of a second run", found()?, kept(&second))?;
    record(None, &first)?;
    ensure_eq("the entry after a run without an outcome", entry()?, outcome)?;
    ensure_eq("the record of a third run", found()?, kept(&first))?;
    succeeds("`record`", store.record(request(0), known.reference()))?;
    ensure_eq("the record of a run after `record`", found()?, kept(&first))?;
    let all = succeeds("`run_records`", store.run_records())?;
    let expected: Vec<_> = kept(&first).map(|run| (request(0), run)).into_iter().collect();
    ensure_eq("all records of runs", all, expected)
}
