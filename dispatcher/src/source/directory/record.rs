//! The encoding of scanned directories, in memory and in an index file.
//!
//! Each directory is a record, which comes after those of its subdirectories. An entry for a
//! subdirectory says how far before its own record the other one begins. So the records of a
//! directory and of all below it can be copied elsewhere as they are. Numbers are little endian.

use std::ops::Range;

use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{EntryMode, ObjectId, TreeEntry};

use super::stat::Stat;

/// The length of an encoded id in bytes.
const ID_BYTES: usize = 20;

/// A directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    /// Where the record begins and ends.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Where the records of everything below the directory begin.
    pub(super) subtree: usize,
    pub(super) head: Head<'a>,
    entries: usize,
    body: &'a [u8],
}

/// What a record says about its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'a> {
    /// The path below the scanned directory.
    pub(super) path: &'a [u8],
    /// The id of the tree. `None` if the directory has no tree, because it is empty.
    pub(super) tree: Option<ObjectId>,
    /// The number of nodes: the entries of the tree and of all trees below, and the tree itself.
    pub(super) nodes: u64,
    pub(super) listing: Listing,
}

/// What is known about the names in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Listing {
    /// The directory when it was listed.
    pub(super) stat: Stat,
    /// Whether a directory with this stat has these names.
    pub(super) is_trusted: bool,
    /// Whether one of its names is `.git`.
    pub(super) has_git: bool,
    /// The rules by which other names were left out ([`super::rules`]).
    pub(super) rules: u64,
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) node: Node<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Node<'a> {
    File {
        is_executable: bool,
        file: File,
    },
    Link {
        target: &'a [u8],
        file: File,
    },
    /// A directory, and where its record begins.
    Directory(usize),
    /// The commit of a nested repository.
    Nested(ObjectId),
}

/// A file or link when it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File {
    pub(super) id: ObjectId,
    /// The length of the content in bytes.
    pub(super) length: u64,
    pub(super) stat: Stat,
    /// Whether a file with this stat and length has this content.
    pub(super) is_trusted: bool,
}

const FILE: u8 = 0;
const EXECUTABLE: u8 = 1;
const LINK: u8 = 2;
const DIRECTORY: u8 = 3;
const NESTED: u8 = 4;
/// Added to the kind of a file or link that is trusted.
const TRUSTED: u8 = 0x80;

const LISTING_TRUSTED: u8 = 1;
const HAS_GIT: u8 = 2;
const HAS_TREE: u8 = 4;

/// Reads encoded values one after the other. Each is `None` at the end.
struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.body.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.bytes(N)?.first_chunk()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|bytes| bytes[0])
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.array().map(|bytes| u32::from_le_bytes(*bytes))?).ok()
    }

    fn id(&mut self) -> Option<ObjectId> {
        ObjectId::from_bytes(self.bytes(ID_BYTES)?).ok()
    }

    fn stat(&mut self) -> Option<Stat> {
        Some(Stat::decode(self.array()?))
    }

    /// Reads a length and as many bytes.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.bytes(length)
    }
}

fn put_text(text: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(text);
}

impl<'a> Record<'a> {
    /// Decodes the record that begins at `start`. `None` if it is malformed.
    pub(super) fn at(body: &'a [u8], start: usize) -> Option<Self> {
        let mut reader = Reader { body, at: start };
        let end = start.checked_add(reader.length()?)?;
        let subtree = end.checked_sub(usize::try_from(reader.u64()?).ok()?)?;
        let nodes = reader.u64()?;
        let flags = reader.byte()?;
        let id = reader.id()?;
        let stat = reader.stat()?;
        let rules = reader.u64()?;
        let path = reader.text()?;
        let tree = (flags & HAS_TREE != 0).then_some(id);
        let (is_trusted, has_git) = (flags & LISTING_TRUSTED != 0, flags & HAS_GIT != 0);
        let head =
            Head { path, tree, nodes, listing: Listing { stat, is_trusted, has_git, rules } };
        let entries = reader.at;
        (entries <= end && end <= body.len() && subtree <= start).then_some(Self {
            start,
            end,
            subtree,
            head,
            entries,
            body,
        })
    }

    /// Returns the entries in the order of git's trees, each with its place. Ends at one that is
    /// malformed.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Range<usize>, Entry<'a>)> + use<'a> {
        let Self { start, end, mut entries, body, .. } = *self;
        std::iter::from_fn(move || {
            if entries >= end {
                return None;
            }
            let (next, entry) = Entry::at(body, entries, start)?;
            let place = entries..next;
            entries = next;
            Some((place, entry))
        })
    }

    /// Returns the content of the directory's tree.
    pub(super) fn encode_tree(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(self.end - self.entries);
        for (_, entry) in self.entries() {
            let Some((mode, id)) = entry.mode_and_id(self.body) else { continue };
            content.extend_from_slice(mode.as_str().as_bytes());
            content.push(b' ');
            content.extend_from_slice(entry.name);
            content.push(0);
            content.extend_from_slice(id.as_bytes());
        }
        content
    }

    /// Appends a record to `body`, which begins with the records of everything below the directory.
    /// The entries must be in the order of git's trees.
    pub(super) fn append(head: &Head<'_>, entries: &[Entry<'_>], body: &mut Vec<u8>) {
        let start = body.len();
        // The lengths of the record and of the subtree are set below.
        body.extend_from_slice(&[0; 12]);
        body.extend_from_slice(&head.nodes.to_le_bytes());
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let listing = &head.listing;
        body.push(
            flag(listing.is_trusted, LISTING_TRUSTED)
                | flag(listing.has_git, HAS_GIT)
                | flag(head.tree.is_some(), HAS_TREE),
        );
        body.extend_from_slice(head.tree.as_ref().map_or(&[0; ID_BYTES], |id| id.as_bytes()));
        listing.stat.encode(body);
        body.extend_from_slice(&listing.rules.to_le_bytes());
        put_text(head.path, body);
        for entry in entries {
            entry.encode(start, body);
        }
        let length = u32::try_from(body.len() - start).unwrap_or(u32::MAX);
        let subtree = body.len() as u64;
        if let Some(lengths) = body.get_mut(start..start + 12) {
            lengths[..4].copy_from_slice(&length.to_le_bytes());
            lengths[4..].copy_from_slice(&subtree.to_le_bytes());
        }
    }
}

impl<'a> Entry<'a> {
    /// Decodes the entry at `start` of the record at `record`. Returns also where it ends.
    pub(super) fn at(body: &'a [u8], start: usize, record: usize) -> Option<(usize, Self)> {
        let mut reader = Reader { body, at: start };
        let kind = reader.byte()?;
        let name = reader.text()?;
        let is_trusted = kind & TRUSTED != 0;
        let file = |reader: &mut Reader<'_>, length: Option<u64>| {
            let (id, stat) = (reader.id()?, reader.stat()?);
            let length = length.or_else(|| reader.u64())?;
            Some(File { id, length, stat, is_trusted })
        };
        let node = match kind & !TRUSTED {
            kind @ (FILE | EXECUTABLE) => {
                Node::File { is_executable: kind == EXECUTABLE, file: file(&mut reader, None)? }
            }
            LINK => {
                let target = reader.text()?;
                Node::Link { target, file: file(&mut reader, Some(target.len() as u64))? }
            }
            DIRECTORY => {
                let distance = usize::try_from(reader.u64()?).ok().filter(|length| *length > 0)?;
                Node::Directory(record.checked_sub(distance)?)
            }
            NESTED => Node::Nested(reader.id()?),
            _ => return None,
        };
        Some((reader.at, Self { name, node }))
    }

    /// Appends the entry to the record at `record`.
    fn encode(&self, record: usize, body: &mut Vec<u8>) {
        let trusted = |file: &File| if file.is_trusted { TRUSTED } else { 0 };
        body.push(match &self.node {
            Node::File { is_executable: false, file } => FILE | trusted(file),
            Node::File { is_executable: true, file } => EXECUTABLE | trusted(file),
            Node::Link { file, .. } => LINK | trusted(file),
            Node::Directory(_) => DIRECTORY,
            Node::Nested(_) => NESTED,
        });
        put_text(self.name, body);
        if let Node::Link { target, .. } = &self.node {
            put_text(target, body);
        }
        match &self.node {
            Node::File { file, .. } | Node::Link { file, .. } => {
                body.extend_from_slice(file.id.as_bytes());
                file.stat.encode(body);
            }
            Node::Directory(start) => {
                body.extend_from_slice(&((record - start) as u64).to_le_bytes());
            }
            Node::Nested(id) => body.extend_from_slice(id.as_bytes()),
        }
        if let Node::File { file, .. } = &self.node {
            body.extend_from_slice(&file.length.to_le_bytes());
        }
    }

    /// Returns the mode and the id that the entry has in the tree. `None` for an empty directory.
    fn mode_and_id(&self, body: &[u8]) -> Option<(EntryMode, ObjectId)> {
        Some(match &self.node {
            Node::File { is_executable: false, file } => (EntryMode::Blob, file.id),
            Node::File { is_executable: true, file } => (EntryMode::Executable, file.id),
            Node::Link { file, .. } => (EntryMode::Symlink, file.id),
            Node::Directory(start) => (EntryMode::Tree, Record::at(body, *start)?.head.tree?),
            Node::Nested(commit) => (EntryMode::Commit, *commit),
        })
    }

    /// Returns the entry of the tree. `None` for an empty directory.
    pub(super) fn tree_entry(&self, body: &[u8]) -> Option<TreeEntry> {
        let (mode, id) = self.mode_and_id(body)?;
        Some(TreeEntry::new(self.name.as_bstr(), mode, id))
    }

    /// Returns the bytes by which git sorts the entries of a tree.
    pub(super) fn order(&self) -> impl Iterator<Item = u8> + use<'a> {
        let slash = matches!(self.node, Node::Directory(_)).then_some(b'/');
        self.name.iter().copied().chain(slash)
    }
}
