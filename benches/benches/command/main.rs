//! Measures what users of the command wait for: whole processes over directories, revisions and
//! histories, each beside the same work without Manifold, by turns.
//!
//! `MANIFOLD_BENCH_COMMAND=$PWD/target/release/manifold cargo bench --package manifold-benches --bench command
//! [PART OF A NAME]`. If `MANIFOLD_BENCH_WAITS` is set, every result is also appended to that file, as a
//! line of JSON.

mod floor;
mod input;
mod process;

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use manifold_benches::{Waited, append_result};
use process::{Used, git, manifold};
use tempfile::TempDir;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The number of files of a large directory and of a very large one, and how often each is measured.
const LARGE: (usize, usize) = (60_000, 5);
const VERY_LARGE: (usize, usize) = (1_000_000, 3);
const SMALL: (usize, usize) = (40, 21);
/// The number of commits of a history, and of files in each.
const COMMITS: usize = 5_000;
const FILES: usize = 1_000;

/// The benchmarks that are wanted, and a place for their files.
struct Bench {
    wanted: String,
    place: TempDir,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        name.contains(&self.wanted)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Returns the path of an empty directory.
    fn empty(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(path)
    }

    fn small(&self) -> Result<()> {
        let (files, rounds) = SMALL;
        let (input, store) = (self.path("small"), self.empty("small-store")?);
        input::write(&input, files)?;
        fold(&input, &store, &[])?;
        let mut round = 0;
        let [hit, changed, version] = alternate(
            rounds,
            [
                &mut || fold(&input, &store, &[]),
                &mut || {
                    round += 1;
                    fs::write(input.join("d0/f0"), format!("change {round}\n"))?;
                    fold(&input, &store, &[])
                },
                &mut || manifold(&["--version".as_ref()]),
            ],
        )?;
        let beside = "a process that prints its version";
        report("hit on 40 files, a new process", hit, beside, version, String::new())?;
        report("one of 40 files changed, a new process", changed, beside, version, String::new())
    }

    fn directory(&self, (files, rounds): (usize, usize)) -> Result<()> {
        let (input, store) = (self.path(&format!("input-{files}")), self.path("store"));
        input::write(&input, files)?;
        let (mut used, mut plain_bytes) = (Used::default(), 0);
        let [without, plain, with] = alternate(
            rounds,
            [
                &mut || fold(&input, Path::new(""), &["--no-store"]),
                &mut || {
                    self.empty("store")?;
                    let time = fold(&input, &store, &["--no-provenance"])?;
                    plain_bytes = input::bytes(&store)?;
                    Ok(time)
                },
                &mut || {
                    self.empty("store")?;
                    let fold = fold_with_use(&input, &store)?;
                    used = fold.1;
                    Ok(fold.0)
                },
            ],
        )?;
        let frames = input::frames(files) as u64;
        let name = format!("fold of {files} files, with a new store");
        let note = format!(
            "{} B a frame on disk, {} MB written, {} MB of memory at most",
            input::bytes(&store)? / frames,
            used.written_bytes / 1_000_000,
            used.peak_bytes / 1_000_000
        );
        report(&name, with, "without a store", without, note)?;
        let note = format!("{} B a frame on disk", plain_bytes / frames);
        report(&format!("{name}, without records"), plain, "without a store", without, note)?;

        let [unchanged, walk] =
            alternate(rounds, [&mut || fold(&input, &store, &[]), &mut || floor::walk(&input)])?;
        let name = format!("the same again, {files} files");
        report(&name, unchanged, "walk and stat, one thread", walk, String::new())?;

        let [rehash, hash] = alternate(
            rounds,
            [&mut || fold(&input, &store, &["--rehash"]), &mut || floor::hash(&input)],
        )?;
        let name = format!("the same again with --rehash, {files} files");
        report(&name, rehash, "walk, read and hash on all cores", hash, String::new())?;
        if files == LARGE.0 {
            self.revision(&input, rounds)?;
        }
        fs::remove_dir_all(&input)?;
        fs::remove_dir_all(&store)?;
        Ok(())
    }

    /// Measures a fold of a commit of the directory.
    fn revision(&self, input: &Path, rounds: usize) -> Result<()> {
        let (repository, store) = (self.path("repository"), self.empty("revision-store")?);
        let in_repository = |arguments: &[&str]| {
            let place = [
                format!("--git-dir={}", repository.display()),
                format!("--work-tree={}", input.display()),
            ];
            git(place.iter().map(String::as_str).chain(arguments.iter().copied()))
        };
        git(["init", "--quiet", "--bare", &repository.display().to_string()])?;
        in_repository(&["add", "--all"])?;
        in_repository(&["commit", "--quiet", "--message", "all"])?;
        let mut known = || fold(&repository, &store, &["--rev", "HEAD"]);
        known()?;
        let mut ask = || in_repository(&["rev-parse", "HEAD^{tree}"]);
        let [known, ask] = alternate(rounds.max(11), [&mut known, &mut ask])?;
        let name = format!("hit on a revision of {} files, a new process", LARGE.0);
        report(&name, known, "git rev-parse", ask, String::new())?;
        fs::remove_dir_all(&repository)?;
        Ok(())
    }

    fn history(&self) -> Result<()> {
        let (repository, store) = (self.path("history"), self.path("history-store"));
        git(["init", "--quiet", "--bare", &repository.display().to_string()])?;
        input::import_history(&repository, FILES, COMMITS)?;
        for visitor in ["total-size", "lines-by-language"] {
            let history = || {
                manifold(&[
                    "history".as_ref(),
                    repository.as_os_str(),
                    "--csv".as_ref(),
                    "--post".as_ref(),
                    visitor.as_ref(),
                    "--store".as_ref(),
                    store.as_os_str(),
                ])
            };
            let place = format!("--git-dir={}", repository.display());
            let [first, again, log] = alternate(
                3,
                [
                    &mut || {
                        self.empty("history-store")?;
                        history()
                    },
                    &mut || history(),
                    &mut || git([&*place, "log", "--numstat"]),
                ],
            )?;
            let note = |time: f64| format!("{:.2} ms a commit", time * 1e3 / COMMITS as f64);
            let name = format!("history of {COMMITS} commits of {FILES} files, {visitor}");
            report(&name, first, "git log --numstat", log, note(first))?;
            report(&format!("{name}, again"), again, "git log --numstat", log, note(again))?;
        }
        Ok(())
    }
}

/// Folds a directory in a process of its own. Returns how long that takes, in seconds.
fn fold(input: &Path, store: &Path, options: &[&str]) -> Result<f64> {
    let mut arguments = vec!["fold".as_ref(), input.as_os_str()];
    if !store.as_os_str().is_empty() {
        arguments.extend(["--store".as_ref(), store.as_os_str()]);
    }
    arguments.extend(options.iter().map(|option| OsStr::new(*option)));
    manifold(&arguments)
}

fn fold_with_use(input: &Path, store: &Path) -> Result<(f64, Used)> {
    process::with_use(&["fold".as_ref(), input.as_os_str(), "--store".as_ref(), store.as_os_str()])
}

/// Does each work so often, by turns. Returns the medians.
fn alternate<const N: usize>(
    rounds: usize,
    mut works: [&mut dyn FnMut() -> Result<f64>; N],
) -> Result<[f64; N]> {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..rounds {
        for (work, times) in works.iter_mut().zip(&mut times) {
            times.push(work()?);
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}

fn report(name: &str, seconds: f64, beside: &str, beside_seconds: f64, note: String) -> Result<()> {
    let (name, beside) = (name.to_owned(), beside.to_owned());
    let waited = Waited { name, seconds, beside, beside_seconds, note };
    println!("{}", waited.row());
    Ok(append_result("MANIFOLD_BENCH_WAITS", &waited)?)
}

fn run() -> Result<()> {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    // A file system in memory would have no room.
    let place = TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bench = Bench { wanted: wanted.unwrap_or_default(), place };
    println!("{}", Waited::HEAD);
    if bench.wants("small") {
        bench.small()?;
    }
    for size in [LARGE, VERY_LARGE] {
        if bench.wants(&format!("directory {}", size.0)) {
            bench.directory(size)?;
        }
    }
    if bench.wants("history") {
        bench.history()?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
