//! A root file system with Python, for a host container, which runs modules written in Python.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::install::Need;
use crate::process::{Result, is_runnable, output, root, run, target};
use crate::skip::skip;

/// Parts of Python's standard library that the host does not need.
const LEFT_OUT: [&str; 12] = [
    "__pycache__",
    "dist-packages",
    "site-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "lib2to3",
    "ensurepip",
    "distutils",
    "pydoc_data",
    "turtledemo",
];

/// The system's Python.
const PROGRAM: &str = "/usr/bin/python3";

/// Returns Python's package if the root file system has to be created and Python is not installed.
pub(crate) fn need() -> Option<Need> {
    let is_needed = !image().join("layer00/usr/bin/python3").exists() && !is_runnable(PROGRAM);
    is_needed.then(packages)
}

fn packages() -> Need {
    Need::apt_get(&["python3"], "the host container for guests in Python")
}

/// Creates the root file system in `guests/python` below the target directory: the system's Python,
/// from Debian's packages, and the host program.
pub(crate) fn build() -> Result {
    let image = image();
    let layer = image.join("layer00");
    if !layer.join("usr/bin/python3").exists() {
        let unfinished = target().join("guests").join(format!("python-{}", std::process::id()));
        let copied = copy_python(&unfinished.join("layer00"));
        if let Err(problem) = copied {
            let _ = fs::remove_dir_all(&unfinished);
            return skip(
                "docker",
                "the Python host is not tested",
                &format!("it needs Python from Debian's packages ({problem})"),
                &packages().how_to(),
            );
        }
        let _ = fs::remove_dir_all(&image);
        fs::rename(&unfinished, &image)
            .map_err(|error| format!("cannot create {}: {error}", image.display()))?;
    }
    let config = r#"{"config": {"Entrypoint": ["/usr/bin/python3", "-I", "-B", "/host.py"]}}"#;
    fs::write(image.join("config.json"), config).map_err(|error| error.to_string())?;
    let host = root().join("fold-guests/python/host.py");
    fs::copy(&host, layer.join("host.py"))
        .map_err(|error| format!("cannot copy {}: {error}", host.display()))?;
    Ok(())
}

/// Returns the directory of the image if there is one.
pub(crate) fn built() -> Option<PathBuf> {
    Some(image()).filter(|image| image.is_dir())
}

/// Returns the directory of the image.
fn image() -> PathBuf {
    target().join("guests").join("python")
}

fn copy_python(layer: &Path) -> Result {
    let program =
        fs::canonicalize(PROGRAM).map_err(|error| format!("cannot resolve {PROGRAM}: {error}"))?;
    let name = program
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or("the name of Python's program is not UTF-8")?;
    let library = PathBuf::from("/usr/lib").join(name);
    copy_below(&library, layer)?;
    copy(&program, layer)?;
    symlink(name, layer.join("usr/bin/python3")).map_err(|error| error.to_string())?;
    let mut programs = vec![program];
    programs.extend(files(&library.join("lib-dynload"))?);
    for program in programs {
        for word in output(Command::new("ldd").arg(&program))?
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            copy(Path::new(word), layer)?;
        }
    }
    // Otherwise every start would compile the modules that it imports. Trees keep no times, by which
    // Python usually finds out whether the compiled module is that of the source.
    let library = layer.join(library.strip_prefix("/").map_err(|error| error.to_string())?);
    let mut compile = Command::new(PROGRAM);
    compile.args(["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]);
    run(compile.arg(library))
}

/// Copies a file to the same path in the layer.
fn copy(file: &Path, layer: &Path) -> Result {
    let problem = |error: std::io::Error| format!("cannot copy {}: {error}", file.display());
    let place = layer.join(file.strip_prefix("/").map_err(|error| error.to_string())?);
    if place.exists() {
        return Ok(());
    }
    if let Some(directory) = place.parent() {
        fs::create_dir_all(directory).map_err(problem)?;
    }
    fs::copy(file, &place).map_err(problem)?;
    let executable = fs::metadata(file).map_err(problem)?.permissions().mode() & 0o111 != 0;
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(&place, fs::Permissions::from_mode(mode)).map_err(problem)
}

/// Copies the files below a directory to the same paths in the layer, without [`LEFT_OUT`].
fn copy_below(directory: &Path, layer: &Path) -> Result {
    for path in files(directory)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if LEFT_OUT.contains(&&*name) || name.starts_with("config-") {
            continue;
        }
        if path.is_dir() {
            copy_below(&path, layer)?;
        } else if path.is_file() {
            copy(&path, layer)?;
        }
    }
    Ok(())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let problem = |error| format!("cannot read {}: {error}", directory.display());
    let entries = fs::read_dir(directory).map_err(problem)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(problem)).collect()
}
