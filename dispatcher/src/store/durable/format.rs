//! How the tables of a store's file are encoded.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` | [`FORMAT`] |
//! | `numbers` | `removals` | how often something was taken away, so that others look again |
//! | `objects` | id | [`Head`]: kind, place, stamp (4 bytes), length (8 bytes), then the content if it is short |
//! | `contents` | id | the content of a long object |
//! | `memo`, `pins` | request id | [`Entry`]: kind, stamp (4 bytes), checksum (4 bytes), the outcome's id |
//!
//! Numbers are little-endian. An object proves itself by its id; an entry carries a CRC-32 over its key and the rest of its value.

use std::time::{SystemTime, UNIX_EPOCH};

use manifold_runtime_api::{ObjectId, ObjectKind, Outcome};
use redb::TableDefinition;

pub(super) type Bytes = &'static [u8];

pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
pub(super) const OBJECTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("objects");
pub(super) const CONTENTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("contents");
pub(super) const MEMO: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("memo");
pub(super) const PINS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("pins");

/// The key of the format's name in `meta`.
pub(super) const FORMAT_KEY: &str = "format";
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The key of the number of removals in `numbers`.
pub(super) const REMOVALS: &str = "removals";
/// The format that this code reads and writes.
pub(super) const FORMAT: &str = "manifold-store-1";

/// Contents up to this length stand beside their heads.
pub(super) const SHORT: usize = 1024;

/// A point in time, in minutes since 1970: all that ages are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(pub(super) u32);

impl Stamp {
    pub(super) fn now() -> Self {
        let seconds =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self(u32::try_from(seconds / 60).unwrap_or(u32::MAX))
    }

    /// Whether it is so recent that writing a newer one is not worth it.
    pub(super) fn is_fresh(self, now: Self) -> bool {
        const FRESH_MINUTES: u32 = 60;
        !self.is_wrong(now) && now.0.saturating_sub(self.0) < FRESH_MINUTES
    }

    /// Whether it is so far in the future that the clock that made it must have been wrong.
    pub(super) fn is_wrong(self, now: Self) -> bool {
        const DAY: u32 = 24 * 60;
        self.0 > now.0.saturating_add(DAY)
    }
}

/// What the store knows of an object without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: ObjectKind,
    /// When it was last written.
    pub(super) stamp: Stamp,
    /// The content's length in bytes.
    pub(super) length: u64,
}

/// Where an object's content is.
pub(super) enum Place<'a> {
    Here(&'a [u8]),
    Apart,
}

const HEAD: usize = 14;

impl Head {
    pub(super) fn encode(&self, content: &[u8]) -> Vec<u8> {
        let short = content.len() <= SHORT;
        let mut value = Vec::with_capacity(HEAD + if short { content.len() } else { 0 });
        value.push(kind_code(self.kind));
        value.push(u8::from(!short));
        value.extend_from_slice(&self.stamp.0.to_le_bytes());
        value.extend_from_slice(&self.length.to_le_bytes());
        if short {
            value.extend_from_slice(content);
        }
        value
    }

    /// `None` when the value makes no sense.
    pub(super) fn decode(value: &[u8]) -> Option<(Self, Place<'_>)> {
        let (head, rest) = value.split_at_checked(HEAD)?;
        let kind = kind_of(head[0])?;
        let stamp = Stamp(u32::from_le_bytes(head[2..6].try_into().ok()?));
        let length = u64::from_le_bytes(head[6..].try_into().ok()?);
        let place = match (head[1], rest) {
            (0, here) if here.len() as u64 == length => Place::Here(here),
            (1, []) => Place::Apart,
            _ => return None,
        };
        Some((Self { kind, stamp, length }, place))
    }

    /// The value with another stamp, and everything else as it is.
    pub(super) fn restamp(value: &[u8], stamp: Stamp) -> Vec<u8> {
        let mut value = value.to_vec();
        if let Some(old) = value.get_mut(2..6) {
            old.copy_from_slice(&stamp.0.to_le_bytes());
        }
        value
    }
}

/// Where an [`Entry`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Book {
    Memo,
    Pins,
}

/// A memo entry or a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) outcome: Outcome,
    /// When it was last used.
    pub(super) stamp: Stamp,
}

const CHECKED: usize = 5;
const ID: usize = 9;

impl Entry {
    pub(super) fn encode(&self, request: ObjectId) -> Vec<u8> {
        let mut value = Vec::with_capacity(ID + self.outcome.id.as_bytes().len());
        value.push(kind_code(self.outcome.kind));
        value.extend_from_slice(&self.stamp.0.to_le_bytes());
        let check = check(request, &value, self.outcome.id.as_bytes());
        value.extend_from_slice(&check.to_le_bytes());
        value.extend_from_slice(self.outcome.id.as_bytes());
        value
    }

    /// `None` when the value is not what was written.
    pub(super) fn decode(request: ObjectId, value: &[u8]) -> Option<Self> {
        let (head, id) = value.split_at_checked(ID)?;
        let (checked, found) = head.split_at(CHECKED);
        if check(request, checked, id).to_le_bytes() != found {
            return None;
        }
        let stamp = Stamp(u32::from_le_bytes(checked[1..].try_into().ok()?));
        let outcome = Outcome { kind: kind_of(checked[0])?, id: ObjectId::from_bytes(id).ok()? };
        Some(Self { outcome, stamp })
    }
}

fn check(request: ObjectId, head: &[u8], id: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(request.as_bytes());
    hasher.update(head);
    hasher.update(id);
    hasher.finalize()
}

fn kind_code(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::Blob => 1,
        ObjectKind::Tree => 2,
    }
}

fn kind_of(code: u8) -> Option<ObjectKind> {
    match code {
        1 => Some(ObjectKind::Blob),
        2 => Some(ObjectKind::Tree),
        _ => None,
    }
}
