//! The archive of a layer becomes a tree and the attributes that the tree cannot hold.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{EntryMode, Error, Object, ObjectId, Tree, TreeEntry, TreeError};
use tar::{Entry, EntryType};

use super::attributes::{Attributes, Time};
use super::error::ImportError;
use super::extensions::Extensions;
use super::{MAX_PATH, WHITEOUT, XATTR};

/// Stores an object and returns its id.
pub(super) type Write<'a> = dyn FnMut(Object) -> Result<ObjectId, Error> + 'a;

/// The maximum number of files, links and directories of a layer.
const MAX_FILES: usize = 2_000_000;
/// The most bytes for which memory is set aside because a header says so.
const TRUSTED_BYTES: u64 = 1 << 20;

/// Reads the archive of a layer.
pub(super) struct LayerReader<'a, 'w> {
    /// The number of the layer, from 0.
    pub(super) layer: usize,
    /// The maximum size of a file in bytes.
    pub(super) largest_file: u64,
    pub(super) write: &'a mut Write<'w>,
}

#[derive(Default)]
struct Directory {
    attributes: Option<Attributes>,
    entries: BTreeMap<Vec<u8>, Node>,
}

enum Node {
    Directory(Directory),
    File(File),
}

/// A file or a symbolic link.
#[derive(Clone)]
struct File {
    mode: EntryMode,
    id: ObjectId,
    attributes: Attributes,
    /// A number that hard links share with what they lead to.
    number: usize,
}

/// What is said about the files that were written so far.
struct Writing {
    /// A line for each entry whose attributes are not those that a tree implies.
    lines: String,
    /// The first path of each file, by its number.
    files: HashMap<usize, Vec<u8>>,
}

impl Writing {
    fn write(&mut self, path: &[u8], mode: EntryMode, attributes: Option<&Attributes>) {
        if let Some(line) = attributes.and_then(|attributes| attributes.line(path, mode)) {
            self.lines += &line;
            self.lines.push('\n');
        }
    }
}

impl Directory {
    /// Puts a file or directory at `path` below this directory. Directories on the way that the
    /// layer does not mention are created. A directory keeps what is in it.
    ///
    /// # Errors
    /// Returns the path that is in the way because it is no directory.
    fn put(&mut self, path: &[u8], node: Node) -> Result<(), Vec<u8>> {
        let mut at = self;
        let (above, name) = path.rsplit_once_str(b"/").unwrap_or((&b""[..], path));
        let mut length = 0;
        for part in above.split_str(b"/").filter(|part| !part.is_empty()) {
            length += part.len() + 1;
            let next = at.entries.entry(part.to_vec());
            match next.or_insert_with(|| Node::Directory(Self::default())) {
                Node::Directory(directory) => at = directory,
                Node::File(_) => return Err(path[..length - 1].to_vec()),
            }
        }
        match (at.entries.get_mut(name), node) {
            (Some(Node::Directory(there)), Node::Directory(new)) => {
                there.attributes = new.attributes;
            }
            (_, node) => drop(at.entries.insert(name.to_vec(), node)),
        }
        Ok(())
    }

    fn file(&self, path: &[u8]) -> Option<&File> {
        let mut parts = path.split_str(b"/");
        let first = parts.next()?;
        let node = parts.try_fold(self.entries.get(first)?, |node, part| match node {
            Node::Directory(directory) => directory.entries.get(part),
            Node::File(_) => None,
        })?;
        match node {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        }
    }
}

impl LayerReader<'_, '_> {
    /// Stores the files in `archive`. Returns the id of the layer's tree, and the attributes.
    pub(super) fn read(&mut self, archive: impl Read) -> Result<(ObjectId, String), ImportError> {
        let mut root = Directory::default();
        let mut archive = tar::Archive::new(archive);
        let mut extensions = Extensions::default();
        // Raw, because the library reads extensions of any size, and splits them at line feeds.
        let entries = archive.entries().map_err(ImportError::reading)?.raw(true);
        for (count, entry) in entries.enumerate() {
            if count >= MAX_FILES {
                let what = format!("the number of files of layer {}", self.layer);
                return Err(ImportError::TooLarge { what, bound: MAX_FILES.to_string() });
            }
            let mut entry = entry.map_err(ImportError::reading)?;
            let shown = entry.path_bytes().into_owned();
            if extensions.read(&mut entry).map_err(|problem| self.problem(&shown, &problem))? {
                continue;
            }
            let extensions = std::mem::take(&mut extensions);
            let path = self.path(&extensions.path(&entry))?;
            let node = if entry.header().entry_type() == EntryType::Link {
                let target = self.path(&extensions.link(&entry))?;
                Node::File(self.linked(&root, &path, &target)?)
            } else {
                self.node(&path, count, &extensions, &mut entry)?
            };
            match (path.is_empty(), node) {
                (true, Node::Directory(directory)) => root.attributes = directory.attributes,
                (true, Node::File(_)) => return Err(self.problem(&path, "it is not a directory")),
                (false, node) => self.put(&mut root, &path, node)?,
            }
        }

        let mut writing = Writing { lines: String::new(), files: HashMap::new() };
        writing.write(b"", EntryMode::Tree, root.attributes.as_ref());
        let id = self.tree(&root, &mut Vec::new(), &mut writing)?;
        Ok((id, writing.lines))
    }

    /// Returns the file at `target` for a hard link at `path`.
    fn linked(&self, root: &Directory, path: &[u8], target: &[u8]) -> Result<File, ImportError> {
        let file = root.file(target).filter(|_| path != target);
        file.cloned().ok_or_else(|| {
            let target = String::from_utf8_lossy(target);
            let words = format!(
                "it is a hard link to {target}, which is no file before it in the same layer"
            );
            self.problem(path, &words)
        })
    }

    fn put(&self, root: &mut Directory, path: &[u8], node: Node) -> Result<(), ImportError> {
        root.put(path, node).map_err(|found| {
            let found = String::from_utf8_lossy(&found);
            self.problem(path, &format!("it is below {found}, which is not a directory"))
        })
    }

    /// Returns a path without `.`, and without slashes at the start and end.
    fn path(&self, path: &[u8]) -> Result<Vec<u8>, ImportError> {
        if path.len() > MAX_PATH {
            let what = format!("the length of a path of layer {}", self.layer);
            return Err(ImportError::TooLarge { what, bound: format!("{MAX_PATH} bytes") });
        }
        let parts: Vec<&[u8]> =
            path.split_str(b"/").filter(|part| !part.is_empty() && *part != b".").collect();
        if parts.contains(&&b".."[..]) {
            return Err(self.problem(path, "its path leads out of the image"));
        }
        Ok(parts.join(&b'/'))
    }

    /// Stores the content of an entry, which gets `number`.
    fn node(
        &mut self,
        path: &[u8],
        number: usize,
        extensions: &Extensions,
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<Node, ImportError> {
        let kind = entry.header().entry_type();
        let wrong = |problem: String| self.problem(path, &problem);
        if extensions.number("size").map_err(wrong)?.is_some_and(|size| size != entry.size()) {
            let what = format!("layer {}: {}", self.layer, String::from_utf8_lossy(path));
            let bound = format!("{} bytes", self.largest_file);
            return Err(ImportError::TooLarge { what, bound });
        }
        let is_sparse = extensions.records.iter().any(|(key, _)| key.starts_with("GNU.sparse."));
        if is_sparse || kind == EntryType::GNUSparse {
            return Err(self.problem(
                path,
                "it is stored as a sparse file, which is not supported; write the archive without \
                 --sparse",
            ));
        }
        let attributes = self.attributes(path, extensions, entry)?;
        let is_executable = attributes.mode & 0o100 != 0;
        let mode = match kind {
            EntryType::Directory => {
                return Ok(Node::Directory(Directory {
                    attributes: Some(attributes),
                    entries: BTreeMap::new(),
                }));
            }
            EntryType::Symlink => EntryMode::Symlink,
            EntryType::Regular | EntryType::Continuous if is_executable => EntryMode::Executable,
            EntryType::Regular | EntryType::Continuous => EntryMode::Blob,
            EntryType::Char => return Err(self.unsupported(path, "a character device")),
            EntryType::Block => return Err(self.unsupported(path, "a block device")),
            EntryType::Fifo => return Err(self.unsupported(path, "a named pipe")),
            other => {
                let what = format!("an entry of the unknown type {:?}", other.as_byte() as char);
                return Err(self.unsupported(path, &what));
            }
        };
        let name = path.rsplit_str(b"/").next().unwrap_or(path);
        if let Some(deleted) = name.strip_prefix(WHITEOUT) {
            if [&b""[..], b".", b".."].contains(&deleted) {
                return Err(self.problem(path, "it would delete nothing that can be in an image"));
            }
            // It stands for a deletion. Nothing else of it matters.
            let (mode, id) = (EntryMode::Blob, (self.write)(Object::blob(Vec::new()))?);
            return Ok(Node::File(File { mode, id, attributes: Attributes::of(mode), number }));
        }
        let content = match mode {
            EntryMode::Symlink => {
                let target = extensions.link(entry);
                if target.is_empty() || target.contains(&0) || target.len() > MAX_PATH {
                    return Err(self.problem(path, "what the link leads to is not a path"));
                }
                target
            }
            _ => self.content(path, entry)?,
        };
        Ok(Node::File(File { mode, id: (self.write)(Object::blob(content))?, attributes, number }))
    }

    fn content(
        &self,
        path: &[u8],
        entry: &mut Entry<'_, impl Read>,
    ) -> Result<Vec<u8>, ImportError> {
        let size = entry.size();
        if size > self.largest_file {
            let what = format!("layer {}: {}", self.layer, String::from_utf8_lossy(path));
            return Err(ImportError::TooLarge {
                what,
                bound: format!("{} bytes", self.largest_file),
            });
        }
        let trusted = usize::try_from(size.min(TRUSTED_BYTES)).unwrap_or_default();
        let mut content = Vec::with_capacity(trusted);
        entry.take(self.largest_file).read_to_end(&mut content).map_err(ImportError::reading)?;
        if content.len() as u64 == size {
            return Ok(content);
        }
        Err(self.problem(path, &format!("it has {} bytes instead of {size}", content.len())))
    }

    fn attributes(
        &self,
        path: &[u8],
        extensions: &Extensions,
        entry: &Entry<'_, impl Read>,
    ) -> Result<Attributes, ImportError> {
        let wrong = |error: io::Error| self.problem(path, &format!("its header: {error}"));
        let kind = match entry.header().entry_type() {
            EntryType::Directory => EntryMode::Tree,
            EntryType::Symlink => EntryMode::Symlink,
            _ => EntryMode::Blob,
        };
        let mut attributes = Attributes::of(kind);
        let header = entry.header();
        // The kernel ignores the permissions of links, and archives differ in them.
        if kind != EntryMode::Symlink {
            attributes.mode = header.mode().map_err(wrong)? & 0o7777;
        }
        (attributes.uid, attributes.gid) =
            (header.uid().map_err(wrong)?, header.gid().map_err(wrong)?);
        let seconds = i64::try_from(header.mtime().map_err(wrong)?).unwrap_or(i64::MAX);
        attributes.mtime = Time { seconds, nanoseconds: 0 };
        let wrong = |problem: String| self.problem(path, &problem);
        attributes.uid = extensions.number("uid").map_err(wrong)?.unwrap_or(attributes.uid);
        attributes.gid = extensions.number("gid").map_err(wrong)?.unwrap_or(attributes.gid);
        if attributes.uid.max(attributes.gid) > u32::MAX.into() {
            return Err(self.problem(path, "its owner or group is no number of 32 bits"));
        }
        for (key, value) in &extensions.records {
            if key == "mtime" {
                let time = std::str::from_utf8(value).ok().and_then(Time::parse);
                attributes.mtime =
                    time.ok_or_else(|| self.problem(path, "the mtime of its header is no number"))?;
            } else if let Some(name) = key.strip_prefix(XATTR) {
                attributes.xattrs.insert(name.to_owned(), value.clone());
            }
        }
        Ok(attributes)
    }

    /// Stores a directory and all below it, and writes about their attributes.
    ///
    /// Of the paths of one file, the first in the order of paths is the file, and the others are
    /// links to it, whatever their order in the archive.
    fn tree(
        &mut self,
        directory: &Directory,
        path: &mut Vec<u8>,
        writing: &mut Writing,
    ) -> Result<ObjectId, ImportError> {
        let mut order: Vec<(&Vec<u8>, &Node)> = directory.entries.iter().collect();
        // The order of the whole paths, which is that of git.
        let key = |(name, node): &(&Vec<u8>, &Node)| {
            let mut key = (*name).clone();
            if matches!(node, Node::Directory(_)) {
                key.push(b'/');
            }
            key
        };
        order.sort_by_cached_key(key);
        let mut entries = Vec::with_capacity(order.len());
        let length = path.len();
        for (name, node) in order {
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let mode = match node {
                Node::Directory(directory) => {
                    writing.write(path, EntryMode::Tree, directory.attributes.as_ref());
                    EntryMode::Tree
                }
                Node::File(file) => {
                    let first = writing.files.entry(file.number).or_insert_with(|| path.clone());
                    let mut attributes = file.attributes.clone();
                    // A link to a symbolic link is as good as a copy.
                    if first != path && file.mode != EntryMode::Symlink {
                        attributes.link = Some(first.clone());
                    }
                    writing.write(path, file.mode, Some(&attributes));
                    file.mode
                }
            };
            let id = match node {
                Node::Directory(directory) => self.tree(directory, path, writing)?,
                Node::File(file) => file.id,
            };
            entries.push(TreeEntry::new(name.clone(), mode, id));
            path.truncate(length);
        }
        let tree = Tree::new(entries).map_err(|error| match &error {
            TreeError::Name { name, problem } => {
                let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                let path = [&path[..], separator, name].concat();
                self.problem(&path, &format!("git does not accept its name: {problem}"))
            }
            _ => self.problem(path, &error.to_string()),
        })?;
        Ok((self.write)(tree.to_object())?)
    }

    fn unsupported(&self, path: &[u8], what: &str) -> ImportError {
        self.problem(path, &format!("it is {what}, which the image of a guest cannot have"))
    }

    fn problem(&self, path: &[u8], problem: &str) -> ImportError {
        let path = if path.is_empty() { &b"/"[..] } else { path };
        let path = String::from_utf8_lossy(path).into_owned();
        ImportError::File { layer: self.layer, path, problem: problem.to_owned() }
    }
}
