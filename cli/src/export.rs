//! Outcomes in a git repository of their own.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use gix::objs::Kind;
use gix::objs::Write;
use gix::refs::transaction::PreviousValue;
use manifold_dispatcher::{ObjectSource, Pin, Progress};
use manifold_runtime_api::{Error, ObjectId, ObjectKind, Tree};

/// Why an export fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// An object to be written cannot be read.
    #[error("an outcome cannot be read")]
    Source(#[from] Error),
    /// Git would store an object under another id. It is damaged.
    #[error("object {expected} would be {found} in git")]
    OtherId {
        /// The id it has here.
        expected: ObjectId,
        /// The id it has there.
        found: gix::ObjectId,
    },
    /// An object cannot be written.
    #[error("object {id} cannot be written")]
    Object {
        /// The object.
        id: ObjectId,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A ref cannot be written.
    #[error("the ref {name} cannot be written")]
    Ref {
        /// The ref.
        name: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The repository keeps its refs where only git itself can write them, and git did not.
    #[error("git cannot write the refs of this repository, which are no files")]
    Git {
        /// Why not.
        source: io::Error,
    },
}

/// Writes the outcome of every pin, with all that it reaches, into `repository`, and points `refs/manifold/<request>` to it.
/// Objects come before the ref that keeps them. Returns the names of the refs. If the repository does not keep refs as files, `git`, a
/// command for this repository, writes them.
///
/// # Errors
/// [`ExportError`]; refs that were written before stay.
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

/// Has `git update-ref` do what `updates` says, all of it or nothing.
fn update_refs(mut git: Command, updates: &str) -> io::Result<()> {
    let git = git.args(["update-ref", "-m", "manifold export", "--stdin"]);
    let mut git = git.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    // Git reads all of it before it says anything.
    let sent = git.stdin.take().map_or(Ok(()), |mut input| input.write_all(updates.as_bytes()));
    let done = git.wait_with_output()?;
    if !done.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned()));
    }
    sent
}

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
            open.extend(tree.objects().map(|held| held.id));
        }
    }
    Ok(())
}
