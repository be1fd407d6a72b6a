//! The entries of a directory, which are read from it or known from its old record.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{ObjectId, ObjectKind};

use super::error::{DirectoryError, io_error};
use super::record::{Entry, File, Node, Record};
use super::rules::{Rules, Verdict};
use super::stat::Stat;
use super::visit::{Child, Directory, Item, OldChild, Scan, ToHash, is_executable, is_gone};
use super::{files, names};
use crate::store::STORE_FILE;

/// What is left out of a directory.
pub(super) struct LeftOut {
    /// Files of a store.
    pub(super) stores: bool,
    /// Index files, and what else is cached beside a store.
    pub(super) cached: bool,
}

impl LeftOut {
    pub(super) fn any(&self) -> bool {
        self.stores || self.cached
    }

    fn contains(&self, name: &[u8]) -> bool {
        name == b".git"
            || self.stores && name.starts_with(STORE_FILE.as_bytes())
            || self.cached && name.starts_with(manifold_cached_files::PREFIX.as_bytes())
    }
}

/// What is known of a directory while it is listed.
pub(super) struct Scanned<'a> {
    scan: &'a Scan<'a>,
    directory: &'a Arc<Directory>,
    rules: Option<Arc<Rules>>,
    /// The path of the directory, and for a while that of an entry.
    path: PathBuf,
    pub(super) items: Vec<Item>,
    pub(super) children: Vec<Child>,
    pub(super) subdirectories: Vec<Arc<Directory>>,
    pub(super) to_hash: Vec<ToHash>,
    /// Whether a name was there, and what it names was not.
    pub(super) has_vanished: bool,
}

impl<'a> Scanned<'a> {
    pub(super) fn new(
        scan: &'a Scan<'a>,
        directory: &'a Arc<Directory>,
        rules: Option<Arc<Rules>>,
    ) -> Self {
        Self {
            scan,
            directory,
            rules,
            path: directory.path.clone(),
            items: Vec::new(),
            children: Vec::new(),
            subdirectories: Vec::new(),
            to_hash: Vec::new(),
            has_vanished: false,
        }
    }

    /// Reads the names in the directory, and adds all entries. Returns whether one is `.git`.
    pub(super) fn read_names(
        &mut self,
        old: Option<&Record<'a>>,
        left_out: &LeftOut,
    ) -> Result<bool, DirectoryError> {
        let path = &self.directory.path;
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            // It was removed meanwhile.
            Err(error) if is_gone(&error) => {
                self.has_vanished = true;
                return Ok(false);
            }
            Err(error) => return Err(io_error(path)(error)),
        };
        let old: HashMap<_, _> = old
            .into_iter()
            .flat_map(Record::entries)
            .map(|(place, entry)| (entry.name, (place, entry)))
            .collect();
        let mut has_git = false;
        for entry in entries {
            let entry = entry.map_err(io_error(path))?;
            let (file_name, file_type) = (entry.file_name(), entry.file_type());
            let name = names::bytes(&file_name);
            has_git |= name == b".git";
            if left_out.contains(name) {
                continue;
            }
            let file_type = match file_type {
                Ok(file_type) => file_type,
                Err(error) if is_gone(&error) => {
                    self.has_vanished = true;
                    continue;
                }
                Err(error) => return Err(io_error(&entry.path())(error)),
            };
            let old = old.get(name).cloned();
            if file_type.is_dir() {
                let old = old.and_then(|(_, entry)| match entry.node {
                    Node::Directory(start) => Some(OldChild::Directory(start)),
                    Node::Nested(commit) => Some(OldChild::Nested(commit)),
                    _ => None,
                });
                self.child(name, old)?;
            } else if (file_type.is_file() || file_type.is_symlink())
                && self.verdict(name, false)? != Verdict::LeftOut
            {
                let old = old.map(|(place, entry)| (entry, place));
                let needs_metadata =
                    old.is_some() || self.scan.git_index.is_some() || self.scan.reporter.is_heard();
                if file_type.is_file() && !needs_metadata {
                    // Its metadata is wanted when it is hashed.
                    self.hash_later(name, 0, None);
                } else {
                    self.leaf(name, old)?;
                }
            }
        }
        Ok(has_git)
    }

    /// Adds an entry of the old record, whose listing still holds.
    pub(super) fn known(
        &mut self,
        entry: Entry<'a>,
        place: Range<usize>,
    ) -> Result<(), DirectoryError> {
        match entry.node {
            Node::Directory(start) => self.child(entry.name, Some(OldChild::Directory(start))),
            Node::Nested(commit) => self.child(entry.name, Some(OldChild::Nested(commit))),
            Node::File { .. } | Node::Link { .. } => self.leaf(entry.name, Some((entry, place))),
        }
    }

    /// Returns what the rules say about an entry.
    fn verdict(&self, name: &[u8], is_directory: bool) -> Result<Verdict, DirectoryError> {
        let (Some(scan), Some(rules)) = (&self.scan.rules, &self.rules) else {
            return Ok(Verdict::Kept);
        };
        let directory = self.directory.path.strip_prefix(self.scan.root);
        let below = directory.unwrap_or(Path::new("")).join(names::from_bytes(name));
        scan.verdict(rules, names::bytes(below.as_os_str()).as_bstr(), is_directory)
    }

    fn child(&mut self, name: &[u8], old: Option<OldChild>) -> Result<(), DirectoryError> {
        let is_ignored = match self.verdict(name, true)? {
            Verdict::Kept => false,
            Verdict::OnlyTracked => true,
            Verdict::LeftOut => return Ok(()),
        };
        let start = match old {
            Some(OldChild::Directory(start)) => Some(start),
            _ => None,
        };
        let parent = Some((Arc::clone(self.directory), self.children.len()));
        let path = self.path.join(names::from_bytes(name));
        let above = self.rules.clone();
        self.subdirectories.push(Directory::new(parent, path, start, above, is_ignored));
        self.children.push(Child { name: name.into(), old, outcome: None });
        Ok(())
    }

    /// Adds a file or link, `old` being its entry in the old record.
    fn leaf(
        &mut self,
        name: &[u8],
        old: Option<(Entry<'a>, Range<usize>)>,
    ) -> Result<(), DirectoryError> {
        self.path.push(names::from_bytes(name));
        let added = self.leaf_at_path(name, old);
        self.path.pop();
        added
    }

    fn leaf_at_path(
        &mut self,
        name: &[u8],
        old: Option<(Entry<'a>, Range<usize>)>,
    ) -> Result<(), DirectoryError> {
        let metadata = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if is_gone(&error) => {
                self.has_vanished = true;
                return Ok(());
            }
            Err(error) => return Err(io_error(&self.path)(error)),
        };
        let stat = Stat::of(&metadata);
        let is_executable = is_executable(&metadata);
        if let Some((entry, place)) = &old {
            let file = match entry.node {
                Node::File { is_executable: was, file }
                    // Some files of the kernel have no length, but content.
                    if metadata.is_file() && was == is_executable && file.length > 0 =>
                {
                    Some(file)
                }
                Node::Link { file, .. } if metadata.is_symlink() => Some(file),
                _ => None,
            };
            let is_same = |file: File| {
                file.is_trusted && Some(file.stat) == stat && file.length == metadata.len()
            };
            if file.is_some_and(is_same) {
                files::check_length(&self.path, metadata.len(), self.scan.largest_file)?;
                self.items.push(Item::Old(place.clone()));
                return Ok(());
            }
        }
        if metadata.is_symlink() {
            return self.link(name, stat, old);
        }
        if metadata.is_file() {
            if let Some(git_index) = &self.scan.git_index
                && let Some(stat) = stat.filter(|stat| stat.is_older_than(&self.scan.young))
                && let Ok(below) = self.path.strip_prefix(self.scan.root)
                && let Some(id) = git_index.id_of(below, &metadata)
            {
                files::check_length(&self.path, metadata.len(), self.scan.largest_file)?;
                let file = File { id, length: metadata.len(), stat, is_trusted: true };
                self.items.push(Item::File { name: name.into(), is_executable, file });
                return Ok(());
            }
            self.hash_later(name, metadata.len(), old.map(|(_, place)| place));
            return Ok(());
        }
        self.has_vanished = true;
        Ok(())
    }

    fn hash_later(&mut self, name: &[u8], length: u64, old: Option<Range<usize>>) {
        let (item, name) = (self.items.len(), name.into());
        self.to_hash.push(ToHash { item, name, length, old });
        self.items.push(Item::Absent);
    }

    fn link(
        &mut self,
        name: &[u8],
        stat: Option<Stat>,
        old: Option<(Entry<'a>, Range<usize>)>,
    ) -> Result<(), DirectoryError> {
        let target = match fs::read_link(&self.path) {
            Ok(target) => target,
            // It was removed, or is not a link any more.
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::InvalidInput => {
                self.has_vanished = true;
                return Ok(());
            }
            Err(error) => return Err(io_error(&self.path)(error)),
        };
        let target = names::bytes(target.as_os_str());
        let file = File {
            id: ObjectId::of(ObjectKind::Blob, target),
            length: target.len() as u64,
            stat: stat.unwrap_or_default(),
            is_trusted: stat.is_some_and(|stat| stat.is_older_than(&self.scan.young)),
        };
        let same = old.filter(|(entry, _)| match entry.node {
            Node::Link { file: old, .. } => old == file,
            _ => false,
        });
        self.items.push(match same {
            Some((_, place)) => Item::Old(place),
            None => Item::Link { name: name.into(), target: target.into(), file },
        });
        Ok(())
    }
}
