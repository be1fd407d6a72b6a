//! The command line: subcommands, options and their help texts.

mod audit;
mod cache;
mod explain;
mod images;
mod keep;
mod node;
mod trace;

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use manifold_runtime_api::ObjectId;

pub(crate) use audit::Audit;
pub(crate) use cache::{Cache, CacheArgs, CacheKind, CacheStatus};
pub(crate) use explain::{Explain, Where};
pub(crate) use images::{
    Curry, Image, ImageExport, ImageImport, ImageKind, ImageLs, Std, StdAdd, StdKind, StdLs, StdRm,
};
pub(crate) use keep::{Export, Gc, Pins, Unpin, Verify};
pub(crate) use node::{Node, NodeArgs};
pub(crate) use trace::Trace;

/// Run pure functions over git objects and memoize the outcomes
#[derive(Debug, Parser)]
#[command(name = "manifold", version, about)]
pub(crate) struct Arguments {
    /// Print debug events of Manifold's crates to standard error; -vv prints all events
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Fold(Fold),
    History(History),
    Run(Run),
    Cat(Cat),
    Get(Get),
    Diff(Diff),
    Trace(Trace),
    Explain(Explain),
    Where(Where),
    Audit(Audit),
    Request(Request),
    Curry(Curry),
    Std(Std),
    Image(Image),
    Cache(Cache),
    Node(Node),
    Pins(Pins),
    Unpin(Unpin),
    Gc(Gc),
    Verify(Verify),
    Export(Export),
    Types(Types),
    New(New),
    Completions(Completions),
    Man(Man),
    /// Remove containers whose process has ended
    #[command(hide = true)]
    SweepContainers,
}

impl Command {
    /// Returns whether the user asked for JSON.
    pub(crate) fn prints_json(&self) -> bool {
        match self {
            Self::Fold(fold) => fold.json,
            Self::History(history) => history.json,
            Self::Run(run) => run.json,
            Self::Trace(trace) => trace.json,
            Self::Explain(explain) => explain.json,
            Self::Where(place) => place.json,
            Self::Audit(audit) => audit.json,
            Self::Request(request) => request.json,
            Self::Std(Std { kind: StdKind::Ls(ls) }) => ls.json,
            Self::Image(Image { kind: ImageKind::Ls(ls) }) => ls.json,
            Self::Cache(Cache { kind: CacheKind::Status(status) }) => status.json,
            Self::Pins(pins) => pins.json,
            Self::Gc(gc) => gc.json,
            Self::Verify(verify) => verify.json,
            _ => false,
        }
    }
}

/// The location of the store.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Directory of the store [default: $MANIFOLD_STORE, else `manifold` in the cache directory]
    ///
    /// Outcomes that are memoized in the store are not computed again.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
}

/// Options for containers.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ContainerArgs {
    /// Create a container per job and remove it afterwards, instead of using containers again
    #[arg(long = "fresh-containers")]
    pub(crate) fresh: bool,
    /// Accept a container image named by a tag, and replace the tag by its current digest
    #[arg(long)]
    pub(crate) allow_tags: bool,
}

/// What is left out of the directories that are read.
#[derive(Debug, Default, Args)]
pub(crate) struct LeaveOutArgs {
    /// Leave out what matches this line of a .gitignore file (`*.log`, `/target/`); may be repeated
    ///
    /// The pattern is relative to the directory that is read, and the last one that matches counts:
    /// `!PATTERN` keeps what an earlier one leaves out. `fold` applies it to PATH, and `run` and `request`
    /// to the arguments.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Leave out the files that git ignores, as `git add --all` does
    #[arg(long)]
    pub(crate) gitignore: bool,
}

/// Arguments of an image, or of the visitors of a fold.
#[derive(Debug, Default, Args)]
pub(crate) struct ArgumentArgs {
    /// Argument for the guest: the file or directory at this path if it exists, else the text itself
    ///
    /// `NAME=@PATH` must exist, and `NAME=-` is standard input.
    #[arg(long = "arg", value_name = "NAME=PATH-OR-TEXT")]
    pub(crate) args: Vec<OsString>,
    /// Argument for the guest that is always text, even if a path of that name exists
    #[arg(long = "text", value_name = "NAME=TEXT")]
    pub(crate) texts: Vec<String>,
}

/// Options of the commands that run guests.
#[derive(Debug, Args)]
pub(crate) struct UseArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) containers: ContainerArgs,
    /// Keep results in memory only, and discard them at the end
    #[arg(long)]
    pub(crate) no_store: bool,
    /// Compute everything again, even if it is in the memo, and record the new results
    #[arg(long)]
    pub(crate) recompute: bool,
    /// Hash all files of directories, even those that the index of the last scan knows
    #[arg(long)]
    pub(crate) rehash: bool,
    /// Use this tree of named images, by its id [default: the standard ones and those of `std add`]
    ///
    /// Guests reach an image in it as `/cas/std/<name>`. Its id is a part of every request.
    #[arg(long, value_name = "TREE", value_parser = object_id)]
    pub(crate) std: Option<ObjectId>,
    /// Do not pin the result, so that `manifold gc` can delete it once it is old
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Stop after this time (`90s`, `5min`), whatever the command is doing [default: no deadline]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Option<Duration>,
    /// Print the log of guests to standard error, each line after the start of its request's id
    #[arg(long)]
    pub(crate) log: bool,
    /// Keep no record of what each request was and which requests it ran, for `manifold explain`
    #[arg(long)]
    pub(crate) no_provenance: bool,
    /// Record what runs, and what it spends its time on, in this file, for `manifold trace`
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// The largest input file, the limits of one frame (`--max-…`), and the budget of the whole call
/// (`--total-…`).
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Maximum size of a file of the input, all of which is hashed [default: 16GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_file: Option<ByteSize>,
    /// Maximum memory of one frame [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_memory: Option<ByteSize>,
    /// Maximum number of elements in the tables of one frame [default: 100000]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_table: Option<u64>,
    /// Maximum computing time of one frame [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) max_compute_time: Option<Duration>,
    /// Maximum fuel of one frame, which only the wasm runtime measures [default: not measured]
    #[arg(long, value_name = "UNITS")]
    pub(crate) max_fuel: Option<u64>,
    /// Maximum size of one request of a guest to its host [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_request: Option<ByteSize>,
    /// Maximum size of one response to a guest, such as a file that it reads [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_response: Option<ByteSize>,
    /// Maximum size of a module's code [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_module: Option<ByteSize>,
    /// Maximum size of one frame's log; the rest is dropped [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_log: Option<ByteSize>,
    /// Maximum fuel of all frames, which only the wasm runtime measures [default: not measured]
    #[arg(long, value_name = "UNITS")]
    pub(crate) total_fuel: Option<u64>,
    /// Maximum memory that all frames hold at the same time [default: 16GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) total_memory: Option<ByteSize>,
    /// Maximum depth of nested runs [default: 200000]
    #[arg(long, value_name = "LEVELS")]
    pub(crate) total_depth: Option<u32>,
    /// Maximum number of runs [default: 100000000]
    #[arg(long, value_name = "COUNT")]
    pub(crate) total_runs: Option<u64>,
    /// Maximum bytes that all guests together write to the store [default: 64GiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) total_written: Option<ByteSize>,
}

/// Fold a directory, or a revision of a git repository, from the leaves up
///
/// A directory is read as git would store it: symbolic links stay links, executable bits are kept,
/// and `.git` is left out.
#[derive(Debug, Args)]
pub(crate) struct Fold {
    /// Directory or file to fold; with --rev, any path in the repository
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Fold this revision of the repository at PATH instead (a commit, a tag, `HEAD:folder`)
    ///
    /// The objects are read from the repository, not from its working directory.
    #[arg(long, conflicts_with_all = ["exclude", "gitignore"])]
    pub(crate) rev: Option<String>,
    #[command(flatten)]
    pub(crate) leaving_out: LeaveOutArgs,
    /// Language of fold and of the standard visitors; with several (`wasm,ts`), compare the results
    #[arg(long, value_enum, value_delimiter = ',', default_value = "wasm")]
    pub(crate) guest: Vec<Language>,
    /// Visitor that runs on every node
    ///
    /// A standard name, an image reference, a .wasm, .ts or .js file, or a directory with a
    /// main.ts. The standard name `file-count` selects the visitor in the language of fold;
    /// `file-count.wasm` and `file-count.ts` select the visitor in that language.
    #[arg(long, value_name = "NAME", default_value = "file-count")]
    pub(crate) post: String,
    /// Visitor that selects the children of every node [default: the entries of a tree]
    #[arg(long, value_name = "NAME")]
    pub(crate) pre: Option<String>,
    #[command(flatten)]
    pub(crate) args: ArgumentArgs,
    /// Number of times to fold; all but the first come from the memo
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub(crate) repeat: u32,
    /// Text that becomes part of every request, and so changes its id
    #[arg(long, default_value = "")]
    pub(crate) salt: String,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Say which frames ran, and because of which changes since the nearest fold before
    #[arg(long)]
    pub(crate) explain: bool,
    /// If frames fail, list all of them instead of one
    ///
    /// What does not depend on them is folded, and remembered, in any case.
    #[arg(long, conflicts_with = "no_provenance")]
    pub(crate) keep_going: bool,
    /// Also show the result of each directory below
    #[arg(long, conflicts_with = "no_provenance", conflicts_with = "no_store")]
    pub(crate) tree: bool,
    /// The number of levels that --tree shows
    #[arg(long, value_name = "N", default_value_t = u32::MAX, hide_default_value = true)]
    #[arg(requires = "tree")]
    pub(crate) depth: u32,
    #[command(flatten)]
    pub(crate) using: UseArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) nodes: NodeArgs,
}

/// Fold every commit of a repository's history, and show a value for each
///
/// What commits have in common is computed once, and a history that was interrupted goes on where it
/// was. A commit whose fold fails is a gap, with its error. Nothing is pinned.
#[derive(Debug, Args)]
#[command(mut_arg("no_pin", |argument| argument.hide(true)))]
pub(crate) struct History {
    /// Any path in the repository
    #[arg(default_value = ".")]
    pub(crate) repo: PathBuf,
    /// Commits to fold: those that a revision reaches, or `A..B`, those of B that A does not reach
    #[arg(long, value_name = "RANGE", default_value = "HEAD")]
    pub(crate) rev: String,
    /// Follow only the first parent of each commit
    #[arg(long)]
    pub(crate) first_parent: bool,
    /// Fold this file or directory of each commit [default: everything]
    #[arg(long, value_name = "P")]
    pub(crate) path: Option<PathBuf>,
    /// Fold every Nth commit only, counted from the latest
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) every: NonZero<usize>,
    /// Fold only commits since this date (`2024-05-01`, `2 years ago`)
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub(crate) since: Option<i64>,
    /// Language of fold and of the standard visitors
    #[arg(long, value_enum, default_value = "wasm")]
    pub(crate) guest: Language,
    /// Visitor that runs on every node, as of `fold`
    #[arg(long, value_name = "NAME", default_value = "file-count")]
    pub(crate) post: String,
    /// Visitor that selects the children of every node [default: the entries of a tree]
    #[arg(long, value_name = "NAME")]
    pub(crate) pre: Option<String>,
    #[command(flatten)]
    pub(crate) args: ArgumentArgs,
    /// Text that becomes part of every request, and so changes its id
    #[arg(long, default_value = "")]
    pub(crate) salt: String,
    /// Print a JSON object per line
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Print comma-separated values, with a column for each value
    #[arg(long)]
    pub(crate) csv: bool,
    /// Also write a page that plots the values over time
    #[arg(long, value_name = "OUT")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) using: UseArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) nodes: NodeArgs,
}

fn object_id(text: &str) -> Result<ObjectId, String> {
    ObjectId::from_hex(text).map_err(|error| error.to_string())
}

/// Parses a date as git does. Returns seconds since 1970.
fn date(text: &str) -> Result<i64, String> {
    let time = gix::date::parse(text, Some(jiff::Zoned::now()));
    time.map(|time| time.seconds).map_err(|error| error.to_string())
}

/// The language of a guest, which selects its runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// WebAssembly, on wasmtime
    Wasm,
    /// TypeScript or JavaScript, on V8
    Ts,
    /// Rust, in containers that have one job at a time
    Docker,
    /// Rust, in one container that forks a process per job
    Serving,
}

impl Language {
    /// The value of `--guest` that selects this language.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Ts => "ts",
            Self::Docker => "docker",
            Self::Serving => "serving",
        }
    }
}

/// Run an image and print its outcome
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Standard name, image reference, .wasm, .ts or .js file, or directory with a main.ts
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) args: ArgumentArgs,
    #[command(flatten)]
    pub(crate) leaving_out: LeaveOutArgs,
    /// Text that becomes part of every request, and so changes its id
    #[arg(long, default_value = "")]
    pub(crate) salt: String,
    /// Print one JSON object
    #[arg(long, conflicts_with = "raw")]
    pub(crate) json: bool,
    /// Print only the content of the outcome
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) using: UseArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) nodes: NodeArgs,
}

/// Print the id of the request that `run` would run, and whether its outcome is memoized
///
/// Nothing is run. The request and its arguments are put in the store, so that `cat` shows them.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// Standard name, image reference, .wasm, .ts or .js file, or directory with a main.ts
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) args: ArgumentArgs,
    #[command(flatten)]
    pub(crate) leaving_out: LeaveOutArgs,
    /// Text that becomes part of every request, and so changes its id
    #[arg(long, default_value = "")]
    pub(crate) salt: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) using: UseArgs,
}

/// Where objects are read from.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// Any path in the git repository to read from [default: the current directory]
    ///
    /// The store and the standard images are always read. Without this option it is not an error if
    /// the current directory is not in a repository.
    #[arg(long)]
    pub(crate) repo: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Print an object: a blob's bytes, or a tree as `git ls-tree` prints it
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// Object id, in hexadecimal, or `ID:PATH` for what is at a path below a tree
    pub(crate) id: String,
    /// Print the lines of all files in a tree, each after the path of its file
    #[arg(long)]
    pub(crate) lines: bool,
    #[command(flatten)]
    pub(crate) reading: ReadArgs,
}

/// Write an object to files: a tree as a directory, as git would check it out
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Object id, in hexadecimal, or `ID:PATH`
    pub(crate) id: String,
    /// Path below the tree [default: all of it]
    pub(crate) path: Option<String>,
    /// Directory to write, which must be new or empty, or file, which must be new
    #[arg(long, value_name = "PATH")]
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) reading: ReadArgs,
}

/// Print how two objects differ: the paths, and the lines of texts
///
/// Before each path is a letter: A for added, D for deleted, M for modified, T for another type.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// Object id, in hexadecimal, or `ID:PATH`
    pub(crate) one: String,
    /// The object to compare it with
    pub(crate) other: String,
    /// Print only the paths
    #[arg(long = "name-status")]
    pub(crate) names: bool,
    #[command(flatten)]
    pub(crate) reading: ReadArgs,
}

/// Print the TypeScript declarations of the guest API, as a .d.ts file for editors
#[derive(Debug, Args)]
pub(crate) struct Types {}

/// Write a project for a guest or a runtime, which builds and passes its tests
#[derive(Debug, Args)]
pub(crate) struct New {
    #[command(subcommand)]
    pub(crate) kind: NewKind,
}

/// What a new project is.
#[derive(Debug, Subcommand)]
pub(crate) enum NewKind {
    /// Write a guest that returns its argument in upper case
    Guest(NewGuest),
    /// Write a runtime for a small language, with the conformance suite
    Runtime(NewOptions),
}

/// A new guest.
#[derive(Debug, Args)]
pub(crate) struct NewGuest {
    /// Language of the guest
    #[arg(long, value_enum)]
    pub(crate) lang: GuestLanguage,
    #[command(flatten)]
    pub(crate) options: NewOptions,
}

/// The language of a new guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestLanguage {
    /// Rust, built as WebAssembly
    Rust,
    /// TypeScript, which needs no build
    Ts,
}

/// The options of every new project.
#[derive(Debug, Args)]
pub(crate) struct NewOptions {
    /// Directory of the project, which must be empty or not exist
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Name of the package [default: the name of the directory]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Depend on this checkout of Manifold instead of published packages
    #[arg(long, value_name = "PATH")]
    pub(crate) manifold: Option<PathBuf>,
}

/// Print a file that makes a shell complete this command
///
/// For bash: `manifold completions bash > ~/.local/share/bash-completion/completions/manifold`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell that the file is for
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Print the manual page, for `man`
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write a page for each command to this directory instead of printing the first
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}
