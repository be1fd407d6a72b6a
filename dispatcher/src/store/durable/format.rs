//! The tables of a store's file, and the parts of their values.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` | [`FORMAT`] |
//! | `numbers` | `removals` | how often data was removed; a change invalidates caches |
//! | `numbers` | `chunk`, `run`, `content` | the next number of each |
//! | `chunks` | number | many objects and memo entries ([`chunks`](super::chunks)) |
//! | `contents` | number | the content of one large object |
//! | `runs` | index and id | the header of a run of an index ([`index`](super::index)) |
//! | `pages` | id of a run and number | some records of the run |
//! | `pins` | request id | [`Entry`]: kind, stamp (4 bytes), CRC-32 (4 bytes), outcome id |
//!
//! A kind takes one byte. Numbers are little-endian in values, and big-endian in keys, so that they
//! are sorted. An object is verified by its id. A memo entry and a pin carry a CRC-32.

use manifold_runtime_api::{ObjectId, ObjectKind, ObjectRef};
use redb::TableDefinition;

pub(super) type Bytes = &'static [u8];

pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
pub(super) const CHUNKS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("chunks");
pub(super) const CONTENTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("contents");
pub(super) const RUNS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("runs");
pub(super) const PAGES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("pages");
pub(super) const PINS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("pins");

/// The key of the format's name in the table `meta`.
pub(super) const FORMAT_KEY: &str = "format";
pub(super) const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The key of the number of removals in the table `numbers`.
pub(super) const REMOVALS: &str = "removals";
/// The name of the format that this code reads and writes.
pub(super) const FORMAT: &str = "manifold-store-3";

/// A point in time, in minutes since the Unix epoch. Ages are differences of stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(pub(super) u32);

impl Stamp {
    pub(super) fn now() -> Self {
        Self(u32::try_from(unix_seconds() / 60).unwrap_or(u32::MAX))
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

/// Returns the time in seconds. This clock takes a fraction of the time that `SystemTime` takes.
#[cfg(target_os = "linux")]
fn unix_seconds() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    u64::try_from(time.tv_sec).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn unix_seconds() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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

/// What an entry belongs to.
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
        let check = check(request, [&value, self.outcome.id.as_bytes()]);
        value.extend_from_slice(&check.to_le_bytes());
        value.extend_from_slice(self.outcome.id.as_bytes());
        value
    }

    /// Decodes an entry. Returns `None` if its checksum does not match or it is malformed.
    pub(super) fn decode(request: ObjectId, value: &[u8]) -> Option<Self> {
        let (head, id) = value.split_at_checked(ID_OFFSET)?;
        let (checked, found) = head.split_at(CHECKSUM_OFFSET);
        if check(request, [checked, id]).to_le_bytes() != found {
            return None;
        }
        let stamp = Stamp(u32::from_le_bytes(checked[1..].try_into().ok()?));
        let outcome = ObjectRef { kind: kind_of(checked[0])?, id: ObjectId::from_bytes(id).ok()? };
        Some(Self { outcome, stamp })
    }
}

/// Returns the CRC-32 of a request and of what is kept with it.
pub(super) fn check<const PARTS: usize>(request: ObjectId, parts: [&[u8]; PARTS]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(request.as_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

pub(super) fn kind_code(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::Blob => 1,
        ObjectKind::Tree => 2,
    }
}

pub(super) fn kind_of(code: u8) -> Option<ObjectKind> {
    match code {
        1 => Some(ObjectKind::Blob),
        2 => Some(ObjectKind::Tree),
        _ => None,
    }
}
