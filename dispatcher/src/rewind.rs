//! When an object was lost on the way: whether the frame that missed it should begin again.

use std::collections::HashMap;

use manifold_runtime_api::{ObjectId, Outcome, Result};

use crate::core::{Core, Keyed};
use crate::frame::Seen;
use crate::scope::Scope;

/// What one frame has tried.
#[derive(Default)]
pub(crate) struct Rewinds {
    by_object: HashMap<ObjectId, u32>,
}

/// How often one request begins again, whoever wants it and how often.
const REWINDS_PER_REQUEST: u32 = 16;
/// How often one frame does because of one object that stays lost: once more than it takes if nothing else goes wrong.
const REWINDS_PER_OBJECT: u32 = 2;
/// How often all frames of a call do because of one object that stays lost.
const REWINDS_PER_OBJECT_AND_CALL: u32 = 64;

impl Rewinds {
    /// The object whose loss beginning again may mend. What a frame was given it cannot make again; its caller can. What it got
    /// from nested runs or stored itself comes again, unless it never was and the guest has made up an id.
    pub(crate) fn mendable(
        &mut self,
        core: &Core,
        scope: &Scope,
        keyed: &Keyed,
        result: &Result<Outcome>,
        seen: Seen,
    ) -> Option<ObjectId> {
        let lost =
            seen.lost.or_else(|| result.as_ref().err().and_then(|error| error.missing_object()))?;
        // If it is back already, another frame has mended it for this one, too.
        if matches!(core.objects.kind(lost), Ok(None)) {
            let times = self.by_object.entry(lost).or_default();
            *times += 1;
            if *times > REWINDS_PER_OBJECT
                || !scope.allows_rewind(lost, REWINDS_PER_OBJECT_AND_CALL)
            {
                return None;
            }
        }
        let may = scope.allows_rewind(keyed.request, REWINDS_PER_REQUEST)
            && !matches!(core.objects.missing_below(keyed.args), Ok(Some(_)));
        may.then_some(lost)
    }
}
