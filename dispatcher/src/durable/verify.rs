//! Looking at everything again.

use std::collections::HashSet;
use std::fmt;

use manifold_runtime_api::{ObjectId, ObjectKind, Result, Tree};

use super::DurableStore;
use super::format::Stamp;
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
            Self::Entry { request } => write!(f, "the memo entry of request {request} is not what was written"),
            Self::Pin { request } => write!(f, "the pin of request {request} is not what was written"),
            Self::Incomplete { request, missing } => {
                write!(f, "the pinned outcome of request {request} lacks object {missing}")
            }
        }
    }
}

impl DurableStore {
    /// Checks every page, hashes every object, and checks every entry and pin.
    ///
    /// # Errors
    /// `StoreFailed` when the operating system refuses. Damage is no error but a finding.
    pub fn verify(&self, mut progress: impl FnMut(Progress)) -> Result<Verified> {
        self.flush()?;
        let mut verified = Verified::default();
        progress(Progress::new("pages", 0, 1));
        if let Err(error) = self.look_at_everything(&mut verified, &mut progress) {
            verified.damages.push(Damage::File { problem: error.to_string() });
        }
        Ok(verified)
    }

    fn look_at_everything(&self, verified: &mut Verified, progress: &mut impl FnMut(Progress)) -> Result<()> {
        self.disk.check_pages()?;
        let mut heads = Vec::new();
        self.disk.each_object(|id, head| heads.push((id, head)))?;
        let total = heads.len() as u64;
        let mut sound = HashSet::with_capacity(heads.len());
        for (id, head) in heads {
            progress(Progress::new("objects", verified.objects, total));
            verified.objects += 1;
            verified.bytes += head.map_or(0, |head| head.length);
            match self.disk.object(id) {
                Ok(Some((object, _))) if object.kind == ObjectKind::Blob || Tree::decode(&object.content).is_ok() => {
                    sound.insert(id);
                }
                _ => verified.damages.push(Damage::Object { id }),
            }
        }
        self.disk.each_memo(|request, entry| {
            verified.entries += 1;
            match entry {
                None => verified.damages.push(Damage::Entry { request }),
                Some(entry) if !sound.contains(&entry.outcome.id) => verified.entries_without_object += 1,
                Some(_) => {}
            }
        })?;
        let mut pins = Vec::new();
        self.disk.each_pin(|request, entry| pins.push((request, entry)))?;
        for (request, entry) in pins {
            verified.pins += 1;
            match entry {
                None => verified.damages.push(Damage::Pin { request }),
                Some(entry) => {
                    let missing = self.missing_below(entry.outcome.id, &sound)?;
                    verified.damages.extend(missing.map(|missing| Damage::Incomplete { request, missing }));
                }
            }
        }
        Ok(())
    }

    /// The first object that `root` reaches and that is not `sound`.
    fn missing_below(&self, root: ObjectId, sound: &HashSet<ObjectId>) -> Result<Option<ObjectId>> {
        let mut met = HashSet::from([root]);
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            if id == ObjectId::empty_tree() {
                continue;
            }
            if !sound.contains(&id) {
                return Ok(Some(id));
            }
            if let Some((object, _)) = self.disk.object(id)?
                && object.kind == ObjectKind::Tree
            {
                for entry in Tree::decode(&object.content)?.entries() {
                    if entry.mode.object_kind().is_some() && met.insert(entry.id) {
                        open.push(entry.id);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Deletes what `verified` found damaged, so that it is computed again. Damage to the file itself stays.
    ///
    /// # Errors
    /// `StoreFailed`.
    pub fn drop_damaged(&self, verified: &Verified) -> Result<()> {
        let (mut entries, mut objects, mut pins) = (Vec::new(), Vec::new(), Vec::new());
        for damage in &verified.damages {
            match damage {
                Damage::File { .. } => {}
                Damage::Object { id } => objects.push((*id, self.disk.head(*id).ok().flatten().map(|head| head.stamp))),
                Damage::Entry { request } => entries.push((*request, None::<Stamp>)),
                Damage::Pin { request } | Damage::Incomplete { request, .. } => pins.push(*request),
            }
        }
        self.disk.delete_pins(&pins)?;
        self.disk.delete(&entries, &objects)?;
        for request in &pins {
            self.pins.remove(request);
        }
        for (id, _) in &objects {
            self.objects.remove(id);
        }
        Ok(())
    }
}
