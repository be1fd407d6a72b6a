use alloc::string::String;
use alloc::vec::Vec;

/// The maximum length of an id in bytes: that of an id in git's SHA-256 format.
const MAX_ID_BYTES: usize = 32;

/// The id of a git object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    bytes: [u8; MAX_ID_BYTES],
    length: u8,
}

impl Id {
    /// Creates an id from its raw bytes. Returns `None` if there are more than 32.
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_ID_BYTES];
        bytes.get_mut(..raw.len())?.copy_from_slice(raw);
        Some(Self { bytes, length: raw.len() as u8 })
    }

    /// Creates an id from its lower-case hex digits.
    ///
    /// Returns `None` if `digits` contains another character, has an odd length, or is longer than
    /// 64 digits.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; MAX_ID_BYTES];
        let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
        if !odd.is_empty() || pairs.len() > MAX_ID_BYTES {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = value(*high)? << 4 | value(*low)?;
        }
        Some(Self { bytes, length: pairs.len() as u8 })
    }

    /// Returns the raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Returns the id as lower-case hex digits.
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
        let mut digits = String::with_capacity(2 * MAX_ID_BYTES);
        for byte in self.as_bytes() {
            digits.push(digit(byte >> 4));
            digits.push(digit(byte & 15));
        }
        digits
    }
}

impl core::fmt::Debug for Id {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// The kind of a git object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A byte string.
    Blob = 0,
    /// A directory.
    Tree = 1,
    /// A commit of another repository, named by a submodule entry. It cannot be read.
    Commit,
}

/// The git mode of a tree entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A directory.
    Tree,
    /// A file.
    Blob,
    /// A file with the executable bit.
    Executable,
    /// A symbolic link. Its content is the target path.
    Symlink,
    /// A submodule.
    Commit,
}

impl Mode {
    /// All modes, in the order of their numbers in `caos_abi_v2`.
    pub(crate) const ALL: [Self; 5] =
        [Self::Tree, Self::Blob, Self::Executable, Self::Symlink, Self::Commit];

    /// Returns the kind of object that an entry of this mode names.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Tree => Kind::Tree,
            Self::Blob | Self::Executable | Self::Symlink => Kind::Blob,
            Self::Commit => Kind::Commit,
        }
    }

    const fn plain(kind: Kind) -> Self {
        match kind {
            Kind::Blob => Self::Blob,
            Kind::Tree => Self::Tree,
            Kind::Commit => Self::Commit,
        }
    }
}

/// A reference to an object: its kind and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRef {
    /// The kind of the object: a blob or a tree, or a commit if [`Entry::object`] was called on a
    /// submodule.
    pub kind: Kind,
    /// The id of the object.
    pub id: Id,
}

impl ObjectRef {
    /// Returns a tree entry that names this object, for use in an arguments tree.
    ///
    /// The entry has the plain mode of the object's kind, such as [`Mode::Blob`] for any blob,
    /// regardless of the mode that the object has in other trees.
    pub fn named(&self, name: impl Into<Vec<u8>>) -> Entry {
        Entry { name: name.into(), mode: Mode::plain(self.kind), id: self.id }
    }
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, as raw bytes: git does not require UTF-8.
    pub name: Vec<u8>,
    /// The mode of the entry.
    pub mode: Mode,
    /// The id of the object that the entry names.
    pub id: Id,
}

impl Entry {
    /// Returns the kind of the object that the entry names.
    pub const fn kind(&self) -> Kind {
        self.mode.kind()
    }

    /// Returns a reference to the object that the entry names.
    pub fn object(&self) -> ObjectRef {
        ObjectRef { kind: self.kind(), id: self.id }
    }
}
