//! When an object was lost on the way: whether the frame that missed it should begin again.

use std::collections::HashMap;

use manifold_runtime_api::{ObjectId, Outcome, Result};

use crate::core::{Core, Keyed};
use crate::frame::Seen;
use crate::scope::Scope;

/// What one frame has tried.
#[derive(Default)]
pub(crate) struct Rewinds {
    count: u32,
    by_object: HashMap<ObjectId, u32>,
}

/// How often one frame begins again.
const REWINDS: u32 = 16;
/// How often it does so because of one object that stays lost: once more than it takes if nothing else goes wrong.
const REWINDS_PER_OBJECT: u32 = 2;

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
        let lost = seen.lost.or_else(|| result.as_ref().err().and_then(|error| error.missing_object()))?;
        self.count += 1;
        if self.count > REWINDS || matches!(core.objects.missing_below(keyed.args), Ok(Some(_))) {
            return None;
        }
        // If it is back already, another frame has mended it for this one, too.
        if matches!(core.objects.kind(lost), Ok(None)) {
            let times = self.by_object.entry(lost).or_default();
            *times += 1;
            if *times > REWINDS_PER_OBJECT || !scope.allows_rewind(lost) {
                return None;
            }
        }
        Some(lost)
    }
}
