//! The command on git repositories, which it finds and reads as git does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn manifold(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.args(arguments).current_dir(directory).env("XDG_CACHE_HOME", directory.join(".cache"));
    command.env_remove("MANIFOLD_STORE").envs(environment.iter().copied()).output().unwrap()
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let settings =
        ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
    let output =
        Command::new("git").args(settings).args(arguments).current_dir(directory).output().unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Creates a directory with the repository `r`, which has the files `a` and `d/b` in one commit.
fn place(options: &[&str]) -> TempDir {
    let place = TempDir::new().unwrap();
    let init = [&["init", "--quiet", "--initial-branch=main"], options, &["r"]].concat();
    git(place.path(), &init);
    let root = place.path().join("r");
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("a"), "a\n").unwrap();
    fs::write(root.join("d/b"), "b\n").unwrap();
    git(&root, &["add", "--all"]);
    git(&root, &["commit", "--quiet", "--message", "one"]);
    place
}

fn leaves(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    json["result"]["text"].as_str().unwrap().trim().to_owned()
}

fn fails(directory: &Path, arguments: &[&str]) -> String {
    let output = manifold(directory, arguments, &[]);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

const FOLD: [&str; 4] = ["fold", "--no-store", "--json", "--rev"];

fn knows_reftable(place: &Path) -> bool {
    let made = Command::new("git")
        .args(["init", "--quiet", "--ref-format=reftable", "probe"])
        .current_dir(place)
        .output();
    let knows = made.unwrap().status.success();
    if !knows {
        eprintln!("SKIPPED: this git does not support reftable; git 2.45 and later do");
    }
    knows
}

#[test]
fn outcomes_are_exported_to_a_reftable_repository() {
    if !knows_reftable(TempDir::new().unwrap().path()) {
        return;
    }
    let place = place(&["--ref-format=reftable"]);
    let root = place.path().join("r");
    for salt in ["", "again"] {
        assert!(manifold(place.path(), &["fold", "r", "--salt", salt], &[]).status.success());
    }
    let exported = manifold(place.path(), &["export", "r"], &[]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let listed = git(&root, &["for-each-ref", "--format=%(refname)", "refs/manifold"]);
    assert_eq!(String::from_utf8(exported.stdout).unwrap().trim(), listed);
    assert_eq!(listed.lines().count(), 2);
    git(&root, &["gc", "--quiet", "--prune=now"]);
    assert_eq!(git(&root, &["cat-file", "-p", listed.lines().next().unwrap()]), "2");
    // Revisions are resolved as well, although gix cannot read these refs.
    assert_eq!(leaves(&manifold(&root, &[&FOLD[..], &["HEAD"]].concat(), &[])), "2");

    // Without git, the export is an error instead of a silent loss.
    let output = manifold(place.path(), &["export", "r"], &[("PATH", "/nowhere")]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("git cannot write the refs"), "{stderr}");
}

#[test]
fn git_environment_variables_are_respected() {
    let place = place(&[]);
    let other = place.path().join("other");
    git(place.path(), &["init", "--quiet", "--initial-branch=main", "other"]);
    let head = [&FOLD[..], &["HEAD"]].concat();
    let git_dir = place.path().join("r/.git").display().to_string();
    for git_dir in [&*git_dir, "../r/.git"] {
        assert_eq!(leaves(&manifold(&other, &head, &[("GIT_DIR", git_dir)])), "2");
    }
    // An empty variable counts as unset.
    assert_eq!(leaves(&manifold(&place.path().join("r"), &head, &[("GIT_DIR", "")])), "2");
    let objects = place.path().join("r/.git/objects").display().to_string();
    let commit = git(&place.path().join("r"), &["rev-parse", "HEAD"]);
    let by_id = [&FOLD[..], &[&commit]].concat();
    assert!(!manifold(&other, &by_id, &[]).status.success());
    assert_eq!(leaves(&manifold(&other, &by_id, &[("GIT_OBJECT_DIRECTORY", &objects)])), "2");
    let more = format!("/nowhere:{objects}");
    assert_eq!(
        leaves(&manifold(&other, &by_id, &[("GIT_ALTERNATE_OBJECT_DIRECTORIES", &more)])),
        "2"
    );
    let quoted = format!("\"{objects}\":");
    assert_eq!(
        leaves(&manifold(&other, &by_id, &[("GIT_ALTERNATE_OBJECT_DIRECTORIES", &quoted)])),
        "2"
    );
    // An export writes to the repository that was named, without regard to the environment.
    assert!(manifold(place.path(), &["fold", "r/d"], &[]).status.success());
    let exported = manifold(place.path(), &["export", "other"], &[("GIT_DIR", &git_dir)]);
    assert!(exported.status.success());
    assert!(!git(&other, &["for-each-ref", "refs/manifold"]).is_empty());
    assert!(git(&place.path().join("r"), &["for-each-ref", "refs/manifold"]).is_empty());
}

/// Before a push is accepted, its objects are in a quarantine directory.
#[test]
fn a_pre_receive_hook_can_fold_the_pushed_commit() {
    let place = place(&[]);
    git(place.path(), &["init", "--quiet", "--bare", "to.git"]);
    let hook = place.path().join("to.git/hooks/pre-receive");
    let found = place.path().join("found");
    let fold = format!(
        "{} fold --rev $new --no-store --json > {}",
        env!("CARGO_BIN_EXE_manifold"),
        found.display()
    );
    fs::write(&hook, format!("#!/bin/sh\nread old new ref\n{fold}\n")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    git(&place.path().join("r"), &["push", "--quiet", "../to.git", "main"]);
    let json: Value = serde_json::from_slice(&fs::read(found).unwrap()).unwrap();
    assert_eq!(json["result"]["text"], "2\n");
}

#[test]
fn each_reason_that_a_repository_cannot_be_opened_has_its_own_message() {
    let place = place(&[]);
    let copy = |name: &str| {
        assert!(
            Command::new("cp")
                .args(["-r", "r", name])
                .current_dir(place.path())
                .status()
                .unwrap()
                .success()
        );
        place.path().join(name)
    };
    let config = copy("config").join(".git/config");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "[core\n").unwrap();
    let error = fails(place.path(), &["fold", "config", "--rev", "HEAD"]);
    assert!(
        error.contains("the configuration of the repository of config has a syntax error in line"),
        "{error}"
    );
    git(&copy("version"), &["config", "core.repositoryFormatVersion", "7"]);
    let error = fails(place.path(), &["fold", "version", "--rev", "HEAD"]);
    assert!(error.contains("format version") && error.contains('7'), "{error}");
    git(place.path(), &["init", "--quiet", "--object-format=sha256", "long"]);
    for arguments in [&["fold", "long", "--rev", "HEAD"][..], &["export", "long"]] {
        assert!(fails(place.path(), arguments).contains("has SHA-256 ids"));
    }
    for name in ["config", "version"] {
        assert!(
            !fails(place.path(), &["fold", name, "--rev", "HEAD"]).contains("SHA-256"),
            "{name}"
        );
    }
    // A cycle of alternates is not an error.
    let round = copy("round");
    let objects = round.join(".git/objects");
    fs::write(objects.join("info/alternates"), format!("{0}\n{0}\n", objects.display())).unwrap();
    assert_eq!(leaves(&manifold(&round, &[&FOLD[..], &["HEAD"]].concat(), &[])), "2");
    assert_eq!(leaves(&manifold(&round, &[&FOLD[..], &["HEAD^{tree}"]].concat(), &[])), "2");
}

#[test]
fn an_object_missing_from_a_partial_clone_is_named_with_a_fix() {
    let place = place(&[]);
    git(&place.path().join("r"), &["config", "uploadpack.allowFilter", "true"]);
    let origin = format!("file://{}", place.path().join("r").display());
    for (filter, lacks) in [("blob:none", "a of the input"), ("tree:0", "HEAD of the input")] {
        let name = filter.replace(':', "-");
        let options =
            ["clone", "--quiet", "--no-checkout", &format!("--filter={filter}"), &origin, &name];
        git(place.path(), &options);
        let error = fails(place.path(), &["fold", &name, "--rev", "HEAD", "--no-store"]);
        assert!(
            error.contains("partial clone") && error.contains("git fetch --refetch"),
            "{filter}: {error}"
        );
        assert!(error.contains(lacks), "{filter}: {error}");
    }
}

#[test]
fn the_error_of_a_refused_tree_names_its_id_and_path() {
    let place = place(&[]);
    let root = place.path().join("r");
    let blob = git(&root, &["rev-parse", "HEAD:a"]);
    let raw: Vec<u8> =
        (0..40).step_by(2).map(|at| u8::from_str_radix(&blob[at..at + 2], 16).unwrap()).collect();
    let write = |mode: &str, name: &str| {
        fs::write(root.join("tree"), [format!("{mode} {name}\0").as_bytes(), &raw].concat())
            .unwrap();
        git(&root, &["hash-object", "-t", "tree", "--literally", "-w", "tree"])
    };
    // A mode that git reads for compatibility is accepted.
    let old = write("100664", "f");
    assert_eq!(leaves(&manifold(&root, &[&FOLD[..], &[&old]].concat(), &[])), "1");
    let shown = manifold(&root, &["cat", &old], &[]);
    assert_eq!(String::from_utf8(shown.stdout).unwrap().trim(), git(&root, &["ls-tree", &old]));
    let bad = write("100644", ".git");
    let bytes: Vec<u8> =
        (0..40).step_by(2).map(|at| u8::from_str_radix(&bad[at..at + 2], 16).unwrap()).collect();
    fs::write(root.join("tree"), [&b"40000 away\0"[..], &bytes].concat()).unwrap();
    let parent = git(&root, &["hash-object", "-t", "tree", "--literally", "-w", "tree"]);
    let error = fails(&root, &["fold", "--no-store", "--rev", &parent]);
    assert!(
        error.contains("cannot read away of the input") && error.contains(&format!("tree {bad}")),
        "{error}"
    );
    assert!(error.contains(".git"), "{error}");
}

/// What is left out is no part of the tree, so a fold of the directory is the request of a commit
/// without it.
#[test]
fn ignored_and_excluded_files_are_no_part_of_the_input() {
    let place = place(&[]);
    let root = place.path().join("r");
    fs::write(root.join(".gitignore"), "/build/\n").unwrap();
    git(&root, &["add", "--all"]);
    git(&root, &["commit", "--quiet", "--message", "two"]);
    fs::create_dir(root.join("build")).unwrap();
    fs::write(root.join("build/o"), "o\n").unwrap();
    let request = |arguments: &[&str]| {
        let output = manifold(place.path(), &[&["fold", "r", "--json"], arguments].concat(), &[]);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        json["request"].as_str().unwrap().to_owned()
    };
    let committed = request(&["--rev", "HEAD"]);
    assert_ne!(request(&[]), committed);
    assert_eq!(request(&["--gitignore"]), committed);
    assert_eq!(request(&["--exclude", "/build"]), committed);
    assert_eq!(request(&["--gitignore", "--exclude", "/d/*"]), {
        git(&root, &["rm", "--quiet", "-r", "d"]);
        request(&["--gitignore"])
    });

    // As an argument of an image.
    let run = ["request", "file-count", "--arg", "in=r"];
    let all = manifold(place.path(), &run, &[]);
    let some = manifold(place.path(), &[&run[..], &["--exclude", "build"]].concat(), &[]);
    assert!(all.status.success() && some.status.success());
    assert_ne!(all.stdout, some.stdout);

    for arguments in [&["--exclude", "# no pattern"][..], &["--gitignore", "--rev", "HEAD"]] {
        let output = manifold(place.path(), &[&["fold", "r"], arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
