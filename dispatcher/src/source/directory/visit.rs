//! The jobs of a scan: listing a directory, hashing some of its files, and putting together its
//! record when everything below it is known.

use std::fs::{self, Metadata};
use std::io;
use std::mem::take;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use manifold_runtime_api::{ObjectId, Tree};
use parking_lot::Mutex;

use super::error::{DirectoryError, io_error};
use super::git_index::GitIndex;
use super::index::Records;
use super::list::{LeftOut, Scanned};
use super::nested::{OuterRepository, commit_of};
use super::progress::Reporter;
use super::record::{Entry, File, Head, Listing, Node, Record};
use super::rules::{Rules, ScanRules};
use super::stat::{Stat, Young};
use super::workers::Jobs;
use super::{files, names};

/// A scan in progress.
pub(super) struct Scan<'a> {
    pub(super) root: &'a Path,
    pub(super) canonical: &'a Path,
    /// The canonical directories whose stores are left out.
    pub(super) stores: Vec<PathBuf>,
    /// The canonical directory whose index files are left out.
    pub(super) indexes: Option<PathBuf>,
    /// Which entries are left out.
    pub(super) rules: Option<ScanRules>,
    pub(super) largest_file: u64,
    /// The records of the last scan.
    pub(super) old: Option<&'a Records>,
    /// The index of the git repository around the directory, if there is no old record.
    pub(super) git_index: Option<GitIndex>,
    pub(super) young: Young,
    pub(super) reporter: Reporter,
    pub(super) outer: Mutex<OuterRepository>,
    pub(super) nested: Mutex<Vec<PathBuf>>,
    pub(super) error: Mutex<Option<DirectoryError>>,
    pub(super) has_failed: AtomicBool,
    /// What the scanned directory turns out to be.
    pub(super) outcome: Mutex<Option<Outcome>>,
}

/// A piece of a scan's work.
pub(super) enum Job {
    /// List a directory.
    List(Arc<Directory>),
    /// Hash files of a directory.
    Hash(Arc<Directory>, Vec<ToHash>),
}

/// A directory that is being scanned.
pub(super) struct Directory {
    /// The directory that contains it, and the place among its subdirectories.
    parent: Option<(Arc<Directory>, usize)>,
    pub(super) path: PathBuf,
    /// Where its old record begins.
    old: Option<usize>,
    /// The rules of the directory that contains it, if there are any.
    above: Option<Arc<Rules>>,
    /// Whether git ignores it, so that only what is tracked below it is kept.
    is_ignored: bool,
    /// The number of jobs and subdirectories that are not finished.
    pending: AtomicUsize,
    work: Mutex<Work>,
}

#[derive(Default)]
struct Work {
    listing: Listing,
    items: Vec<Item>,
    children: Vec<Child>,
    /// Whether the record differs from the old one.
    is_changed: bool,
    /// Whether the directory was removed, or is a nested repository.
    other: Option<Outcome>,
}

/// A file, link or nested repository of a directory.
pub(super) enum Item {
    /// The old record has the same entry, at this place.
    Old(Range<usize>),
    File {
        name: Box<[u8]>,
        is_executable: bool,
        file: File,
    },
    Link {
        name: Box<[u8]>,
        target: Box<[u8]>,
        file: File,
    },
    /// It was removed, or is not hashed yet.
    Absent,
}

/// A subdirectory.
pub(super) struct Child {
    pub(super) name: Box<[u8]>,
    /// What it is in the old record.
    pub(super) old: Option<OldChild>,
    pub(super) outcome: Option<Outcome>,
}

impl Child {
    fn is_there(&self) -> bool {
        !matches!(self.outcome, None | Some(Outcome::Removed))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OldChild {
    Directory(usize),
    Nested(ObjectId),
}

/// What a directory turns out to be.
pub(super) enum Outcome {
    Removed,
    /// A nested repository, with the commit that is checked out there.
    Nested(ObjectId),
    /// Unchanged, so that the old record that begins here still holds.
    Unchanged(usize),
    /// Changed: the new records of it and everything below it.
    Changed(Records),
}

/// A file to hash.
pub(super) struct ToHash {
    pub(super) item: usize,
    pub(super) name: Box<[u8]>,
    /// Its length in bytes, if somebody wants to know how much is to be hashed, else 0.
    pub(super) length: u64,
    /// Its entry in the old record.
    pub(super) old: Option<Range<usize>>,
}

/// A job that has hashed as many bytes leaves its other files to others.
const BATCH_BYTES: u64 = 4 << 20;

impl Directory {
    pub(super) fn root(path: &Path, old: Option<usize>, rules: Option<&ScanRules>) -> Arc<Self> {
        let above = rules.map(|rules| Arc::clone(rules.above()));
        Self::new(None, path.to_owned(), old, above, false)
    }

    pub(super) fn new(
        parent: Option<(Arc<Self>, usize)>,
        path: PathBuf,
        old: Option<usize>,
        above: Option<Arc<Rules>>,
        is_ignored: bool,
    ) -> Arc<Self> {
        let (pending, work) = (AtomicUsize::new(1), Mutex::default());
        Arc::new(Self { parent, path, old, above, is_ignored, pending, work })
    }
}

impl Scan<'_> {
    pub(super) fn work(&self, job: Job, jobs: &Jobs<Job>) {
        let (Job::List(directory) | Job::Hash(directory, _)) = &job;
        let directory = Arc::clone(directory);
        if !self.has_failed.load(Ordering::Relaxed) {
            let done = match job {
                Job::List(directory) => self.list(&directory, jobs),
                Job::Hash(directory, files) => self.hash(&directory, files, jobs),
            };
            if let Err(error) = done {
                self.fail(error);
            }
            self.reporter.report();
        }
        self.finish_one(directory);
    }

    fn fail(&self, error: DirectoryError) {
        self.error.lock().get_or_insert(error);
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// Lists a directory, compares its files with the old record, and adds jobs for the others.
    fn list(&self, directory: &Arc<Directory>, jobs: &Jobs<Job>) -> Result<(), DirectoryError> {
        let path = &directory.path;
        let is_root = directory.parent.is_none();
        let look = || if is_root { fs::metadata(path) } else { fs::symlink_metadata(path) };
        let metadata = match look() {
            Ok(metadata) if metadata.is_dir() => metadata,
            Ok(_) if !is_root => return self.is_other(directory, Outcome::Removed),
            Err(error) if !is_root && is_gone(&error) => {
                return self.is_other(directory, Outcome::Removed);
            }
            Ok(_) => return Err(DirectoryError::Special { path: path.clone() }),
            Err(error) => return Err(io_error(path)(error)),
        };
        let below = path.strip_prefix(self.root).unwrap_or(Path::new(""));
        let canonical = self.canonical.join(below);
        let is_store = self.stores.contains(&canonical);
        let cached = is_store || self.indexes.as_ref() == Some(&canonical);
        let left_out = LeftOut { stores: is_store, cached };
        let stat = Stat::of(&metadata);
        let rules = match (&self.rules, &directory.above) {
            (Some(rules), Some(above)) => {
                Some(rules.of(path, below, directory.is_ignored, above)?)
            }
            _ => None,
        };
        let by_rules = rules.as_ref().map_or(0, |rules| rules.fingerprint);
        let old = directory.old.and_then(|start| Record::at(&self.old?.body, start));
        // Its names are known if it has not changed since it was listed.
        let listed = old.filter(|old| {
            let listing = &old.head.listing;
            listing.is_trusted
                && stat == Some(listing.stat)
                && listing.rules == by_rules
                && !left_out.any()
        });
        let mut scanned = Scanned::new(self, directory, rules);
        let mut listing = match listed {
            Some(record) => {
                for (place, entry) in record.entries() {
                    scanned.known(entry, place)?;
                }
                record.head.listing
            }
            None => {
                let has_git = scanned.read_names(old.as_ref(), &left_out)?;
                // If a directory above it was replaced meanwhile, the names are another directory's.
                let is_same = || look().is_ok_and(|again| Stat::of(&again) == stat);
                let is_trusted = !left_out.any()
                    && stat.is_some_and(|stat| stat.is_older_than(&self.young))
                    && is_same();
                let stat = stat.unwrap_or_default();
                Listing { stat, is_trusted, has_git, rules: by_rules }
            }
        };
        listing.is_trusted &= !scanned.has_vanished;
        if listing.has_git && !is_root {
            let nested = commit_of(path)
                .map_err(|problem| DirectoryError::Nested { path: path.clone(), problem })?;
            if let Some(commit) = nested {
                return self.is_other(directory, Outcome::Nested(commit));
            }
        }
        let Scanned { items, children, subdirectories, to_hash, .. } = scanned;
        if items.is_empty() && children.is_empty() && !is_root {
            // A submodule that is not checked out is an empty directory.
            if let Some(commit) = self.outer.lock().submodule_at(&canonical) {
                return self.is_other(directory, Outcome::Nested(commit));
            }
        }
        let hash_jobs = self.batches(directory, to_hash);
        directory.pending.fetch_add(subdirectories.len() + hash_jobs.len(), Ordering::Relaxed);
        {
            let mut work = directory.work.lock();
            // If each entry has the same one in the old record, and both have as many, they are equal.
            work.is_changed = old.is_none_or(|old| {
                old.head.listing != listing || old.entries().count() != items.len() + children.len()
            }) || items.iter().any(|item| matches!(item, Item::Link { .. }));
            (work.listing, work.items, work.children) = (listing, items, children);
        }
        jobs.add(subdirectories.into_iter().map(Job::List), hash_jobs);
        Ok(())
    }

    fn is_other(&self, directory: &Directory, outcome: Outcome) -> Result<(), DirectoryError> {
        if matches!(outcome, Outcome::Nested(_)) {
            self.nested.lock().push(directory.path.clone());
        }
        directory.work.lock().other = Some(outcome);
        Ok(())
    }

    /// Divides files into jobs.
    fn batches(&self, directory: &Arc<Directory>, files: Vec<ToHash>) -> Vec<Job> {
        const FILES: usize = 64;
        self.reporter.found(files.len() as u64, files.iter().map(|file| file.length).sum());
        let mut files = files.into_iter().peekable();
        let batches = std::iter::from_fn(|| {
            files.peek()?;
            Some(Job::Hash(Arc::clone(directory), files.by_ref().take(FILES).collect()))
        });
        batches.collect()
    }

    /// Hashes files. If they are large, the last of them are left to other jobs.
    fn hash(
        &self,
        directory: &Arc<Directory>,
        mut files: Vec<ToHash>,
        jobs: &Jobs<Job>,
    ) -> Result<(), DirectoryError> {
        let (mut path, mut buffer, mut bytes) = (directory.path.clone(), Vec::new(), 0);
        files.reverse();
        while let Some(ToHash { item, name, length, old }) = files.pop() {
            path.push(names::from_bytes(&name));
            let hashed = files::hash(&path, self.largest_file, &mut buffer)?;
            bytes += hashed.as_ref().map_or(0, |hashed| hashed.length);
            let hashed = hashed.map(|hashed| {
                let is_executable = is_executable(&hashed.metadata);
                let stat = Stat::of(&hashed.metadata);
                let is_trusted = hashed.metadata.len() == hashed.length
                    && stat.is_some_and(|stat| stat.is_older_than(&self.young));
                let stat = stat.unwrap_or_default();
                (is_executable, File { id: hashed.id, length: hashed.length, stat, is_trusted })
            });
            path.pop();
            self.reporter.hashed(length);
            let same = old.filter(|place| {
                self.entry(place).is_some_and(|entry| match entry.node {
                    Node::File { is_executable, file } => Some((is_executable, file)) == hashed,
                    _ => false,
                })
            });
            let mut work = directory.work.lock();
            work.is_changed |= same.is_none();
            if let Some(slot) = work.items.get_mut(item) {
                *slot = match (same, hashed) {
                    (Some(place), _) => Item::Old(place),
                    (None, Some((is_executable, file))) => Item::File { name, is_executable, file },
                    (None, None) => Item::Absent,
                };
            }
            drop(work);
            if bytes >= BATCH_BYTES && files.len() > 1 {
                files.reverse();
                let rest = files.split_off(files.len() / 2);
                let rest = [take(&mut files), rest];
                directory.pending.fetch_add(rest.len(), Ordering::Relaxed);
                jobs.add([], rest.map(|files| Job::Hash(Arc::clone(directory), files)));
            }
        }
        Ok(())
    }

    /// Returns an entry of the old records that is not a directory.
    fn entry(&self, place: &Range<usize>) -> Option<Entry<'_>> {
        Entry::at(&self.old?.body, place.start, place.start).map(|(_, entry)| entry)
    }

    /// Notes that a job or a subdirectory of `directory` is finished. Puts together the records of
    /// all directories that are complete with it.
    fn finish_one(&self, mut directory: Arc<Directory>) {
        while directory.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            if self.has_failed.load(Ordering::Relaxed) {
                return;
            }
            let outcome = match self.assemble(&directory) {
                Ok(outcome) => outcome,
                Err(error) => return self.fail(error),
            };
            let Some((parent, place)) = &directory.parent else {
                *self.outcome.lock() = Some(outcome);
                return;
            };
            if let Some(child) = parent.work.lock().children.get_mut(*place) {
                child.outcome = Some(outcome);
            }
            directory = Arc::clone(parent);
        }
    }

    /// Returns what a directory is, of which everything is known.
    fn assemble(&self, directory: &Directory) -> Result<Outcome, DirectoryError> {
        let Work { mut listing, items, mut children, is_changed, other } =
            take(&mut *directory.work.lock());
        if let Some(other) = other {
            return Ok(other);
        }
        let is_same = |child: &Child| match (&child.outcome, &child.old) {
            (Some(Outcome::Unchanged(start)), Some(OldChild::Directory(old))) => start == old,
            (Some(Outcome::Nested(commit)), Some(OldChild::Nested(old))) => commit == old,
            _ => false,
        };
        if let Some(old) = directory.old
            && !is_changed
            && children.iter().all(is_same)
        {
            return Ok(Outcome::Unchanged(old));
        }
        // What has vanished may be there again, without a change of this directory, if the path of a
        // directory above it led elsewhere for a while.
        listing.is_trusted &= !items.iter().any(|item| matches!(item, Item::Absent))
            && children.iter().all(Child::is_there);
        let old = self.old.map_or(&[][..], |old| &old.body);
        // The largest of the new records is extended, so that few bytes are moved.
        let length_of = |child: &Child| match &child.outcome {
            Some(Outcome::Changed(records)) => records.body.len(),
            _ => 0,
        };
        let base = children.iter().enumerate().max_by_key(|(_, child)| length_of(child));
        let base = base.filter(|(_, child)| length_of(child) > 0).map(|(place, _)| place);
        if let Some(place) = base {
            children.swap(0, place);
        }
        let mut body = Vec::new();
        let mut nodes = Vec::with_capacity(children.len());
        for child in &mut children {
            nodes.push(match child.outcome.take() {
                None | Some(Outcome::Removed) => None,
                Some(Outcome::Nested(commit)) => Some(Node::Nested(commit)),
                Some(Outcome::Unchanged(start)) => Record::at(old, start).map(|record| {
                    let moved = body.len() + (start - record.subtree);
                    body.extend_from_slice(old.get(record.subtree..record.end).unwrap_or_default());
                    Node::Directory(moved)
                }),
                Some(Outcome::Changed(records)) if body.is_empty() => {
                    body = records.body;
                    Some(Node::Directory(records.root))
                }
                Some(Outcome::Changed(records)) => {
                    let moved = body.len() + records.root;
                    body.extend_from_slice(&records.body);
                    Some(Node::Directory(moved))
                }
            });
        }
        let of_children = children.iter().zip(&nodes);
        let of_children = of_children
            .filter_map(|(child, node)| Some(Entry { name: &child.name, node: (*node)? }));
        let of_items = items.iter().filter_map(|item| match item {
            Item::Absent => None,
            Item::Old(place) => self.entry(place),
            Item::File { name, is_executable, file } => Some(Entry {
                name,
                node: Node::File { is_executable: *is_executable, file: *file },
            }),
            Item::Link { name, target, file } => {
                Some(Entry { name, node: Node::Link { target, file: *file } })
            }
        });
        let mut entries: Vec<_> = of_items.chain(of_children).collect();
        entries.sort_by(|one, other| one.order().cmp(other.order()));
        self.append(directory, listing, &entries, body)
    }

    /// Appends the record of a directory with these entries.
    fn append(
        &self,
        directory: &Directory,
        listing: Listing,
        entries: &[Entry<'_>],
        mut body: Vec<u8>,
    ) -> Result<Outcome, DirectoryError> {
        let tree: Vec<_> = entries.iter().filter_map(|entry| entry.tree_entry(&body)).collect();
        let is_root = directory.parent.is_none();
        let tree = if tree.is_empty() && !is_root {
            None
        } else {
            let tree = Tree::new(tree).map_err(|source| DirectoryError::Refused {
                path: directory.path.clone(),
                source,
            })?;
            Some(tree.id())
        };
        let below = entries.iter().map(|entry| match entry.node {
            Node::File { .. } | Node::Link { .. } => 1,
            Node::Directory(start) => {
                Record::at(&body, start).map_or(0, |record| record.head.nodes)
            }
            Node::Nested(_) => 0,
        });
        let nodes = below.fold(u64::from(tree.is_some()), u64::saturating_add);
        let path = directory.path.strip_prefix(self.root).unwrap_or(Path::new(""));
        let path = names::bytes(path.as_os_str());
        let root = body.len();
        Record::append(&Head { path, tree, nodes, listing }, entries, &mut body);
        Ok(Outcome::Changed(Records { body, root }))
    }
}

/// Returns whether something cannot be read because it, or a directory above it, was removed or
/// replaced.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(unix)]
pub(super) fn is_executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    const OWNER_EXECUTES: u32 = 0o100;
    metadata.permissions().mode() & OWNER_EXECUTES != 0
}

#[cfg(not(unix))]
pub(super) fn is_executable(_: &Metadata) -> bool {
    false
}
