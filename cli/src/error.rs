use std::error::Error as StdError;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;

use manifold_dispatcher::DirectoryError;
use manifold_runtime_api::Error;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("there is no {}", path.display())]
    NoSuchPath { path: PathBuf },
    #[error("the directory cannot be folded")]
    Directory(#[source] DirectoryError),
    #[error("{} is not in a git repository", path.display())]
    NotARepository {
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("the repository at {} keeps its objects under {format} ids; only SHA-1 is supported so far", path.display())]
    ObjectFormat { path: PathBuf, format: String },
    #[error("{rev:?} names no file or directory in {}", path.display())]
    NoSuchRevision {
        rev: String,
        path: PathBuf,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("there is no image {name:?}: expected one of {}, an image reference, or a .wasm file", known.join(", "))]
    NoSuchImage { name: String, known: Vec<String> },
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{argument:?} is no argument: expected NAME=VALUE")]
    NotAnArgument { argument: String },
    #[error("the argument {name:?} is given twice")]
    ArgumentTwice { name: String },
    #[error("{id:?} is no object id")]
    NotAnId { id: String, source: manifold_runtime_api::IdError },
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

/// How many causes are shown from either end of a long chain.
const CAUSES_SHOWN: usize = 6;

/// The error and what led to it, a line each. Frames that only pass a failure on are counted instead of shown.
pub(crate) fn render(error: &CliError) -> String {
    let first: &(dyn StdError + 'static) = match error {
        CliError::Failed(error) => error,
        other => other,
    };
    let mut lines: Vec<String> = Vec::new();
    let mut next = Some(first);
    while let Some(error) = next {
        match error.downcast_ref::<Error>().and_then(Error::frame) {
            Some(frame) => lines.push(format!("{error}\n      {frame}")),
            None => lines.push(error.to_string()),
        }
        next = error.source();
    }
    let skipped = lines.len().saturating_sub(2 * CAUSES_SHOWN);
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        if skipped > 0 && index == CAUSES_SHOWN {
            let _ = writeln!(text, "  … {skipped} more frames …");
        }
        if skipped > 0 && (CAUSES_SHOWN..CAUSES_SHOWN + skipped).contains(&index) {
            continue;
        }
        let lead = if index == 0 { "error: " } else { "  because: " };
        let _ = writeln!(text, "{lead}{line}");
    }
    text
}
