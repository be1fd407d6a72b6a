//! `manifold new`: writes a project for a guest or a runtime that builds and passes its tests.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::args::{GuestLanguage, New, NewKind, NewOptions};
use crate::error::CliError;
use crate::report;

/// A file of a template: its path in the project, and its text.
type File = (&'static str, &'static str);

/// Embeds the files of a template. A file that cargo or git would interpret has another name in
/// this repository.
macro_rules! template {
    ($directory:literal: $($path:literal $(from $name:literal)?),* $(,)?) => {
        &[$(($path, include_str!(template!(@ $directory, $path $(, $name)?)))),*]
    };
    (@ $directory:literal, $path:literal) => { concat!("../templates/", $directory, "/", $path) };
    (@ $directory:literal, $path:literal, $name:literal) => {
        concat!("../templates/", $directory, "/", $name)
    };
}

const RUNTIME: &[File] = template! { "runtime":
    "Cargo.toml" from "Cargo.toml.in",
    ".gitignore" from "gitignore",
    "README.md",
    "src/lib.rs",
    "src/machine.rs",
    "tests/conformance.rs",
    "tests/dispatcher.rs",
    "tests/guests/crash.words",
    "tests/guests/echo.words",
    "tests/guests/fail.words",
    "tests/guests/flood.words",
    "tests/guests/hog.words",
    "tests/guests/hold.words",
    "tests/guests/log.words",
    "tests/guests/measure.words",
    "tests/guests/probe.words",
    "tests/guests/put.words",
    "tests/guests/relay.words",
    "tests/guests/silent.words",
    "tests/guests/spin.words",
};

const GUEST_RUST: &[File] = template! { "guest-rust":
    "Cargo.toml" from "Cargo.toml.in",
    ".gitignore" from "gitignore",
    "README.md",
    "src/lib.rs",
};

const GUEST_TYPESCRIPT: &[File] = template! { "guest-ts":
    ".gitignore" from "gitignore",
    "README.md",
    "guest.d.ts",
    "main.ts",
    "package.json",
    "sdk.ts",
    "tsconfig.json",
};

/// The packages that projects depend on, and their directories in a checkout of Manifold.
const PACKAGES: [(&str, &str); 4] = [
    ("manifold", "manifold"),
    ("manifold-conformance", "conformance"),
    ("manifold-guest", "guest-sdk/rust"),
    ("manifold-runtime-api", "runtime-api"),
];

/// The version of these packages that projects depend on.
const VERSION: &str = "0.2";

/// Names that cargo refuses, or that a dependency of a project has.
const RESERVED: [&str; 8] =
    ["alloc", "core", "manifold", "manifold-guest", "proc-macro", "std", "test", "tokio"];

/// Why a project cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewError {
    #[error(
        "{} is not an empty directory; choose a directory that does not exist yet",
        path.display()
    )]
    NotEmpty { path: PathBuf },
    #[error(
        "{name:?} is not a name for a package: use lower-case letters, digits, `-` and `_`, and \
         begin with a letter; choose another with --name"
    )]
    BadName { name: String },
    #[error("{name:?} is the name of another package; choose another with --name")]
    ReservedName { name: String },
    #[error("{} is not a checkout of Manifold: it has no {missing}", path.display())]
    NotACheckout { path: PathBuf, missing: String },
    #[error("cannot write {}", path.display())]
    Unwritable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Writes the project and prints what to do next.
pub(crate) fn new(new: &New) -> Result<(), CliError> {
    let (options, files, next): (&NewOptions, _, _) = match &new.kind {
        NewKind::Runtime(options) => (options, RUNTIME, "cargo test"),
        NewKind::Guest(guest) => match guest.lang {
            GuestLanguage::Rust => (
                &guest.options,
                GUEST_RUST,
                "cargo build --release --target wasm32-unknown-unknown",
            ),
            GuestLanguage::Ts => {
                (&guest.options, GUEST_TYPESCRIPT, "manifold run . --text in=hello")
            }
        },
    };
    let directory = &options.directory;
    let name = package_name(options)?;
    let mut values = vec![("name", name.clone()), ("crate", name.replace('-', "_"))];
    for (package, path) in PACKAGES {
        values.push((package, dependency(options.manifold.as_deref(), path)?));
    }
    create(directory)?;
    for (path, text) in files {
        write(&directory.join(path), &fill(text, &values))?;
    }
    report::print(
        format!("Created {}. Next:\n\n    cd {0}\n    {next}\n", directory.display()).as_bytes(),
    )
}

/// Returns the name of the package: the one that the user chose, or that of the directory.
fn package_name(options: &NewOptions) -> Result<String, NewError> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => {
            // The directory may be `.` or end in `..`.
            let path = std::path::absolute(&options.directory).unwrap_or_default();
            let path = path.canonicalize().unwrap_or(path);
            path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
    };
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(allowed) {
        return Err(NewError::BadName { name });
    }
    let other = PACKAGES.iter().any(|(package, _)| *package == name);
    if other || RESERVED.contains(&name.replace('_', "-").as_str()) {
        return Err(NewError::ReservedName { name });
    }
    Ok(name)
}

/// Returns the value of a dependency in a `Cargo.toml`: a version, or a path in `checkout`.
fn dependency(checkout: Option<&Path>, path: &str) -> Result<String, NewError> {
    let Some(checkout) = checkout else { return Ok(format!("\"{VERSION}\"")) };
    let no_checkout = |missing: &str| NewError::NotACheckout {
        path: checkout.to_owned(),
        missing: missing.to_owned(),
    };
    let absolute = checkout.canonicalize().map_err(|_| no_checkout("files"))?;
    let package = absolute.join(path);
    if !package.join("Cargo.toml").is_file() {
        return Err(no_checkout(&format!("{path}/Cargo.toml")));
    }
    let text = package.to_str().ok_or_else(|| no_checkout("path in UTF-8"))?;
    // A string of JSON is one of TOML, too.
    Ok(format!("{{ path = {} }}", serde_json::Value::from(text)))
}

/// Creates the directory. Errors if something is in it.
fn create(directory: &Path) -> Result<(), NewError> {
    let path = || directory.to_owned();
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => return Ok(()),
        Ok(false) => return Err(NewError::NotEmpty { path: path() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(NewError::NotEmpty { path: path() });
        }
        // The directory does not exist, or the next line says why it cannot be used.
        Err(_) => {}
    }
    fs::create_dir_all(directory).map_err(|source| NewError::Unwritable { path: path(), source })
}

fn write(path: &Path, text: &str) -> Result<(), NewError> {
    let created = path.parent().map_or(Ok(()), fs::create_dir_all);
    created
        .and_then(|()| fs::File::create_new(path))
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| NewError::Unwritable { path: path.to_owned(), source })
}

/// Replaces each `{{key}}` in a template.
fn fill(text: &str, values: &[(&str, String)]) -> String {
    values
        .iter()
        .fold(text.to_owned(), |text, (key, value)| text.replace(&format!("{{{{{key}}}}}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_a_template_has_a_value() {
        let keys: Vec<_> =
            PACKAGES.iter().map(|(package, _)| *package).chain(["name", "crate"]).collect();
        let values: Vec<_> = keys.iter().map(|key| (*key, String::new())).collect();
        for (path, text) in [RUNTIME, GUEST_RUST].concat() {
            let filled = fill(text, &values);
            assert!(!filled.contains("{{"), "{path}: {filled}");
        }
    }

    #[test]
    fn all_files_of_a_template_are_embedded() {
        fn count(directory: &Path) -> usize {
            let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        for (name, files) in
            [("runtime", RUNTIME), ("guest-rust", GUEST_RUST), ("guest-ts", GUEST_TYPESCRIPT)]
        {
            assert_eq!(count(&templates.join(name)), files.len(), "{name}");
        }
    }
}
