//! [`History`]: the commits of a repository, from its own packs.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};

use gix_object::{CommitRef, Kind, TagRefIter};
use manifold_runtime_api::bstr::{BString, ByteSlice};
use manifold_runtime_api::{Error, ObjectId, Result};

use super::{GitObjects, as_gix, from_gix, wrong_kind};

/// A commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// The commit's id.
    pub id: ObjectId,
    /// The id of its tree.
    pub tree: ObjectId,
    /// The ids of its parents, the first one first.
    pub parents: Vec<ObjectId>,
    /// When it was committed, in seconds since 1970.
    pub time: i64,
    /// The first line of its message. It need not be UTF-8.
    pub subject: BString,
}

/// The commits that some commits reach, the latest first: an iterator. [`GitObjects::history`] makes
/// one.
#[derive(Debug)]
pub struct History<'a> {
    objects: &'a GitObjects,
    first_parent: bool,
    pending: BinaryHeap<Pending>,
    /// The commits that are or were pending, or are left out.
    seen: HashSet<ObjectId>,
    found: u64,
    /// Commits that are to be read: those to start from, and parents of the last one returned.
    tips: Vec<ObjectId>,
    /// The commits whose parents a shallow clone lacks.
    shallow: HashSet<ObjectId>,
}

impl GitObjects {
    /// Reads a commit. Tags are followed. Returns `None` if the commit, or a tag on the way, is
    /// missing.
    ///
    /// # Errors
    /// [`Reason::WrongKind`](crate::api::Reason::WrongKind) if `id` names a tree or blob; [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if an object on
    /// the way cannot be read.
    pub fn commit(&self, id: ObjectId) -> Result<Option<Commit>> {
        let mut id = as_gix(id);
        loop {
            let Some((kind, content)) = self.find(&id)? else { return Ok(None) };
            match kind {
                Kind::Tag => {
                    let target = TagRefIter::from_bytes(&content, gix_hash::Kind::Sha1).target_id();
                    id = target.map_err(|error| self.read_error(&id, error))?;
                }
                Kind::Commit => {
                    return self.decode_commit(from_gix(&id)?, &content).map(Some);
                }
                Kind::Tree | Kind::Blob => {
                    return Err(wrong_kind(from_gix(&id)?, "commit", kind));
                }
            }
        }
    }

    fn decode_commit(&self, id: ObjectId, content: &[u8]) -> Result<Commit> {
        let failed = |error: &dyn std::fmt::Display| self.read_error(&as_gix(id), error);
        let commit =
            CommitRef::from_bytes(content, gix_hash::Kind::Sha1).map_err(|error| failed(&error))?;
        let parents = commit.parents().map(|parent| from_gix(&parent)).collect::<Result<_>>()?;
        // A malformed time is one of 1970, as for git.
        let time = commit.committer().ok().and_then(|committer| committer.time().ok());
        let subject = commit.message.trim_start().lines().next().unwrap_or_default();
        Ok(Commit {
            id,
            tree: from_gix(&commit.tree())?,
            parents,
            time: time.map_or(0, |time| time.seconds),
            subject: subject.as_bstr().to_owned(),
        })
    }

    /// Returns the commits that `tips` reach, these among them, and that `without` do not reach, as
    /// `git rev-list` lists them: the latest first. The name of a tag stands for its commit.
    ///
    /// What a commit of `without` reaches may be missing, as in a shallow clone.
    ///
    /// # Errors
    /// [`Reason::MissingObject`](crate::api::Reason::MissingObject) for a commit of `without` that is missing. The iterator returns [`Reason::MissingObject`](crate::api::Reason::MissingObject) for a commit that is missing, and the errors of
    /// [`GitObjects::commit`]. It goes on with the others after that.
    pub fn history(
        &self,
        tips: impl IntoIterator<Item = ObjectId>,
        without: impl IntoIterator<Item = ObjectId>,
    ) -> Result<History<'_>> {
        let (mut seen, shallow) = (HashSet::new(), self.shallow());
        let mut left_out: Vec<_> = without.into_iter().collect();
        // To leave nothing out would be the opposite of what was asked for.
        for id in &left_out {
            if self.commit(*id)?.is_none() {
                return Err(Error::missing(*id));
            }
        }
        while let Some(id) = left_out.pop() {
            if seen.insert(id)
                && let Some(commit) = self.commit(id)?
            {
                // The id of a tag is another one than that of its commit.
                seen.insert(commit.id);
                if !shallow.contains(&commit.id) {
                    left_out.extend(commit.parents);
                }
            }
        }
        Ok(History {
            objects: self,
            first_parent: false,
            pending: BinaryHeap::new(),
            seen,
            found: 0,
            tips: tips.into_iter().collect(),
            shallow,
        })
    }

    /// Returns the commits whose parents are not in this shallow clone (`gitrepository-layout`).
    fn shallow(&self) -> HashSet<ObjectId> {
        let file = self.directory().parent().map(|git| git.join("shallow"));
        let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        text.lines().filter_map(|line| ObjectId::from_hex(line.trim()).ok()).collect()
    }
}

impl History<'_> {
    /// Follows only the first parent of each commit.
    #[must_use]
    pub fn first_parent(mut self) -> Self {
        self.first_parent = true;
        self
    }
}

/// A commit that was found and is to be returned. The greatest is the latest, and of those of one time
/// the one that was found first.
#[derive(Debug)]
struct Pending {
    commit: Commit,
    number: u64,
}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |pending: &Self| (pending.commit.time, Reverse(pending.number));
        order(self).cmp(&order(other))
    }
}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pending {}

impl Iterator for History<'_> {
    type Item = Result<Commit>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(id) = self.tips.pop() {
            if self.seen.contains(&id) {
                continue;
            }
            match self.objects.commit(id) {
                Ok(Some(commit)) => {
                    if self.seen.insert(commit.id) {
                        self.found += 1;
                        self.pending.push(Pending { commit, number: self.found });
                    }
                }
                Ok(None) => {
                    self.seen.insert(id);
                    return Some(Err(Error::missing(id)));
                }
                Err(error) => {
                    self.seen.insert(id);
                    return Some(Err(error));
                }
            }
        }
        let Pending { commit, .. } = self.pending.pop()?;
        let followed = match () {
            () if self.shallow.contains(&commit.id) => 0,
            () if self.first_parent => 1,
            () => usize::MAX,
        };
        // Taken from the end, so that the first parent is found first.
        self.tips.extend(commit.parents.iter().take(followed).rev());
        Some(Ok(commit))
    }
}
