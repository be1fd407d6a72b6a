//! Export of pinned outcomes to a git repository.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use gix::objs::Kind;
use gix::objs::Write;
use gix::refs::transaction::PreviousValue;
use manifold_dispatcher::{ObjectSource, Pin, Progress};
use manifold_runtime_api::{Error, ObjectId, ObjectKind, Tree};

/// The error of [`export`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The source failed to read an object, or does not have it.
    #[error("cannot read an outcome")]
    Source(#[from] Error),
    /// Git computes another id for the object, so its content is damaged.
    #[error("object {expected} is damaged: git computes the id {found}")]
    OtherId {
        /// The id under which the source returned the object.
        expected: ObjectId,
        /// The id that git computed from the content.
        found: gix::ObjectId,
    },
    /// An object could not be written to the repository.
    #[error("cannot write object {id}")]
    Object {
        /// The id of the object.
        id: ObjectId,
        /// The error of the repository.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A ref could not be written to the repository.
    #[error("cannot write the ref {name}")]
    Ref {
        /// The full name of the ref.
        name: String,
        /// The error of the repository.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The repository does not store its refs as files, and `git` failed to write them.
    #[error("git cannot write the refs of this repository, which does not store them as files")]
    Git {
        /// The error of starting `git`, or its message on standard error.
        source: io::Error,
    },
}

/// Writes the outcome of every pin and all objects it reaches to `repository`, and points
/// `refs/manifold/<request>` to the outcome. Returns the names of the refs.
///
/// The objects of an outcome are written before its ref. `git` is a command for this repository. It
/// writes the refs of a repository that does not store them as files. Pass `None` if it does.
///
/// # Errors
///
/// Returns an [`ExportError`] if an object cannot be read, or an object or ref cannot be written.
/// Refs that were already written remain.
pub fn export(
    repository: &gix::Repository,
    git: Option<Command>,
    source: &dyn ObjectSource,
    pins: &[Pin],
    mut progress: impl FnMut(Progress),
) -> Result<Vec<String>, ExportError> {
    let mut written = HashSet::new();
    let mut names = Vec::with_capacity(pins.len());
    let mut updates = String::new();
    for (done, pin) in pins.iter().enumerate() {
        progress(Progress::new("outcomes", done as u64, pins.len() as u64));
        write_all(repository, source, pin.outcome.id, &mut written)?;
        let name = format!("refs/manifold/{}", pin.request);
        names.push(name.clone());
        if git.is_some() {
            updates += &format!("update {name} {}\n", pin.outcome.id);
            continue;
        }
        let target = gix::ObjectId::from_bytes_or_panic(pin.outcome.id.as_bytes());
        repository
            .reference(name.as_str(), target, PreviousValue::Any, "manifold export")
            .map_err(|source| ExportError::Ref { name, source: source.into() })?;
    }
    if let Some(git) = git {
        update_refs(git, &updates).map_err(|source| ExportError::Git { source })?;
    }
    Ok(names)
}

/// Runs `git update-ref` with the commands `updates`, of which it executes all or none.
fn update_refs(mut git: Command, updates: &str) -> io::Result<()> {
    let git = git.args(["update-ref", "-m", "manifold export", "--stdin"]);
    let mut git = git.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    // Git reads all of its input before it writes anything, so neither side blocks.
    let sent = git.stdin.take().map_or(Ok(()), |mut input| input.write_all(updates.as_bytes()));
    let done = git.wait_with_output()?;
    if !done.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned()));
    }
    sent
}

/// Writes `root` and all objects it reaches, except those in `written`, and adds them to `written`.
fn write_all(
    repository: &gix::Repository,
    source: &dyn ObjectSource,
    root: ObjectId,
    written: &mut HashSet<ObjectId>,
) -> Result<(), ExportError> {
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if !written.insert(id) {
            continue;
        }
        let object = match source.read(id)? {
            Some(object) => object,
            None if id == ObjectId::empty_tree() => Tree::empty().to_object(),
            None => return Err(Error::missing(id).into()),
        };
        let kind = match object.kind {
            ObjectKind::Blob => Kind::Blob,
            ObjectKind::Tree => Kind::Tree,
        };
        let found = repository
            .objects
            .write_buf(kind, &object.content)
            .map_err(|source| ExportError::Object { id, source: source.into() })?;
        if found.as_slice() != id.as_bytes() {
            return Err(ExportError::OtherId { expected: id, found });
        }
        if object.kind == ObjectKind::Tree {
            let tree = Tree::decode_as_git_reads(&object.content)
                .map_err(|problem| Error::bad_tree(id, problem))?;
            open.extend(tree.objects().map(|object| object.id));
        }
    }
    Ok(())
}
