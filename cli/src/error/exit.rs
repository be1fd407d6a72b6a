//! What kind of failure ended a command, and its exit status.

use manifold_cache_reapi::CacheError;
use manifold_dispatcher::DirectoryError;
use manifold_nodes::NodeError;
use manifold_runtime_api::{Error, ErrorKind};

use super::CliError;
use crate::patience::INTERRUPTED;

/// What kind of failure ended a command. `docs/command.md` documents the exit statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// None of the others: the output cannot be written, say.
    Other,
    /// The command line is wrong.
    Usage,
    /// What the command should read is missing or damaged.
    Input,
    /// A guest failed.
    Guest,
    /// A limit, a budget or the deadline was exceeded.
    Limit,
    /// A runtime or the container engine failed, or this machine lacks something.
    Runtime,
    /// The store failed or is damaged.
    Store,
    Interrupted,
}

impl Failure {
    /// Returns the exit status.
    pub(crate) const fn status(self) -> u8 {
        match self {
            Self::Other => 1,
            // That of the parser of the command line.
            Self::Usage => 2,
            Self::Input => 3,
            Self::Guest => 4,
            Self::Limit => 5,
            Self::Runtime => 6,
            Self::Store => 7,
            Self::Interrupted => INTERRUPTED,
        }
    }

    /// Returns the kind as a word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Usage => "usage",
            Self::Input => "input",
            Self::Guest => "guest",
            Self::Limit => "limit",
            Self::Runtime => "runtime",
            Self::Store => "store",
            Self::Interrupted => "interrupted",
        }
    }

    fn of_call(error: &Error) -> Self {
        match error.kind() {
            // A request that a guest made is the guest's failure.
            ErrorKind::Request if error.frame().is_none() => Self::Usage,
            ErrorKind::Request | ErrorKind::Guest => Self::Guest,
            ErrorKind::Limit => Self::Limit,
            ErrorKind::Store => Self::Store,
            _ => Self::Runtime,
        }
    }
}

impl CliError {
    /// Returns what kind of failure this is.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Failed(error)
            | Self::At { source: error, .. }
            | Self::SomeFailed { source: error, .. }
            | Self::FailedAt { source: error, .. } => Failure::of_call(error),
            Self::OneOfSeveral { error, .. } => error.failure(),
            Self::Directory(DirectoryError::NotAPattern { .. })
            | Self::NoSuchImage { .. }
            | Self::NotAGuest { .. }
            | Self::NoEntryFile { .. }
            | Self::BuiltWithoutV8
            | Self::BuiltWithoutContainerGuests
            | Self::MovingTag { .. }
            | Self::NotAContainerImage { .. }
            | Self::NotAName { .. }
            | Self::StandardName { .. }
            | Self::NoSuchName { .. }
            | Self::NotText { .. }
            | Self::InvalidArgument { .. }
            | Self::DuplicateArgument { .. }
            | Self::ArgumentOfFold { .. }
            | Self::InvalidId { .. }
            | Self::AmbiguousId { .. }
            | Self::UnknownId { .. }
            | Self::NoProvenance { .. }
            | Self::NoSuchEntry { .. }
            | Self::NoCache
            | Self::NoNats
            | Self::Node(NodeError::Pool { .. } | NodeError::Credentials { .. })
            | Self::BadHeader { .. }
            | Self::Cache(
                CacheError::Address { .. }
                | CacheError::RefName { .. }
                | CacheError::Credentials { .. },
            )
            | Self::NoCacheDirectory
            | Self::NotPinned { .. }
            | Self::UnsupportedRange { .. }
            | Self::StandardInputTwice { .. }
            | Self::NotInTrace { .. }
            | Self::AmbiguousRequest { .. } => Failure::Usage,
            Self::LargeGuest { .. }
            | Self::Directory(DirectoryError::TooLarge { .. })
            | Self::Deadline { .. } => Failure::Limit,
            Self::NoSuchPath { .. }
            | Self::Directory(_)
            | Self::NotARepository { .. }
            | Self::Sha256Repository { .. }
            | Self::RepositoryVersion { .. }
            | Self::RepositoryConfig { .. }
            | Self::PartialClone { .. }
            | Self::Repository { .. }
            | Self::NoSuchRevision { .. }
            | Self::NotACommit { .. }
            | Self::HistoryCut { .. }
            | Self::NoGitDir { .. }
            | Self::LinkCycle { .. }
            | Self::Import { .. }
            | Self::BadImage { .. }
            | Self::Unreadable { .. }
            | Self::Trace(_)
            | Self::NothingInTrace { .. }
            | Self::NothingAudited { .. }
            | Self::InputLost(_) => Failure::Input,
            Self::Disagreement { .. } | Self::NotPure { .. } => Failure::Guest,
            Self::Node(_)
            | Self::Cache(_)
            | Self::UnusedImages(_)
            | Self::Engine(_)
            | Self::NoThreads(_)
            | Self::WorkLost(_) => Failure::Runtime,
            Self::Store(_) | Self::Damaged { .. } | Self::DamagedFile { .. } => Failure::Store,
            Self::TraceLost { .. }
            | Self::Unwritable { .. }
            | Self::New(_)
            | Self::Export { .. }
            | Self::Output(_) => Failure::Other,
            Self::Interrupted => Failure::Interrupted,
        }
    }
}
