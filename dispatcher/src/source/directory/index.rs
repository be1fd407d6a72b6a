//! Index files: the records of a scanned directory, for the next scan.

use std::path::Path;

use manifold_cached_files::CachedFiles;
use manifold_runtime_api::Object;

/// The records of a scanned directory.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) body: Vec<u8>,
    /// Where the record of the scanned directory begins.
    pub(super) root: usize,
}

/// The index file of a directory: its records, and 8 bytes that say where its own begins.
#[derive(Debug)]
pub(super) struct IndexFile {
    files: CachedFiles,
    name: String,
}

impl IndexFile {
    /// The index file in `place` of the directory whose canonical path is `canonical`, if `left_out`
    /// describes what its scans leave out.
    pub(super) fn new(place: &Path, canonical: &Path, left_out: &[u8]) -> Self {
        const MAX_BYTES: u64 = 1 << 30;
        let mut key = canonical.as_os_str().as_encoded_bytes().to_vec();
        key.extend_from_slice(left_out);
        let name = Object::blob(key).id().to_string();
        Self { files: CachedFiles::new(place, "directory-2", MAX_BYTES), name }
    }

    /// Reads the index, if there is one that can be used.
    pub(super) fn load(&self) -> Option<Records> {
        let mut body = self.files.read(&self.name)?;
        let root = body.split_off(body.len().checked_sub(8)?);
        let root = u64::from_le_bytes(*root.first_chunk()?);
        Some(Records { body, root: usize::try_from(root).ok()? })
    }

    /// Replaces the index. If that is not possible, the next scan hashes everything again.
    pub(super) fn save(&self, records: &Records) {
        self.files.write(&self.name, &[&records.body, &(records.root as u64).to_le_bytes()]);
    }
}
