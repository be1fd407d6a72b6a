//! The command on restricted machines: no home, read-only directories, limits on address space and
//! threads, and an unwritable standard error.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn manifold(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command
        .current_dir(directory)
        .env("XDG_CACHE_HOME", directory.join("cache"))
        .env_remove("MANIFOLD_STORE");
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Creates a directory that every user may read, with a small tree in it.
fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(place.path().join("d")).unwrap();
    fs::write(place.path().join("d/a"), "a\n").unwrap();
    place
}

/// Returns whether the tests run as root, which can switch to another user.
fn is_root() -> bool {
    String::from_utf8_lossy(&Command::new("id").arg("-u").output().unwrap().stdout).trim() == "0"
}

const NOBODY: u32 = 65534;

#[test]
fn an_empty_store_variable_is_ignored() {
    let place = place();
    for arguments in [&["fold", "d"][..], &["fold", "d", "--no-store"], &["pins"]] {
        let output =
            manifold(place.path()).args(arguments).env("MANIFOLD_STORE", "").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
    assert!(place.path().join("cache/manifold/manifold.redb").is_file());
    let output =
        manifold(place.path()).args(["fold", "d"]).env("MANIFOLD_STORE", "named").output().unwrap();
    assert!(output.status.success());
    assert!(place.path().join("named/manifold.redb").is_file());
}

#[test]
fn without_a_cache_directory_fold_uses_memory() {
    let place = place();
    // A file in place of the directory has the effect of an unwritable home, for root as well.
    fs::write(place.path().join("file"), "").unwrap();
    let fold = |command: &mut Command| {
        let output = command.args(["fold", "d", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let stderr = stderr(&output);
        assert!(stderr.starts_with("warning: ") && stderr.contains("are not stored"), "{stderr}");
        assert!(stderr.contains("--store") && stderr.lines().count() == 1, "{stderr}");
    };
    fold(manifold(place.path()).env("XDG_CACHE_HOME", place.path().join("file/cache")));
    if is_root() {
        let mut nobody = manifold(place.path());
        fold(nobody.env_clear().uid(NOBODY).gid(NOBODY));
        let mut nobody = manifold(place.path());
        fold(nobody.env_clear().env("HOME", "/").uid(NOBODY).gid(NOBODY));
    }
    // A store that was named is not replaced.
    let named = ["fold", "d", "--store", "file/store"];
    let output = manifold(place.path()).args(named).output().unwrap();
    assert!(
        !output.status.success() && stderr(&output).contains("file/store"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_read_only_store_serves_hits() {
    if !is_root() {
        eprintln!("SKIPPED: only root can switch to another user, who may not write");
        return;
    }
    let place = place();
    let output =
        manifold(place.path()).args(["fold", "d", "--json", "--store", "s"]).output().unwrap();
    assert!(output.status.success());
    fs::set_permissions(place.path().join("s"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(place.path().join("s/manifold.redb"), fs::Permissions::from_mode(0o444))
        .unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = manifold(place.path());
        command.args(arguments).args(["--store", "s"]).uid(NOBODY).gid(NOBODY).output().unwrap()
    };
    let pins = as_nobody(&["pins"]);
    assert!(pins.status.success() && stderr(&pins).is_empty(), "{}", stderr(&pins));
    let pin = String::from_utf8(pins.stdout).unwrap();
    let outcome = pin.split_whitespace().nth(2).unwrap();
    let cat = as_nobody(&["cat", outcome]);
    assert!(cat.status.success() && cat.stdout == b"1\n", "{}", stderr(&cat));
    assert!(as_nobody(&["verify"]).status.success());
    let fold = as_nobody(&["fold", "d", "--json"]);
    assert!(fold.status.success() && stderr(&fold).contains("is read-only"), "{}", stderr(&fold));
    assert!(
        String::from_utf8_lossy(&fold.stdout).contains("\"runs\":0,\"hits\":1"),
        "it comes from the store"
    );
    for arguments in [&["gc"][..], &["unpin", &"ab".repeat(20)]] {
        let output = as_nobody(arguments);
        assert!(
            !output.status.success() && stderr(&output).contains("ermission denied"),
            "{}",
            stderr(&output)
        );
    }
}

/// Runs a line of shell, with the path of the command in `$M`.
fn shell(place: &Path, line: &str) -> Output {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(line).current_dir(place).env("M", env!("CARGO_BIN_EXE_manifold"));
    shell
        .env("XDG_CACHE_HOME", place.join("cache"))
        .env_remove("MANIFOLD_STORE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn limited_address_space_disables_the_pool_with_one_warning() {
    let place = place();
    fs::write(place.path().join("ok.ts"), "export default (): string => 'ok';").unwrap();
    // Less than the pool reserves, which is terabytes.
    for kib in ["1000000000", "12000000"] {
        let output = shell(
            place.path(),
            &format!("ulimit -v {kib}; $M fold d --no-store --json --repeat 2"),
        );
        assert!(output.status.success(), "{kib}: {}", stderr(&output));
        assert_eq!(stderr(&output).matches("warning: ").count(), 1, "{kib}: {}", stderr(&output));
        assert!(stderr(&output).contains("address space"), "{kib}: {}", stderr(&output));
        // A command that runs no wasm prints no warning.
        let output = shell(
            place.path(),
            &format!("ulimit -v {kib}; $M cat 4b825dc642cb6eb9a060e54bf8d69288fbee4904"),
        );
        assert!(
            output.status.success() && stderr(&output).is_empty(),
            "{kib}: {}",
            stderr(&output)
        );
        if cfg!(feature = "v8") {
            let output =
                shell(place.path(), &format!("ulimit -v {kib}; $M run ok.ts --no-store --raw"));
            match kib {
                "12000000" => {
                    assert_eq!(output.status.code(), Some(6));
                    assert!(
                        stderr(&output).contains("V8 needs 34 GiB of address space"),
                        "{}",
                        stderr(&output)
                    );
                }
                _ => {
                    assert!(
                        output.status.success() && stderr(&output).is_empty(),
                        "{kib}: {}",
                        stderr(&output)
                    );
                    assert_eq!(output.stdout, b"ok");
                }
            }
        }
    }
}

#[test]
fn a_limit_on_threads_is_an_error_without_a_panic() {
    if !is_root() {
        eprintln!("SKIPPED: only root can switch to a user who has no other processes");
        return;
    }
    let place = place();
    fs::create_dir(place.path().join("cache")).unwrap();
    fs::set_permissions(place.path().join("cache"), fs::Permissions::from_mode(0o777)).unwrap();
    for threads in [1, 2, 3, 4, 6, 8, 12, 200] {
        let uid = 54_321 + threads;
        let line = format!(
            "ulimit -u {threads}; exec setpriv --reuid={uid} --regid={uid} --clear-groups $M fold d --no-store --json"
        );
        let output = shell(place.path(), &line);
        let stderr = stderr(&output);
        match output.status.code() {
            Some(0) => assert!(!stderr.contains("thread '"), "{threads}: {stderr}"),
            Some(6) => assert!(
                stderr.starts_with("{\"error\":") && !stderr.contains("thread '"),
                "{threads}: {stderr}"
            ),
            other => panic!("{threads}: {other:?}: {stderr}"),
        }
    }
}

#[test]
fn an_unwritable_standard_error_does_not_change_the_status() {
    let place = place();
    for to in ["2>/dev/full", "2>&-"] {
        for (arguments, status) in
            [("fold nowhere --no-store", 3), ("fold d --no-store", 0), ("-v fold d --no-store", 0)]
        {
            let output = shell(place.path(), &format!("$M {arguments} {to}"));
            assert_eq!(output.status.code(), Some(status), "{arguments} {to}");
        }
        // A warning does not change the status either.
        let output = shell(place.path(), &format!("XDG_CACHE_HOME=/dev/null/x $M fold d {to}"));
        assert_eq!(output.status.code(), Some(0), "{to}");
    }
    let output = shell(
        place.path(),
        "{ $M fold nowhere --no-store; echo $? > status; } 2>&1 | true; sleep 1; cat status",
    );
    assert_eq!(output.stdout, b"3\n");
}

#[test]
fn every_limit_and_budget_has_an_option() {
    let place = place();
    let breach = |option: &str, value: &str, arguments: &[&str]| {
        let output = manifold(place.path())
            .args(arguments)
            .args(["--no-store", option, value])
            .output()
            .unwrap();
        assert!(!output.status.success(), "{option} {value}");
        let stderr = stderr(&output);
        assert!(
            stderr.contains("limit breached") || stderr.contains("bytes for a file"),
            "{option} {value}: {stderr}"
        );
        if option != "--max-file" {
            assert!(stderr.contains(&format!("{option} raises this limit")), "{option}: {stderr}");
        }
        let raised = match value {
            "0ms" | "1us" => "1h",
            _ => "100000000",
        };
        let output = manifold(place.path())
            .args(arguments)
            .args(["--no-store", option, raised])
            .output()
            .unwrap();
        assert!(output.status.success(), "{option} {raised}: {}", self::stderr(&output));
    };
    let fold: &[&str] = &["fold", "d", "--post", "line-count"];
    fs::write(place.path().join("d/large"), vec![b'\n'; 300_000]).unwrap();
    fs::create_dir_all(place.path().join("d/deep/er")).unwrap();
    fs::write(place.path().join("d/deep/er/f"), "f\n").unwrap();
    for (option, value) in [
        ("--max-file", "1KiB"),
        ("--max-memory", "64KiB"),
        ("--max-fuel", "100"),
        ("--max-request", "10B"),
        ("--max-response", "100KiB"),
        ("--max-module", "100B"),
        ("--total-fuel", "100"),
        ("--total-memory", "64KiB"),
        ("--total-depth", "1"),
        ("--total-runs", "2"),
        ("--total-written", "10B"),
    ] {
        breach(option, value, fold);
    }
    // The limits on tables and computing time need a guest of their own.
    let spin = "(module (memory (export \"memory\") 1) (table 1000 funcref) (func (export \"caos_run\") (loop (br 0))))";
    fs::write(place.path().join("spin.wasm"), wat::parse_str(spin).unwrap()).unwrap();
    for (option, value, words) in [
        ("--max-compute-time", "50ms", "computing time"),
        ("--max-table", "10", "table of 10 elements"),
    ] {
        let run = ["run", "spin.wasm", "--no-store", "--max-compute-time", "1s"];
        let run = if option == "--max-table" { &run[..] } else { &run[..3] };
        let output = manifold(place.path()).args(run).args([option, value]).output().unwrap();
        assert!(
            !output.status.success() && stderr(&output).contains(words),
            "{option}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(&format!("{option} raises")),
            "{option}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_module_of_40_mib_is_accepted() {
    let place = place();
    // A large custom section, like the ones that hold debug information.
    let mut module = wat::parse_str(EMPTY_TREE_GUEST).unwrap();
    let bytes = 40 << 20;
    let mut length = bytes + 2;
    module.push(0);
    while length >= 0x80 {
        module.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    module.push(length as u8);
    module.extend([1, b'd']);
    module.resize(module.len() + bytes, 0);
    fs::write(place.path().join("large.wasm"), module).unwrap();
    let output = manifold(place.path()).args(["run", "large.wasm", "--no-store"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// A guest whose outcome is the empty tree.
pub(crate) const EMPTY_TREE_GUEST: &str = r#"(module
    (import "caos_abi_v1" "call" (func $call (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "{\22op\22:\22out\22,\22kind\22:\22tree\22,\22hash\22:\224b825dc642cb6eb9a060e54bf8d69288fbee4904\22}")
    (func (export "caos_run") (drop (call $call (i32.const 0) (i32.const 76)))))"#;
