//! [`EntryMode`]: the five modes of tree entries.

use std::fmt;

use crate::object::ObjectKind;

/// The mode of a tree entry. Manifold reads and writes only these five.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryMode {
    /// `40000`, a directory.
    Tree,
    /// `100644`, a file.
    Blob,
    /// `100755`, an executable file.
    Executable,
    /// `120000`, a symbolic link: a blob that contains the target path.
    Symlink,
    /// `160000`, a submodule: the id of a commit in another repository.
    Commit,
}

impl EntryMode {
    /// All modes. The binary guest ABI transmits a mode as its position in this array, so the order
    /// must not change.
    pub const ALL: [Self; 5] =
        [Self::Tree, Self::Blob, Self::Executable, Self::Symlink, Self::Commit];

    /// Returns the mode as it appears in a tree: octal digits without a leading zero.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tree => "40000",
            Self::Blob => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Commit => "160000",
        }
    }

    /// Parses a mode as git writes it in a tree (`40000`) or displays it (`040000`).
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text == "040000" { "40000" } else { text };
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }

    /// Parses a mode exactly as git writes it in a tree.
    pub(crate) fn parse_strict(spelling: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str().as_bytes() == spelling)
    }

    /// Parses a mode that old versions of git wrote (`100664`, `040000`) as git does today: by its
    /// file type and by whether the owner may execute the file. This is `canon_mode` of git's
    /// `cache.h`, except that unknown file types are refused.
    pub(crate) fn parse_as_git_reads(spelling: &[u8]) -> Option<Self> {
        const TYPE: u32 = 0o170_000;
        const OWNER_EXECUTES: u32 = 0o100;
        let mode = std::str::from_utf8(spelling)
            .ok()
            .and_then(|text| u32::from_str_radix(text, 8).ok())?;
        match mode & TYPE {
            _ if mode > TYPE | 0o7777 => None,
            0o040_000 => Some(Self::Tree),
            0o100_000 if mode & OWNER_EXECUTES != 0 => Some(Self::Executable),
            0o100_000 => Some(Self::Blob),
            0o120_000 => Some(Self::Symlink),
            0o160_000 => Some(Self::Commit),
            _ => None,
        }
    }

    /// Returns the mode's position in [`EntryMode::ALL`].
    pub(crate) const fn position(self) -> u8 {
        // The variants are declared in the order of `ALL`.
        self as u8
    }

    /// Returns the plain mode for an object of `kind`: `100644` or `40000`.
    pub const fn plain(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Blob => Self::Blob,
            ObjectKind::Tree => Self::Tree,
        }
    }

    /// Returns the kind of object that an entry of this mode names, or `None` for a submodule,
    /// whose commit belongs to another repository.
    pub const fn object_kind(self) -> Option<ObjectKind> {
        match self {
            Self::Tree => Some(ObjectKind::Tree),
            Self::Blob | Self::Executable | Self::Symlink => Some(ObjectKind::Blob),
            Self::Commit => None,
        }
    }

    /// Returns git's word for the object that the entry names: `tree`, `blob` or `commit`.
    pub const fn kind_str(self) -> &'static str {
        match self.object_kind() {
            Some(kind) => kind.as_str(),
            None => "commit",
        }
    }
}

impl fmt::Display for EntryMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
