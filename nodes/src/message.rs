//! What nodes say to each other: JSON, except for packs. Everything that comes from another node is
//! checked for its size and form, and nothing in it is trusted.

use std::time::Duration;

use manifold_dispatcher::{Budget, Unit};
use manifold_runtime_api::{Limits, ObjectId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest message that is read.
const MAX_BYTES: usize = 4 << 20;

/// An object id, in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Id(pub(crate) ObjectId);

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        ObjectId::from_hex(&text).map(Self).map_err(|error| error.to_string())
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0.to_string()
    }
}

/// A node wants runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Steal {
    pub(crate) session: String,
    /// The host images of its runtimes.
    pub(crate) hosts: Vec<Id>,
}

/// Runs that are given away.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) units: Vec<UnitMessage>,
}

/// A run that is given away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UnitMessage {
    /// The session of the node that gives it away.
    pub(crate) origin: String,
    /// The sessions that have its inputs: that of the origin, and those from which that has others.
    pub(crate) sources: Vec<String>,
    pub(crate) request: Id,
    pub(crate) image: String,
    pub(crate) args: Id,
    pub(crate) salt: String,
    pub(crate) std: Option<Id>,
    pub(crate) deadline_millis: u64,
    pub(crate) depth: u32,
    pub(crate) runs: u64,
    pub(crate) written_bytes: u64,
    pub(crate) call_memory_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) table_elements: u64,
    pub(crate) compute_millis: u64,
    pub(crate) guest_request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) module_bytes: u64,
    pub(crate) log_bytes: u64,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl UnitMessage {
    pub(crate) fn new(origin: &str, sources: &[String], unit: &Unit) -> Self {
        let Budget { deadline, memory_bytes, depth, runs, written_bytes, .. } = unit.budget;
        let limits = unit.limits;
        Self {
            origin: origin.to_owned(),
            sources: sources.to_vec(),
            request: Id(unit.request),
            image: unit.image.to_string(),
            args: Id(unit.args),
            salt: unit.salt.to_string(),
            std: unit.std.map(Id),
            deadline_millis: millis(deadline),
            depth,
            runs,
            written_bytes,
            call_memory_bytes: memory_bytes,
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            compute_millis: millis(limits.compute_time),
            guest_request_bytes: limits.guest_request_bytes,
            response_bytes: limits.response_bytes,
            module_bytes: limits.module_bytes,
            log_bytes: limits.log_bytes,
        }
    }

    pub(crate) fn budget(&self) -> Budget {
        Budget::new()
            .deadline(Duration::from_millis(self.deadline_millis))
            .memory_bytes(self.call_memory_bytes)
            .depth(self.depth)
            .runs(self.runs)
            .written_bytes(self.written_bytes)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits::default()
            .memory_bytes(self.memory_bytes)
            .table_elements(self.table_elements)
            .compute_time(Duration::from_millis(self.compute_millis))
            .guest_request_bytes(self.guest_request_bytes)
            .response_bytes(self.response_bytes)
            .module_bytes(self.module_bytes)
            .log_bytes(self.log_bytes)
    }
}

/// The run of a unit has ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) request: Id,
    pub(crate) end: End,
}

/// How a unit has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// Its outcome is in the memo.
    Published,
    /// It failed: it is to be run where it came from, and not to be given away again.
    Failed,
    /// It was not run to its end, for no fault of its own.
    GivenUp,
}

/// A node wants objects, and what they reach as far as it fits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) ids: Vec<Id>,
    /// From where on the content of the only object is wanted, if it is too large for one answer.
    pub(crate) offset: Option<u64>,
}

/// Which run a message is about.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) request: Id,
}

/// Nobody waits for a unit any more at the node that gave it away.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cancel {
    pub(crate) request: Id,
    /// The session of that node.
    pub(crate) origin: String,
}

/// What a node says of a run.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waits {
    /// Whether the node has anything to do with it.
    pub(crate) is_busy: bool,
    /// Whether it has given the run away, and waits for it.
    pub(crate) is_away: bool,
    /// The units that the run waits for, with their numbers.
    pub(crate) units: Vec<(Id, u64)>,
}

/// What a node says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Presence {
    pub(crate) hosts: Vec<Id>,
    pub(crate) permits: usize,
}

/// Encodes a message.
pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    // The messages have no maps with keys that are not text, so this cannot fail.
    serde_json::to_vec(message).unwrap_or_default()
}

/// Decodes a message. `None` if it is malformed or too large.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Whatever another node sends is a message or nothing.
        #[test]
        fn malformed_messages_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode::<Steal>(&bytes);
            let _ = decode::<Given>(&bytes);
            let _ = decode::<Done>(&bytes);
            let _ = decode::<Wanted>(&bytes);
            let _ = decode::<Waits>(&bytes);
        }

        // A message with any change of its bytes is a message or nothing.
        #[test]
        fn changed_messages_are_refused_or_read(at in 0usize..120, byte in any::<u8>()) {
            let about = About { request: Id(ObjectId::empty_tree()) };
            let mut bytes = encode(&about);
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = decode::<About>(&bytes);
            prop_assert!(decode::<About>(&encode(&about)).is_some());
        }
    }

    #[test]
    fn ids_are_forty_digits() {
        assert!(decode::<About>(br#"{"request":"12"}"#).is_none());
        assert!(decode::<About>(br#"{"request":12}"#).is_none());
    }
}
