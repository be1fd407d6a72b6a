//! Git objects: their ids, kinds and contents.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use bytes::Bytes;

/// How much of a blob is in memory while it is hashed piece by piece.
const PIECE: usize = 128 << 10;

/// The id of a git object: the hash of its header and content, as git computes it.
///
/// The width follows the object format, so nothing may assume 20 bytes. Only SHA-1 ids exist so far; git's SHA-256
/// format will be a second width of the same type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(gix_hash::ObjectId);

/// Why a text or a byte string is not an object id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text is not 40 hex digits.
    #[error("{text:?} is not an object id: expected 40 hex digits")]
    NotHex {
        /// The text, cut to a readable length.
        text: String,
    },
    /// The text is an id of git's SHA-256 format, which is not supported yet.
    #[error("{text:?} is a SHA-256 object id; only SHA-1 ids are supported so far")]
    Sha256 {
        /// The id as given.
        text: String,
    },
    /// The byte string has no width of a known object format.
    #[error("an object id has 20 bytes, not {length}")]
    Length {
        /// The length found, in bytes.
        length: usize,
    },
}

impl ObjectId {
    /// Parses hex digits of either case.
    ///
    /// # Errors
    /// [`IdError`] when `text` is not exactly as long as an id, or holds something else than hex digits.
    pub fn from_hex(text: &str) -> Result<Self, IdError> {
        match gix_hash::ObjectId::from_hex(text.as_bytes()) {
            Ok(id) => Ok(Self(id)),
            Err(_) if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Err(IdError::Sha256 { text: text.to_owned() })
            }
            Err(_) => Err(IdError::NotHex { text: text.chars().take(80).collect() }),
        }
    }

    /// Takes the raw bytes of an id.
    ///
    /// # Errors
    /// [`IdError::Length`] when no object format has ids of that length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        gix_hash::ObjectId::try_from(bytes)
            .map(Self)
            .map_err(|_| IdError::Length { length: bytes.len() })
    }

    /// The raw bytes, as they stand in a tree object.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Whether every byte is zero: git's "no object".
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Hashes an object of `kind` with `content`, header included, as `git hash-object` does.
    ///
    /// Content that was crafted to collide under SHA-1 is detected and has no id: the answer is the null id, which every
    /// tree and every store refuses.
    pub fn of(kind: ObjectKind, content: &[u8]) -> Self {
        let kind = match kind {
            ObjectKind::Blob => gix_object::Kind::Blob,
            ObjectKind::Tree => gix_object::Kind::Tree,
        };
        match gix_object::compute_hash(gix_hash::Kind::Sha1, kind, content) {
            Ok(id) => Self(id),
            Err(_) => Self(gix_hash::ObjectId::null(gix_hash::Kind::Sha1)),
        }
    }

    /// Hashes a blob of `length` bytes that is read piece by piece, as [`ObjectId::of`] would hash it whole.
    ///
    /// # Errors
    /// What `content` answers; `UnexpectedEof` or `InvalidData` when it has fewer or more than `length` bytes.
    pub fn of_blob_from(content: &mut impl Read, length: u64) -> io::Result<Self> {
        let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        hasher.update(&gix_object::encode::loose_header(gix_object::Kind::Blob, length));
        let mut buffer = vec![0; PIECE];
        let mut left = length;
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            left = left.checked_sub(read as u64).ok_or(io::ErrorKind::InvalidData)?;
        }
        if left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(hasher.try_finalize().map_or(Self(gix_hash::ObjectId::null(gix_hash::Kind::Sha1)), Self))
    }

    /// The id of the tree without entries.
    pub fn empty_tree() -> Self {
        Self(gix_hash::ObjectId::empty_tree(gix_hash::Kind::Sha1))
    }

    pub(crate) fn as_gix(&self) -> &gix_hash::oid {
        &self.0
    }

    pub(crate) fn from_gix(id: &gix_hash::oid) -> Self {
        Self(id.to_owned())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for ObjectId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::from_hex(text)
    }
}

/// The two kinds of git objects that Manifold computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A byte string.
    Blob,
    /// A directory: names, modes and ids.
    Tree,
}

impl ObjectKind {
    /// Git's word for the kind: `blob` or `tree`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An object's kind and its content without git's header. Cloning shares the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What the content is.
    pub kind: ObjectKind,
    /// The content: a blob's bytes, or a tree in git's encoding.
    pub content: Bytes,
}

impl Object {
    /// A blob with `content`.
    pub fn blob(content: impl Into<Bytes>) -> Self {
        Self { kind: ObjectKind::Blob, content: content.into() }
    }

    /// A tree that is already in git's encoding. Nothing is checked here; [`crate::Tree::decode`] does.
    pub fn encoded_tree(content: impl Into<Bytes>) -> Self {
        Self { kind: ObjectKind::Tree, content: content.into() }
    }

    /// Computes the object's id.
    pub fn id(&self) -> ObjectId {
        ObjectId::of(self.kind, &self.content)
    }
}
