//! [`Packs`]: the packs of one object directory.

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
use super::deltas::{self, BaseCache, Rescue};

/// The packs in a directory. Their data files are opened on demand.
///
/// Each pack's own index is used. Multi-pack-indexes are ignored: one may list packs that do not
/// exist, and `gix-odb` 0.87 then treats every object in it as missing.
pub(super) struct Packs {
    directory: PathBuf,
    listed: RwLock<Listed>,
}

#[derive(Default)]
struct Listed {
    /// When the directory was last modified, as of the listing. `None` if that does not prove that
    /// the list is still correct.
    modified: Option<SystemTime>,
    /// The pack that had the last object comes first.
    packs: Vec<Arc<Pack>>,
}

/// A pack: its index, and its data file.
pub(super) struct Pack {
    path: PathBuf,
    index: index::File,
    /// Opened when the first object is read. If that fails, it is not tried again.
    data: OnceLock<Result<data::File, String>>,
    /// Identifies the pack in the cache of decoded objects.
    number: u32,
}

/// If a directory was modified less than this time before it was listed, it may have been modified
/// again since with the same timestamp.
const TOO_RECENT: Duration = Duration::from_millis(100);

impl Packs {
    /// Lists the packs of the object directory at `objects`.
    pub(super) fn of(objects: &Path) -> Self {
        let packs = Self { directory: objects.join("pack"), listed: RwLock::default() };
        packs.relist();
        packs
    }

    /// Lists the directory again if it may have changed. Returns whether there are new packs.
    pub(super) fn relist(&self) -> bool {
        let now = SystemTime::now();
        let modified = fs::metadata(&self.directory).and_then(|metadata| metadata.modified()).ok();
        if modified.is_none() || modified == self.listed.read().modified {
            return false;
        }
        let mut listed = self.listed.write();
        let before = listed.packs.len();
        for path in self.files_with("idx") {
            // Packs that were deleted stay in the list: those that are open can still be read.
            if listed.packs.iter().any(|pack| pack.path == path)
                || !path.with_extension("pack").is_file()
            {
                continue;
            }
            match Pack::open(&path) {
                Ok(pack) => listed.packs.push(Arc::new(pack)),
                Err(problem) => {
                    tracing::warn!("cannot read the pack index {}: {problem}", path.display())
                }
            }
        }
        listed.modified = modified
            .filter(|modified| now.duration_since(*modified).is_ok_and(|since| since > TOO_RECENT));
        listed.packs.len() > before
    }

    /// Returns the copies of an object in these packs.
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
        // The next object is likely to be in the same pack. If the list is in use, the order stays.
        if last > 0
            && let Some(mut listed) = self.listed.try_write()
            && last < listed.packs.len()
        {
            listed.packs.swap(0, last);
        }
        found
    }

    /// Returns whether there are packs of a partial clone.
    pub(super) fn has_promisor_packs(&self) -> bool {
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

    /// Returns the offset of a delta's base in this pack, or `None` for an entry that is not a
    /// delta.
    pub(super) fn base_of(&self, entry: &data::Entry) -> Result<Option<u64>, Problem> {
        match entry.header {
            Header::OfsDelta { base_distance } => entry
                .checked_base_pack_offset(base_distance)
                .map(Some)
                .ok_or_else(|| "the offset of a delta base is before the start of the pack".into()),
            Header::RefDelta { base_id } => match self.index.lookup(base_id) {
                Some(base) => Ok(Some(self.index.pack_offset_at_index(base))),
                None => Err(format!("the delta base {base_id} is not in the pack").into()),
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

    pub(super) fn is_in_same_pack(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pack, &other.pack)
    }

    /// Reads the object. A delta base that cannot be read from the pack is supplied by `rescue`.
    pub(super) fn read(
        &self,
        bases: &BaseCache,
        rescue: &Rescue<'_>,
    ) -> Result<(Kind, Vec<u8>), Problem> {
        deltas::decode(&self.pack, self.offset, bases, rescue)
    }

    /// Returns the length of the object's content in bytes.
    pub(super) fn size(&self) -> Result<u64, Problem> {
        deltas::size(&self.pack, self.offset)
    }

    /// Returns the object's kind.
    pub(super) fn kind(&self, bases: &BaseCache) -> Result<Kind, Problem> {
        deltas::kind(&self.pack, self.offset, bases)
    }
}
