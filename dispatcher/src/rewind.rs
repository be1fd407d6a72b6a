//! Decides whether a frame that missed a lost object begins again.

use std::collections::HashMap;

use manifold_runtime_api::{ObjectId, ObjectRef, Result};

use crate::core::{Core, Keyed};
use crate::frame::Seen;
use crate::scope::Scope;

/// The rewinds of one frame, by lost object.
#[derive(Default)]
pub(crate) struct Rewinds {
    by_object: HashMap<ObjectId, u32>,
}

/// The maximum number of rewinds of one request in a root call, over all runs of the request.
const REWINDS_PER_REQUEST: u32 = 16;
/// The maximum number of rewinds of one frame for an object that stays lost. This is one more than
/// necessary if nothing else goes wrong.
const REWINDS_PER_OBJECT: u32 = 2;
/// The maximum number of rewinds of all frames of a root call for an object that stays lost.
const REWINDS_PER_OBJECT_AND_CALL: u32 = 64;

impl Rewinds {
    /// Returns the lost object, if the frame should begin again to recover it.
    ///
    /// A frame cannot create the objects again that it was given, but its caller can. The objects
    /// that it got from nested runs or stored itself are created again, unless the object never
    /// existed because the guest invented the id.
    pub(crate) fn recoverable(
        &mut self,
        core: &Core,
        scope: &Scope,
        keyed: &Keyed,
        result: &Result<ObjectRef>,
        seen: Seen,
    ) -> Option<ObjectId> {
        let lost =
            seen.lost.or_else(|| result.as_ref().err().and_then(|error| error.missing_object()))?;
        // An object that is available again was recovered by another frame.
        if matches!(core.objects.kind(lost), Ok(None)) {
            let times = self.by_object.entry(lost).or_default();
            *times += 1;
            if *times > REWINDS_PER_OBJECT || !scope.count_rewind(lost, REWINDS_PER_OBJECT_AND_CALL)
            {
                return None;
            }
        }
        let may_recover = scope.count_rewind(keyed.request, REWINDS_PER_REQUEST)
            && !matches!(core.objects.missing_below(keyed.args), Ok(Some(_)));
        may_recover.then_some(lost)
    }
}
