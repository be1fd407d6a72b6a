//! The index of the git repository around a scanned directory: which files are tracked
//! ([`Tracked`]), and the ids of files, for a first scan ([`GitIndex`]).
//!
//! The index has the ids of what git would commit. These are the ids of the files themselves unless
//! git converts them (`gitattributes`, `core.autocrlf`), so it is not used where that may happen. A
//! file that was converted under earlier settings usually has another length than its blob, which is
//! checked. If one has not, reading it fails, because its content does not have that id.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gix_index::entry::{Flags, Mode, Stage};
use manifold_runtime_api::ObjectId;
use manifold_runtime_api::bstr::{BStr, BString, ByteSlice};

use super::error::{DirectoryError, io_error};
use super::stat::Stat;
use super::{files, nested};
use crate::source::{GitObjects, ObjectSource};

/// The index of a repository.
pub(super) struct GitIndex {
    index: gix_index::File,
    /// The path of the scanned directory below the working tree.
    prefix: PathBuf,
    /// When the index was written: seconds and nanoseconds since 1970.
    written: (i64, i64),
    objects: GitObjects,
}

impl GitIndex {
    /// Opens the index of the repository around `directory`. Returns `None` if there is none, or if
    /// git may convert files.
    pub(super) fn around(directory: &Path) -> Option<Self> {
        let (root, git) = nested::repository_around(directory)?;
        let path = git.join("index");
        let metadata = fs::metadata(&path).ok().filter(Metadata::is_file)?;
        let index =
            gix_index::File::at(&path, gix_hash::Kind::Sha1, false, Default::default()).ok()?;
        let common = nested::common_directory(&git);
        if converts(&root, &common, &index) {
            return None;
        }
        let objects = GitObjects::open(common.join("objects")).ok()?;
        let prefix = directory.strip_prefix(&root).ok()?.to_owned();
        Some(Self { index, prefix, written: (metadata.mtime(), metadata.mtime_nsec()), objects })
    }

    /// Returns the id of the file at `below` in the scanned directory, if the index has it and the
    /// file has not changed since.
    pub(super) fn id_of(&self, below: &Path, metadata: &Metadata) -> Option<ObjectId> {
        let path = self.prefix.join(below);
        let path = path.as_os_str().as_encoded_bytes().as_bstr();
        let entry = self.index.entry_by_path_and_stage(path, Stage::Unconflicted)?;
        let unsure = Flags::ASSUME_VALID | Flags::SKIP_WORKTREE | Flags::INTENT_TO_ADD;
        if entry.flags.intersects(unsure)
            || !matches!(entry.mode, Mode::FILE | Mode::FILE_EXECUTABLE)
        {
            return None;
        }
        let stat = &entry.stat;
        let times = |seconds: u32, nanoseconds: u32| (i64::from(seconds), i64::from(nanoseconds));
        let modified = times(stat.mtime.secs, stat.mtime.nsecs);
        // The index has the lower half of these numbers.
        let low = |number: u64| number & u64::from(u32::MAX);
        let is_same = modified == (metadata.mtime(), metadata.mtime_nsec())
            && times(stat.ctime.secs, stat.ctime.nsecs)
                == (metadata.ctime(), metadata.ctime_nsec())
            && u64::from(stat.ino) == low(metadata.ino())
            && u64::from(stat.size) == low(metadata.len());
        // What was modified when the index was written may have been modified once more.
        if !is_same || modified >= self.written {
            return None;
        }
        let id = ObjectId::from_bytes(entry.id.as_slice()).ok()?;
        (self.objects.size(id).ok()? == Some(metadata.len())).then_some(id)
    }
}

/// Returns whether git may convert files of a working tree.
fn converts(root: &Path, common: &Path, index: &gix_index::File) -> bool {
    let attributes = index.entries().iter().filter_map(|entry| {
        let path = entry.path(index);
        path.ends_with(b".gitattributes").then(|| root.join(path.to_path_lossy()))
    });
    let mut attributes = attributes.chain([common.join("info/attributes")]);
    if attributes.any(|file| may_convert(&file)) {
        return true;
    }
    let autocrlf = nested::git(root, &["config", "--get", "core.autocrlf"]);
    if autocrlf.is_none_or(|value| !matches!(value.trim(), "" | "false")) {
        return true;
    }
    ["GIT_ATTR_SYSTEM", "GIT_ATTR_GLOBAL"].into_iter().any(|variable| {
        // Old versions of git do not know the variables, and may have attributes.
        let Some(files) = nested::git(root, &["var", variable]) else { return true };
        // The user's own files may be links.
        files.lines().any(|file| match Path::new(file).canonicalize() {
            Ok(file) => may_convert(&file),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        })
    })
}

/// Returns whether a file of attributes names one that converts (`gitattributes`), or cannot be read. A
/// link is not followed, because a repository can have one to a device.
fn may_convert(file: &Path) -> bool {
    const LARGEST: u64 = 1 << 20;
    let words: [&[u8]; 7] = [b"text", b"eol", b"crlf", b"filter", b"ident", b"encoding", b"[attr]"];
    match files::read_if_any(file, LARGEST) {
        Ok(Some(content)) => {
            content.len() as u64 == LARGEST || words.iter().any(|word| content.contains_str(word))
        }
        Ok(None) => fs::symlink_metadata(file).is_ok(),
        Err(_) => true,
    }
}

/// The files that are tracked. The index is read when somebody asks.
pub(super) struct Tracked {
    path: PathBuf,
    /// Changes when the index does.
    pub(super) stat: Vec<u8>,
    index: OnceLock<gix_index::File>,
}

impl Tracked {
    /// Those of the repository in `git`.
    pub(super) fn of(git: &Path) -> Self {
        let path = git.join("index");
        let mut bytes = Vec::new();
        let metadata = fs::metadata(&path).ok().filter(Metadata::is_file);
        if let Some(stat) = metadata.as_ref().and_then(Stat::of) {
            stat.encode(&mut bytes);
        }
        Self { path, stat: bytes, index: OnceLock::new() }
    }

    /// Returns the index, `None` if the repository has none.
    fn index(&self) -> Result<Option<&gix_index::File>, DirectoryError> {
        if self.stat.is_empty() {
            return Ok(None);
        }
        if let Some(index) = self.index.get() {
            return Ok(Some(index));
        }
        let opened =
            gix_index::File::at(&self.path, gix_hash::Kind::Sha1, true, Default::default());
        let opened = opened.map_err(|error| io_error(&self.path)(std::io::Error::other(error)))?;
        Ok(Some(self.index.get_or_init(|| opened)))
    }

    /// Returns whether the index has something at `path` of the working tree. Errors if it cannot be
    /// read.
    pub(super) fn has(&self, path: &BStr) -> Result<bool, DirectoryError> {
        Ok(self.index()?.is_some_and(|index| index.entry_by_path(path).is_some()))
    }

    /// Returns whether the index has something below the directory at `path` of the working tree.
    /// Errors if it cannot be read.
    pub(super) fn has_below(&self, path: &BStr) -> Result<bool, DirectoryError> {
        let mut below = BString::from(path);
        below.push(b'/');
        Ok(self.index()?.is_some_and(|index| index.prefixed_entries(below.as_bstr()).is_some()))
    }
}
