//! `manifold new`: each template gives a project that builds and passes its tests. Also
//! `manifold completions` and `manifold man`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the build of a project may take.
const BUILD_TIME: Duration = Duration::from_secs(20 * 60);

fn manifold(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.args(arguments).current_dir(directory).env("XDG_CACHE_HOME", directory.join(".cache"));
    command.env_remove("MANIFOLD_STORE").output().unwrap()
}

fn succeeds(directory: &Path, arguments: &[&str]) -> String {
    let output = manifold(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn fails(directory: &Path, arguments: &[&str]) -> String {
    let output = manifold(directory, arguments);
    assert!(!output.status.success(), "{arguments:?} succeeds");
    String::from_utf8(output.stderr).unwrap()
}

/// Returns the root of this repository.
fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Writes a project that depends on this repository.
fn project(arguments: &[&str]) -> TempDir {
    let place = TempDir::new().unwrap();
    let checkout = checkout();
    let arguments = [arguments, &["project", "--manifold", checkout.to_str().unwrap()]].concat();
    let next = succeeds(place.path(), &arguments);
    assert!(next.contains("cd project"), "{next}");
    place
}

/// Runs cargo in a project, with the dependencies that this repository has. All projects share a
/// target directory, so that a second run of the tests is fast.
fn cargo(directory: &Path, arguments: &[&str]) -> String {
    let output = directory.join("output");
    let file = fs::File::create(&output).unwrap();
    let target = Path::new(env!("CARGO_BIN_EXE_manifold")).ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", target.join("new-projects"))
        .env("CARGO_TERM_COLOR", "never")
        .env_remove("RUSTFLAGS")
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        match cargo.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() > BUILD_TIME => {
                cargo.kill().unwrap();
                break cargo.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    let text = fs::read_to_string(output).unwrap();
    assert!(status.success(), "cargo {arguments:?}: {status}\n{text}");
    text
}

#[test]
fn a_new_runtime_passes_the_conformance_suite() {
    let place = project(&["new", "runtime", "--name", "my-runtime"]);
    let directory = place.path().join("project");
    // The versions that this repository uses are there without a network.
    fs::copy(checkout().join("Cargo.lock"), directory.join("Cargo.lock")).unwrap();
    let text = cargo(&directory, &["test"]);
    assert!(text.contains("test a_guest_runs_once ... ok"), "{text}");
    assert!(text.contains("test memory_is_limited ... ok"), "{text}");
    assert!(!text.contains("warning: `my-runtime`"), "{text}");
}

#[test]
fn a_new_rust_guest_builds_and_runs() {
    let place = project(&["new", "guest", "--lang", "rust", "--name", "my-guest"]);
    let directory = place.path().join("project");
    fs::copy(checkout().join("guest-sdk/rust/Cargo.lock"), directory.join("Cargo.lock")).unwrap();
    let target = "wasm32-unknown-unknown";
    let text = cargo(&directory, &["build", "--release", "--target", target]);
    assert!(!text.contains("warning: `my-guest`"), "{text}");
    let built = Path::new(env!("CARGO_BIN_EXE_manifold")).ancestors().nth(2).unwrap();
    let module = built.join("new-projects").join(target).join("release/my_guest.wasm");
    let arguments = ["run", module.to_str().unwrap(), "--text", "in=hello", "--raw"];
    assert_eq!(succeeds(place.path(), &arguments), "HELLO");
}

#[test]
fn a_new_typescript_guest_has_right_types() {
    let place = project(&["new", "guest", "--lang", "ts"]);
    let directory = place.path().join("project");
    let tsc = checkout().join("fold-guests/typescript/node_modules/.bin/tsc");
    if !tsc.exists() {
        eprintln!("skipped: {} does not exist; `cargo xtask setup` installs it", tsc.display());
        return;
    }
    let check = Command::new(tsc).args(["--project", "."]).current_dir(directory).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[cfg(feature = "v8")]
#[test]
fn a_new_typescript_guest_runs() {
    let place = project(&["new", "guest", "--lang", "ts"]);
    let arguments = ["run", "project", "--arg", "in=hello", "--raw"];
    assert_eq!(succeeds(place.path(), &arguments), "HELLO");
}

#[test]
fn a_new_typescript_guest_has_the_sdk_and_the_declarations() {
    let place = project(&["new", "guest", "--lang", "ts"]);
    for (name, path) in
        [("sdk.ts", "guest-sdk/typescript/sdk.ts"), ("guest.d.ts", "runtime-v8/guest.d.ts")]
    {
        let written = fs::read_to_string(place.path().join("project").join(name)).unwrap();
        assert_eq!(written, fs::read_to_string(checkout().join(path)).unwrap(), "{name}");
    }
}

#[test]
fn projects_depend_on_published_packages_unless_a_checkout_is_named() {
    let place = TempDir::new().unwrap();
    succeeds(place.path(), &["new", "runtime", "published"]);
    let manifest = fs::read_to_string(place.path().join("published/Cargo.toml")).unwrap();
    assert!(manifest.contains("name = \"published\""), "{manifest}");
    assert!(manifest.contains("manifold-runtime-api = \"0.2\""), "{manifest}");
    let error = fails(place.path(), &["new", "runtime", "other", "--manifold", "published"]);
    assert!(error.contains("published is not a checkout of Manifold"), "{error}");
    assert!(!place.path().join("other").exists());
}

#[test]
fn nothing_is_overwritten() {
    let place = TempDir::new().unwrap();
    fs::create_dir(place.path().join("full")).unwrap();
    fs::write(place.path().join("full/file"), "mine").unwrap();
    fs::create_dir(place.path().join("empty")).unwrap();
    for directory in ["full", "full/file"] {
        let arguments = ["new", "guest", "--lang", "rust", directory, "--name", "guest"];
        let error = fails(place.path(), &arguments);
        assert!(error.contains(&format!("{directory} is not an empty directory")), "{error}");
    }
    assert_eq!(fs::read_dir(place.path().join("full")).unwrap().count(), 1);
    succeeds(place.path(), &["new", "guest", "--lang", "rust", "empty"]);
    let fails_in_it = fails(&place.path().join("empty"), &["new", "guest", "--lang", "ts", "."]);
    assert!(fails_in_it.contains(". is not an empty directory"), "{fails_in_it}");
}

#[test]
fn a_package_needs_a_name_that_cargo_accepts() {
    let place = TempDir::new().unwrap();
    for name in ["Upper", "1st", "a b", "größe", "-x"] {
        let argument = format!("--name={name}");
        let error = fails(place.path(), &["new", "runtime", "directory", &argument]);
        assert!(error.contains("choose another with --name"), "{error}");
    }
    for name in ["manifold", "test", "manifold-guest"] {
        let error = fails(place.path(), &["new", "runtime", name]);
        assert!(error.contains("is the name of another package"), "{error}");
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn completions_name_the_subcommands() {
    let place = TempDir::new().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = succeeds(place.path(), &["completions", shell]);
        assert!(script.contains("unpin") && !script.contains("manifold-cli"), "{shell}: {script}");
    }
    assert!(fails(place.path(), &["completions", "tcsh"]).contains("possible values"));
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let place = TempDir::new().unwrap();
    let page = succeeds(place.path(), &["man"]);
    assert!(page.starts_with(".ie") && page.contains("manifold"), "{page}");
    assert_eq!(succeeds(place.path(), &["man", "pages/man1"]), "");
    for name in ["manifold.1", "manifold-fold.1", "manifold-new-guest.1"] {
        let page = fs::read_to_string(place.path().join("pages/man1").join(name)).unwrap();
        assert!(page.contains(".SH NAME"), "{name}: {page}");
    }
}
