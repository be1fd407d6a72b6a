//! Files of published npm packages. A file that node or the TypeScript compiler accepts as a module
//! is never refused, apart from the exceptions in `runtime-v8/README.md`. `cargo xtask test`
//! installs the packages and passes their directory in `MANIFOLD_PUBLISHED`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{EntryMode, Limits, ObjectRef, Reason, Runtime, TreeEntry};
use manifold_runtime_v8::V8Runtime;

/// The least number of files to try. They are selected at even distances from all files.
const FILES: usize = 2_000;

/// Collects the files of code in `directory` and below it.
fn code_below(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_code = [".ts", ".mts", ".js", ".mjs"].iter().any(|end| name.ends_with(end));
        if path.is_dir() {
            code_below(&path, found);
        } else if is_code && !name.ends_with(".d.ts") && !name.ends_with(".d.mts") {
            found.push(path);
        }
    }
}

/// Returns for each file whether node or the TypeScript compiler accepts it as a module.
fn are_modules(packages: &Path, files: &[PathBuf]) -> Vec<bool> {
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/published/oracle.mjs");
    let mut node = Command::new("node")
        .args(["--experimental-vm-modules", "--no-warnings"])
        .arg(oracle)
        .current_dir(packages)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed with npm");
    let paths: String = files.iter().map(|path| format!("{}\n", path.display())).collect();
    let mut input = node.stdin.take().unwrap();
    let writing = std::thread::spawn(move || input.write_all(paths.as_bytes()));
    let output = node.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "yes").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_packages_are_accepted() {
    let Some(packages) = std::env::var_os("MANIFOLD_PUBLISHED").map(PathBuf::from) else {
        eprintln!(
            "SKIPPED: there are no published packages; `cargo xtask test` installs them with npm"
        );
        return;
    };
    let mut files = Vec::new();
    code_below(&packages.join("node_modules"), &mut files);
    assert!(files.len() > FILES, "{} files", files.len());
    let step = files.len() / FILES;
    // All TypeScript files are tried, because there are fewer of them.
    let is_tried = |(place, path): &(usize, PathBuf)| {
        place % step == 0 || path.extension().is_some_and(|end| end == "ts")
    };
    let files: Vec<PathBuf> =
        files.into_iter().enumerate().filter(is_tried).map(|(_, path)| path).collect();
    let are_modules = are_modules(&packages, &files);
    assert_eq!(are_modules.len(), files.len());

    let runtime = Arc::new(V8Runtime::new().unwrap());
    let host = runtime.host_image().id();
    let mut limits = Limits::default();
    limits.module_bytes = 64 << 20;
    let dispatcher = Dispatcher::builder().runtime(runtime).limits(limits).build().unwrap();
    let tried = stream::iter(files.iter().zip(are_modules)).map(|(path, is_module)| {
        let dispatcher = dispatcher.clone();
        async move {
            let end = path.extension().unwrap().to_str().unwrap();
            let text = dispatcher.put_blob(fs::read(path).unwrap()).unwrap();
            let main = TreeEntry::new(format!("main.{end}"), EntryMode::Blob, text);
            let module = ObjectRef::tree(dispatcher.put_tree([main]).unwrap());
            let image = dispatcher.put_image(host, module).unwrap().to_string();
            let Err(error) = dispatcher.prepare(&image, None).await else { return (true, None) };
            let Reason::BadModule { problem, .. } = error.reason() else {
                return (false, Some(format!("{error:?}")));
            };
            // The exceptions of the README: other files and packages, modules of another kind,
            // decorators of parameters.
            let is_exception =
                [" imports ", "is for CommonJS"].iter().any(|words| problem.contains(words));
            let refused = is_module && !is_exception;
            (false, refused.then(|| format!("{}: {error:?}", path.display())))
        }
    });
    let outcomes: Vec<(bool, Option<String>)> = tried.buffered(4).collect().await;
    let refused: Vec<&String> =
        outcomes.iter().filter_map(|(_, refused)| refused.as_ref()).collect();
    assert!(
        refused.is_empty(),
        "{} of {}: {:#?}",
        refused.len(),
        outcomes.len(),
        &refused[..refused.len().min(10)]
    );
    let accepted = outcomes.iter().filter(|(accepted, _)| *accepted).count();
    assert!(accepted > outcomes.len() / 10, "{accepted} of {} are accepted", outcomes.len());
}
