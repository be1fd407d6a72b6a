//! The store of the command across processes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use manifold_dispatcher::{DurableStore, Store};
use serde_json::Value;
use tempfile::TempDir;

/// A temporary directory with a tree to fold, and room for a cache directory and a repository.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        for (name, content) in
            [("a", "one\n"), ("b/c", "two\nlines\n"), ("b/d/e", ""), ("b/d/f", "four\n")]
        {
            let path = place.path("tree").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn manifold(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
        command.args(arguments).current_dir(self.0.path());
        command
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env_remove("MANIFOLD_STORE")
            .output()
            .unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.manifold(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "manifold {arguments:?}: {errors}");
        assert_eq!(errors, "", "manifold {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.manifold(arguments);
        assert!(!output.status.success(), "manifold {arguments:?} succeeds");
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeeds(arguments)).unwrap()
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output =
            Command::new("git").args(arguments).current_dir(self.path("repo")).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn runs(report: &Value) -> u64 {
    assert_eq!(report["result"]["text"], "4\n", "{report}");
    report["repeats"][0]["runs"].as_u64().unwrap()
}

#[test]
fn a_second_process_computes_nothing() {
    let place = Place::new();
    let fold = ["fold", "tree", "--json"];
    let first = place.json(&fold);
    assert_eq!(runs(&first), 10, "three directories twice, and four files");
    assert!(place.path("cache/manifold/manifold.redb").exists());
    let second = place.json(&fold);
    assert_eq!((runs(&second), &second["request"]), (0, &first["request"]));
    assert_eq!(runs(&place.json(&["fold", "tree", "--json", "--recompute"])), 10);
    assert_eq!(runs(&place.json(&["fold", "tree", "--json", "--no-store"])), 10);
    assert_eq!(runs(&place.json(&["fold", "tree", "--json", "--store", "elsewhere"])), 10);
    assert_eq!(runs(&place.json(&["fold", "tree", "--json", "--store", "elsewhere"])), 0);

    // A change reruns only what depends on it.
    fs::write(place.path("tree/a"), "another\n").unwrap();
    assert_eq!(
        runs(&place.json(&fold)),
        3,
        "the file's visit, and the top directory's fold and visit"
    );
    let hash = first["result"]["hash"].as_str().unwrap();
    assert_eq!(place.succeeds(&["cat", hash]), "4\n", "objects of earlier processes can be read");
}

#[test]
fn the_option_no_store_writes_no_files() {
    let place = Place::new();
    place.succeeds(&["fold", "tree", "--no-store"]);
    assert!(!place.path("cache").exists());
}

#[test]
fn pinned_outcomes_survive_collections_until_they_are_unpinned() {
    let place = Place::new();
    let all_but_pins = ["gc", "--used-within", "0s", "--written-within", "0s", "--json"];
    let counted = place.json(&["fold", "tree", "--json"]);
    let measured = place.json(&["fold", "tree", "--json", "--post", "total-size", "--no-pin"]);
    let request = counted["request"].as_str().unwrap();
    let pin = place.json(&["pins", "--json"]);
    assert_eq!((&pin["request"], &pin["hash"]), (&counted["request"], &counted["result"]["hash"]));
    let hash = counted["result"]["hash"].as_str().unwrap();
    let tree = place.path("tree");
    assert_eq!(
        (&pin["image"], &pin["args"]["post"], &pin["input"]),
        (&"fold".into(), &"file-count".into(), &tree.to_str().into())
    );
    let line = place.succeeds(&["pins"]);
    assert!(line.starts_with(&format!("{request} blob {hash}  20")), "{line}");
    assert!(line.contains("Z  fold in=tree ") && line.contains(" post=file-count  /"), "{line}");
    assert!(line.ends_with("/tree\n"), "{line}");

    let kept = place.json(&["gc", "--json"]);
    assert_eq!(kept["dropped"]["objects"], 0, "everything was used recently: {kept}");
    let collected = place.json(&all_but_pins);
    assert_eq!(
        (&collected["kept"]["pins"], &collected["kept"]["entries"]),
        (&1.into(), &2.into()),
        "the outcome with the record of its run, and the note on its input: {collected}"
    );
    assert!(collected["dropped"]["objects"].as_u64().unwrap() > 5, "{collected}");
    assert_eq!(place.json(&["verify", "--json"])["damages"], Value::Array(Vec::new()));
    assert_eq!(runs(&place.json(&["fold", "tree", "--json"])), 0, "pinned");
    let again = place.json(&["fold", "tree", "--json", "--post", "total-size", "--no-pin"]);
    assert_ne!(again["repeats"][0]["runs"], 0, "not pinned");
    assert_eq!(again["result"], measured["result"]);

    place.succeeds(&["unpin", request]);
    assert_eq!(place.succeeds(&["pins"]), "");
    assert!(place.fails(&["unpin", request]).contains("is not pinned"));
    let collected = place.json(&all_but_pins);
    assert_eq!(
        (&collected["kept"]["objects"], &collected["kept"]["entries"]),
        (&0.into(), &0.into()),
        "{collected}"
    );
    assert!(place.succeeds(&["gc"]).contains("kept    objects: 0"));
}

#[test]
fn exported_outcomes_pass_git_fsck_and_survive_git_gc() {
    let place = Place::new();
    let counted = place.json(&["fold", "tree", "--json"]);
    // An outcome that is a tree, whose objects come from the directory.
    let tree = place.json(&["run", "dirs-only", "--arg", "in=tree", "--json"]);
    assert_eq!(tree["result"]["kind"], "tree");
    let request = |report: &Value| report["request"].as_str().unwrap().to_owned();
    let name = |report: &Value| format!("refs/manifold/{}", request(report));
    fs::remove_dir_all(place.path("tree")).unwrap();

    fs::create_dir(place.path("repo")).unwrap();
    place.git(&["init", "--quiet"]);
    let exported = place.succeeds(&["export", "repo", &request(&counted)]);
    assert_eq!(exported, format!("{}\n", name(&counted)));
    let mut expected = vec![name(&counted), name(&tree)];
    expected.sort();
    for _ in 0..2 {
        assert_eq!(
            place.succeeds(&["export", "repo"]).lines().collect::<Vec<_>>(),
            expected,
            "again, and all"
        );
    }
    place.git(&["fsck", "--strict", "--full"]);
    place.git(&["gc", "--quiet", "--prune=now"]);
    place.git(&["fsck", "--strict", "--full"]);
    assert_eq!(place.git(&["cat-file", "-p", &name(&counted)]), "4\n");
    let listed = place.git(&["ls-tree", "-r", &name(&tree)]);
    assert!(listed.lines().count() > 0, "{listed}");
    assert!(place.fails(&["export", "repo", &"7".repeat(40)]).contains("is not pinned"));
    assert!(place.fails(&["export", "cache"]).contains("is not in a git repository"));
}

#[test]
fn a_damaged_store_is_reported() {
    let place = Place::new();
    place.succeeds(&["fold", "tree", "--store", "store"]);
    let file = place.path("store/manifold.redb");
    let sound = fs::read(&file).unwrap();
    let verify = ["verify", "--store", "store"];
    place.succeeds(&verify);

    fs::write(&file, &sound[..sound.len() / 3]).unwrap();
    for command in [&["fold", "tree", "--store", "store"][..], &verify, &["gc", "--store", "store"]]
    {
        let error = place.fails(command);
        assert!(
            error.contains("is damaged") && error.contains("delete it"),
            "{command:?}: {error}"
        );
    }

    // Flips a bit of an object's content in all its copies, because unused pages hold copies too.
    // The whole file is checked when it is opened, because it is small.
    let mut flipped = sound.clone();
    let content = b"caos_abi_v1";
    let places = (0..sound.len() - content.len()).filter(|at| sound[*at..].starts_with(content));
    places.for_each(|at| flipped[at] ^= 1);
    assert_ne!(flipped, sound);
    fs::write(&file, &flipped).unwrap();
    assert!(place.fails(&verify).contains("damaged"));
    fs::remove_file(&file).unwrap();
    assert_eq!(runs(&place.json(&["fold", "tree", "--store", "store", "--json"])), 10);
}

#[test]
fn a_store_in_exclusive_use_is_an_error_or_replaced_by_memory() {
    let place = Place::new();
    let error = |command: &[&str]| place.fails(command);
    fs::create_dir_all(place.path("cache/manifold")).unwrap();
    let alone = redb::Database::create(place.path("cache/manifold/manifold.redb")).unwrap();
    assert!(
        error(&["fold", "tree", "--store", "cache/manifold"]).contains("in use by another process")
    );
    assert!(error(&["verify"]).contains("in use by another process"));
    let output = place.manifold(&["fold", "tree"]);
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && warning.starts_with("warning: "), "{warning}");
    assert!(warning.contains("are not stored"), "{warning}");
    drop(alone);
}

#[test]
fn a_store_that_another_process_has_open_is_shared() {
    let place = Place::new();
    let here = DurableStore::open(place.path("store")).unwrap();
    assert_eq!(runs(&place.json(&["fold", "tree", "--store", "store", "--json"])), 10);
    assert_eq!(runs(&place.json(&["fold", "tree", "--store", "store", "--json"])), 0);
    assert_eq!(here.pins().unwrap().len(), 1);
}

#[test]
fn a_store_that_cannot_be_created_is_an_error() {
    let place = Place::new();
    let error = place.fails(&["fold", "tree", "--store", "tree/a"]);
    assert!(error.contains("cannot be opened") && error.contains("tree/a"), "{error}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command
        .args(["pins"])
        .current_dir(place.0.path())
        .env("MANIFOLD_STORE", "tree/a")
        .env_remove("XDG_CACHE_HOME");
    assert!(!command.output().unwrap().status.success(), "the variable names a store as well");
}

/// The shell limits the size of files, and ignores the signal, so that the write fails instead of
/// ending the process.
#[test]
fn a_full_disk_is_an_error_and_leaves_the_store_sound() {
    let place = Place::new();
    for number in 0..3000 {
        let path = place.path(&format!("large/{}/{number}", number / 100));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{number}\n")).unwrap();
    }
    let fold = |blocks: &str| {
        let script = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" fold large --store store --json"
        );
        Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_manifold")])
            .current_dir(place.0.path())
            .output()
            .unwrap()
    };
    for blocks in ["100", "500", "1500"] {
        let output = fold(blocks);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "the fold fits into {blocks} blocks");
        assert!(errors.contains("manifold.redb") && errors.contains("File too large"), "{errors}");
        if place.path("store/manifold.redb").exists() {
            assert_eq!(
                place.json(&["verify", "--store", "store", "--json"])["damages"],
                Value::Array(Vec::new())
            );
        }
    }
    let output = fold("unlimited");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["result"]["text"], "3000\n");
}

#[test]
fn a_deadline_ends_a_run() {
    let place = Place::new();
    let forever = r#"(module (memory (export "memory") 1) (func (export "caos_run") (loop $again (br $again))))"#;
    fs::write(place.path("forever.wasm"), wat::parse_str(forever).unwrap()).unwrap();
    let error = place.fails(&["run", "forever.wasm", "--deadline", "100ms", "--no-store"]);
    assert!(error.contains("deadline of 100ms for the whole call"), "{error}");
    assert!(error.contains("in request"), "{error}");
    assert!(
        place.fails(&["run", "forever.wasm", "--deadline", "soon"]).contains("invalid value"),
        "not a duration"
    );
}

#[test]
fn invalid_option_values_are_refused() {
    let place = Place::new();
    assert!(place.fails(&["gc", "--max-size", "much"]).contains("invalid value"));
    assert!(place.fails(&["unpin"]).contains("required"));
    assert!(place.fails(&["unpin", "xyz"]).contains("invalid object id"));
    assert!(Path::new(env!("CARGO_BIN_EXE_manifold")).exists());
}
