//! Index files: the records of a scanned directory, for the next scan.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use manifold_runtime_api::Object;

/// How the names of index files begin.
pub(super) const PREFIX: &str = "manifold-directory-";

/// The end of an index file: the place of the record of the scanned directory (8 bytes), the CRC-32
/// of everything before it (4 bytes), and this.
const FORMAT: &[u8; 20] = b"manifold-directory-1";
const TRAILER: usize = 8 + 4 + FORMAT.len();

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The records of a scanned directory.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) body: Vec<u8>,
    /// Where the record of the scanned directory begins.
    pub(super) root: usize,
}

/// The index file of a directory.
#[derive(Debug)]
pub(super) struct IndexFile {
    path: PathBuf,
}

impl IndexFile {
    /// The index file in `place` of the directory whose canonical path is `canonical`.
    pub(super) fn new(place: &Path, canonical: &Path) -> Self {
        let path = canonical.as_os_str().as_encoded_bytes();
        let id = Object::blob(path.to_vec()).id();
        Self { path: place.join(format!("{PREFIX}{id}")) }
    }

    /// Reads the index. Returns `None` if there is none, or if it is damaged or may be another
    /// user's.
    pub(super) fn load(&self) -> Option<Records> {
        let loaded = self.try_load();
        match loaded {
            Ok(records) => records,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::debug!("the index {} is not used: {error}", self.path.display());
                None
            }
        }
    }

    fn try_load(&self) -> io::Result<Option<Records>> {
        let mut options = File::options();
        options.read(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            options.custom_flags(flags.bits().cast_signed());
        }
        let mut file = options.open(&self.path)?;
        let metadata = file.metadata()?;
        if !is_private(&metadata) {
            return Err(io::Error::other("it is not a file that only this user can read"));
        }
        let mut body = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.read_to_end(&mut body)?;
        // The files that were not used for the longest time are removed first.
        if metadata.modified()?.elapsed().is_ok_and(|age| age > DAY) {
            let _ = file.set_modified(SystemTime::now());
        }
        let records = Records::decode(body);
        records.map(Some).ok_or_else(|| io::Error::other("it is damaged"))
    }

    /// Replaces the file. An error is logged: the next scan hashes everything again.
    pub(super) fn save(&self, records: &Records) {
        if let Err(error) = self.try_save(records) {
            tracing::debug!("the index {} cannot be written: {error}", self.path.display());
        }
    }

    fn try_save(&self, records: &Records) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        create_private(directory)?;
        let mut temporary = tempfile_in(directory)?;
        let written = (|| {
            temporary.0.write_all(&records.body)?;
            temporary.0.write_all(&records.trailer())?;
            fs::rename(&temporary.1, &self.path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary.1);
        }
        written?;
        self.remove_others(directory)
    }

    /// Removes index files that were not used for the longest time, until the others are small
    /// enough.
    fn remove_others(&self, directory: &Path) -> io::Result<()> {
        const MAX_BYTES: u64 = 1 << 30;
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
                && let Ok(metadata) = entry.metadata()
            {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort_unstable_by(|one, other| other.cmp(one));
        let mut kept = 0u64;
        for (modified, length, path) in files {
            kept = kept.saturating_add(length);
            // Left by a process that was killed.
            let is_unfinished = path.extension().is_some_and(|extension| extension == "new")
                && modified.elapsed().is_ok_and(|age| age > DAY);
            if is_unfinished || kept > MAX_BYTES && path != self.path {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Records {
    fn trailer(&self) -> Vec<u8> {
        let root = (self.root as u64).to_le_bytes();
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.body);
        sum.update(&root);
        [&root[..], &sum.finalize().to_le_bytes(), FORMAT].concat()
    }

    fn decode(mut body: Vec<u8>) -> Option<Self> {
        let end = body.len().checked_sub(TRAILER)?;
        let trailer = body.split_off(end);
        let root = u64::from_le_bytes(*trailer.first_chunk()?);
        let records = Self { body, root: usize::try_from(root).ok()? };
        (records.trailer() == trailer).then_some(records)
    }
}

/// Creates a directory that only this user can enter, unless it exists.
fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Creates a new file in `directory` that only this user can read.
fn tempfile_in(directory: &Path) -> io::Result<(File, PathBuf)> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("{PREFIX}{}-{number}.new", std::process::id()));
    let mut options = File::options();
    let _ = fs::remove_file(&path);
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    Ok((options.open(&path)?, path))
}

/// Returns whether this is a regular file that belongs to this user and that nobody else can write
/// or read.
#[cfg(unix)]
fn is_private(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owner = rustix::process::geteuid().as_raw();
    metadata.is_file() && metadata.uid() == owner && metadata.mode() & 0o077 == 0
}

#[cfg(not(unix))]
fn is_private(metadata: &Metadata) -> bool {
    metadata.is_file()
}
