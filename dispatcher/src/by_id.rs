//! Maps by id.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use manifold_runtime_api::ObjectId;

/// A map by object id. Guests decide what the ids are of, so the map's own hash has a random seed; the standard one is a fifth of a
/// memo hit.
pub(crate) type ById<T> = HashMap<ObjectId, T, RandomState>;
