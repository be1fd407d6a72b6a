use manifold_runtime_api::{ObjectId, Outcome, Result};

use crate::core::Core;
use crate::observe::Event;

impl Core {
    /// The remembered outcome of `request`. One whose object is gone, or is of another kind, counts as none.
    pub(crate) fn look_up(&self, request: ObjectId) -> Result<Option<Outcome>> {
        let Some(outcome) = self.objects.store.recall(request)? else { return Ok(None) };
        if self.objects.kind(outcome.id)? != Some(outcome.kind) {
            return Ok(None);
        }
        self.tell(&Event::Hit { request });
        Ok(Some(outcome))
    }
}
