//! V8's library: where the build of the crate `v8` finds it.

mod from_source;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::process::{Result, cargo, host_target, requires, root};

/// Where to get V8, for those who cannot download it.
const HOW_TO: &str = "\
V8 runs TypeScript guests. Its library is downloaded by the build of the crate `v8`, from that crate's release page. Where that is
out of reach, any of these makes up for it:
  MANIFOLD_V8_ARCHIVE=/path/to/librusty_v8….a.gz cargo xtask v8      puts a library that you have where the build finds it
  RUSTY_V8_MIRROR=https://…                                          downloads from another place
  cargo xtask v8 --from-source                                       builds it, in about an hour, on Debian";

/// Whether V8 can be had on this machine. Says so, once, if not.
///
/// # Errors
/// When it cannot be had and `MANIFOLD_REQUIRE` names it.
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
        if requires("v8") {
            return Err(format!(
                "{problem}\nV8 is not available, and MANIFOLD_REQUIRE asks for it.\n{HOW_TO}"
            ));
        }
        eprintln!(
            "\n{problem}\nSKIPPED: V8 is not available, so everything is built and tested without TypeScript guests.\n{HOW_TO}\n"
        );
    }
    AVAILABLE.with(|known| known.set(available)).ok();
    Ok(available)
}

/// `cargo xtask v8`.
pub(crate) fn install() -> Result {
    if is_available()? {
        println!("V8 is available");
        return Ok(());
    }
    Err("V8 is not available".to_owned())
}

/// `cargo xtask v8 --from-source`.
pub(crate) fn build_from_source() -> Result {
    let library = Library::of_this_project()?;
    if library.place.exists() {
        println!("V8 is available: {}", library.place.display());
        return Ok(());
    }
    let archive = from_source::build(&library.version)?;
    library.put(&archive)
}

/// Puts the library that `MANIFOLD_V8_ARCHIVE` names where the build finds it. Answers whether there is one in that place.
fn place_archive() -> Result<bool> {
    // Whoever sets this has told the build of the crate already.
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

/// How many of cargo's last words are shown.
const LAST_WORDS: usize = 12;

/// Lets the build of the crate get V8 itself. Answers why it could not, in cargo's last words.
fn build_problem() -> Result<Option<String>> {
    eprintln!("set-up: letting the build of the crate `v8` look for V8");
    let mut build = cargo();
    build
        .args(["build", "--quiet", "--release", "--package", "manifold-runtime-v8"])
        .stdout(Stdio::null());
    let built = build.output().map_err(|error| format!("cargo cannot be started: {error}"))?;
    if built.status.success() {
        return Ok(None);
    }
    let words = String::from_utf8_lossy(&built.stderr).into_owned();
    let lines: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
    Ok(Some(lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")))
}

/// The library that belongs to the version of the crate in the lock file.
struct Library {
    version: String,
    /// Where the build of the crate looks before it downloads.
    place: PathBuf,
}

impl Library {
    fn of_this_project() -> Result<Self> {
        let version = locked_version("v8")?;
        let target = host_target()?;
        let address = format!(
            "https://github.com/denoland/rusty_v8/releases/download/v{version}/librusty_v8_simdutf_release_{target}.a.gz"
        );
        let name: String =
            address.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        Ok(Self { version, place: cargo_home()?.join(".rusty_v8").join(name) })
    }

    fn put(&self, archive: &Path) -> Result {
        eprintln!("set-up: V8's library goes to {}", self.place.display());
        let problem = |error| {
            format!("{} cannot be copied to {}: {error}", archive.display(), self.place.display())
        };
        if let Some(directory) = self.place.parent() {
            fs::create_dir_all(directory).map_err(problem)?;
        }
        // A copy that was interrupted must not be taken for the library.
        let unfinished = self.place.with_extension(format!("{}", std::process::id()));
        fs::copy(archive, &unfinished).map_err(problem)?;
        fs::rename(&unfinished, &self.place).map_err(problem)
    }
}

fn locked_version(package: &str) -> Result<String> {
    let lock = root().join("Cargo.lock");
    let text = fs::read_to_string(&lock)
        .map_err(|error| format!("{} cannot be read: {error}", lock.display()))?;
    let after =
        text.split_once(&format!("name = \"{package}\"\nversion = \"")).map(|(_, after)| after);
    let version =
        after.and_then(|after| after.split_once('"')).map(|(version, _)| version.to_owned());
    version.ok_or_else(|| format!("{} does not name the version of {package}", lock.display()))
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(root().join(home));
    }
    std::env::home_dir()
        .map(|home| home.join(".cargo"))
        .ok_or_else(|| "this user has no home directory".to_owned())
}
