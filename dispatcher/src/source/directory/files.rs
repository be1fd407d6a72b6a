//! Hashing and reading files that other processes may be writing.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::path::Path;

use manifold_runtime_api::{ObjectId, ObjectKind};

use super::error::{DirectoryError, io_error};

/// Files up to this length, in bytes, are read into memory in one go. A file that reports a length
/// of 0 is read up to this length.
const READ_WHOLE_BYTES: u64 = 4 << 20;

/// How often hashing a file is tried, if the file becomes shorter meanwhile.
const MAX_ATTEMPTS: usize = 4;

/// A file that was hashed.
pub(super) struct Hashed {
    pub(super) id: ObjectId,
    /// The number of bytes that were hashed.
    pub(super) length: u64,
    /// The file's metadata before it was read.
    pub(super) metadata: Metadata,
}

/// Hashes the file at `path` up to its current length. Returns `None` if the file was removed or is
/// not a regular file any more. `buffer` is used for the content.
pub(super) fn hash(
    path: &Path,
    largest: u64,
    buffer: &mut Vec<u8>,
) -> Result<Option<Hashed>, DirectoryError> {
    let Some((mut file, mut metadata)) = open(path).map_err(io_error(path))? else {
        return Ok(None);
    };
    for attempt in 0..MAX_ATTEMPTS {
        if attempt > 0 {
            metadata = file.metadata().map_err(io_error(path))?;
            file.rewind().map_err(io_error(path))?;
        }
        check_length(path, metadata.len(), largest)?;
        if let Some((id, length)) =
            hash_up_to(&mut file, metadata.len(), buffer).map_err(io_error(path))?
        {
            return Ok(Some(Hashed { id, length, metadata }));
        }
    }
    Err(DirectoryError::Changing { path: path.to_owned() })
}

/// Errors if a file is longer than `largest`.
pub(super) fn check_length(path: &Path, length: u64, largest: u64) -> Result<(), DirectoryError> {
    if length <= largest {
        return Ok(());
    }
    Err(DirectoryError::TooLarge { path: path.to_owned(), length, bound: largest })
}

/// Hashes the first `length` bytes. Bytes after them were appended after the length was determined.
/// Returns `None` if the file has become shorter.
fn hash_up_to(
    file: &mut File,
    length: u64,
    content: &mut Vec<u8>,
) -> io::Result<Option<(ObjectId, u64)>> {
    if length > READ_WHOLE_BYTES {
        return match ObjectId::of_blob_from(&mut Read::by_ref(file).take(length), length) {
            Ok(id) => Ok(Some((id, length))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        };
    }
    // The kernel generates the content of some files when they are read. Their reported length is
    // 0, or more than can be read.
    let at_most = if length == 0 { READ_WHOLE_BYTES } else { length };
    content.clear();
    content.reserve(usize::try_from(length).unwrap_or(0) + 1);
    Read::by_ref(file).take(at_most).read_to_end(content)?;
    let is_short = (content.len() as u64) < length;
    if is_short && file.metadata()?.len() != length {
        return Ok(None);
    }
    Ok(Some((ObjectId::of(ObjectKind::Blob, content), content.len() as u64)))
}

/// Reads the first `length` bytes of the file at `path`.
pub(super) fn read(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let (file, metadata) = open(path)?
        .ok_or_else(|| io::Error::other("it was removed or is not a regular file any more"))?;
    let mut content =
        Vec::with_capacity(usize::try_from(length.min(metadata.len())).unwrap_or_default());
    file.take(length).read_to_end(&mut content)?;
    Ok(content)
}

/// Reads at most `length` bytes of the file at `path`. Returns `None` if there is no regular file.
pub(super) fn read_if_any(path: &Path, length: u64) -> io::Result<Option<Vec<u8>>> {
    let Some((file, _)) = open(path)? else { return Ok(None) };
    let mut content = Vec::new();
    file.take(length).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// Opens the file at `path`. Returns `None` if it was removed or is not a regular file any more.
/// Does not block: opening a pipe without a writer otherwise would.
fn open(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed());
    }
    let file = match options.open(path) {
        Ok(file) => file,
        // It was replaced by a link or a socket, or a directory of its path was replaced.
        Err(error) if is_replaced(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata)))
}

/// Returns whether opening a file failed because the file was removed or replaced.
fn is_replaced(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || is(Errno::LOOP)
        || is(Errno::NXIO)
}
