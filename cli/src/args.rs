use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Run pure functions over git objects, and never the same one twice.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Fold(Fold),
    Run(Run),
    Cat(Cat),
}

/// Fold a directory, or a revision of a repository, from the leaves up.
///
/// A directory is taken as git would store it: symbolic links as links, executable bits, `.git` left out.
#[derive(Debug, Args)]
pub(crate) struct Fold {
    /// The directory or file; with --rev, any place in the repository.
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Fold this revision of the repository at PATH instead (a commit, a tag, `HEAD:folder`), from its own objects.
    #[arg(long)]
    pub(crate) rev: Option<String>,
    /// The visitor of every node: a name from the standard tree, an image reference, or a .wasm file.
    #[arg(long, value_name = "NAME", default_value = "file-count")]
    pub(crate) post: String,
    /// The visitor that chooses the children of every node. Default: the entries of a tree.
    #[arg(long, value_name = "NAME")]
    pub(crate) pre: Option<String>,
    /// Fold so many times. All but the first come from the memo.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) repeat: u32,
    /// Text that changes every request's id and nothing else.
    #[arg(long, default_value = "")]
    pub(crate) salt: String,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Run an image and print its outcome.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A name from the standard tree, an image reference, or a .wasm file.
    pub(crate) image: String,
    /// An argument: the file or directory of that path if there is one, else the text itself.
    #[arg(long = "arg", value_name = "NAME=PATH-OR-TEXT")]
    pub(crate) args: Vec<OsString>,
    /// An argument that is text, whatever paths there are.
    #[arg(long = "text", value_name = "NAME=TEXT")]
    pub(crate) texts: Vec<String>,
    /// Text that changes every request's id and nothing else.
    #[arg(long, default_value = "")]
    pub(crate) salt: String,
    /// Print one JSON object instead.
    #[arg(long, conflicts_with = "raw")]
    pub(crate) json: bool,
    /// Print the outcome's content and nothing else.
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Print an object: a blob's bytes, or a tree as `git ls-tree` does.
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// The object's id, in hex.
    pub(crate) id: String,
    /// Any place in the repository to read from, beside the standard images. Default: the one around the current directory, if
    /// there is one.
    #[arg(long)]
    pub(crate) repo: Option<PathBuf>,
}
