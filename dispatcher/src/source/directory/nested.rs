//! Nested repositories: git stores each of them as the commit that is checked out there.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use manifold_runtime_api::{IdError, ObjectId};

use super::files;

/// Returns the commit that is checked out in `directory`, or `None` if `directory` is not the root
/// of a repository.
///
/// # Errors
/// Returns a message if the commit cannot be determined.
pub(super) fn commit_of(directory: &Path) -> Result<Option<ObjectId>, String> {
    git_directory(&directory.join(".git")).map(|git| head(directory, &git)).transpose()
}

/// Returns the git directory that `.git` is or refers to (`gitrepository-layout`), if it is one.
fn git_directory(dot_git: &Path) -> Option<PathBuf> {
    let metadata = fs::metadata(dot_git).ok()?;
    let git = if metadata.is_dir() {
        dot_git.to_owned()
    } else if metadata.is_file() {
        let text = read(dot_git)?;
        dot_git.parent()?.join(text.strip_prefix("gitdir:")?.trim())
    } else {
        return None;
    };
    let common = common_directory(&git);
    let is_git_directory = git.join("HEAD").symlink_metadata().is_ok()
        && common.join("objects").is_dir()
        && common.join("refs").is_dir();
    is_git_directory.then_some(git)
}

/// Returns the directory with the refs and objects that a linked working tree shares with others.
pub(super) fn common_directory(git: &Path) -> PathBuf {
    match read(&git.join("commondir")) {
        Some(common) => git.join(common.trim()),
        None => git.to_owned(),
    }
}

/// Reads a file of a repository. Returns `None` if it is no text, or longer than such files are. Others
/// may have written the repository, so links and devices are not read.
fn read(file: &Path) -> Option<String> {
    const LARGEST: u64 = 256 << 20;
    let content = files::read_if_any(file, LARGEST).ok()??;
    if content.len() as u64 == LARGEST { None } else { String::from_utf8(content).ok() }
}

/// How many symbolic refs git follows in a chain.
const MAX_SYMBOLIC_REFS: usize = 5;

/// Returns the commit that `HEAD` refers to.
fn head(directory: &Path, git: &Path) -> Result<ObjectId, String> {
    let common = common_directory(git);
    let mut name = "HEAD".to_owned();
    for _ in 0..MAX_SYMBOLIC_REFS {
        let text = [git, &common].into_iter().find_map(|place| read(&place.join(&name)));
        let Some(text) = text else {
            return packed_ref(&common, &name).map_or_else(|| head_from_git(directory), Ok);
        };
        match text.strip_prefix("ref:") {
            Some(target) if is_ref(target.trim()) => name = target.trim().to_owned(),
            Some(_) => return head_from_git(directory),
            None => match ObjectId::from_hex(text.trim()) {
                Ok(id) => return Ok(id),
                Err(IdError::Sha256 { .. }) => {
                    return Err("it has SHA-256 ids, which are not supported so far".to_owned());
                }
                Err(_) => return head_from_git(directory),
            },
        }
    }
    Err("its HEAD leads through too many symbolic refs".to_owned())
}

/// Returns whether this is the name of a ref, and so a path below a git directory.
fn is_ref(name: &str) -> bool {
    name.starts_with("refs/") && !name.split('/').any(|part| part == "..")
}

/// Looks up the ref `name` in the `packed-refs` file (`git-pack-refs`).
fn packed_ref(common: &Path, name: &str) -> Option<ObjectId> {
    let packed = read(&common.join("packed-refs"))?;
    let ids =
        packed.lines().filter_map(|line| line.split_once(' ')).filter(|(_, found)| *found == name);
    ids.filter_map(|(id, _)| ObjectId::from_hex(id).ok()).next()
}

/// Asks git for the commit that is checked out. Needed for refs that are not stored as files
/// (`extensions.refStorage`).
fn head_from_git(directory: &Path) -> Result<ObjectId, String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(directory).args(["rev-parse", "--verify", "--quiet", "HEAD"]);
    git.stderr(Stdio::null());
    let output = output(&mut git);
    let output = output.map_err(|error| {
        format!("its refs can only be read by git, which cannot be run: {error}")
    })?;
    let id = String::from_utf8_lossy(&output.stdout);
    ObjectId::from_hex(id.trim()).map_err(|_| "it has no commit checked out".to_owned())
}

/// Removes the variables by which git finds a repository. In a git hook they describe another one.
pub(super) fn without_git_variables(git: &mut Command) -> &mut Command {
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_"))
    {
        git.env_remove(name);
    }
    git
}

/// Runs git, which prints little, for a while at most: it would wait for ever for a pipe in the place of
/// one of its files.
fn output(git: &mut Command) -> io::Result<Output> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let git = without_git_variables(git).stdin(Stdio::null()).stdout(Stdio::piped());
    let (mut git, start) = (git.spawn()?, Instant::now());
    while git.try_wait()?.is_none() {
        if start.elapsed() > PATIENCE {
            git.kill()?;
            git.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    git.wait_with_output()
}

/// Runs git. Returns what it prints, `None` if it cannot be run or fails with a message.
pub(super) fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(arguments).stderr(Stdio::piped());
    let output = output(&mut command).ok()?;
    let is_silent = output.stderr.is_empty();
    (output.status.success() || is_silent)
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Finds the repository that contains `directory`: the root of its working tree, and its git
/// directory.
pub(super) fn repository_around(directory: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut roots = directory.ancestors();
    roots.find_map(|root| Some((root.to_owned(), git_directory(&root.join(".git"))?)))
}

/// The repository that contains the scanned directory. Its index lists submodules that are not
/// checked out.
pub(super) struct OuterRepository {
    /// The root of its working tree, and its git directory.
    place: Option<(PathBuf, PathBuf)>,
    /// Read from the index on first use.
    submodules: Option<HashMap<PathBuf, ObjectId>>,
}

impl OuterRepository {
    /// Finds the repository that contains `directory`, if there is one.
    pub(super) fn around(directory: &Path) -> Self {
        Self { place: repository_around(directory), submodules: None }
    }

    /// Returns the commit of the submodule at `directory` in the index, if it is one.
    pub(super) fn submodule_at(&mut self, directory: &Path) -> Option<ObjectId> {
        let (root, git) = self.place.as_ref()?;
        let submodules = self.submodules.get_or_insert_with(|| submodules(git));
        submodules.get(directory.strip_prefix(root).ok()?).copied()
    }
}

/// Reads the submodules from the index of a repository, by path.
#[cfg(feature = "git")]
fn submodules(git: &Path) -> HashMap<PathBuf, ObjectId> {
    if !git.join("index").is_file() {
        return HashMap::new();
    }
    let options = gix_index::decode::Options::default();
    let index = match gix_index::File::at(git.join("index"), gix_hash::Kind::Sha1, true, options) {
        Ok(index) => index,
        Err(error) => {
            tracing::warn!("cannot read the git index in {}: {error}", git.display());
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
