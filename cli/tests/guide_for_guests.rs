//! The guide `docs/writing-a-guest.md`, followed to the letter.
#![cfg(feature = "v8")]

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Makes the guide's commands work in a checkout and without a network.
const PRELUDE: &str = r#"
set -eu
manifold() {
    # In the guide, PATH is the path of a checkout.
    "$MANIFOLD" "${@/#PATH/$CHECKOUT}"
}
cargo() {
    [ -f Cargo.lock ] || cp "$CHECKOUT/guest-sdk/rust/Cargo.lock" .
    command cargo "$@" --offline
}
rustup() { :; }
"#;

/// Runs a block of commands, and returns what they print.
fn run(place: &Path, block: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", &[PRELUDE, block].concat()])
        .current_dir(place)
        .env("MANIFOLD", env!("CARGO_BIN_EXE_manifold"))
        .env("CHECKOUT", Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .env("XDG_CACHE_HOME", place.join(".cache"))
        .env_remove("MANIFOLD_STORE")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs every `sh` block in the guide's order. `<!-- file: PATH -->` precedes the content of a
/// file, and `<!-- prints: TEXT -->` commands whose output contains the text.
#[test]
fn the_guide_ends_in_guests_that_work() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/writing-a-guest.md");
    let guide = fs::read_to_string(guide).unwrap();
    let place = TempDir::new().unwrap();
    let mut comment = "";
    let (mut files, mut outputs) = (0, 0);
    let mut rest = guide.as_str();
    while let Some((before, after)) = rest.split_once("```") {
        if let Some((_, last)) = before.rsplit_once("<!-- ") {
            comment = last.trim_end().trim_end_matches(" -->");
        }
        let (block, next) = after.split_once("\n```\n").unwrap();
        let (language, block) = block.split_once('\n').unwrap();
        if let Some(path) = comment.strip_prefix("file: ") {
            let path = place.path().join(path);
            if path.ends_with("each/main.ts") {
                run(place.path(), "mkdir each && cp words-ts/sdk.ts each/");
            }
            fs::write(path, format!("{block}\n")).unwrap();
            files += 1;
        } else {
            assert_eq!(language, "sh", "{block}");
            let output = run(place.path(), block);
            if let Some(text) = comment.strip_prefix("prints: ") {
                assert!(output.contains(text), "{block}: {output}");
                outputs += 1;
            }
        }
        comment = "";
        rest = next;
    }
    assert!(files >= 5 && outputs >= 4, "{files} files, {outputs} outputs");
}
