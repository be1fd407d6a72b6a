//! Pins.

use std::collections::HashMap;

use manifold_dispatcher::Store;
use manifold_runtime_api::{ObjectId, ObjectRef};

use super::{StoreFixture, request, write_samples};
use crate::check::{Step, ensure_eq};
use crate::content::{Known, succeeds};

fn pinned(store: &dyn Store, request: ObjectId) -> Step<Option<ObjectRef>> {
    succeeds("`pinned`", store.pinned(request))
}

/// Writes all samples and pins each under a request. Returns the outcomes.
fn pin_samples(store: &dyn Store) -> Step<Vec<ObjectRef>> {
    let outcomes: Vec<_> = write_samples(store)?.iter().map(Known::reference).collect();
    for (number, outcome) in outcomes.iter().enumerate() {
        succeeds("`pin`", store.pin(request(number), *outcome))?;
    }
    Ok(outcomes)
}

/// > Pins the outcome of `request`. Replaces an earlier pin of the request.
///
/// Pins outcomes of every form, and replaces one of the pins several times.
pub(super) fn pins_are_set_and_replaced(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    ensure_eq("a pin in an empty store", pinned(&*store, request(0))?, None)?;
    let outcomes = pin_samples(&*store)?;
    for outcome in &outcomes {
        succeeds("`pin`", store.pin(request(0), *outcome))?;
        ensure_eq("a pin that was replaced", pinned(&*store, request(0))?, Some(*outcome))?;
    }
    for (number, outcome) in outcomes.iter().enumerate().skip(1) {
        let found = pinned(&*store, request(number))?;
        ensure_eq("a pin beside one that was replaced", found, Some(*outcome))?;
    }
    Ok(())
}

/// > Removes a pin. Returns whether the request was pinned.
///
/// Removes pins, some of them twice. The others stay.
pub(super) fn pins_are_removed(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    let unpin = |number| succeeds("`unpin`", store.unpin(request(number)));
    ensure_eq("the result of `unpin` in an empty store", unpin(0)?, false)?;
    let outcomes = pin_samples(&*store)?;
    ensure_eq("the result of `unpin`", unpin(0)?, true)?;
    ensure_eq("a pin that was removed", pinned(&*store, request(0))?, None)?;
    ensure_eq("the result of `unpin` for a pin that was removed", unpin(0)?, false)?;
    for (number, outcome) in outcomes.iter().enumerate().skip(1) {
        let found = pinned(&*store, request(number))?;
        ensure_eq("a pin beside one that was removed", found, Some(*outcome))?;
    }
    succeeds("`pin`", store.pin(request(0), outcomes[1]))?;
    let found = pinned(&*store, request(0))?;
    ensure_eq("a pin that was set again", found, Some(outcomes[1]))
}

/// > Returns all pins, in no particular order.
///
/// Lists the pins of an empty store, and after pins were set, replaced and removed. Two requests
/// have the same outcome.
pub(super) fn pins_are_listed(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    ensure_listed(&*store, &[])?;
    let mut pins: Vec<_> = pin_samples(&*store)?
        .into_iter()
        .enumerate()
        .map(|(number, outcome)| (request(number), outcome))
        .collect();
    ensure_listed(&*store, &pins)?;
    pins[0].1 = pins[1].1;
    succeeds("`pin`", store.pin(pins[0].0, pins[0].1))?;
    ensure_listed(&*store, &pins)?;
    if let Some((request, _)) = pins.pop() {
        succeeds("`unpin`", store.unpin(request))?;
    }
    ensure_listed(&*store, &pins)
}

fn ensure_listed(store: &dyn Store, expected: &[(ObjectId, ObjectRef)]) -> Step {
    let pins = succeeds("`pins`", store.pins())?;
    ensure_eq("the number of listed pins", pins.len(), expected.len())?;
    let found: HashMap<_, _> = pins.into_iter().map(|pin| (pin.request, pin.outcome)).collect();
    ensure_eq("the listed pins", found, expected.iter().copied().collect())
}

/// > Returns the pinned outcome of `request`, or `None` if the request is not pinned.
///
/// A pin makes no entry in the memo, an entry makes no pin, and each can be changed without the
/// other.
pub(super) fn pins_and_entries_are_independent(fixture: &dyn StoreFixture) -> Step {
    let store = fixture.store();
    let outcomes: Vec<_> = write_samples(&*store)?.iter().map(Known::reference).collect();
    let (first, second) = (outcomes[0], outcomes[1]);
    let entry = |number| succeeds("`look_up`", store.look_up(request(number)));
    succeeds("`pin`", store.pin(request(0), first))?;
    ensure_eq("the entry of a request that is only pinned", entry(0)?, None)?;
    succeeds("`record`", store.record(request(1), first))?;
    let found = pinned(&*store, request(1))?;
    ensure_eq("the pin of a request that is only in the memo", found, None)?;

    succeeds("`pin`", store.pin(request(1), first))?;
    succeeds("`record`", store.record(request(1), second))?;
    let found = pinned(&*store, request(1))?;
    ensure_eq("the pin after its entry was replaced", found, Some(first))?;
    ensure_eq("the entry beside another pin", entry(1)?, Some(second))?;
    succeeds("`unpin`", store.unpin(request(1)))?;
    ensure_eq("the entry after its pin was removed", entry(1)?, Some(second))
}
