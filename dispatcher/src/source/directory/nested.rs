//! Repositories inside of a directory: git stores each as the commit that is checked out there.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use manifold_runtime_api::{IdError, ObjectId};

/// The commit that is checked out in `directory`, if that is a repository of its own.
///
/// # Errors
/// Why nobody can tell.
pub(super) fn commit_of(directory: &Path) -> Result<Option<ObjectId>, String> {
    git_directory(&directory.join(".git")).map(|git| head(directory, &git)).transpose()
}

/// The git directory that `.git` is or names (`gitrepository-layout`), if it is one.
fn git_directory(dot_git: &Path) -> Option<PathBuf> {
    let metadata = fs::metadata(dot_git).ok()?;
    let git = if metadata.is_dir() {
        dot_git.to_owned()
    } else if metadata.is_file() {
        let text = fs::read_to_string(dot_git).ok()?;
        dot_git.parent()?.join(text.strip_prefix("gitdir:")?.trim())
    } else {
        return None;
    };
    let common = common_directory(&git);
    let is_one = git.join("HEAD").symlink_metadata().is_ok()
        && common.join("objects").is_dir()
        && common.join("refs").is_dir();
    is_one.then_some(git)
}

/// Where a linked working tree has what it shares with the others.
fn common_directory(git: &Path) -> PathBuf {
    match fs::read_to_string(git.join("commondir")) {
        Ok(common) => git.join(common.trim()),
        Err(_) => git.to_owned(),
    }
}

/// How many symbolic refs git follows from one to the next.
const DEEPEST: usize = 5;

fn head(directory: &Path, git: &Path) -> Result<ObjectId, String> {
    let common = common_directory(git);
    let mut name = "HEAD".to_owned();
    for _ in 0..DEEPEST {
        let text =
            [git, &common].into_iter().find_map(|place| fs::read_to_string(place.join(&name)).ok());
        let Some(text) = text else {
            return packed(&common, &name).map_or_else(|| ask_git(directory), Ok);
        };
        match text.strip_prefix("ref:") {
            Some(target) => name = target.trim().to_owned(),
            None => match ObjectId::from_hex(text.trim()) {
                Ok(id) => return Ok(id),
                Err(IdError::Sha256 { .. }) => {
                    return Err("it has SHA-256 ids, which are not supported so far".to_owned());
                }
                Err(_) => return ask_git(directory),
            },
        }
    }
    Err("its HEAD leads from one ref to the next".to_owned())
}

/// The ref `name` in the file of packed refs (`git-pack-refs`).
fn packed(common: &Path, name: &str) -> Option<ObjectId> {
    let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
    let ids =
        packed.lines().filter_map(|line| line.split_once(' ')).filter(|(_, found)| *found == name);
    ids.filter_map(|(id, _)| ObjectId::from_hex(id).ok()).next()
}

/// Refs that are no files (`extensions.refStorage`) only git itself reads.
fn ask_git(directory: &Path) -> Result<ObjectId, String> {
    let mut git = Command::new("git");
    // The environment of a hook is about another repository.
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_"))
    {
        git.env_remove(name);
    }
    let asked = git.arg("-C").arg(directory).args(["rev-parse", "--verify", "--quiet", "HEAD"]);
    let answer = asked.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let answer = answer
        .map_err(|error| format!("its refs are for git to read, which does not start: {error}"))?;
    let id = String::from_utf8_lossy(&answer.stdout);
    ObjectId::from_hex(id.trim()).map_err(|_| "it has no commit checked out".to_owned())
}

/// The repository around the directory that is read, which knows of submodules that were never filled.
pub(super) struct OuterRepository {
    /// Where its working tree begins, and its git directory.
    place: Option<(PathBuf, PathBuf)>,
    submodules: Option<HashMap<PathBuf, ObjectId>>,
}

impl OuterRepository {
    /// The repository around `directory`, if there is one.
    pub(super) fn around(directory: &Path) -> Self {
        let place = directory
            .ancestors()
            .find_map(|root| Some((root.to_owned(), git_directory(&root.join(".git"))?)));
        Self { place, submodules: None }
    }

    /// The commit that the index has at `directory`.
    pub(super) fn submodule_at(&mut self, directory: &Path) -> Option<ObjectId> {
        let (root, git) = self.place.as_ref()?;
        let submodules = self.submodules.get_or_insert_with(|| submodules(git));
        submodules.get(directory.strip_prefix(root).ok()?).copied()
    }
}

/// The submodules in the index of a repository, by path.
#[cfg(feature = "git")]
fn submodules(git: &Path) -> HashMap<PathBuf, ObjectId> {
    let options = gix_index::decode::Options::default();
    let index = match gix_index::File::at(git.join("index"), gix_hash::Kind::Sha1, true, options) {
        Ok(index) => index,
        Err(error) => {
            if git.join("index").exists() {
                tracing::warn!("the index in {} cannot be read: {error}", git.display());
            }
            return HashMap::new();
        }
    };
    let links = index.entries().iter().filter(|entry| entry.mode == gix_index::entry::Mode::COMMIT);
    let by_path = links.filter_map(|entry| {
        let path = gix_path(entry.path(&index))?;
        Some((path, ObjectId::from_bytes(entry.id.as_slice()).ok()?))
    });
    by_path.collect()
}

#[cfg(feature = "git")]
fn gix_path(path: &manifold_runtime_api::bstr::BStr) -> Option<PathBuf> {
    use manifold_runtime_api::bstr::ByteSlice;
    path.to_path().ok().map(Path::to_owned)
}

#[cfg(not(feature = "git"))]
fn submodules(_: &Path) -> HashMap<PathBuf, ObjectId> {
    HashMap::new()
}
