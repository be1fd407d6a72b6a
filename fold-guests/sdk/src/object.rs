use alloc::string::String;
use alloc::vec::Vec;

/// The id of a git object, in hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    pub(crate) fn new(hex: String) -> Self {
        Self(hex)
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A byte string.
    Blob,
    /// A directory.
    Tree,
    /// A commit of another repository: a submodule. It cannot be read.
    Commit,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Tree => "tree",
            Self::Commit => "commit",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Blob, Self::Tree, Self::Commit].into_iter().find(|kind| kind.as_str() == text)
    }
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
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tree => "40000",
            Self::Blob => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Commit => "160000",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Tree, Self::Blob, Self::Executable, Self::Symlink, Self::Commit];
        all.into_iter().find(|mode| mode.as_str() == text)
    }

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
        Entry { name: name.into(), mode: Mode::plain(self.kind), id: self.id.clone() }
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
        Object { kind: self.kind(), id: self.id.clone() }
    }
}
