//! [`ById`]: a hash map with object ids as keys.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use manifold_runtime_api::ObjectId;

/// A hash map with object ids as keys. Guests choose the content of objects and so influence the
/// ids, so the hasher has a random seed. The standard library's hasher would take a fifth of the
/// time of a memo hit.
pub(crate) type ById<T> = HashMap<ObjectId, T, RandomState>;
