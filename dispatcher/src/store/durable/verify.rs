//! Looking at everything again.

use std::collections::HashSet;
use std::fmt;

use manifold_runtime_api::{ObjectId, ObjectKind, Result, Tree};

use redb::{ReadableTable, Table};

use super::DurableStore;
use super::disk::{Done, Trouble};
use super::format::{self, Entry};
use super::tables::{ReadTables, Tables};
use crate::progress::Progress;
use crate::store::Store;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Objects that were hashed.
    pub objects: u64,
    /// The bytes of their contents.
    pub bytes: u64,
    /// Memo entries that were checked.
    pub entries: u64,
    /// Memo entries whose object is not in the store. It may be in a source; where it is not, the entry counts as none.
    pub entries_without_object: u64,
    /// Pins that were checked.
    pub pins: u64,
    /// What is wrong.
    pub damages: Vec<Damage>,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// The file itself. It has to be deleted.
    File {
        /// What was found.
        problem: String,
    },
    /// An object does not have its id, or cannot be read.
    Object {
        /// The id under which it stands.
        id: ObjectId,
    },
    /// A memo entry.
    Entry {
        /// Its request.
        request: ObjectId,
    },
    /// A pin.
    Pin {
        /// Its request.
        request: ObjectId,
    },
    /// A pinned outcome is not complete.
    Incomplete {
        /// The pin's request.
        request: ObjectId,
        /// What is not there.
        missing: ObjectId,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { problem } => write!(f, "the file: {problem}"),
            Self::Object { id } => write!(f, "object {id} is not what was written"),
            Self::Entry { request } => {
                write!(f, "the memo entry of request {request} is not what was written")
            }
            Self::Pin { request } => {
                write!(f, "the pin of request {request} is not what was written")
            }
            Self::Incomplete { request, missing } => {
                write!(f, "the pinned outcome of request {request} lacks object {missing}")
            }
        }
    }
}

impl DurableStore {
    /// Checks every page, hashes every object, and checks every entry and pin, as they are at one point in time. While the pages
    /// are checked, this process reads nothing and nobody writes.
    ///
    /// # Errors
    /// `StoreFailed` when the operating system refuses. Damage is no error but a finding.
    pub fn verify(&self, mut progress: impl FnMut(Progress)) -> Result<Verified> {
        self.flush()?;
        let mut verified = Verified::default();
        progress(Progress::new("pages", 0, 1));
        let looked = self.disk.check_pages().and_then(|()| {
            let looked = self
                .disk
                .examine(|tables| Ok(look_at_everything(tables, &mut verified, &mut progress)));
            looked.flatten()
        });
        match looked {
            Ok(()) => {}
            Err(trouble) if trouble.is_damage() => {
                verified
                    .damages
                    .push(Damage::File { problem: self.disk.error(trouble).to_string() });
            }
            Err(trouble) => return Err(self.disk.error(trouble)),
        }
        Ok(verified)
    }

    /// Deletes what `verified` found damaged and what is still so, so that it is computed again. Damage to the file itself
    /// stays.
    ///
    /// # Errors
    /// `StoreFailed`.
    pub fn drop_damaged(&self, verified: &Verified) -> Result<()> {
        self.disk.write(|tables| {
            for damage in &verified.damages {
                match damage {
                    Damage::File { .. } => {}
                    Damage::Object { id } if is_sound(tables, *id)? => {}
                    Damage::Object { id } => tables.drop_object(*id)?,
                    Damage::Entry { request } => {
                        drop_if(&mut tables.memo, *request, |entry| entry.is_none())?
                    }
                    Damage::Pin { request } => {
                        drop_if(&mut tables.pins, *request, |pin| pin.is_none())?
                    }
                    Damage::Incomplete { request, missing } => {
                        let lacks = !is_sound(tables, *missing)?;
                        drop_if(&mut tables.pins, *request, |_| lacks)?;
                    }
                }
            }
            Ok(Done::removed(()))
        })?;
        self.forget();
        Ok(())
    }
}

fn look_at_everything(
    tables: &ReadTables,
    verified: &mut Verified,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Trouble> {
    let heads = tables.heads()?;
    let total = heads.len() as u64;
    let mut sound = HashSet::with_capacity(heads.len());
    for (id, head) in heads {
        progress(Progress::new("objects", verified.objects, total));
        verified.objects += 1;
        verified.bytes += head.map_or(0, |head| head.length);
        if is_sound(tables, id)? {
            sound.insert(id);
        } else {
            verified.damages.push(Damage::Object { id });
        }
    }
    for (request, entry) in tables.memo_entries()? {
        verified.entries += 1;
        match entry {
            None => verified.damages.push(Damage::Entry { request }),
            Some(entry) if !sound.contains(&entry.outcome.id) => {
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

/// Whether an object is there and is what its id says; a tree has to be one that git takes.
fn is_sound<T: ReadableTable<format::Bytes, format::Bytes>>(
    tables: &Tables<T>,
    id: ObjectId,
) -> Result<bool, Trouble> {
    match tables.object(id) {
        Ok(Some((object, _))) => {
            Ok(object.kind == ObjectKind::Blob
                || Tree::decode_as_git_reads(&object.content).is_ok())
        }
        Ok(None) | Err(Trouble::Value(..)) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

/// The first object that `root` reaches and that is not `sound`.
fn missing_below(
    tables: &ReadTables,
    root: ObjectId,
    sound: &HashSet<ObjectId>,
) -> Result<Option<ObjectId>, Trouble> {
    let mut met = HashSet::from([root]);
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if id == ObjectId::empty_tree() {
            continue;
        }
        if !sound.contains(&id) {
            return Ok(Some(id));
        }
        open.extend(tables.entries(id)?.into_iter().filter(|entry| met.insert(*entry)));
    }
    Ok(None)
}

/// Removes the value of `request` if `condition` holds for it.
fn drop_if(
    table: &mut Table<'_, format::Bytes, format::Bytes>,
    request: ObjectId,
    condition: impl FnOnce(Option<Entry>) -> bool,
) -> Result<(), Trouble> {
    let found = table.get(request.as_bytes())?.map(|value| Entry::decode(request, value.value()));
    if found.is_some_and(condition) {
        table.remove(request.as_bytes())?;
    }
    Ok(())
}
