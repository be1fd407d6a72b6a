//! `cargo xtask v8`: puts V8's library where the build of the crate `v8` finds it.

mod from_source;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::install::Installing;
use crate::process::{Result, cargo, host_target, root, target};
use crate::skip::skip;

/// The ways to get V8's library, shown where the download fails.
const HOW_TO: &str = "\
V8 runs TypeScript guests. The build of the crate `v8` downloads its library from that crate's
release page. If the page cannot be reached, do one of these:
  MANIFOLD_V8_ARCHIVE=/path/to/librusty_v8….a.gz cargo xtask v8
                                   install a library that you have
  RUSTY_V8_MIRROR=https://…        download it from another place
  cargo xtask v8 --from-source     build it, on Debian, in about an hour";

/// Returns whether V8's library is available on this machine. Prints a message, once, if it is not.
///
/// # Errors
/// Returns an error if the library is not available and `MANIFOLD_REQUIRE` contains `v8`.
pub(crate) fn is_available() -> Result<bool> {
    thread_local! {
        static AVAILABLE: OnceCell<bool> = const { OnceCell::new() };
    }
    if let Some(available) = AVAILABLE.with(|known| known.get().copied()) {
        return Ok(available);
    }
    let problem = if place_archive()? { None } else { build_problem()? };
    let available = problem.is_none();
    if let Some(problem) = problem {
        let part = "everything is built and tested without TypeScript guests";
        skip("v8", part, &format!("V8's library cannot be built in:\n{problem}"), HOW_TO)?;
    }
    AVAILABLE.with(|known| known.set(available)).ok();
    Ok(available)
}

/// The features of the facade that are on in tests and lints, so that its examples are built.
const FACADE: &str = "manifold/cache,manifold/directory,manifold/docker,manifold/durable,\
                      manifold/functions,manifold/git,manifold/metrics,manifold/nodes,\
                      manifold/standard-guests,manifold/tracing,manifold/wasm";

/// Returns the cargo arguments that leave out the features that need V8 where V8 is not available.
pub(crate) fn selection() -> Result<&'static [&'static str]> {
    Ok(if is_available()? { &[] } else { &["--no-default-features"] })
}

/// Returns the cargo arguments that select everything but V8.
pub(crate) fn selection_without() -> Vec<String> {
    ["--exclude", "manifold-runtime-v8", "--no-default-features", "--features", FACADE]
        .map(str::to_owned)
        .into()
}

/// Returns whether V8 has been built with the workspace's features.
pub(crate) fn is_built() -> bool {
    let Ok(libraries) = fs::read_dir(target().join("release/deps")) else { return false };
    let mut names = libraries.filter_map(|library| Some(library.ok()?.file_name()));
    names.any(|name| name.as_encoded_bytes().starts_with(b"libdeno_core-"))
}

/// Returns the cargo arguments that select the features of tests and lints of the whole workspace.
pub(crate) fn workspace_selection() -> Result<Vec<String>> {
    let mut arguments: Vec<_> = selection()?.iter().map(|&argument| argument.to_owned()).collect();
    let v8 = if is_available()? { ",manifold/v8" } else { "" };
    arguments.extend(["--features".to_owned(), format!("{FACADE}{v8}")]);
    Ok(arguments)
}

/// Returns the cargo arguments that leave out the V8 runtime's package where V8 is not available.
pub(crate) fn exclusion() -> Result<&'static [&'static str]> {
    Ok(if is_available()? { &[] } else { &["--exclude", "manifold-runtime-v8"] })
}

/// `cargo xtask v8`: makes the library available, or errors.
pub(crate) fn install() -> Result {
    if is_available()? {
        println!("V8 is available");
        return Ok(());
    }
    Err("V8 is not available".to_owned())
}

/// `cargo xtask v8 --from-source`: builds the library and puts it in its place, unless it is there.
pub(crate) fn build_from_source(installing: Installing) -> Result {
    let library = Library::of_this_project()?;
    if library.place.exists() {
        println!("V8 is available: {}", library.place.display());
        return Ok(());
    }
    let archive = from_source::build(&library.version, installing)?;
    library.put(&archive)
}

/// Copies the library that `MANIFOLD_V8_ARCHIVE` names to where the build finds it. Returns whether
/// there is a library in that place afterwards.
fn place_archive() -> Result<bool> {
    // With this variable set, the build of the crate does not look in that place.
    if std::env::var_os("RUSTY_V8_ARCHIVE").is_some() {
        return Ok(false);
    }
    let library = Library::of_this_project()?;
    if library.place.exists() {
        return Ok(true);
    }
    let Some(archive) = std::env::var_os("MANIFOLD_V8_ARCHIVE") else { return Ok(false) };
    library.put(Path::new(&archive))?;
    Ok(true)
}

/// How many lines of cargo's output are shown after a failure.
const SHOWN_LINES: usize = 12;

/// Builds the crate, which downloads the library. Returns the last lines of cargo's output if that
/// fails, and `None` if it succeeds.
fn build_problem() -> Result<Option<String>> {
    eprintln!("set-up: building the crate `v8`, which downloads V8's library");
    let mut build = cargo();
    build
        .args(["build", "--quiet", "--release", "--package", "manifold-runtime-v8"])
        .stdout(Stdio::null());
    let built = build.output().map_err(|error| format!("cannot start cargo: {error}"))?;
    if built.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&built.stderr).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(Some(lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")))
}

/// The library that belongs to the version of the crate `v8` in the lock file.
struct Library {
    version: String,
    /// The path where the build of the crate looks for the library before it downloads it.
    place: PathBuf,
}

impl Library {
    fn of_this_project() -> Result<Self> {
        let version = locked_version("v8")?;
        let target = host_target()?;
        let address = format!(
            "https://github.com/denoland/rusty_v8/releases/download/v{version}/\
             librusty_v8_simdutf_release_{target}.a.gz"
        );
        let name: String =
            address.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        Ok(Self { version, place: cargo_home()?.join(".rusty_v8").join(name) })
    }

    fn put(&self, archive: &Path) -> Result {
        eprintln!("set-up: copying V8's library to {}", self.place.display());
        let problem = |error| {
            format!("cannot copy {} to {}: {error}", archive.display(), self.place.display())
        };
        if let Some(directory) = self.place.parent() {
            fs::create_dir_all(directory).map_err(problem)?;
        }
        // Copy to another name first, so that an interrupted copy is not taken for the library.
        let unfinished = self.place.with_extension(format!("{}", std::process::id()));
        fs::copy(archive, &unfinished).map_err(problem)?;
        fs::rename(&unfinished, &self.place).map_err(problem)
    }
}

fn locked_version(package: &str) -> Result<String> {
    let lock = root().join("Cargo.lock");
    let text = fs::read_to_string(&lock)
        .map_err(|error| format!("cannot read {}: {error}", lock.display()))?;
    let after =
        text.split_once(&format!("name = \"{package}\"\nversion = \"")).map(|(_, after)| after);
    let version =
        after.and_then(|after| after.split_once('"')).map(|(version, _)| version.to_owned());
    version.ok_or_else(|| format!("{} does not contain a version of {package}", lock.display()))
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(root().join(home));
    }
    std::env::home_dir()
        .map(|home| home.join(".cargo"))
        .ok_or_else(|| "this user has no home directory; set CARGO_HOME".to_owned())
}
