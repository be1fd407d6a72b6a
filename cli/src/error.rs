//! The error of a command, and how it is shown.

mod exit;

use std::error::Error as StdError;
use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use manifold_cache_reapi::CacheError;
use manifold_cli::export::ExportError;
use manifold_dispatcher::{DirectoryError, OpenError};
use manifold_nodes::NodeError;
use manifold_runtime_api::{Error, Frame, Limit, Status};
use manifold_runtime_docker::{EngineError, ImportError};
use manifold_trace::TraceError;
use serde_json::{Value as Json, json};

pub(crate) use exit::Failure;

use crate::fold::FailedFrame;
use crate::limits;
use crate::new::NewError;
use crate::patience::Phase;

/// The error of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{} does not exist", path.display())]
    NoSuchPath { path: PathBuf },
    #[error("cannot read the input")]
    Directory(#[source] DirectoryError),
    #[error("{} is not in a git repository", path.display())]
    NotARepository {
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("the repository of {} has SHA-256 ids, which are not supported yet", path.display())]
    Sha256Repository { path: PathBuf },
    #[error(
        "the repository of {} has a format version that this program does not support",
        path.display()
    )]
    RepositoryVersion {
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error(
        "the configuration of the repository of {} has a syntax error in line {line}",
        path.display()
    )]
    RepositoryConfig {
        path: PathBuf,
        line: usize,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error(
        "{path} of the input is missing because the repository is a partial clone; fetch all \
         objects with `git fetch --refetch --no-filter`"
    )]
    PartialClone { path: String, source: Error },
    #[error("cannot read {path} of the input")]
    At { path: String, source: Error },
    #[error(
        "{} failed; all that does not depend on what failed was folded",
        if frames.len() == 1 { "1 frame".to_owned() } else { format!("{} frames", frames.len()) }
    )]
    SomeFailed { frames: Vec<FailedFrame>, source: Error },
    /// The error of one frame of a fold, while others failed as well.
    #[error("{error}")]
    OneOfSeveral { others: usize, error: Box<CliError> },
    #[error("failed at {path} of the input")]
    FailedAt { path: String, source: Error },
    #[error("cannot open the repository of {}", path.display())]
    Repository {
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("{rev:?} names nothing in the repository of {}", path.display())]
    NoSuchRevision {
        rev: String,
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("{rev:?} names a {found}, not a commit")]
    NotACommit { rev: String, found: &'static str },
    #[error(
        "{rev:?} is a range that `history` does not support; use A..B for the commits that B reaches and \
         A does not"
    )]
    UnsupportedRange { rev: String },
    #[error(
        "a commit in the repository of {} cannot be read, so the values of what it reaches are missing",
        path.display()
    )]
    HistoryCut { path: PathBuf, source: Error },
    #[error(
        "no image named {name:?}: expected one of {}, an image reference, or a .wasm, .ts or .js \
         file",
        known.join(", ")
    )]
    NoSuchImage { name: String, known: Vec<String> },
    #[error(
        "{} is not a guest: expected a .wasm file, a .ts, .mts, .js or .mjs file, or a directory \
         with a main.ts",
        path.display()
    )]
    NotAGuest { path: PathBuf },
    #[error("the directory {} is not a guest: it contains none of {mains}", path.display())]
    NoEntryFile { path: PathBuf, mains: String },
    #[error(
        "{} is {bytes} bytes long, over the limit of {bound} bytes for a module; raise the limit \
         with --max-module",
        path.display()
    )]
    LargeGuest { path: PathBuf, bytes: u64, bound: u64 },
    #[error("GIT_DIR names {}, which is not a git directory", path.display())]
    NoGitDir { path: PathBuf },
    #[error("the symbolic link {} leads back to a directory that contains it", path.display())]
    LinkCycle { path: PathBuf },
    #[error(
        "this program was built without V8, which runs TypeScript; `cargo xtask v8` prints how to \
         get it"
    )]
    BuiltWithoutV8,
    #[error(
        "this program was built without the standard guests for containers: in a checkout on \
         Linux, run `cargo xtask setup` and build it again"
    )]
    BuiltWithoutContainerGuests,
    #[error(
        "{image} is named by a tag, which can move: name it by digest (docker://sha256:…), or use \
         its current digest with --allow-tags"
    )]
    MovingTag { image: String },
    #[error("cannot import {}", path.display())]
    Import { path: PathBuf, source: ImportError },
    #[error("{} is not a container image", path.display())]
    BadImage { path: PathBuf, source: Error },
    #[error("{image} is not a container image that is kept in the store")]
    NotAContainerImage { image: String },
    #[error(
        "{name:?} cannot be the name of an image: expected up to 200 bytes without slashes and \
         control characters, that are no image reference and no name that git refuses"
    )]
    NotAName { name: String },
    #[error("{name} is the name of a standard image; choose another name")]
    StandardName { name: String },
    #[error("there is no name {name}; {}", if known.is_empty() {
        "`manifold std add` adds names".to_owned()
    } else {
        format!("there are {}", known.join(", "))
    })]
    NoSuchName { name: String, known: Vec<String> },
    #[error("unused images may be left in the container engine")]
    UnusedImages(#[source] EngineError),
    #[error("the container engine cannot resolve the image")]
    Engine(#[source] EngineError),
    #[error(
        "cannot start the threads of this process: the limit on threads or open files is too low; \
         raise it (`ulimit -u`, `ulimit -n`)"
    )]
    NoThreads(#[source] io::Error),
    #[error("the guests disagree: {}", outcomes.join(", "))]
    Disagreement { outcomes: Vec<String> },
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    New(#[from] NewError),
    #[error("the argument {name:?} is neither an existing path nor UTF-8 text")]
    NotText { name: String },
    #[error("invalid argument {argument:?}: expected NAME=VALUE, with NAME in UTF-8")]
    InvalidArgument { argument: OsString },
    #[error("standard input is one argument, and cannot be {name:?} as well")]
    StandardInputTwice { name: String },
    #[error("the argument {name:?} is given twice")]
    DuplicateArgument { name: String },
    #[error(
        "the argument {name:?} of a visitor is one that fold passes: what is folded, or the outcomes \
         below it"
    )]
    ArgumentOfFold { name: String },
    #[error("invalid object id {id:?}")]
    InvalidId { id: String, source: manifold_runtime_api::IdError },
    #[error("several objects and requests begin with {id}; give more digits")]
    AmbiguousId { id: String },
    #[error("no request or outcome in the store begins with {id}")]
    UnknownId { id: String },
    #[error(
        "the store has no record of what request {request} was: it was not run with this store, or with \
         --no-provenance, or was collected"
    )]
    NoProvenance { request: String },
    #[error(
        "{count} requests have another outcome than before: their images are no pure functions, or were \
         run by another version of their runtime"
    )]
    NotPure { count: usize },
    #[error("none of the {count} requests could be run again")]
    NothingAudited { count: usize },
    #[error("{id} has nothing at the path {path}")]
    NoSuchEntry { id: String, path: String },
    #[error("cannot use the store")]
    Store(#[source] OpenError),
    #[error("this user has no cache directory; name a directory with --store, or use --no-store")]
    NoCacheDirectory,
    #[error("name the cache with --cache, or in MANIFOLD_CACHE")]
    NoCache,
    #[error("line {line} of {} is no header: expected `name: value`", path.display())]
    BadHeader { path: PathBuf, line: usize },
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("name a NATS server with --nats, or in MANIFOLD_NATS")]
    NoNats,
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("request {request} is not pinned; `manifold pins` lists the pinned requests")]
    NotPinned { request: String },
    #[error(
        "found damage in {} (items: {count}); `manifold verify --repair` deletes the damaged \
         items, so that they are computed again",
        file.display()
    )]
    Damaged { file: PathBuf, count: usize },
    #[error(
        "{} is damaged as a whole; delete it, so that its memoized outcomes are computed again (its pins, \
         names of images and container images are lost)",
        file.display()
    )]
    DamagedFile { file: PathBuf },
    #[error("cannot export the outcomes to {}", path.display())]
    Export { path: PathBuf, source: ExportError },
    #[error("the input reader failed")]
    InputLost(#[source] tokio::task::JoinError),
    #[error("the task of the command failed")]
    WorkLost(#[source] tokio::task::JoinError),
    #[error("the deadline of {} passed while {phase}", humantime::format_duration(*time))]
    Deadline { time: Duration, phase: Phase },
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Trace(TraceError),
    #[error("the trace {} has no span that has ended", path.display())]
    NothingInTrace { path: PathBuf },
    #[error("the trace {} has no span of a request {request}", path.display())]
    NotInTrace { request: String, path: PathBuf },
    #[error("several requests begin with {request}; give more digits")]
    AmbiguousRequest { request: String },
    #[error("cannot write the trace {}", path.display())]
    TraceLost { path: PathBuf, source: io::Error },
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<DirectoryError> for CliError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

/// A message, and the frames that passed it on unchanged, outermost first.
struct Cause<'a> {
    message: String,
    frames: Vec<&'a Frame>,
}

/// Renders the error and its causes. A message that several frames passed on unchanged is shown
/// once, followed by these frames.
pub(crate) fn render(error: &CliError) -> String {
    if let CliError::OneOfSeveral { others, error } = error {
        let frames = if *others == 1 { "frame" } else { "frames" };
        return format!(
            "{}  {others} other {frames} failed as well; --keep-going lists all\n",
            render(error)
        );
    }
    let mut causes: Vec<Cause<'_>> = Vec::new();
    let mut next: Option<&(dyn StdError + 'static)> = Some(match error {
        CliError::Failed(error) => error,
        other => other,
    });
    // The frames that failed are listed instead of the causes of one of them.
    let has_list = matches!(error, CliError::SomeFailed { .. });
    while let Some(error) = next {
        let message = error.to_string();
        let frame = error.downcast_ref::<Error>().and_then(Error::frame);
        match causes.last_mut() {
            Some(last) if last.message == message => last.frames.extend(frame),
            _ => causes.push(Cause { message, frames: frame.into_iter().collect() }),
        }
        next = error.source().filter(|_| !has_list);
    }
    let mut text = String::new();
    write_both_ends(&mut text, &causes, "  … ", |text, index, cause| {
        let lead = if index == 0 { "error: " } else { "  because: " };
        // A further line of a message is marked, so that it cannot pass for a line of this program.
        let _ = writeln!(text, "{lead}{}", cause.message.trim_end().replace('\n', "\n      | "));
        write_both_ends(text, &cause.frames, "      … ", |text, _, frame| {
            let _ = writeln!(text, "      {frame}");
        });
    });
    if let CliError::SomeFailed { frames, .. } = error {
        for frame in frames.iter().take(LISTED) {
            let _ = writeln!(text, "  {}", frame.line());
        }
        if frames.len() > LISTED {
            let _ = writeln!(text, "  … {} more …", frames.len() - LISTED);
        }
    }
    let option = match error {
        CliError::Directory(DirectoryError::TooLarge { .. }) => Some("--max-file"),
        error => breached(error).and_then(limits::option_for),
    };
    if let Some(option) = option {
        let _ = writeln!(text, "  {option} raises this limit");
    }
    text
}

/// Returns the error and its causes as JSON, for programs.
pub(crate) fn json(error: &CliError) -> Json {
    let error = match error {
        CliError::OneOfSeveral { error, .. } => error,
        error => error,
    };
    let failure = error.failure();
    let (mut messages, mut frames) = (Vec::new(), Vec::new());
    let mut transient = false;
    let mut next: Option<&(dyn StdError + 'static)> = Some(match error {
        CliError::Failed(error) => error,
        other => other,
    });
    while let Some(error) = next {
        let message = error.to_string();
        if messages.last() != Some(&message) {
            messages.push(message);
        }
        if let Some(error) = error.downcast_ref::<Error>() {
            transient |= error.status() == Status::Transient;
            frames.extend(error.frame().map(|frame| {
                json!({
                    "request": frame.request.to_string(),
                    "image": frame.image,
                    "runtime": frame.runtime,
                })
            }));
        }
        next = error.source();
    }
    let failed = match error {
        CliError::SomeFailed { frames, .. } => Some(frames),
        _ => None,
    };
    let because = messages.split_off(messages.len().min(1));
    json!({ "error": {
        "kind": failure.as_str(),
        "message": messages.pop().unwrap_or_default(),
        "because": because,
        "frames": frames,
        "failed": failed,
        "transient": transient,
    } })
}

/// Returns the limit that the command breached.
fn breached(error: &CliError) -> Option<Limit> {
    match error {
        CliError::Failed(error)
        | CliError::At { source: error, .. }
        | CliError::SomeFailed { source: error, .. }
        | CliError::FailedAt { source: error, .. } => error.breached_limit(),
        _ => None,
    }
}

/// The number of frames that failed and are listed.
const LISTED: usize = 100;

/// The number of items shown at each end of a long list.
const SHOWN: usize = 5;

/// Writes the first and last [`SHOWN`] items of a long list, and the number of items between them.
fn write_both_ends<T>(
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
