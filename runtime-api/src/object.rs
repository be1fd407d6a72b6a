//! Git objects: [`ObjectId`], [`ObjectKind`] and [`Object`].

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::str::FromStr;

use bytes::Bytes;

/// The size of the buffer for hashing a blob that is read from a stream, in bytes.
const HASH_BUFFER_BYTES: usize = 128 << 10;

/// The id of a git object: the hash of its header and content, as git computes it.
///
/// Do not assume a width of 20 bytes. Only SHA-1 ids are supported so far. SHA-256 ids will be a
/// second width of the same type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(gix_hash::ObjectId);

/// Why a string or a byte string is not an object id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text is not 40 hexadecimal digits.
    #[error("invalid object id {text:?}: expected 40 hexadecimal digits")]
    NotHex {
        /// The text, truncated to 80 characters.
        text: String,
    },
    /// The text is an id of git's SHA-256 format, which is not supported yet.
    #[error("unsupported SHA-256 object id {text:?}: only SHA-1 ids are supported")]
    Sha256 {
        /// The id as given.
        text: String,
    },
    /// The length of the byte string is not that of an object id.
    #[error("invalid object id of {length} bytes: expected 20 bytes")]
    Length {
        /// The actual length, in bytes.
        length: usize,
    },
}

impl ObjectId {
    /// Parses hexadecimal digits, in upper or lower case.
    ///
    /// # Errors
    /// - [`IdError::Sha256`] if `text` is a SHA-256 id.
    /// - [`IdError::NotHex`] if `text` is not exactly 40 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, IdError> {
        match gix_hash::ObjectId::from_hex(text.as_bytes()) {
            Ok(id) => Ok(Self(id)),
            Err(_) if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Err(IdError::Sha256 { text: text.to_owned() })
            }
            Err(_) => Err(IdError::NotHex { text: text.chars().take(80).collect() }),
        }
    }

    /// Creates an id from its raw bytes.
    ///
    /// # Errors
    /// [`IdError::Length`] if no supported object format has ids of that length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        gix_hash::ObjectId::try_from(bytes)
            .map(Self)
            .map_err(|_| IdError::Length { length: bytes.len() })
    }

    /// Returns the raw bytes, as they appear in an encoded tree.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Returns whether all bytes are zero. Git uses this null id for "no object".
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Hashes an object of `kind` with `content`, including git's header, as `git hash-object`
    /// does.
    ///
    /// If `content` contains a detected SHA-1 collision attack, this returns the null id, which
    /// every tree and every store refuses.
    pub fn of(kind: ObjectKind, content: &[u8]) -> Self {
        let mut hasher = hasher_of(kind, content.len() as u64);
        hasher.update(content);
        Self::finish(hasher)
    }

    fn finish(hasher: gix_hash::Hasher) -> Self {
        hasher.try_finalize().map_or(Self(gix_hash::ObjectId::null(gix_hash::Kind::Sha1)), Self)
    }

    /// Hashes a blob of `length` bytes that is read from `content`, without holding all of it in
    /// memory. The result equals that of [`ObjectId::of`].
    ///
    /// # Errors
    /// - The error that `content` returns.
    /// - [`io::ErrorKind::UnexpectedEof`] if `content` has fewer than `length` bytes.
    /// - [`io::ErrorKind::InvalidData`] if `content` has more than `length` bytes.
    pub fn of_blob_from(content: &mut impl Read, length: u64) -> io::Result<Self> {
        let mut hasher = hasher_of(ObjectKind::Blob, length);
        let mut buffer = vec![0; HASH_BUFFER_BYTES];
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
        Ok(Self::finish(hasher))
    }

    /// Returns the id of the empty tree.
    pub fn empty_tree() -> Self {
        Self(gix_hash::ObjectId::empty_tree(gix_hash::Kind::Sha1))
    }

    pub(crate) fn from_gix(id: &gix_hash::oid) -> Self {
        Self(id.to_owned())
    }
}

/// Returns a hasher that has read the header of an object whose content has `length` bytes.
fn hasher_of(kind: ObjectKind, length: u64) -> gix_hash::Hasher {
    let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
    hasher.update(kind.as_str().as_bytes());
    hasher.update(b" ");
    hasher.update(itoa::Buffer::new().format(length).as_bytes());
    hasher.update(b"\0");
    hasher
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

/// The kind of a git object. Manifold uses only these two of git's kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A byte string.
    Blob,
    /// A directory: a list of names with modes and object ids.
    Tree,
}

impl ObjectKind {
    /// Returns git's word for the kind: `blob` or `tree`.
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

/// The kind of an object and its content, without git's header. Clones share the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Whether the object is a blob or a tree.
    pub kind: ObjectKind,
    /// The content: the bytes of a blob, or a tree in git's encoding.
    pub content: Bytes,
}

impl Object {
    /// Creates a blob with `content`.
    pub fn blob(content: impl Into<Bytes>) -> Self {
        Self { kind: ObjectKind::Blob, content: content.into() }
    }

    /// Creates a tree from `content` in git's encoding. This does not validate it;
    /// [`crate::Tree::decode`] does.
    pub fn encoded_tree(content: impl Into<Bytes>) -> Self {
        Self { kind: ObjectKind::Tree, content: content.into() }
    }

    /// Returns the bytes in `range` of the content, without what lies beyond its end. Shares the
    /// content.
    pub fn range(&self, range: Range<u64>) -> Bytes {
        let length = self.content.len();
        let bound = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(length);
        let (start, end) = (bound(range.start), bound(range.end));
        self.content.slice(start..end.max(start))
    }

    /// Computes the object's id.
    pub fn id(&self) -> ObjectId {
        ObjectId::of(self.kind, &self.content)
    }
}

/// The kind and the id of an object: an outcome, an argument or a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Whether the object is a blob or a tree.
    pub kind: ObjectKind,
    /// The object's id.
    pub id: ObjectId,
}

impl ObjectRef {
    /// Creates a reference to the blob `id`.
    pub const fn blob(id: ObjectId) -> Self {
        Self { kind: ObjectKind::Blob, id }
    }

    /// Creates a reference to the tree `id`.
    pub const fn tree(id: ObjectId) -> Self {
        Self { kind: ObjectKind::Tree, id }
    }

    /// Creates a reference to `object`, and computes its id.
    pub fn of(object: &Object) -> Self {
        Self { kind: object.kind, id: object.id() }
    }
}
