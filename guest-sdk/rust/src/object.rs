use alloc::string::String;
use alloc::vec::Vec;

/// The longest id, that of git's SHA-256 format, in bytes.
const LONGEST: usize = 32;

/// The id of a git object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    bytes: [u8; LONGEST],
    length: u8,
}

impl Id {
    /// The id with these raw bytes; `None` when they are too many.
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..raw.len())?.copy_from_slice(raw);
        Some(Self { bytes, length: raw.len() as u8 })
    }

    /// The id with these hex digits, in lower case.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; LONGEST];
        let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
        if !odd.is_empty() || pairs.len() > LONGEST {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = value(*high)? << 4 | value(*low)?;
        }
        Some(Self { bytes, length: pairs.len() as u8 })
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The hex digits.
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
        let mut digits = String::with_capacity(2 * LONGEST);
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

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A byte string.
    Blob = 0,
    /// A directory.
    Tree = 1,
    /// A commit of another repository: a submodule. It cannot be read.
    Commit,
}

/// Git's mode of a tree entry.
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
    /// In the order of their numbers in `caos_abi_v2`.
    pub(crate) const ALL: [Self; 5] =
        [Self::Tree, Self::Blob, Self::Executable, Self::Symlink, Self::Commit];

    /// What an entry of this mode names.
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

/// An object that the host has: its kind and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Whether it is a blob or a tree.
    pub kind: Kind,
    /// Its id.
    pub id: Id,
}

impl Object {
    /// The object as an entry `name` with a plain mode, whatever mode it had elsewhere: what arguments trees hold.
    pub fn named(&self, name: impl Into<Vec<u8>>) -> Entry {
        Entry { name: name.into(), mode: Mode::plain(self.kind), id: self.id }
    }
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name: bytes, not text.
    pub name: Vec<u8>,
    /// What the entry is.
    pub mode: Mode,
    /// The object that it names.
    pub id: Id,
}

impl Entry {
    /// What the entry names.
    pub const fn kind(&self) -> Kind {
        self.mode.kind()
    }

    /// The object that the entry names.
    pub fn object(&self) -> Object {
        Object { kind: self.kind(), id: self.id }
    }
}
