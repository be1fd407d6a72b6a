//! What the memo keeps beside outcomes: for a request, the record of its provenance
//! ([`crate::provenance`]) and a note ([`crate::note`]).
//!
//! Each is a blob that is found like the outcome of a request, so collection, verification and damage
//! need little of their own for it. Its key is the id of the request with some bits inverted.

use manifold_runtime_api::ObjectId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    Provenance,
    Note,
}

impl Beside {
    #[cfg(feature = "durable")]
    pub(crate) const ALL: [Self; 2] = [Self::Provenance, Self::Note];

    /// Returns the key for `request`, and the request for a key.
    pub(crate) fn key(self, request: ObjectId) -> ObjectId {
        let inverted: u8 = match self {
            Self::Provenance => 0xff,
            Self::Note => 0x55,
        };
        let bytes: Vec<u8> = request.as_bytes().iter().map(|byte| byte ^ inverted).collect();
        ObjectId::from_bytes(&bytes).unwrap_or(request)
    }
}
