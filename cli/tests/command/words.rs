//! The messages of the command: errors of guests and of files that are not guests, the log, and the
//! escaping of control characters.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn manifold(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manifold"));
    command.args(arguments).current_dir(directory).env("XDG_CACHE_HOME", directory.join(".cache"));
    command.env_remove("MANIFOLD_STORE").output().unwrap()
}

fn errors(directory: &Path, arguments: &[&str]) -> String {
    let output = manifold(directory, arguments);
    assert!(!output.status.success(), "{arguments:?} succeeds");
    String::from_utf8(output.stderr).unwrap()
}

fn stdout(directory: &Path, arguments: &[&str]) -> String {
    let output = manifold(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Assembles a wasm guest that sends `requests`, and then traps if `traps` is set.
fn wasm(requests: &[&str], traps: bool) -> Vec<u8> {
    let (mut data, mut calls, mut at) = (String::new(), String::new(), 0);
    for request in requests {
        let escaped: String = request.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        data += &format!("(data (i32.const {at}) \"{escaped}\")");
        calls += &format!("(drop (call $call (i32.const {at}) (i32.const {})))", request.len());
        at += request.len();
    }
    let end = if traps { "unreachable" } else { "" };
    let text = format!(
        "(module (import \"caos_abi_v1\" \"call\" (func $call (param i32 i32) (result i32)))
            (memory (export \"memory\") 1) {data} (func (export \"caos_run\") {calls} {end}))"
    );
    wat::parse_str(text).unwrap()
}

const OUT: &str = r#"{"op":"out","kind":"tree","hash":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"}"#;

#[test]
fn a_path_that_is_not_a_guest_is_an_error_that_lists_the_kinds() {
    let place = TempDir::new().unwrap();
    for (name, content) in [("notes.txt", "text"), ("guest.py", "print()"), ("noname", "")] {
        fs::write(place.path().join(name), content).unwrap();
        let error = errors(place.path(), &["run", name, "--no-store"]);
        assert!(
            error.contains(&format!("{name} is not a guest")) && error.contains("a .wasm file"),
            "{error}"
        );
    }
    fs::create_dir(place.path().join("empty")).unwrap();
    let error = errors(place.path(), &["run", "empty", "--no-store"]);
    assert!(
        error.contains("directory empty is not a guest") && error.contains("main.ts"),
        "{error}"
    );
    // A wasm module is recognized under any name.
    fs::write(place.path().join("module.bin"), wasm(&[OUT], false)).unwrap();
    assert!(stdout(place.path(), &["run", "module.bin", "--no-store"]).starts_with("tree "));
}

#[test]
fn a_file_that_is_not_a_core_module_is_a_one_line_error() {
    let place = TempDir::new().unwrap();
    for (content, words) in [
        (&b"(module)"[..], "WebAssembly as text (wat)"),
        (b";; a comment\n(module)", "WebAssembly as text (wat)"),
        (b"\0asm\x0d\0\x01\0", "a WebAssembly component; build it as a core module"),
        (b"(component)", "component as text"),
        (b"\x1f\x8b\x08\0\0\0", "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd\0", "compressed with zstd"),
        (b"\x7fELF\x02", "a program for this machine (ELF)"),
        (b"", "it is empty"),
        (b"\0asm", "cut short"),
        (b"\0asm\x02\0\0\0", "another version"),
        (b"<html>", "no WebAssembly module"),
    ] {
        fs::write(place.path().join("m.wasm"), content).unwrap();
        let error = errors(place.path(), &["run", "m.wasm", "--no-store"]);
        assert!(error.contains(words), "{error}");
        assert_eq!(
            error.lines().filter(|line| !line.starts_with("      in request")).count(),
            1,
            "{error}"
        );
    }
}

#[test]
fn control_characters_of_guests_are_escaped() {
    let place = TempDir::new().unwrap();
    let has_control_characters =
        |text: &str| text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    // In the message of a failing guest, with a line that imitates an error of the command.
    let fail = r#"{"op":"fail","message":"\u001b]0;title\u0007\u001b[2Jgone\r\nerror: forged\u009b\u202e"}"#;
    fs::write(place.path().join("fails.wasm"), wasm(&[fail], false)).unwrap();
    let error = errors(place.path(), &["run", "fails.wasm", "--no-store"]);
    assert!(
        !has_control_characters(&error) && error.contains("\\u{1b}]0;title\\u{7}"),
        "{error:?}"
    );
    assert_eq!(error.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{error:?}");

    // In the log, where each line follows the start of the request's id.
    let log = r#"{"op":"log","msg":"\u001b[31mred\u0007\nerror: forged"}"#;
    fs::write(place.path().join("logs.wasm"), wasm(&[log, OUT], false)).unwrap();
    let logged = manifold(place.path(), &["run", "logs.wasm", "--no-store", "--log", "--json"]);
    let stderr = String::from_utf8(logged.stderr).unwrap();
    let request =
        String::from_utf8(logged.stdout).unwrap().split('"').nth(3).unwrap()[..12].to_owned();
    assert_eq!(stderr, format!("{request} \\u{{1b}}[31mred\\u{{7}}\n{request} error: forged\n"));

    // In an outcome that is shown, but not in one that is printed with --raw.
    let put = r#"{"op":"put_blob","bytes_b64":"G1szMW1yZWQHCg=="}"#;
    let out = r#"{"op":"out","kind":"blob","hash":"e4b4a8d0b5f7f3a1b3b8a1b3b8a1b3b8a1b3b8a1"}"#;
    let content = b"\x1b[31mred\x07\n";
    let id = manifold_runtime_api::ObjectId::of(manifold_runtime_api::ObjectKind::Blob, content)
        .to_string();
    let out = out.replace("e4b4a8d0b5f7f3a1b3b8a1b3b8a1b3b8a1b3b8a1", &id);
    fs::write(place.path().join("answers.wasm"), wasm(&[put, &out], false)).unwrap();
    let run = ["run", "answers.wasm", "--no-store"];
    let shown = stdout(place.path(), &run);
    assert!(
        !has_control_characters(&shown) && shown.contains("\\u{1b}[31mred\\u{7}\n"),
        "{shown:?}"
    );
    assert!(!has_control_characters(&stdout(place.path(), &[&run[..], &["--json"]].concat())));
    assert_eq!(stdout(place.path(), &[&run[..], &["--raw"]].concat()).as_bytes(), content);

    // In names: of tree entries, as git quotes them, and of a path that does not exist.
    fs::create_dir(place.path().join("d")).unwrap();
    fs::write(place.path().join("d/\x1b[2J\u{e9}"), "x").unwrap();
    let folded = stdout(place.path(), &["run", "dirs-only", "--arg", "in=d", "--json"]);
    assert!(!has_control_characters(&folded));
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(place.path().join("d"))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "--quiet", "."]);
    git(&["add", "--all"]);
    let tree = git(&["write-tree"]);
    assert_eq!(
        stdout(&place.path().join("d"), &["cat", tree.trim()]),
        git(&["ls-tree", tree.trim()])
    );
    assert!(!has_control_characters(&errors(place.path(), &["fold", "no\x1b[2Jwhere"])));
}

#[test]
fn the_option_log_shows_the_log_of_guests() {
    let place = TempDir::new().unwrap();
    // A WASI program writes a line in pieces, and a last line without a line end.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "caos_abi_v1" "call" (func $call (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "OUT") (data (i32.const 200) "one \00\00two\0athree")
        (func $say (param $at i32) (param $length i32)
            (i32.store (i32.const 300) (local.get $at)) (i32.store (i32.const 304) (local.get $length))
            (drop (call $write (i32.const 2) (i32.const 300) (i32.const 1) (i32.const 320))))
        (func (export "caos_run")
            (call $say (i32.const 200) (i32.const 4)) (call $say (i32.const 206) (i32.const 9))
            (drop (call $call (i32.const 0) (i32.const 76)))))"#;
    let escaped: String = OUT.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    fs::write(
        place.path().join("wasi.wasm"),
        wat::parse_str(text.replace("OUT", &escaped)).unwrap(),
    )
    .unwrap();
    let quiet = manifold(place.path(), &["run", "wasi.wasm", "--no-store"]);
    assert!(quiet.status.success() && quiet.stderr.is_empty());
    let logged = manifold(place.path(), &["run", "wasi.wasm", "--no-store", "--log"]);
    let stderr = String::from_utf8(logged.stderr).unwrap();
    let lines: Vec<_> = stderr.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(lines.iter().map(|(_, line)| *line).collect::<Vec<_>>(), ["one two", "three"]);
    assert!(
        lines.iter().all(|(request, _)| request.len() == 12 && *request == lines[0].0),
        "{stderr}"
    );

    let verbose = manifold(place.path(), &["-v", "run", "wasi.wasm", "--no-store"]);
    let stderr = String::from_utf8(verbose.stderr).unwrap();
    assert!(
        stderr.contains("run started")
            && stderr.contains("run succeeded")
            && stderr.contains("manifold_dispatcher"),
        "{stderr}"
    );
}

#[test]
fn the_error_of_a_trap_quotes_the_last_log_message() {
    let place = TempDir::new().unwrap();
    let log = r#"{"op":"log","msg":"panicked at main.rs:1: no"}"#;
    fs::write(place.path().join("traps.wasm"), wasm(&[log], true)).unwrap();
    let error = errors(place.path(), &["run", "traps.wasm", "--no-store"]);
    assert!(
        error.contains("the guest trapped")
            && error.contains("because: the guest's log ends with: panicked at main.rs:1: no"),
        "{error}"
    );
}

#[cfg(feature = "v8")]
#[test]
fn symbolic_links_in_a_guest_directory_are_followed() {
    use std::os::unix::fs::symlink;

    let place = TempDir::new().unwrap();
    let path = |name: &str| place.path().join(name);
    for directory in ["real/lib", "linked", "round"] {
        fs::create_dir_all(path(directory)).unwrap();
    }
    fs::write(
        path("real/main.ts"),
        "import { x } from './lib/x.ts'; export default (): string => x;",
    )
    .unwrap();
    fs::write(path("real/lib/x.ts"), "export const x: string = 'ok';").unwrap();
    symlink("../real/main.ts", path("linked/main.ts")).unwrap();
    symlink("../real/lib", path("linked/lib")).unwrap();
    for directory in ["real", "linked"] {
        assert_eq!(
            stdout(place.path(), &["run", directory, "--raw", "--no-store"]),
            "ok",
            "{directory}"
        );
    }
    fs::write(path("round/main.ts"), "export default () => 'ok';").unwrap();
    symlink(".", path("round/again")).unwrap();
    let error = errors(place.path(), &["run", "round", "--no-store"]);
    assert!(error.contains("round/again leads back to a directory that contains it"), "{error}");
    fs::remove_file(path("round/again")).unwrap();
    symlink("nowhere.ts", path("round/gone.ts")).unwrap();
    let error = errors(place.path(), &["run", "round", "--no-store"]);
    assert!(error.contains("cannot read round/gone.ts"), "{error}");
}

#[cfg(feature = "v8")]
#[test]
fn a_js_file_is_run_as_javascript() {
    let place = TempDir::new().unwrap();
    let code =
        "const min = 1, max = 3; export default () => min < max > (0) ? 'inside' : 'outside';";
    for name in ["guest.js", "guest.mjs"] {
        fs::write(place.path().join(name), code).unwrap();
        assert_eq!(stdout(place.path(), &["run", name, "--raw", "--no-store"]), "inside", "{name}");
    }
}
