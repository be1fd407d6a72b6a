//! [`DirectoryError`]: why a directory cannot be scanned.

use std::io;
use std::path::{Path, PathBuf};

use manifold_runtime_api::TreeError;

/// Why a directory cannot be scanned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The operating system reported an error.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A directory contains a name that git refuses.
    #[error("{} cannot be stored as a git tree", path.display())]
    Refused {
        /// The directory that contains the name.
        path: PathBuf,
        /// Why git refuses the tree.
        source: TreeError,
    },
    /// A file is longer than [`ScanOptions::largest_file()`](super::ScanOptions::largest_file()).
    #[error("{} has {length} bytes, over the limit of {bound} bytes for a file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        bound: u64,
    },
    /// A file kept becoming shorter while it was hashed.
    #[error("{} keeps changing while it is read", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
    /// A nested repository has no commit checked out, or the commit cannot be determined.
    #[error("the nested git repository {} cannot be stored as a commit: {problem}", path.display())]
    Nested {
        /// The nested repository.
        path: PathBuf,
        /// Why the commit cannot be determined.
        problem: String,
    },
    /// A text that should be a pattern of what is left out
    /// ([`ScanOptions::exclude()`](super::ScanOptions::exclude())) is none.
    #[error("{text:?} is not one pattern of what is left out, as in a .gitignore file")]
    NotAPattern {
        /// The text.
        text: String,
    },
    /// The path is neither a directory nor a file.
    #[error("{} is neither a directory nor a file", path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
}

/// Returns a function that turns an I/O error into an error that names `path`.
pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path = path.to_owned();
    |source| DirectoryError::Io { path, source }
}
