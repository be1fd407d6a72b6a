//! The packs of one object directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use gix_object::Kind;
use gix_pack::data::entry::Header;
use gix_pack::{data, index};
use parking_lot::RwLock;

use super::Problem;
use super::deltas::{self, Bases, Rescue};

/// The packs in a directory. They are opened as they are wanted.
///
/// Each pack has its own index, and a multi-pack-index is not looked at: it may name packs that are gone, and then `gix-odb` 0.87 takes
/// every object in it for missing.
pub(super) struct Packs {
    directory: PathBuf,
    listed: RwLock<Listed>,
}

#[derive(Default)]
struct Listed {
    /// When the directory was changed last, as far as that says that the list is still right.
    modified: Option<SystemTime>,
    /// The one that had the last object comes first.
    packs: Vec<Arc<Pack>>,
}

pub(super) struct Pack {
    path: PathBuf,
    index: index::File,
    /// Opened with the first object that is read from it. What cannot be opened stays so.
    data: OnceLock<Result<data::File, String>>,
    number: u32,
}

/// A directory that was changed so shortly before it was listed may have been changed again at the same time of its clock.
const TOO_RECENT: Duration = Duration::from_millis(100);

impl Packs {
    /// The packs of the object directory at `objects`.
    pub(super) fn of(objects: &Path) -> Self {
        let packs = Self { directory: objects.join("pack"), listed: RwLock::default() };
        packs.look_again();
        packs
    }

    /// Lists the directory again, if it may have been changed. Answers whether there is a pack that was not there before.
    pub(super) fn look_again(&self) -> bool {
        let now = SystemTime::now();
        let modified = fs::metadata(&self.directory).and_then(|metadata| metadata.modified()).ok();
        if modified.is_none() || modified == self.listed.read().modified {
            return false;
        }
        let mut listed = self.listed.write();
        let before = listed.packs.len();
        for path in self.files_with("idx") {
            // A pack that is gone still serves what it had: it was opened before.
            if listed.packs.iter().any(|pack| pack.path == path)
                || !path.with_extension("pack").is_file()
            {
                continue;
            }
            match Pack::open(&path) {
                Ok(pack) => listed.packs.push(Arc::new(pack)),
                Err(problem) => {
                    tracing::warn!("the pack index {} cannot be read: {problem}", path.display())
                }
            }
        }
        listed.modified = modified
            .filter(|modified| now.duration_since(*modified).is_ok_and(|since| since > TOO_RECENT));
        listed.packs.len() > before
    }

    /// The copies of an object in these packs.
    pub(super) fn copies_of(&self, id: &gix_hash::oid) -> Vec<Packed> {
        let listed = self.listed.read();
        let mut found = Vec::new();
        let mut last = 0;
        for (place, pack) in listed.packs.iter().enumerate() {
            if let Some(entry) = pack.index.lookup(id) {
                found.push(Packed {
                    offset: pack.index.pack_offset_at_index(entry),
                    pack: Arc::clone(pack),
                });
                last = place;
            }
        }
        drop(listed);
        // The next one is likely to be in the same pack. Who finds the list in use leaves it as it is.
        if last > 0
            && let Some(mut listed) = self.listed.try_write()
            && last < listed.packs.len()
        {
            listed.packs.swap(0, last);
        }
        found
    }

    /// Whether there are packs of a partial clone.
    pub(super) fn is_any_promised(&self) -> bool {
        !self.files_with("promisor").is_empty()
    }

    fn files_with(&self, extension: &str) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    }
}

impl Pack {
    fn open(path: &Path) -> Result<Self, Problem> {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let index = index::File::at(path, gix_hash::Kind::Sha1)?;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { path: path.to_owned(), index, data: OnceLock::new(), number })
    }

    pub(super) fn index(&self) -> &index::File {
        &self.index
    }

    pub(super) fn data(&self) -> Result<&data::File, Problem> {
        let open = || {
            let mut data = data::File::at(self.path.with_extension("pack"), gix_hash::Kind::Sha1)
                .map_err(|error| error.to_string())?;
            data.id = self.number;
            Ok(data)
        };
        self.data.get_or_init(open).as_ref().map_err(|problem: &String| problem.clone().into())
    }

    /// Where the base of a delta stands in this pack; `None` for an entry that is no delta.
    pub(super) fn base_of(&self, entry: &data::Entry) -> Result<Option<u64>, Problem> {
        match entry.header {
            Header::OfsDelta { base_distance } => entry
                .checked_base_pack_offset(base_distance)
                .map(Some)
                .ok_or_else(|| "a delta's base is before the pack".into()),
            Header::RefDelta { base_id } => match self.index.lookup(base_id) {
                Some(base) => Ok(Some(self.index.pack_offset_at_index(base))),
                None => Err(format!("the base {base_id} of a delta is not in the pack").into()),
            },
            Header::Commit | Header::Tree | Header::Blob | Header::Tag => Ok(None),
        }
    }
}

/// An object in a pack.
pub(super) struct Packed {
    pack: Arc<Pack>,
    offset: u64,
}

impl Packed {
    pub(super) fn path(&self) -> &Path {
        &self.pack.path
    }

    pub(super) fn is_of_the_pack_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pack, &other.pack)
    }

    /// Reads the object. A base of it that this pack has lost comes from `rescue`.
    pub(super) fn read(
        &self,
        bases: &Bases,
        rescue: &Rescue<'_>,
    ) -> Result<(Kind, Vec<u8>), Problem> {
        deltas::decode(&self.pack, self.offset, bases, rescue)
    }

    /// Tells the object's kind.
    pub(super) fn kind(&self, bases: &Bases) -> Result<Kind, Problem> {
        deltas::kind(&self.pack, self.offset, bases)
    }
}
