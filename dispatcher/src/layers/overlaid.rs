use std::collections::BTreeMap;

use manifold_runtime_api::{Object, ObjectId, ObjectKind, Outcome, Result};

use crate::store::{ObjectSource, Pin, Store};

/// A store over another one that is only read: what is written, remembered and pinned goes to the upper one.
#[derive(Debug)]
pub struct Overlaid<U, L> {
    upper: U,
    lower: L,
}

impl<U, L> Overlaid<U, L> {
    /// Puts `upper` over `lower`.
    pub fn new(upper: U, lower: L) -> Self {
        Self { upper, lower }
    }
}

impl<U: ObjectSource, L: ObjectSource> ObjectSource for Overlaid<U, L> {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        either(self.upper.read(id), || self.lower.read(id))
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        either(self.upper.kind(id), || self.lower.kind(id))
    }
}

impl<U: Store, L: Store> Store for Overlaid<U, L> {
    fn write(&self, object: Object) -> Result<ObjectId> {
        self.upper.write(object)
    }

    fn recall(&self, request: ObjectId) -> Result<Option<Outcome>> {
        either(self.upper.recall(request), || self.lower.recall(request))
    }

    fn remember(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.upper.remember(request, outcome)
    }

    fn pin(&self, request: ObjectId, outcome: Outcome) -> Result<()> {
        self.upper.pin(request, outcome)
    }

    /// Takes a pin of the upper store away. One of the lower store stays.
    fn unpin(&self, request: ObjectId) -> Result<bool> {
        self.upper.unpin(request)
    }

    fn pinned(&self, request: ObjectId) -> Result<Option<Outcome>> {
        either(self.upper.pinned(request), || self.lower.pinned(request))
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        let pins = self.lower.pins()?.into_iter().chain(self.upper.pins()?);
        Ok(pins.map(|pin| (pin.request, pin)).collect::<BTreeMap<_, _>>().into_values().collect())
    }

    fn flush(&self) -> Result<()> {
        self.upper.flush()
    }
}

fn either<T>(
    first: Result<Option<T>>,
    second: impl FnOnce() -> Result<Option<T>>,
) -> Result<Option<T>> {
    match first? {
        Some(found) => Ok(Some(found)),
        None => second(),
    }
}
