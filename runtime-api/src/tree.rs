//! Git trees: strict decoding, canonical encoding.
//!
//! The format is git's (`Documentation/gitformat-*`, `fsck.c`, `tree.c`): entries `mode SP name NUL id`, sorted by name
//! with directories compared as if their names ended in `/`.

use std::fmt;

use bstr::{BStr, BString, ByteSlice};
use gix_object::WriteTo;

use crate::entry_name::{self, NameProblem};
use crate::object::{Object, ObjectId, ObjectKind};
use crate::request::Outcome;

/// The mode of a tree entry. These five are all that Manifold reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryMode {
    /// `40000`, a directory.
    Tree,
    /// `100644`, a file.
    Blob,
    /// `100755`, a file with the executable bit.
    Executable,
    /// `120000`, a symbolic link: a blob that holds the target path.
    Symlink,
    /// `160000`, a submodule: the id of a commit in another repository.
    Commit,
}

impl EntryMode {
    /// Every mode there is.
    pub const ALL: [Self; 5] =
        [Self::Tree, Self::Blob, Self::Executable, Self::Symlink, Self::Commit];

    /// The mode as git writes it: octal digits without a leading zero.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tree => "40000",
            Self::Blob => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Commit => "160000",
        }
    }

    /// Parses a mode as git writes it, in a tree (`40000`) or for people (`040000`).
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text == "040000" { "40000" } else { text };
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }

    /// Git's own spelling in a tree, and no other.
    fn parse_strict(spelling: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str().as_bytes() == spelling)
    }

    /// What git takes for a mode that it wrote in old times (`100664`, `040000`): the type of the file, and whether the owner may
    /// execute it. This is `canon_mode` of git's `cache.h`, but for types that there never were.
    fn parse_as_git_reads(spelling: &[u8]) -> Option<Self> {
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

    /// The plain mode for an object of `kind`: `100644` or `40000`.
    pub const fn plain(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Blob => Self::Blob,
            ObjectKind::Tree => Self::Tree,
        }
    }

    /// The kind of object that an entry of this mode names; `None` for a submodule, whose commit lives elsewhere.
    pub const fn object_kind(self) -> Option<ObjectKind> {
        match self {
            Self::Tree => Some(ObjectKind::Tree),
            Self::Blob | Self::Executable | Self::Symlink => Some(ObjectKind::Blob),
            Self::Commit => None,
        }
    }

    /// Git's word for what the entry names: `tree`, `blob` or `commit`.
    pub const fn kind_str(self) -> &'static str {
        match self.object_kind() {
            Some(kind) => kind.as_str(),
            None => "commit",
        }
    }

    const fn as_gix(self) -> gix_object::tree::EntryKind {
        use gix_object::tree::EntryKind;
        match self {
            Self::Tree => EntryKind::Tree,
            Self::Blob => EntryKind::Blob,
            Self::Executable => EntryKind::BlobExecutable,
            Self::Symlink => EntryKind::Link,
            Self::Commit => EntryKind::Commit,
        }
    }
}

impl fmt::Display for EntryMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One entry of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TreeEntry {
    /// The name: bytes, not text.
    pub name: BString,
    /// What the entry is.
    pub mode: EntryMode,
    /// The object that the entry names.
    pub id: ObjectId,
}

impl TreeEntry {
    /// An entry `name` of `mode` that names `id`.
    pub fn new(name: impl Into<BString>, mode: EntryMode, id: ObjectId) -> Self {
        Self { name: name.into(), mode, id }
    }
}

/// Why a tree is refused. Git's `fsck --strict` refuses the same ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// An entry's name may not stand in a tree.
    #[error("tree entry {name:?}: {problem}")]
    Name {
        /// The name.
        name: BString,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// Two entries have one name; a file and a directory of one name count.
    #[error("tree entry {name:?} stands there twice")]
    Duplicate {
        /// The name.
        name: BString,
    },
    /// The entries of an encoded tree are not in git's order.
    #[error("tree entry {name:?} is out of order")]
    Order {
        /// The first entry that should stand earlier.
        name: BString,
    },
    /// The mode of an entry is not one of git's five, or is padded with zeros.
    #[error("tree entry {name:?} has the mode {mode:?}, which is none of git's")]
    Mode {
        /// The name.
        name: BString,
        /// The mode as it is spelled.
        mode: BString,
    },
    /// An entry names the null id.
    #[error("tree entry {name:?} names the null id")]
    NullId {
        /// The name.
        name: BString,
    },
    /// The bytes are not entries of the form `mode SP name NUL id`.
    #[error("malformed tree: {problem}")]
    Malformed {
        /// What was found.
        problem: &'static str,
    },
}

/// A git tree whose entries are known to be valid, unique and in git's order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Tree {
    entries: Vec<TreeEntry>,
}

impl Tree {
    /// The tree without entries.
    pub const fn empty() -> Self {
        Self { entries: Vec::new() }
    }

    /// Makes a tree of entries in any order.
    ///
    /// # Errors
    /// [`TreeError`] for a name that git refuses, a duplicate, or the null id.
    pub fn new(entries: impl IntoIterator<Item = TreeEntry>) -> Result<Self, TreeError> {
        let mut entries: Vec<TreeEntry> = entries.into_iter().collect();
        entries.sort_by(in_git_order);
        let tree = Self { entries };
        tree.check()?;
        Ok(tree)
    }

    /// Reads git's encoding, and refuses whatever is not canonical.
    ///
    /// # Behavior
    /// - `Tree::decode(bytes)?.encode() == bytes` for every `bytes` that is accepted.
    /// - Everything that `git fsck --strict` refuses in a tree is refused.
    ///
    /// # Errors
    /// [`TreeError`], which names the first entry at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        Self::decode_with(bytes, EntryMode::parse_strict)
    }

    /// Reads a tree of an existing repository. Modes that git itself only reads for old times' sake (`100664`, `040000`) count
    /// as what git takes them for; everything else is as strict as [`Tree::decode`].
    ///
    /// The id of the tree stays that of `bytes`, which [`Tree::encode`] may not give back.
    ///
    /// # Errors
    /// [`TreeError`], which names the first entry at fault.
    pub fn decode_as_git_reads(bytes: &[u8]) -> Result<Self, TreeError> {
        Self::decode_with(bytes, |spelling| {
            EntryMode::parse_strict(spelling).or_else(|| EntryMode::parse_as_git_reads(spelling))
        })
    }

    fn decode_with(
        bytes: &[u8],
        parse: impl Fn(&[u8]) -> Option<EntryMode>,
    ) -> Result<Self, TreeError> {
        let mut entries = Vec::with_capacity(bytes.len() / 48);
        let mut start = 0;
        for entry in gix_object::TreeRefIter::from_bytes(bytes, gix_hash::Kind::Sha1) {
            let entry = entry.map_err(|_| TreeError::Malformed {
                problem: "an entry is cut short, or its mode is not octal",
            })?;
            // The library reads the mode as a number. Git wants it spelled in one way.
            let spelling = bytes[start..].split(|byte| *byte == b' ').next().unwrap_or_default();
            let mode = parse(spelling).ok_or_else(|| TreeError::Mode {
                name: entry.filename.to_owned(),
                mode: BString::from(spelling),
            })?;
            start += spelling.len() + entry.filename.len() + 2 + entry.oid.as_bytes().len();
            entries.push(TreeEntry::new(entry.filename, mode, ObjectId::from_gix(entry.oid)));
        }
        if let Some(pair) = entries.windows(2).find(|pair| in_git_order(&pair[0], &pair[1]).is_gt())
        {
            return Err(TreeError::Order { name: pair[1].name.clone() });
        }
        let tree = Self { entries };
        tree.check()?;
        Ok(tree)
    }

    /// Git's encoding of the tree, without the object header.
    #[expect(
        clippy::expect_used,
        reason = "writing to a Vec cannot fail, and no valid name holds a NUL byte"
    )]
    pub fn encode(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(|entry| gix_object::tree::EntryRef {
            mode: entry.mode.as_gix().into(),
            filename: entry.name.as_bstr(),
            oid: entry.id.as_gix(),
        });
        let tree = gix_object::TreeRef { entries: entries.collect() };
        let mut encoded = Vec::with_capacity(tree.size() as usize);
        tree.write_to(&mut encoded).expect("a valid tree encodes");
        encoded
    }

    /// The tree as an object, ready for a store.
    pub fn to_object(&self) -> Object {
        Object::encoded_tree(self.encode())
    }

    /// The tree's id.
    pub fn id(&self) -> ObjectId {
        ObjectId::of(ObjectKind::Tree, &self.encode())
    }

    /// The entries in git's order.
    pub fn entries(&self) -> &[TreeEntry] {
        &self.entries
    }

    /// The blobs and trees that it holds; submodules are another repository's.
    pub fn objects(&self) -> impl Iterator<Item = Outcome> {
        self.entries
            .iter()
            .filter_map(|entry| Some(Outcome { kind: entry.mode.object_kind()?, id: entry.id }))
    }

    /// The entry called `name`, if there is one.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&TreeEntry> {
        let name = BStr::new(name.as_ref());
        let position = |is_tree| {
            self.entries.binary_search_by(|entry| {
                gix_object::tree::name_order(
                    &entry.name,
                    entry.mode == EntryMode::Tree,
                    name,
                    is_tree,
                )
            })
        };
        position(false).or_else(|_| position(true)).ok().map(|index| &self.entries[index])
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the entries out, in git's order.
    pub fn into_entries(self) -> Vec<TreeEntry> {
        self.entries
    }

    /// Checks names, duplicates and ids of entries that are already in order.
    fn check(&self) -> Result<(), TreeError> {
        for entry in &self.entries {
            entry_name::check(entry.name.as_bstr(), entry.mode)
                .map_err(|problem| TreeError::Name { name: entry.name.clone(), problem })?;
            if entry.id.is_null() {
                return Err(TreeError::NullId { name: entry.name.clone() });
            }
        }
        if let Some(pair) = self.entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(TreeError::Duplicate { name: pair[0].name.clone() });
        }
        // A directory sorts as if its name ended in `/`, so a file of the same name may stand some entries earlier.
        for entry in self.entries.iter().filter(|entry| entry.mode == EntryMode::Tree) {
            let file = self
                .entries
                .binary_search_by(|other| {
                    gix_object::tree::name_order(
                        &other.name,
                        other.mode == EntryMode::Tree,
                        &entry.name,
                        false,
                    )
                })
                .ok();
            if file.is_some() {
                return Err(TreeError::Duplicate { name: entry.name.clone() });
            }
        }
        Ok(())
    }
}

fn in_git_order(a: &TreeEntry, b: &TreeEntry) -> std::cmp::Ordering {
    gix_object::tree::name_order(
        &a.name,
        a.mode == EntryMode::Tree,
        &b.name,
        b.mode == EntryMode::Tree,
    )
}
