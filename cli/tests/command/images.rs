//! `manifold curry`, `manifold std` and `manifold image`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::{bench, fails, json, manifold, succeeds};

/// Runs the command with the store `s` in `directory`, and returns its output without the line feed
/// at the end.
fn with_store(directory: &Path, arguments: &[&str]) -> String {
    let arguments = [arguments, &["--store", "s"]].concat();
    succeeds(directory, &arguments).trim_end().to_owned()
}

fn fails_with_store(directory: &Path, arguments: &[&str]) -> String {
    fails(directory, &[arguments, &["--store", "s"]].concat())
}

/// Removes from the store whatever nothing keeps.
fn gc(directory: &Path) {
    let now = ["--written-within", "0s", "--used-within", "0s", "--pinned-within", "0s"];
    with_store(directory, &[&["gc"], &now[..]].concat());
}

#[test]
fn curry_binds_arguments_and_gc_keeps_the_image() {
    let root = bench();
    let run = |arguments: &[&str]| with_store(root.path(), arguments);
    let bound = run(&["curry", "line-count", "--arg", "in=tree/f1.txt"]);
    assert_eq!(run(&["run", &bound, "--raw"]), "1");
    let direct = json(
        root.path(),
        &["run", "line-count", "--arg", "in=tree/f1.txt", "--json", "--store", "s"],
    );
    let curried = json(root.path(), &["run", &bound, "--json", "--store", "s"]);
    assert_eq!(curried["request"], direct["request"], "the same request");
    assert_eq!(run(&["run", &bound, "--text", "in=a\nb\n", "--raw"]), "2", "own arguments win");

    // In one step or several, with another file at the end.
    let text = run(&["curry", &bound, "--text", "in=x", "--text", "more=1"]);
    assert_eq!(text, run(&["curry", "line-count", "--text", "more=1", "--text", "in=x"]));
    assert!(run(&["pins"]).contains(&format!("{bound} tree {bound}")));
    fs::remove_dir_all(root.path().join("tree")).unwrap();
    gc(root.path());
    assert_eq!(run(&["run", &bound, "--raw"]), "1", "the arguments are in the store");
    run(&["unpin", &bound]);
    gc(root.path());
    assert!(fails_with_store(root.path(), &["run", &bound]).contains(&bound));
    assert!(fails_with_store(root.path(), &["curry", "nothing"]).contains("no image named"));
}

#[test]
fn names_are_found_by_commands_and_guests_and_kept_by_gc() {
    let root = bench();
    let run = |arguments: &[&str]| with_store(root.path(), arguments);
    let standard = run(&["std", "ls"]);
    assert!(standard.lines().all(|line| line.ends_with(" (standard)")), "{standard}");
    let image = run(&["curry", "grep", "--text", "pattern=d1", "--name", "d1"]);
    assert!(run(&["std", "ls"]).lines().any(|line| line == format!("d1 {image}")));
    run(&["unpin", &image]);
    gc(root.path());
    let by_name = run(&["fold", "tree", "--post", "d1"]);
    assert!(by_name.contains("tree/d1/d1/f1.txt"), "{by_name}");
    // A guest looks up the name.
    let args = ["run", "fold", "--arg", "in=tree", "--text", "post=/cas/std/d1", "--json"];
    let all = run(&["std", "add", "lines", "line-count"]);
    let found: Value = serde_json::from_str(&run(&args)).unwrap();
    assert_eq!(found["result"]["kind"], "tree");

    // The tree of the names is a part of the request.
    let with_tree: Value =
        serde_json::from_str(&run(&[&args[..], &["--std", &all]].concat())).unwrap();
    assert_eq!(with_tree["request"], found["request"]);
    let fewer = run(&["std", "rm", "lines"]);
    assert_ne!(fewer, all);
    let other: Value = serde_json::from_str(&run(&args)).unwrap();
    assert_ne!(other["request"], found["request"]);
    assert!(fails_with_store(root.path(), &["run", "lines"]).contains("no image named"));
    let before: Value =
        serde_json::from_str(&run(&[&args[..], &["--std", &all]].concat())).unwrap();
    assert_eq!(before["request"], found["request"]);

    // A name can be given again, and to a file.
    fs::write(root.path().join("own.ts"), "").unwrap();
    run(&["std", "add", "d1", "total-size"]);
    let listed = run(&["std", "ls", "--json"]);
    let own: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["own"] == true)
        .collect();
    assert_eq!((own.len(), own[0]["name"].as_str()), (1, Some("d1")));
    assert_ne!(own[0]["image"], image.as_str());
    let digest = format!("docker://sha256:{}", "0".repeat(64));
    run(&["std", "add", "theirs", &digest]);
    assert!(run(&["std", "ls"]).lines().any(|line| line == format!("theirs {digest}")));
    assert!(!run(&["pins"]).contains(&fewer), "names are no pins of requests");
}

#[test]
fn wrong_names_are_refused() {
    let root = TempDir::new().unwrap();
    let error = |arguments: &[&str]| fails_with_store(root.path(), arguments);
    for name in ["", "a/b", "..", "docker://x", "4b825dc642cb6eb9a060e54bf8d69288fbee4904"] {
        let error = error(&["std", "add", name, "fold"]);
        assert!(error.contains("cannot be the name of an image"), "{name}: {error}");
    }
    assert!(error(&["std", "add", "fold", "grep"]).contains("the name of a standard image"));
    let missing = error(&["std", "rm", "x"]);
    assert!(missing.contains("no name x; `manifold std add` adds names"), "{missing}");
    with_store(root.path(), &["std", "add", "mine", "fold"]);
    assert!(error(&["std", "rm", "x"]).contains("no name x; there are mine"));
    assert!(error(&["std", "add", "y", "nothing"]).contains("no image named"));
}

#[test]
fn names_that_are_added_at_the_same_time_are_all_kept() {
    let root = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let path = root.path();
            scope.spawn(move || {
                let name = format!("name-{number}");
                let output = manifold(path, &["std", "add", &name, "grep", "--store", "s"]);
                // Another process may hold the store for long enough to be named.
                let errors = String::from_utf8_lossy(&output.stderr);
                let are_waits = errors.lines().all(|line| line.starts_with("waiting for "));
                assert!(output.status.success() && are_waits, "{errors}");
            });
        }
    });
    let names = with_store(root.path(), &["std", "ls"]);
    assert_eq!(names.lines().filter(|line| line.starts_with("name-")).count(), 8, "{names}");
}

/// Writes an image in the form of the store.
fn image(directory: &Path) {
    let layer = directory.join("image/layer00");
    fs::create_dir_all(layer.join("bin")).unwrap();
    fs::write(layer.join("bin/guest"), "code").unwrap();
    let config = r#"{"config": {"Entrypoint": ["/bin/guest", "once"], "User": "1"}}"#;
    fs::write(directory.join("image/config.json"), config).unwrap();
    let attributes = r#"{"path":"bin","mode":"0700","uid":1000}"#;
    fs::write(directory.join("image/attributes00"), attributes).unwrap();
}

#[test]
fn images_are_imported_listed_exported_and_given_up() {
    let root = TempDir::new().unwrap();
    let run = |arguments: &[&str]| with_store(root.path(), arguments);
    image(root.path());
    assert_eq!(run(&["image", "ls"]), "");
    let id = run(&["image", "import", "image", "--name", "mine"]);
    assert_eq!(id.len(), 40, "{id}");
    let line = run(&["image", "ls"]);
    assert!(line.starts_with(&id) && line.ends_with("1 layers  /bin/guest once  mine"), "{line}");
    let json: Value = serde_json::from_str(&run(&["image", "ls", "--json"])).unwrap();
    assert_eq!((&json["names"][0], &json["layers"]), (&"mine".into(), &1.into()));

    for name in ["mine", &id] {
        run(&["image", "export", name, "out.tar", "--tag", "example:1"]);
        assert!(!root.path().join("out.tar.part").exists());
        let again = run(&["image", "import", "out.tar"]);
        // The configuration is written anew.
        assert_eq!(again, run(&["image", "import", "out.tar", "--image", "example:1"]));
        let listed = run(&["image", "ls"]);
        assert_eq!(listed.lines().count(), 2, "{listed}");
        run(&["image", "export", &again, "again.tar", "--tag", "example:1"]);
        let files = ["out.tar", "again.tar"].map(|name| fs::read(root.path().join(name)).unwrap());
        assert!(files[0] == files[1], "the archives differ");
        run(&["unpin", &again]);
    }
    assert_eq!(run(&["curry", "mine", "--text", "a=1"]), run(&["curry", &id, "--text", "a=1"]));
    run(&["std", "rm", "mine"]);
    gc(root.path());
    assert!(run(&["image", "ls"]).starts_with(&id));
    run(&["unpin", &id]);
    run(&["unpin", &run(&["curry", "grep", "--text", "pattern=x"])]);
    assert_eq!(run(&["image", "ls"]), "");
}

#[test]
fn what_is_no_image_is_refused() {
    let root = TempDir::new().unwrap();
    let error = |arguments: &[&str]| fails_with_store(root.path(), arguments);
    fs::write(root.path().join("text"), "text").unwrap();
    fs::create_dir(root.path().join("empty")).unwrap();
    for path in ["text", "empty"] {
        let error = error(&["image", "import", path]);
        assert!(
            error.contains(&format!("cannot import {path}"))
                && error.contains("not an archive of container images"),
            "{error}"
        );
    }
    assert!(error(&["image", "import", "missing"]).contains("missing does not exist"));
    let wasm = error(&["image", "export", "grep", "out.tar"]);
    assert!(wasm.contains("grep is not a container image"), "{wasm}");
    assert!(!root.path().join("out.tar").exists());
    image(root.path());
    let id = with_store(root.path(), &["image", "import", "image"]);
    let unwritable = error(&["image", "export", &id, "no/such/out.tar"]);
    assert!(unwritable.contains("cannot write no/such/out.tar"), "{unwritable}");
    let own = |name: &str, content: &str| {
        image(root.path());
        fs::write(root.path().join("image").join(name), content).unwrap();
        let error = error(&["image", "import", "image"]);
        fs::remove_dir_all(root.path().join("image")).unwrap();
        error
    };
    for (name, content, words) in [
        ("config.json", "{", "its config.json: "),
        ("base", "zzz", "its base: "),
        ("base", "docker://debian:12", "its base is docker://debian:12"),
        ("README", "", "README is neither config.json"),
        ("attributes00", "{\"path\":\"none\",\"uid\":1}", "attributes of none"),
        ("attributes01", "", "attributes01 describes no layer"),
    ] {
        let error = own(name, content);
        assert!(
            error.contains("image is not a container image") && error.contains(words),
            "{error}"
        );
    }
    for name in ["a\u{1b}[31mb", "a\nb", &"x".repeat(201), ".git"] {
        let error = error(&["std", "add", name, "fold"]);
        assert!(error.contains("cannot be the name of an image"), "{error}");
    }
}

#[test]
fn an_export_replaces_files_and_writes_to_anything_else() {
    let root = TempDir::new().unwrap();
    image(root.path());
    let id = with_store(root.path(), &["image", "import", "image", "--name", "mine"]);
    let export = |out: &str| with_store(root.path(), &["image", "export", "mine", out]);
    export("real");
    let archive = fs::read(root.path().join("real")).unwrap();
    fs::write(root.path().join("real"), "before").unwrap();
    std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
    export("link");
    assert!(fs::symlink_metadata(root.path().join("link")).unwrap().is_symlink());
    assert!(fs::read(root.path().join("real")).unwrap() == archive, "written through the link");
    let full = fails_with_store(root.path(), &["image", "export", "mine", "/dev/full"]);
    assert!(full.contains("No space left"), "{full}");
    assert!(!fs::symlink_metadata("/dev/full").unwrap().is_file());

    // An image that only a name keeps is listed.
    with_store(root.path(), &["unpin", &id]);
    let listed = with_store(root.path(), &["image", "ls"]);
    assert!(listed.starts_with(&id) && listed.ends_with("mine"), "{listed}");
}
