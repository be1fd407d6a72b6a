use std::error::Error as StdError;
use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use manifold::export::ExportError;
use manifold_dispatcher::{DirectoryError, OpenError};
use manifold_runtime_api::{Error, Frame, Limit};
use manifold_runtime_docker::EngineError;

use crate::limits;
use crate::patience::Doing;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("there is no {}", path.display())]
    NoSuchPath { path: PathBuf },
    #[error("the input cannot be read")]
    Directory(#[source] DirectoryError),
    #[error("{} is not in a git repository", path.display())]
    NotARepository {
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("the repository of {} has SHA-256 ids, which are not supported so far", path.display())]
    Sha256Repository { path: PathBuf },
    #[error("the repository of {} has a format version that this program does not know", path.display())]
    RepositoryVersion {
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("the configuration of the repository of {} has a syntax error in line {line}", path.display())]
    RepositoryConfig {
        path: PathBuf,
        line: usize,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error(
        "{path} of the input is not here, for the repository is a partial clone; `git fetch --refetch --no-filter` brings everything"
    )]
    PartialClone { path: String, source: Error },
    #[error("{path} of the input cannot be read")]
    At { path: String, source: Error },
    #[error("the repository of {} cannot be opened", path.display())]
    Repository {
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("{rev:?} names no file or directory in {}", path.display())]
    NoSuchRevision {
        rev: String,
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("there is no image {name:?}: expected one of {}, an image reference, or a .wasm, .ts or .js file", known.join(", "))]
    NoSuchImage { name: String, known: Vec<String> },
    #[error(
        "{} is no guest: expected a .wasm file, a .ts, .mts, .js or .mjs file, or a directory with a main.ts",
        path.display()
    )]
    NoGuest { path: PathBuf },
    #[error("the directory {} is no guest: it has none of {mains}", path.display())]
    NoGuestIn { path: PathBuf, mains: String },
    #[error("{} has {bytes} bytes, and a module may have {bound}; --max-module raises this limit", path.display())]
    LargeGuest { path: PathBuf, bytes: u64, bound: u64 },
    #[error("GIT_DIR names {}, which is no git directory", path.display())]
    NoGitDir { path: PathBuf },
    #[error("links lead from {} back to a directory that it is in", path.display())]
    LinksInACircle { path: PathBuf },
    #[error(
        "this program was built without V8, which runs TypeScript; `cargo xtask v8` says how to get it"
    )]
    BuiltWithoutV8,
    #[error(
        "{image} is named by a tag, which moves: name it by digest (docker://sha256:…), or take it as it is now with --allow-tags"
    )]
    MovingTag { image: String },
    #[error("the container engine cannot say which image that is")]
    Engine(#[source] EngineError),
    #[error(
        "this process gets too few threads or open files; raise the bound (`ulimit -u`, `ulimit -n`)"
    )]
    NoThreads(#[source] io::Error),
    #[error("the guests disagree: {}", outcomes.join(", "))]
    Disagreement { outcomes: Vec<String> },
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the argument {name:?} is neither a path nor text")]
    NotText { name: String },
    #[error("{argument:?} is no argument: expected NAME=VALUE, with a name that is text")]
    NotAnArgument { argument: OsString },
    #[error("the argument {name:?} is given twice")]
    ArgumentTwice { name: String },
    #[error("{id:?} is no object id")]
    NotAnId { id: String, source: manifold_runtime_api::IdError },
    #[error("the store cannot be used")]
    Store(#[source] OpenError),
    #[error(
        "there is no cache directory for this user; name a directory with --store, or compute with --no-store"
    )]
    NoCacheDirectory,
    #[error("request {request} is not pinned; `manifold pins` lists what is")]
    NotPinned { request: String },
    #[error(
        "{count} damages in {}; `manifold verify --repair` drops what is damaged, so that it is computed again",
        file.display()
    )]
    Damaged { file: PathBuf, count: usize },
    #[error("{} is damaged as a whole; delete it, and what it remembered is computed again", file.display())]
    DamagedFile { file: PathBuf },
    #[error("the outcomes cannot be exported to {}", path.display())]
    Export { path: PathBuf, source: ExportError },
    #[error("reading the input came to no end")]
    InputLost(#[source] tokio::task::JoinError),
    #[error("the work was lost")]
    WorkLost(#[source] tokio::task::JoinError),
    #[error("the deadline of {} passed while {doing}", humantime::format_duration(*time))]
    Deadline { time: Duration, doing: Doing },
    #[error("interrupted")]
    Interrupted,
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<DirectoryError> for CliError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

/// A message, and the frames that it came through unchanged, the outermost first.
struct Cause<'a> {
    message: String,
    frames: Vec<&'a Frame>,
}

/// The error and what led to it. A failure that frames only passed on is told once, with the frames below it.
pub(crate) fn render(error: &CliError) -> String {
    let mut causes: Vec<Cause<'_>> = Vec::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(match error {
        CliError::Failed(error) => error,
        other => other,
    });
    while let Some(error) = next {
        let message = error.to_string();
        let frame = error.downcast_ref::<Error>().and_then(Error::frame);
        match causes.last_mut() {
            Some(last) if last.message == message => last.frames.extend(frame),
            _ => causes.push(Cause { message, frames: frame.into_iter().collect() }),
        }
        next = error.source();
    }
    let mut text = String::new();
    write_ends(&mut text, &causes, "  … ", |text, index, cause| {
        let lead = if index == 0 { "error: " } else { "  because: " };
        // Lines of others never look like ours.
        let _ = writeln!(text, "{lead}{}", cause.message.trim_end().replace('\n', "\n      | "));
        write_ends(text, &cause.frames, "      … ", |text, _, frame| {
            let _ = writeln!(text, "      {frame}");
        });
    });
    let option = match error {
        CliError::Directory(DirectoryError::TooLarge { .. }) => Some("--max-file"),
        error => breached(error).and_then(limits::option_for),
    };
    if let Some(option) = option {
        let _ = writeln!(text, "  {option} raises this limit");
    }
    text
}

fn breached(error: &CliError) -> Option<Limit> {
    match error {
        CliError::Failed(error) | CliError::At { source: error, .. } => error.breached_limit(),
        _ => None,
    }
}

/// How many items are shown from either end of a long list.
const SHOWN: usize = 5;

fn write_ends<T>(
    text: &mut String,
    items: &[T],
    lead: &str,
    mut write: impl FnMut(&mut String, usize, &T),
) {
    let skipped = if items.len() > 2 * SHOWN { SHOWN..items.len() - SHOWN } else { 0..0 };
    for (index, item) in items.iter().enumerate() {
        if skipped.contains(&index) {
            if index == skipped.start {
                let _ = writeln!(text, "{lead}{} more …", skipped.len());
            }
            continue;
        }
        write(text, index, item);
    }
}
