//! [`StoreFault`]: a failure of the store's file, before it becomes an error that names the file.

use std::io;
use std::path::Path;

use manifold_runtime_api::{Error, ObjectId, Reason, Status};

/// A failure of the store's file. [`StoreFault::into_error`] turns it into an error that names the
/// file.
pub(super) enum StoreFault {
    /// The structure of the file is damaged.
    Damaged(String),
    /// The value of an entry or object is damaged. Holds what it is and its key.
    Value(&'static str, ObjectId),
    /// A part of the file with this number has objects that cannot be read, or is missing.
    Chunk(u32),
    /// A key is not an object id. Holds its length in bytes.
    Key(usize),
    /// The database or the operating system reported an error.
    Database(redb::Error),
}

impl StoreFault {
    pub(super) fn is_damage(&self) -> bool {
        !matches!(self, Self::Database(_))
    }

    /// Turns the fault into an error that names the file.
    pub(super) fn into_error(self, file: &Path) -> Error {
        let file = file.display();
        let (problem, status) = match self {
            Self::Damaged(problem) => (
                format!(
                    "{file} is damaged ({problem}); delete it, and its memoized outcomes are \
                     computed again"
                ),
                Status::Permanent,
            ),
            Self::Value(what, id) => (
                format!(
                    "{file} is damaged: {what} {id} is corrupt; `manifold verify --repair` removes \
                     damaged data, so that it is computed again"
                ),
                Status::Permanent,
            ),
            Self::Chunk(number) => (
                format!(
                    "{file} is damaged: its chunk {number} has objects that cannot be read; \
                     `manifold verify --repair` removes damaged data, so that it is computed again"
                ),
                Status::Permanent,
            ),
            Self::Key(length) => (
                format!(
                    "{file} is damaged: it has a key of {length} bytes; delete it, and its \
                     memoized outcomes are computed again"
                ),
                Status::Permanent,
            ),
            Self::Database(error) => (format!("{file} cannot be used: {error}"), Status::Transient),
        };
        Error::new(Reason::StoreFailed { problem, status })
    }
}

impl<E: Into<redb::Error>> From<E> for StoreFault {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Corrupted(problem) => Self::Damaged(problem),
            redb::Error::Io(error) if is_truncated(&error) => {
                Self::Damaged("it is truncated".to_owned())
            }
            // Every store has all of these tables with these types.
            error @ (redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }) => Self::Damaged(error.to_string()),
            other => Self::Database(other),
        }
    }
}

/// Returns whether an I/O error means that the file ends early.
pub(super) fn is_truncated(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}
