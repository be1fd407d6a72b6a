//! Verification: checks every page, object, memo entry and pin, and removes damaged data.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use manifold_runtime_api::{ObjectId, Result};
use redb::ReadableTable;

use super::DurableStore;
use super::disk::Done;
use super::fault::StoreFault;
use super::format::{self, EntryTable};
use super::tables::{Index, ReadTables, Tables, Value};
use crate::progress::Progress;
use crate::store::Store;

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The number of objects that were hashed.
    pub objects: u64,
    /// The total length of the objects' contents, in bytes.
    pub bytes: u64,
    /// The number of memo entries that were checked.
    pub entries: u64,
    /// The number of memo entries whose object is not in the store. The object may be in a source.
    /// If it is not, the entry is a miss.
    pub entries_without_object: u64,
    /// The number of pins that were checked.
    pub pins: u64,
    /// The damages that were found.
    pub damages: Vec<Damage>,
}

/// Damage that a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// The file itself is damaged. It has to be deleted.
    File {
        /// A description of the damage.
        problem: String,
    },
    /// An object cannot be read, its content does not have its id, or it is a malformed tree.
    Object {
        /// The id under which the object is stored.
        id: ObjectId,
    },
    /// A chunk, in which objects and memo entries are stored, contains something that is neither, or
    /// is missing.
    Chunk {
        /// The number of the chunk.
        number: u32,
    },
    /// A memo entry is damaged.
    Entry {
        /// The id of the entry's request.
        request: ObjectId,
    },
    /// A pin is damaged.
    Pin {
        /// The id of the pin's request.
        request: ObjectId,
    },
    /// An object that a pinned outcome reaches is missing or damaged.
    Incomplete {
        /// The id of the pin's request.
        request: ObjectId,
        /// The id of the object.
        missing: ObjectId,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { problem } => write!(f, "the file: {problem}"),
            Self::Object { id } => write!(f, "object {id} is corrupt"),
            Self::Chunk { number } => write!(f, "chunk {number} is corrupt"),
            Self::Entry { request } => {
                write!(f, "the memo entry of request {request} is corrupt")
            }
            Self::Pin { request } => {
                write!(f, "the pin of request {request} is corrupt")
            }
            Self::Incomplete { request, missing } => {
                write!(
                    f,
                    "the pinned outcome of request {request} is incomplete: object {missing} is \
                     missing or corrupt"
                )
            }
        }
    }
}

impl DurableStore {
    /// Checks every page, hashes every object, and checks every memo entry and pin of one snapshot.
    ///
    /// While the pages are checked, reads of this process and writes of all processes wait. The
    /// pages of a read-only store are not checked.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the operating system reports
    /// an error. Damage is not an error: it is listed in the result.
    pub fn verify(&self, mut progress: impl FnMut(Progress)) -> Result<VerifyReport> {
        self.flush()?;
        let mut verified = VerifyReport::default();
        progress(Progress::new("pages", 0, 1));
        let result = self.disk.check_pages().and_then(|()| {
            let result =
                self.disk.examine(|tables| Ok(verify_tables(tables, &mut verified, &mut progress)));
            result.flatten()
        });
        match result {
            Ok(()) => {}
            Err(fault) if fault.is_damage() => {
                verified.damages.push(Damage::File { problem: self.disk.error(fault).to_string() });
            }
            Err(fault) => return Err(self.disk.error(fault)),
        }
        Ok(verified)
    }

    /// Removes the data that `verified` reports as damaged, as far as it is still damaged, so that
    /// it is computed again. Does not repair damage to the file itself.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the file cannot be written.
    pub fn drop_damaged(&self, verified: &VerifyReport) -> Result<()> {
        self.disk.write(|tables| {
            let (mut objects, mut entries) = (HashSet::new(), HashSet::new());
            for damage in &verified.damages {
                match damage {
                    Damage::File { .. } | Damage::Chunk { .. } => {}
                    Damage::Object { id } if tables.is_sound(*id)? => {}
                    Damage::Object { id } => drop(objects.insert(*id)),
                    Damage::Entry { request }
                        if is_damaged(tables, EntryTable::Memo, *request)? =>
                    {
                        entries.insert(*request);
                    }
                    Damage::Pin { request } if is_damaged(tables, EntryTable::Pins, *request)? => {
                        tables.remove_pin(*request)?;
                    }
                    Damage::Incomplete { request, missing } if !tables.is_sound(*missing)? => {
                        tables.remove_pin(*request)?;
                    }
                    Damage::Entry { .. } | Damage::Pin { .. } | Damage::Incomplete { .. } => {}
                }
            }
            let listings = [tables.list(Index::Objects)?, tables.list(Index::Memo)?];
            tables.retain(
                listings,
                |id| !objects.contains(&id),
                |request| !entries.contains(&request),
            )?;
            Ok(Done::removed(()))
        })?;
        self.clear_memory_tier();
        Ok(())
    }
}

/// Checks all objects, memo entries and pins of one snapshot, and adds the damages to `verified`.
fn verify_tables(
    tables: &ReadTables,
    verified: &mut VerifyReport,
    progress: &mut impl FnMut(Progress),
) -> Result<(), StoreFault> {
    let objects = tables.verify_objects(progress)?;
    let entries = tables.list(Index::Memo)?;
    let malformed: BTreeSet<_> = objects.malformed.into_iter().chain(entries.malformed).collect();
    verified.damages.extend(malformed.into_iter().map(|number| Damage::Chunk { number }));
    let mut sound = HashSet::with_capacity(objects.values.len());
    for (_, value) in objects.values {
        let Value::Object { id, head, is_sound, .. } = value else { continue };
        verified.objects += 1;
        verified.bytes += head.length;
        if is_sound {
            sound.insert(id);
        } else {
            verified.damages.push(Damage::Object { id });
        }
    }
    for (_, value) in entries.values {
        let Value::Memo { request, entry, .. } = value else { continue };
        verified.entries += 1;
        match entry {
            None => verified.damages.push(Damage::Entry { request }),
            Some(entry) if entry.outcome.is_some_and(|outcome| !sound.contains(&outcome.id)) => {
                verified.entries_without_object += 1
            }
            Some(_) => {}
        }
    }
    for (request, pin) in tables.all_pins()? {
        verified.pins += 1;
        match pin {
            None => verified.damages.push(Damage::Pin { request }),
            Some(pin) => {
                let missing = missing_below(tables, pin.outcome.id, &sound)?;
                verified
                    .damages
                    .extend(missing.map(|missing| Damage::Incomplete { request, missing }));
            }
        }
    }
    Ok(())
}

/// Returns the first object that `root` reaches and that is not in `sound`.
fn missing_below(
    tables: &ReadTables,
    root: ObjectId,
    sound: &HashSet<ObjectId>,
) -> Result<Option<ObjectId>, StoreFault> {
    let mut seen = HashSet::from([root]);
    let mut pending = vec![root];
    while let Some(id) = pending.pop() {
        if id == ObjectId::empty_tree() {
            continue;
        }
        if !sound.contains(&id) {
            return Ok(Some(id));
        }
        pending.extend(tables.entries(id)?.into_iter().filter(|entry| seen.insert(*entry)));
    }
    Ok(None)
}

/// Returns whether an entry is there and damaged.
fn is_damaged<T: ReadableTable<format::Bytes, format::Bytes>>(
    tables: &Tables<T>,
    table: EntryTable,
    request: ObjectId,
) -> Result<bool, StoreFault> {
    match tables.entry(table, request) {
        Ok(_) => Ok(false),
        Err(StoreFault::Value(..)) => Ok(true),
        Err(fault) => Err(fault),
    }
}
