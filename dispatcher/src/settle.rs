use manifold_runtime_api::{Frame, Outcome, Result};

use crate::claim::{Lead, Settled};
use crate::core::{Core, Keyed};
use crate::observe::Event;

impl Core {
    /// Checks what a run answered, and remembers it if it is a success that the request alone decided.
    pub(crate) fn settle(&self, keyed: &Keyed, result: Result<Outcome>, saw_impure: bool, lead: &Lead) -> Settled {
        let request = keyed.request;
        let mut memoized = false;
        let result = result
            .and_then(|outcome| self.objects.check(outcome.id, outcome.kind).map(|()| outcome))
            .and_then(|outcome| {
                if !saw_impure && !lead.is_abandoned() {
                    self.objects.store.remember(request, outcome)?;
                    memoized = true;
                }
                Ok(outcome)
            })
            .map_err(|error| {
                let image = &keyed.image;
                error.in_frame(Frame::new(request, &*image.text, image.runtime.host_image().name()))
            });
        self.tell(&Event::Settled { request, result: result.as_ref(), memoized });
        let pure = !saw_impure && result.as_ref().err().is_none_or(|error| error.is_function_of_request());
        Settled { result, pure }
    }
}
