//! The tables of a store's file and the encoding of their values.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` | [`FORMAT`] |
//! | `numbers` | `removals` | how often data was removed; a change invalidates caches |
//! | `objects` | id | [`Head`]: kind, place, stamp (4 bytes), length (8 bytes), inline content |
//! | `contents` | id | the content of an object over [`MAX_INLINE_BYTES`] |
//! | `memo`, `pins` | request id | [`Entry`]: kind, stamp (4 bytes), CRC-32 (4 bytes), outcome id |
//!
//! Kinds and places take one byte each. Numbers are little-endian. An object is verified by its id.
//! An entry carries a CRC-32 over its key and the rest of its value.

use std::time::{SystemTime, UNIX_EPOCH};

use manifold_runtime_api::{ObjectId, ObjectKind, ObjectRef};
use redb::TableDefinition;

pub(super) type Bytes = &'static [u8];

pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
pub(super) const OBJECTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("objects");
pub(super) const CONTENTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("contents");
pub(super) const MEMO: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("memo");
pub(super) const PINS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("pins");

/// The key of the format's name in the table `meta`.
pub(super) const FORMAT_KEY: &str = "format";
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The key of the number of removals in the table `numbers`.
pub(super) const REMOVALS: &str = "removals";
/// The name of the format that this code reads and writes.
pub(super) const FORMAT: &str = "manifold-store-1";

/// Contents up to this length, in bytes, are stored inline after their heads.
pub(super) const MAX_INLINE_BYTES: usize = 1024;

/// A point in time, in minutes since the Unix epoch. Ages are differences of stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(pub(super) u32);

impl Stamp {
    pub(super) fn now() -> Self {
        let seconds =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self(u32::try_from(seconds / 60).unwrap_or(u32::MAX))
    }

    /// Returns whether the stamp is less than an hour old, so that it need not be renewed.
    pub(super) fn is_fresh(self, now: Self) -> bool {
        const FRESH_MINUTES: u32 = 60;
        !self.is_wrong(now) && now.0.saturating_sub(self.0) < FRESH_MINUTES
    }

    /// Returns whether the stamp is more than a day in the future, so that it must come from a
    /// wrong clock.
    pub(super) fn is_wrong(self, now: Self) -> bool {
        const DAY: u32 = 24 * 60;
        self.0 > now.0.saturating_add(DAY)
    }
}

/// The metadata of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: ObjectKind,
    /// When the object was last written, give or take an hour.
    pub(super) stamp: Stamp,
    /// The content's length in bytes.
    pub(super) length: u64,
}

/// Where an object's content is stored.
pub(super) enum Place<'a> {
    /// After the head.
    Inline(&'a [u8]),
    /// In the table `contents`.
    Separate,
}

/// The length of an encoded head without the content, in bytes.
const HEAD_BYTES: usize = 14;

impl Head {
    pub(super) fn encode(&self, content: &[u8]) -> Vec<u8> {
        let inline = content.len() <= MAX_INLINE_BYTES;
        let mut value = Vec::with_capacity(HEAD_BYTES + if inline { content.len() } else { 0 });
        value.push(kind_code(self.kind));
        value.push(u8::from(!inline));
        value.extend_from_slice(&self.stamp.0.to_le_bytes());
        value.extend_from_slice(&self.length.to_le_bytes());
        if inline {
            value.extend_from_slice(content);
        }
        value
    }

    /// Decodes the value of an object. Returns `None` if the value is malformed.
    pub(super) fn decode(value: &[u8]) -> Option<(Self, Place<'_>)> {
        let (head, rest) = value.split_at_checked(HEAD_BYTES)?;
        let kind = kind_of(head[0])?;
        let stamp = Stamp(u32::from_le_bytes(head[2..6].try_into().ok()?));
        let length = u64::from_le_bytes(head[6..].try_into().ok()?);
        let place = match (head[1], rest) {
            (0, content) if content.len() as u64 == length => Place::Inline(content),
            (1, []) => Place::Separate,
            _ => return None,
        };
        Some((Self { kind, stamp, length }, place))
    }

    /// Returns an encoded value with its stamp replaced by `stamp`.
    pub(super) fn restamp(value: &[u8], stamp: Stamp) -> Vec<u8> {
        let mut value = value.to_vec();
        if let Some(old) = value.get_mut(2..6) {
            old.copy_from_slice(&stamp.0.to_le_bytes());
        }
        value
    }
}

/// The table of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryTable {
    Memo,
    Pins,
}

/// A memo entry or a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) outcome: ObjectRef,
    /// When the entry was last used, give or take an hour.
    pub(super) stamp: Stamp,
}

/// Where the checksum begins in an encoded entry, in bytes.
const CHECKSUM_OFFSET: usize = 5;
/// Where the outcome's id begins in an encoded entry, in bytes.
const ID_OFFSET: usize = 9;

impl Entry {
    pub(super) fn encode(&self, request: ObjectId) -> Vec<u8> {
        let mut value = Vec::with_capacity(ID_OFFSET + self.outcome.id.as_bytes().len());
        value.push(kind_code(self.outcome.kind));
        value.extend_from_slice(&self.stamp.0.to_le_bytes());
        let check = check(request, &value, self.outcome.id.as_bytes());
        value.extend_from_slice(&check.to_le_bytes());
        value.extend_from_slice(self.outcome.id.as_bytes());
        value
    }

    /// Decodes an entry. Returns `None` if its checksum does not match or it is malformed.
    pub(super) fn decode(request: ObjectId, value: &[u8]) -> Option<Self> {
        let (head, id) = value.split_at_checked(ID_OFFSET)?;
        let (checked, found) = head.split_at(CHECKSUM_OFFSET);
        if check(request, checked, id).to_le_bytes() != found {
            return None;
        }
        let stamp = Stamp(u32::from_le_bytes(checked[1..].try_into().ok()?));
        let outcome = ObjectRef { kind: kind_of(checked[0])?, id: ObjectId::from_bytes(id).ok()? };
        Some(Self { outcome, stamp })
    }
}

/// Returns the CRC-32 of an entry's key and value.
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
