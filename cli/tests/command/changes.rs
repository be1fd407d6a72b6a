//! A table of changes of a fold, and what is said about them, for guests in any language.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use manifold_dispatcher::{DirectoryObjects, Dispatcher, DurableStore, Invocation};
use manifold_runtime_api::{
    Capabilities, Host, HostImage, HostRef, Job, NodeShape, ObjectId, ObjectRef, Result, Runtime,
};
use manifold_standard_guests::Hosts;
use serde_json::Value;
use tempfile::TempDir;

/// Runs the command with the store `store`. Returns what it prints.
fn with_store(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.args(arguments).args(["--store", "store"]).current_dir(root);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A directory `input` with three directories of three files.
pub(crate) fn input() -> TempDir {
    let root = TempDir::new().unwrap();
    for directory in ["d1", "d2", "d3"] {
        fs::create_dir_all(root.path().join("input").join(directory)).unwrap();
        for file in ["f1.txt", "f2.txt", "f3.txt"] {
            let path = root.path().join("input").join(directory).join(file);
            fs::write(path, format!("{directory} {file}\n")).unwrap();
        }
    }
    root
}

/// A change of what is folded or of how, and what `explain` says about it.
pub(crate) struct Change<'a> {
    /// What is done before the first fold.
    pub(crate) prepare: &'a dyn Fn(&Path),
    pub(crate) change: &'a dyn Fn(&Path),
    /// The options of both folds, further ones of the first, and further ones of the second.
    pub(crate) options: &'a [&'a str],
    pub(crate) old_options: &'a [&'a str],
    pub(crate) new_options: &'a [&'a str],
    pub(crate) differences: &'a [&'a str],
    /// The number of frames that run again. There are 9 files, and 4 directories with two frames
    /// each.
    pub(crate) runs: &'a str,
}

impl Change<'_> {
    pub(crate) const NONE: Self = Change {
        prepare: &|_| {},
        change: &|_| {},
        options: &[],
        old_options: &[],
        new_options: &[],
        differences: &[],
        runs: "17 of 17",
    };

    /// Folds before and after the change, and checks what `fold --explain` and `explain` say.
    pub(crate) fn check(&self) {
        let Self { prepare, change, options, old_options, new_options, differences, runs } = self;
        let root = input();
        let root = root.path();
        prepare(root);
        let fold = |further: &[&str]| {
            let fold = [&["fold", "input", "--explain"], *options, further].concat();
            let text = with_store(root, &fold);
            let request = text.lines().find_map(|line| line.strip_prefix("request ")).unwrap();
            (request.to_owned(), text.lines().last().unwrap().to_owned())
        };
        let (first, explanation) = fold(old_options);
        assert_eq!(explanation, "17 of 17 frames ran, because no similar fold is remembered");
        change(root);
        let (second, explanation) = fold(new_options);
        let reasons = differences.join(", ").replace("in/", "");
        assert_eq!(explanation, format!("{runs} frames ran, because {reasons}"), "{options:?}");
        let explained = with_store(root, &["explain", &second, "--json"]);
        let explained: Value = serde_json::from_str(&explained).unwrap();
        assert_eq!(explained["against"], first);
        assert_eq!(explained["differences"], serde_json::json!(differences));
        let text = with_store(root, &["explain", &second[..9]]);
        assert!(differences.iter().all(|difference| text.contains(difference)), "{text}");
        assert_eq!(fold(new_options).1, "no frame ran: the result was remembered");
    }
}

/// A runtime that takes the place of an older version of another one.
struct Older(HostImage);

#[async_trait]
impl Runtime for Older {
    fn host_image(&self) -> &HostImage {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::blob_modules().and_tree_modules()
    }

    async fn run(&self, _: Job, host: Arc<dyn Host>) -> Result<ObjectRef> {
        Ok(ObjectRef::blob(host.put_blob("older".into()).await?))
    }
}

/// Returns the text of a blob.
fn text(dispatcher: &Dispatcher, id: ObjectId) -> String {
    String::from_utf8(dispatcher.read(id).unwrap().content.to_vec()).unwrap()
}

/// Folds with an older version of the runtime for `guest`, and then with the command.
///
/// `setting` is the one that tells the versions apart.
pub(crate) async fn check_engine(guest: &str, setting: &str) {
    let root = input();
    let root = root.path();
    let fold = |store: &str| {
        let fold = ["fold", "input", "--guest", guest, "--explain", "--store", store];
        let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
        let output = command.args(fold).current_dir(root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let new = fold("new");
    let request = new.lines().find_map(|line| line.strip_prefix("request ")).unwrap();
    let opened = DurableStore::open(root.join("new")).unwrap();
    let new = Dispatcher::builder().store(opened).build().unwrap();
    let record = new.provenance(request.parse().unwrap()).unwrap().unwrap();

    // The settings of the runtime, with another version.
    let (mut older, mut version) = (None, String::new());
    let host = new.read_tree(record.host).unwrap();
    let name = text(&new, host.get("name").unwrap().id);
    for entry in host.entries().iter().filter(|entry| entry.name != "name") {
        let mut value = text(&new, entry.id);
        if entry.name == setting {
            version = std::mem::replace(&mut value, "0.1.2".to_owned());
        }
        let builder = older.take().unwrap_or_else(|| HostImage::new(name.clone()));
        older = Some(builder.with(entry.name.to_string(), value));
    }
    let older = older.unwrap().seal().unwrap();

    // The standard images for that version. Those of other runtimes are as they were.
    let std = new.read_tree(record.request.std.unwrap()).unwrap();
    let host_of = |name: &str| {
        let image = std.get(name)?.id;
        let NodeShape::Runtime { marker, .. } =
            NodeShape::of(&new.read_tree(image).unwrap()).unwrap()
        else {
            panic!("{name} is no runtime node");
        };
        match HostRef::parse(&text(&new, marker)).unwrap() {
            HostRef::HostImage(host) if host == record.host => Some(older.id()),
            HostRef::HostImage(host) => Some(host),
            _ => panic!("{name} has no host image"),
        }
    };
    let mut hosts = Hosts::default();
    hosts.wasm = host_of("fold");
    hosts.typescript = host_of("fold.ts");
    hosts.container = host_of("fold.docker");
    hosts.serving = host_of("fold.serving");
    drop(new);
    let store = Arc::new(DurableStore::open(root.join("store")).unwrap());
    let objects = DirectoryObjects::scan(&root.join("input")).unwrap();
    let folded = objects.root();
    let dispatcher = Dispatcher::builder().store(store).source(objects).provenance(true);
    let dispatcher = dispatcher.runtime(Older(older)).build().unwrap();
    let std = manifold_standard_guests::install_for(&dispatcher, hosts).unwrap();
    let suffix = if guest == "wasm" { String::new() } else { format!(".{guest}") };
    let image = |name: &str| {
        let std = dispatcher.read_tree(std).unwrap();
        std.get(format!("{name}{suffix}").as_str()).unwrap().id.to_string()
    };
    let call = Invocation::new(image("fold")).arg("in", folded).arg("post", image("file-count"));
    dispatcher.run(call.std(std)).await.unwrap();
    dispatcher.flush().unwrap();
    drop(dispatcher);

    let explanation = fold("store");
    let reason = format!("host image: {name} {setting} 0.1.2 → {version}");
    let expected = format!("17 of 17 frames ran, because {reason}");
    assert_eq!(explanation.lines().last().unwrap(), expected);
}

/// Checks the changes that are possible with guests in the language `guest`.
pub(crate) fn check_all(guest: &str) {
    let options = ["--guest", guest];
    let of_guest = Change { options: &options, ..Change::NONE };
    let file = |root: &Path, path: &str| fs::write(root.join(path), "changed\n").unwrap();
    let suffix = if guest == "wasm" { String::new() } else { format!(".{guest}") };
    let visitor = format!("post: file-count{suffix} → line-count{suffix}");
    Change {
        change: &|root| file(root, "input/d3/f2.txt"),
        differences: &["in/d3/f2.txt changed"],
        runs: "5 of 17",
        ..of_guest
    }
    .check();
    Change {
        change: &|root| {
            file(root, "input/d1/new.txt");
            fs::remove_file(root.join("input/d2/f1.txt")).unwrap();
        },
        differences: &["in/d1/new.txt added", "in/d2/f1.txt removed"],
        runs: "7 of 17",
        ..of_guest
    }
    .check();
    Change {
        new_options: &["--salt", "other"],
        differences: &["salt: \"\" → \"other\""],
        ..of_guest
    }
    .check();
    Change { new_options: &["--post", "line-count"], differences: &[&visitor], ..of_guest }.check();
    Change {
        change: &|root| drop(with_store(root, &["std", "add", "mine", "line-count"])),
        differences: &["std mine added"],
        ..of_guest
    }
    .check();
}
