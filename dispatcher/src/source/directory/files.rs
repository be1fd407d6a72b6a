//! Reading files that others may be writing.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::path::Path;

use manifold_runtime_api::{ObjectId, ObjectKind};

use super::{DirectoryError, io_error};

/// Files up to this size are read in one go. So is what has no length, and may be no longer.
const READ_WHOLE: u64 = 4 << 20;

/// How often a file may become shorter while it is hashed.
const ATTEMPTS: usize = 4;

/// Hashes the file at `path`, as far as it goes now, and tells how many bytes that are. `None` when it is gone, or is no file any
/// more.
pub(super) fn hash(path: &Path, largest: u64) -> Result<Option<(ObjectId, u64)>, DirectoryError> {
    let Some((mut file, _)) = open(path).map_err(io_error(path))? else { return Ok(None) };
    for _ in 0..ATTEMPTS {
        let length = file.metadata().map_err(io_error(path))?.len();
        if length > largest {
            return Err(DirectoryError::TooLarge { path: path.to_owned(), length, bound: largest });
        }
        file.rewind().map_err(io_error(path))?;
        if let Some(hashed) = hash_up_to(&mut file, length).map_err(io_error(path))? {
            return Ok(Some(hashed));
        }
    }
    Err(DirectoryError::Changing { path: path.to_owned() })
}

/// Hashes the first `length` bytes. What comes after them was not there when the length was looked up. `None` when there are fewer.
fn hash_up_to(file: &mut File, length: u64) -> io::Result<Option<(ObjectId, u64)>> {
    if length > READ_WHOLE {
        return match ObjectId::of_blob_from(&mut Read::by_ref(file).take(length), length) {
            Ok(id) => Ok(Some((id, length))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        };
    }
    // The kernel makes some files up as they are read. Their length is 0, or more than they have.
    let at_most = if length == 0 { READ_WHOLE } else { length };
    let mut content = Vec::new();
    Read::by_ref(file).take(at_most).read_to_end(&mut content)?;
    let is_short = (content.len() as u64) < length;
    if is_short && file.metadata()?.len() != length {
        return Ok(None);
    }
    Ok(Some((ObjectId::of(ObjectKind::Blob, &content), content.len() as u64)))
}

/// Reads the first `length` bytes of the file at `path`.
pub(super) fn read(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let (file, metadata) =
        open(path)?.ok_or_else(|| io::Error::other("it is gone, or is no file any more"))?;
    let mut content =
        Vec::with_capacity(usize::try_from(length.min(metadata.len())).unwrap_or_default());
    file.take(length).read_to_end(&mut content)?;
    Ok(content)
}

/// Opens the file at `path`. `None` when it is gone, or has become something else: a pipe that nobody writes to would keep whoever
/// opens it waiting.
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
        // A link, or a socket, has taken its place; or a directory that of one on the way.
        Err(error) if is_something_else(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata)))
}

fn is_something_else(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || is(Errno::LOOP)
        || is(Errno::NXIO)
}
