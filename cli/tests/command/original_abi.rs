//! The command runs a guest of the original system.

use manifold_testing::built;

/// Runs the fold of the original system from the command, with the standard images.
#[test]
fn the_original_fold_finds_itself_among_the_standard_images() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(
        place.path().join("fold_wasm.wasm"),
        std::fs::read(built("wasip1-guest.wasm")).unwrap(),
    )
    .unwrap();
    std::fs::create_dir_all(place.path().join("tree/d")).unwrap();
    for file in ["a", "d/b", "d/c"] {
        std::fs::write(place.path().join("tree").join(file), "x").unwrap();
    }
    // A name that was written by `echo` ends with a line feed.
    std::fs::write(place.path().join("name"), "/cas/std/file-count\n").unwrap();
    for post in [&["--text", "post=/cas/std/file-count"], &["--arg", "post=name"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_manifold"))
            .args(["run", "fold_wasm.wasm", "--no-store", "--raw", "--arg", "in=tree"])
            .args(post)
            .current_dir(place.path())
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "3\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
