use manifold_runtime_api::{ObjectId, Outcome, Result};

use crate::core::{Core, Want};
use crate::observe::Event;
use crate::scope::Scope;

impl Core {
    /// The remembered outcome of `request`. One whose object is gone, or is of another kind, counts as none.
    pub(crate) fn look_up(&self, request: ObjectId) -> Result<Option<Outcome>> {
        let remembered = self.recall(request)?;
        if remembered.is_some() {
            self.tell(&Event::Hit { request });
        }
        Ok(remembered)
    }

    /// The remembered outcome of `request`, if it is what `want` asks for.
    pub(crate) fn look_up_wanted(
        &self,
        request: ObjectId,
        want: Want,
        scope: &Scope,
    ) -> Result<Option<Outcome>> {
        if want.fresh || want.private || scope.is_stale(request) {
            return Ok(None);
        }
        let Some(outcome) = self.recall(request)? else { return Ok(None) };
        if want.complete && self.objects.missing_below(outcome.id)?.is_some() {
            return Ok(None);
        }
        self.tell(&Event::Hit { request });
        Ok(Some(outcome))
    }

    /// The same, and nobody is told.
    pub(crate) fn recall(&self, request: ObjectId) -> Result<Option<Outcome>> {
        let Some(outcome) = self.objects.store.recall(request)? else { return Ok(None) };
        Ok((self.objects.kind(outcome.id)? == Some(outcome.kind)).then_some(outcome))
    }
}
