use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Run pure functions over git objects, and never the same one twice.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    /// Show what the libraries tell of their work, on standard error. Twice: everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Fold(Fold),
    Run(Run),
    Cat(Cat),
    Pins(Pins),
    Unpin(Unpin),
    Gc(Gc),
    Verify(Verify),
    Export(Export),
    Types(Types),
    /// Remove containers whose process is gone.
    #[command(hide = true)]
    SweepContainers,
}

/// Where results are kept.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// The directory of the store: what was computed there before is not computed again. Default: the environment's MANIFOLD_STORE,
    /// or else `manifold` in the user's cache directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
}

/// How containers are used.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ContainerArgs {
    /// Make the container of a job when the job comes, and remove it before the next, instead of starting some ahead.
    #[arg(long = "fresh-containers")]
    pub(crate) fresh: bool,
    /// Take a container image that is named by a tag, as it is now. Its digest takes the tag's place.
    #[arg(long)]
    pub(crate) allow_tags: bool,
}

/// How a command that runs something uses the store.
#[derive(Debug, Args)]
pub(crate) struct UseArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) containers: ContainerArgs,
    /// Keep results in memory, and forget them at the end.
    #[arg(long)]
    pub(crate) no_store: bool,
    /// Compute everything again, whatever the store has, and keep the new results.
    #[arg(long)]
    pub(crate) recompute: bool,
    /// Let the next `manifold gc` drop the result once it is old.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Give up after this time (`90s`, `5min`), whatever the command is doing then. Default: never.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Option<Duration>,
    /// Show what guests log, on standard error: each line with the beginning of its request's id.
    #[arg(long)]
    pub(crate) log: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// The largest file that is hashed, and bounds on guests: of one frame, and of a whole call.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// A file of the input. All of it is hashed. Default: 16GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_file: Option<ByteSize>,
    /// Memory of one frame. Default: 4GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_memory: Option<ByteSize>,
    /// Elements in the tables of one frame. Default: 100000.
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_table: Option<u64>,
    /// Computing time of one frame. Default: 60s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) max_compute_time: Option<Duration>,
    /// What one frame computes, in units of its runtime, which only wasm measures. Default: not measured.
    #[arg(long, value_name = "UNITS")]
    pub(crate) max_fuel: Option<u64>,
    /// One request of a guest to its host. Default: 1GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_request: Option<ByteSize>,
    /// One response to a guest; a file that it reads, for instance. Default: 1GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_response: Option<ByteSize>,
    /// The code of a module. Default: 256MiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_module: Option<ByteSize>,
    /// What is kept of one frame's log. Default: 1MiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_log: Option<ByteSize>,
    /// What all frames compute, in units of their runtimes, which only wasm measures. Default: not measured.
    #[arg(long, value_name = "UNITS")]
    pub(crate) total_fuel: Option<u64>,
    /// Memory that all frames hold at one time. Default: 16GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) total_memory: Option<ByteSize>,
    /// How deep runs are nested. Default: 200000.
    #[arg(long, value_name = "LEVELS")]
    pub(crate) total_depth: Option<u32>,
    /// How many runs there are. Default: 100000000.
    #[arg(long, value_name = "COUNT")]
    pub(crate) total_runs: Option<u64>,
    /// What all guests store. Default: 64GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) total_written: Option<ByteSize>,
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
    /// The language of fold and of standard visitors; several, as in `wasm,ts`, fold one after the other and compare.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "wasm")]
    pub(crate) guest: Vec<Language>,
    /// The visitor of every node: a standard name (`file-count`; `file-count.wasm` or `file-count.ts` in this language whatever
    /// fold is in), an image reference, a .wasm, .ts or .js file, or a directory with a main.ts.
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
    #[command(flatten)]
    pub(crate) using: UseArgs,
}

/// What a guest is written in, as far as it decides who runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// WebAssembly, on wasmtime.
    Wasm,
    /// TypeScript or JavaScript, on V8.
    Ts,
    /// Rust, in a container for each job.
    Docker,
    /// The same, in one container that forks a process for each job.
    Serving,
}

impl Language {
    /// As the user writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Ts => "ts",
            Self::Docker => "docker",
            Self::Serving => "serving",
        }
    }
}

/// Run an image and print its outcome.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A name from the standard tree, an image reference, a .wasm, .ts or .js file, or a directory with a main.ts.
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
    #[command(flatten)]
    pub(crate) using: UseArgs,
}

/// Print an object: a blob's bytes, or a tree as `git ls-tree` does.
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// The object's id, in hex.
    pub(crate) id: String,
    /// Any place in the repository to read from, beside the store and the standard images. Default: the one around the current
    /// directory, if there is one.
    #[arg(long)]
    pub(crate) repo: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// List the pins: requests whose outcomes `gc` keeps. Every run from the command line is pinned unless told otherwise.
#[derive(Debug, Args)]
pub(crate) struct Pins {
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Take pins away, so that `gc` may drop what nothing else keeps.
#[derive(Debug, Args)]
pub(crate) struct Unpin {
    /// The requests' ids, in hex.
    #[arg(required = true)]
    pub(crate) requests: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Drop from the store what neither a pin reaches nor was used lately, and give its space back.
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Keep what was used within this time.
    #[arg(long, value_name = "TIME", default_value = "30days", value_parser = humantime::parse_duration)]
    pub(crate) used_within: Duration,
    /// Keep of that only the last used that fits into this size, such as `2GiB`. Default: no bound.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_size: Option<ByteSize>,
    /// Keep objects written within this time, which a run may be about to name.
    #[arg(long, value_name = "TIME", default_value = "1day", value_parser = humantime::parse_duration)]
    pub(crate) written_within: Duration,
    /// Take pins away that are older than this first. Default: all stay.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) pinned_within: Option<Duration>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Hash every object of the store again, and check every entry and pin. Fails if anything is damaged.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Drop what is damaged, so that it is computed again.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Write pinned outcomes into a git repository, each under `refs/manifold/<request>`, where git keeps them.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Any place in the repository.
    pub(crate) repo: PathBuf,
    /// The requests' ids, in hex. Default: all that are pinned.
    pub(crate) requests: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// Print what TypeScript guests find, as a .d.ts file for editors and compilers.
#[derive(Debug, Args)]
pub(crate) struct Types {}
