//! Git trees: strict decoding and canonical encoding.
//!
//! The format is git's (`Documentation/gitformat-*`, `fsck.c`, `tree.c`): entries of the form `mode
//! SP name NUL id`, sorted by name. The name of a directory is compared as if it ended in `/`.

use bstr::{BStr, BString, ByteSlice};

use crate::entry_mode::EntryMode;
use crate::entry_name::{self, NameProblem};
use crate::object::{Object, ObjectId, ObjectKind, ObjectRef};

/// One entry of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TreeEntry {
    /// The name. It need not be UTF-8.
    pub name: BString,
    /// The mode, which says what kind of object the entry names.
    pub mode: EntryMode,
    /// The id of the object that the entry names.
    pub id: ObjectId,
}

impl TreeEntry {
    /// Creates an entry called `name` with `mode` that names the object `id`.
    pub fn new(name: impl Into<BString>, mode: EntryMode, id: ObjectId) -> Self {
        Self { name: name.into(), mode, id }
    }
}

/// Why a tree is invalid. `git fsck --strict` refuses the same trees, except that it accepts some
/// modes that git no longer writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The name of an entry is invalid.
    #[error("tree entry {name:?}: {problem}")]
    Name {
        /// The entry's name.
        name: BString,
        /// Why the name is invalid.
        problem: NameProblem,
    },
    /// Two entries have the same name. This includes a file and a directory of the same name.
    #[error("tree entry {name:?} appears twice")]
    Duplicate {
        /// The name.
        name: BString,
    },
    /// The entries of an encoded tree are not in git's order.
    #[error("tree entry {name:?} is out of order")]
    Order {
        /// The first entry that belongs before the one in front of it.
        name: BString,
    },
    /// The mode of an entry is not one of git's five, or it is padded with zeros.
    #[error(
        "tree entry {name:?} has the invalid mode {mode:?}: expected 40000, 100644, 100755, 120000 \
         or 160000"
    )]
    Mode {
        /// The entry's name.
        name: BString,
        /// The mode as it appears in the tree.
        mode: BString,
    },
    /// An entry names the null id.
    #[error("tree entry {name:?} names the null id")]
    NullId {
        /// The entry's name.
        name: BString,
    },
    /// The encoding is not a sequence of entries of the form `mode SP name NUL id`.
    #[error("malformed encoding: {problem}")]
    Malformed {
        /// What is wrong with the encoding.
        problem: &'static str,
    },
}

/// A git tree whose entries are valid, unique and in git's order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Tree {
    entries: Vec<TreeEntry>,
}

impl Tree {
    /// Creates a tree without entries.
    pub const fn empty() -> Self {
        Self { entries: Vec::new() }
    }

    /// Creates a tree from entries in any order.
    ///
    /// # Errors
    /// - [`TreeError::Name`] if git would refuse the name of an entry.
    /// - [`TreeError::Duplicate`] if two entries have the same name.
    /// - [`TreeError::NullId`] if an entry names the null id.
    pub fn new(entries: impl IntoIterator<Item = TreeEntry>) -> Result<Self, TreeError> {
        let mut entries: Vec<TreeEntry> = entries.into_iter().collect();
        entries.sort_by(in_git_order);
        let tree = Self { entries };
        tree.check()?;
        Ok(tree)
    }

    /// Decodes a tree in git's encoding, and refuses an encoding that is not canonical.
    ///
    /// # Behavior
    /// - `Tree::decode(bytes)?.encode() == bytes` for all `bytes` that are accepted.
    /// - A tree that `git fsck --strict` refuses is refused.
    ///
    /// # Errors
    /// Returns a [`TreeError`] that names the first invalid entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        Self::decode_with(bytes, EntryMode::parse_strict)
    }

    /// Decodes a tree of an existing repository, including trees that old versions of git wrote.
    ///
    /// Modes that git no longer writes but still reads (`100664`, `040000`) are decoded as git
    /// reads them. Everything else is as strict as [`Tree::decode`]. [`Tree::encode`] and
    /// [`Tree::id`] use today's modes, so they may differ from `bytes` and from the id of the
    /// object that was read.
    ///
    /// # Errors
    /// Returns a [`TreeError`] that names the first invalid entry.
    pub fn decode_as_git_reads(bytes: &[u8]) -> Result<Self, TreeError> {
        Self::decode_with(bytes, |spelling| {
            EntryMode::parse_strict(spelling).or_else(|| EntryMode::parse_as_git_reads(spelling))
        })
    }

    fn decode_with(
        bytes: &[u8],
        parse: impl Fn(&[u8]) -> Option<EntryMode>,
    ) -> Result<Self, TreeError> {
        // Most entries have a mode of six digits and a name of some letters.
        let mut entries = Vec::with_capacity(bytes.len() / 32);
        let mut start = 0;
        for entry in gix_object::TreeRefIter::from_bytes(bytes, gix_hash::Kind::Sha1) {
            let entry = entry.map_err(|_| unreadable_entry(&bytes[start..]))?;
            // gix parses the mode as a number, but git allows only one spelling of each mode.
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

    /// Returns the tree in git's encoding, without the object header.
    pub fn encode(&self) -> Vec<u8> {
        let sizes = self.entries.iter().map(|entry| entry.name.len() + MAX_BYTES_WITHOUT_NAME);
        let mut encoded = Vec::with_capacity(sizes.sum());
        for entry in &self.entries {
            push_entry(&mut encoded, &entry.name, entry.mode, entry.id);
        }
        encoded
    }

    /// Returns the size of the tree in git's encoding, without the object header, in bytes.
    pub fn encoded_len(&self) -> usize {
        let entries = self.entries.iter();
        entries.map(|entry| entry.mode.as_str().len() + 1 + entry.name.len() + 1 + 20).sum()
    }

    /// Returns the encoded tree as an object, to be stored.
    pub fn to_object(&self) -> Object {
        Object::encoded_tree(self.encode())
    }

    /// Computes the tree's id.
    pub fn id(&self) -> ObjectId {
        ObjectId::of(ObjectKind::Tree, &self.encode())
    }

    /// Returns the entries in git's order.
    pub fn entries(&self) -> &[TreeEntry] {
        &self.entries
    }

    /// Iterates over the blobs and trees that the entries name. Submodules are skipped, because
    /// their commits belong to other repositories.
    pub fn objects(&self) -> impl Iterator<Item = ObjectRef> {
        self.entries
            .iter()
            .filter_map(|entry| Some(ObjectRef { kind: entry.mode.object_kind()?, id: entry.id }))
    }

    /// Returns the entry called `name`, if there is one.
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

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the tree has no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the entries in git's order, consuming the tree.
    pub fn into_entries(self) -> Vec<TreeEntry> {
        self.entries
    }

    /// Validates the names and ids of entries that are already in order, and checks for duplicates.
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
        // A directory sorts as if its name ended in `/`, so a file of the same name is not
        // necessarily the entry in front of it.
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

/// The size of an encoded entry without its name, if its mode has six digits.
const MAX_BYTES_WITHOUT_NAME: usize = 6 + 1 + 1 + 20;

/// Appends an entry in git's encoding.
pub(crate) fn push_entry(encoded: &mut Vec<u8>, name: &[u8], mode: EntryMode, id: ObjectId) {
    encoded.extend_from_slice(mode.as_str().as_bytes());
    encoded.push(b' ');
    encoded.extend_from_slice(name);
    encoded.push(0);
    encoded.extend_from_slice(id.as_bytes());
}

/// Says what is wrong with the first entry of `bytes`, which gix could not read.
///
/// gix refuses numbers that are no mode at all, such as `1`, in the same way as an entry that is
/// cut. Git reads any octal number as a mode, so those are told apart.
fn unreadable_entry(bytes: &[u8]) -> TreeError {
    let with_mode = || {
        let (mode, rest) = bytes.split_once_str(b" ")?;
        let (name, rest) = rest.split_once_str(b"\0")?;
        let octal = !mode.is_empty() && mode.iter().all(|digit| matches!(digit, b'0'..=b'7'));
        (octal && rest.len() >= 20)
            .then(|| TreeError::Mode { name: name.into(), mode: mode.into() })
    };
    with_mode().unwrap_or(TreeError::Malformed {
        problem: "an entry is truncated, or its mode is not octal",
    })
}

fn in_git_order(a: &TreeEntry, b: &TreeEntry) -> std::cmp::Ordering {
    gix_object::tree::name_order(
        &a.name,
        a.mode == EntryMode::Tree,
        &b.name,
        b.mode == EntryMode::Tree,
    )
}
