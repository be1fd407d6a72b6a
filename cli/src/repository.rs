//! A git repository, found and read as git does it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gix::bstr::{BStr, ByteSlice};
use gix::revision::plumbing::Spec::Include;
use manifold_dispatcher::GitObjects;
use manifold_runtime_api::{Error, ObjectId, ObjectRef, Reason};

use crate::error::CliError;
use crate::input::check_path;

pub(crate) struct Repository {
    /// The path that the user named.
    path: PathBuf,
    /// The directory in which the git program is run.
    directory: PathBuf,
    gix: gix::Repository,
    /// Whether git's environment variables apply to this repository.
    follows_environment: bool,
}

/// Returns the value of an environment variable, unless it is empty.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

impl Repository {
    /// Opens the repository that `GIT_DIR` names, or else the one around `path`, which may be a
    /// file in it.
    pub(crate) fn for_reading(path: &Path) -> Result<Self, CliError> {
        Self::find(path, variable("GIT_DIR"), true)
    }

    /// Opens the repository around `path`, without regard to the environment. For a repository that
    /// is written to.
    pub(crate) fn named(path: &Path) -> Result<Self, CliError> {
        Self::find(path, None, false)
    }

    fn find(
        path: &Path,
        git_dir: Option<OsString>,
        follows_environment: bool,
    ) -> Result<Self, CliError> {
        let is_dir = check_path(path)?.is_dir();
        let absolute = path
            .canonicalize()
            .map_err(|source| CliError::Unreadable { path: path.to_owned(), source })?;
        let directory =
            if is_dir { absolute } else { absolute.parent().unwrap_or(&absolute).to_owned() };
        let place = match git_dir {
            Some(git_dir) => {
                let path = PathBuf::from(git_dir);
                match path.canonicalize() {
                    // The error does not include the content of a file that is not a repository,
                    // because that may be confidential.
                    Ok(place) if gix::discover::is_git(&place).is_ok() => place,
                    _ => return Err(CliError::NoGitDir { path }),
                }
            }
            None => {
                let options = gix::discover::upwards::Options {
                    match_ceiling_dir_or_error: false,
                    ..Default::default()
                };
                let options =
                    if follows_environment { options.apply_environment() } else { options };
                let (place, _) =
                    gix::discover::upwards_opts(&directory, options).map_err(|error| {
                        CliError::NotARepository { path: path.to_owned(), source: error.into() }
                    })?;
                place.into_repository_and_work_tree_directories().0
            }
        };
        let open =
            |options: gix::open::Options| gix::open_opts(&place, options.open_path_as_is(true));
        let gix = match open(gix::open::Options::default()) {
            // gix 0.90 refuses alternates that form a cycle. Git and `GitObjects` ignore the cycle.
            // With a fixed number of slots, gix does not read the alternates before an object is
            // looked up.
            Err(error) if error.downcast_any_ref::<gix::odb::alternate::Cycle>().is_some() => {
                const SLOTS: u16 = 1024;
                open(
                    gix::open::Options::default()
                        .object_store_slots(gix::odb::store::init::Slots::Given(SLOTS)),
                )
            }
            opened => opened,
        };
        let gix = gix.map_err(|error| cannot_be_opened(path, &place, error))?;
        Ok(Self { path: path.to_owned(), directory, gix, follows_environment })
    }

    pub(crate) fn gix(&self) -> &gix::Repository {
        &self.gix
    }

    /// Opens the objects that git finds, including those of a push that is not accepted yet
    /// (`GIT_QUARANTINE_PATH`).
    pub(crate) fn objects(&self) -> Result<GitObjects, CliError> {
        let own = self.gix.objects.store_ref().path().to_owned();
        if !self.follows_environment {
            return Ok(GitObjects::open(own)?);
        }
        let own =
            variable("GIT_COMMON_DIR").map_or(own, |common| PathBuf::from(common).join("objects"));
        let directory = variable("GIT_OBJECT_DIRECTORY").map_or(own, PathBuf::from);
        let more = variable("GIT_ALTERNATE_OBJECT_DIRECTORIES");
        let more = more.map(|paths| split_paths(paths.as_bytes())).unwrap_or_default();
        Ok(GitObjects::open_with(directory, &more)?)
    }

    /// Returns the tree or blob that `rev` names.
    pub(crate) fn resolve(&self, rev: &str, objects: &GitObjects) -> Result<ObjectRef, CliError> {
        let id = self.object_id(rev)?;
        objects.peel(id)?.ok_or_else(|| self.missing(rev, id, objects))
    }

    /// Returns the id of the commit that `rev` names, or that of a tag which names one.
    pub(crate) fn commit(&self, rev: &str, objects: &GitObjects) -> Result<ObjectId, CliError> {
        let id = self.object_id(rev)?;
        match objects.commit(id) {
            Ok(Some(_)) => Ok(id),
            Ok(None) => Err(self.missing(rev, id, objects)),
            Err(error) => Err(match error.reason() {
                Reason::WrongKind { found, .. } => {
                    CliError::NotACommit { rev: rev.to_owned(), found }
                }
                _ => error.into(),
            }),
        }
    }

    /// Returns the error for an object that `rev` names and the repository lacks.
    fn missing(&self, rev: &str, id: ObjectId, objects: &GitObjects) -> CliError {
        if objects.is_partial() {
            return CliError::PartialClone { path: rev.to_owned(), source: Error::missing(id) };
        }
        self.no_such(rev, format!("object {id}, or one that it names, is missing").into())
    }

    fn no_such(&self, rev: &str, source: Box<dyn std::error::Error + Send + Sync>) -> CliError {
        CliError::NoSuchRevision { rev: rev.to_owned(), path: self.path.clone(), source }
    }

    /// Returns the id of the object that `rev` names, of whatever kind.
    pub(crate) fn object_id(&self, rev: &str) -> Result<ObjectId, CliError> {
        // Git finds more than gix: refs that are not stored as files, objects that the environment
        // names, and objects that a stale multi-pack-index misplaces. So git is asked if gix finds
        // nothing.
        let problem = match self.gix.rev_parse(rev).map(gix::revision::Spec::detach) {
            Ok(Include(id)) => {
                return ObjectId::from_bytes(id.as_slice())
                    .map_err(|error| self.no_such(rev, error.into()));
            }
            Ok(_) => "it is a range, not a single revision".into(),
            Err(_) if rev == "HEAD" && self.gix.head().is_ok_and(|head| head.is_unborn()) => {
                "its branch has no commit yet".into()
            }
            Err(error) => error.into(),
        };
        self.ask_git(rev).ok_or_else(|| self.no_such(rev, problem))
    }

    /// Resolves `rev` with `git rev-parse`.
    fn ask_git(&self, rev: &str) -> Option<ObjectId> {
        let mut git = self.git();
        let asked = git.args(["rev-parse", "--verify", "--quiet", "--end-of-options", rev]);
        let output = asked.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        ObjectId::from_hex(output.stdout.to_str().ok()?.trim()).ok()
    }

    /// Returns a `git` command for this repository.
    pub(crate) fn git(&self) -> Command {
        let mut git = Command::new("git");
        if self.follows_environment {
            git.arg("-C").arg(&self.directory);
            return git;
        }
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"GIT_")) {
            git.env_remove(name);
        }
        git.arg("--git-dir").arg(self.gix.path());
        git
    }

    /// Returns whether refs are stored as files, which programs other than git can write.
    pub(crate) fn has_refs_in_files(&self) -> bool {
        let storage = self.gix.config_snapshot().string("extensions.refStorage");
        storage.is_none_or(|storage| storage.eq_ignore_ascii_case(b"files"))
    }
}

/// Splits a list of paths as git does: at colons. A path that contains a colon is quoted as in C.
fn split_paths(list: &[u8]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let quoted = rest
            .starts_with(b"\"")
            .then(|| gix::quote::ansi_c::undo(BStr::new(rest)).ok())
            .flatten();
        let (path, length) = match quoted {
            Some((path, length)) => (path.into_owned().into(), length),
            None => {
                let length = rest.find_byte(b':').unwrap_or(rest.len());
                (rest[..length].to_vec(), length)
            }
        };
        if !path.is_empty() {
            paths.push(PathBuf::from(OsString::from_vec(path)));
        }
        rest = rest.get(length + 1..).unwrap_or_default();
    }
    paths
}

/// Returns the error for a repository that cannot be opened, with the reason as specific as
/// possible.
fn cannot_be_opened(path: &Path, git_dir: &Path, error: gix::Error) -> CliError {
    let repository = path.to_owned();
    let is_about = |key: &str| {
        error.metadata().any(|metadata| {
            metadata.get("key").is_some_and(|found| {
                format!("{found:?}").to_lowercase().contains(&key.to_lowercase())
            })
        })
    };
    if is_about("extensions.objectFormat") || has_sha256(git_dir) {
        return CliError::Sha256Repository { path: repository };
    }
    if is_about("core.repositoryFormatVersion") {
        return CliError::RepositoryVersion { path: repository, source: error.into() };
    }
    if let Some(problem) = error.downcast_any_ref::<gix::config::parse::Error>() {
        let line = problem.line_number();
        return CliError::RepositoryConfig { path: repository, line, source: error.into() };
    }
    CliError::Repository { path: repository, source: error.into() }
}

/// Returns whether the configuration file of the repository selects SHA-256 ids.
fn has_sha256(git_dir: &Path) -> bool {
    let config = fs::read(git_dir.join("config")).unwrap_or_default();
    let lines = config.lines().map(|line| line.to_ascii_lowercase());
    lines
        .map(|line| line.replace(" ", ""))
        .any(|line| line.trim().starts_with(b"objectformat=sha256"))
}
