//! What is read back, what is not, and what is removed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use manifold_cached_files::{CachedFiles, PREFIX};
use tempfile::TempDir;

fn paths(place: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.path().join("cache")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn files(place: &TempDir, kind: &'static str) -> CachedFiles {
    CachedFiles::new(place.path().join("cache"), kind, 1000)
}

#[test]
fn what_was_written_is_read() {
    let place = TempDir::new().unwrap();
    let files = files(&place, "letters-1");
    assert_eq!(files.read("a"), None);
    files.write("a", &[b"one ", b"", b"two"]);
    assert_eq!(files.read("a").unwrap(), b"one two");
    files.write("a", &[b"three"]);
    files.write("empty", &[]);
    assert_eq!(
        (files.read("a").unwrap(), files.read("empty").unwrap()),
        (b"three".to_vec(), vec![])
    );
    for path in paths(&place) {
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with(PREFIX), "{path:?}");
    }
}

#[test]
fn damaged_files_and_those_of_another_kind_are_not_read() {
    let place = TempDir::new().unwrap();
    let (letters, others) = (files(&place, "letters-1"), files(&place, "letters-2"));
    letters.write("a", &[b"content"]);
    let path = &paths(&place)[0];
    let sound = fs::read(path).unwrap();
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        fs::write(path, &damaged).unwrap();
        assert_eq!(letters.read("a"), None);
        fs::write(path, &sound[..at]).unwrap();
        assert_eq!(letters.read("a"), None);
    }
    fs::write(path, &sound).unwrap();
    assert!(letters.read("a").is_some());
    fs::rename(path, path.to_str().unwrap().replace("letters-1", "letters-2")).unwrap();
    assert_eq!(others.read("a"), None);
    letters.write("a", &[b"content"]);
    let path = paths(&place).into_iter().find(|path| path.to_str().unwrap().ends_with("1-a"));
    let path = path.unwrap();
    fs::rename(&path, path.with_file_name(format!("{PREFIX}letters-1-b"))).unwrap();
    assert_eq!(letters.read("b"), None);
}

#[cfg(unix)]
#[test]
fn only_private_files_are_read() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let place = TempDir::new().unwrap();
    let files = files(&place, "letters-1");
    files.write("a", &[b"content"]);
    let path = &paths(&place)[0];
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(path), mode(&place.path().join("cache"))), (0o600, 0o700));
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(files.read("a"), None);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(files.read("a").is_some());
    let moved = place.path().join("moved");
    fs::rename(path, &moved).unwrap();
    symlink(&moved, path).unwrap();
    assert_eq!(files.read("a"), None);
    // A link is replaced, and not followed.
    files.write("a", &[b"new"]);
    assert_eq!(files.read("a").unwrap(), b"new");
    assert_ne!(fs::read(&moved).unwrap(), fs::read(path).unwrap());
}

#[test]
fn files_that_were_not_used_for_long_are_removed() {
    let place = TempDir::new().unwrap();
    let (letters, others) = (files(&place, "letters-1"), files(&place, "others-1"));
    others.write("other", &[&[0; 900]]);
    for name in ["a", "b", "c"] {
        letters.write(name, &[&[0; 300]]);
    }
    let age = |name: &str, days: u64| {
        let path = paths(&place).into_iter().find(|path| path.to_str().unwrap().ends_with(name));
        let file = File::options().write(true).open(path.unwrap()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60)).unwrap();
    };
    age("-a", 3);
    age("-b", 2);
    // Reading it makes it the newest again.
    assert!(letters.read("a").is_some());
    letters.write("d", &[&[0; 300]]);
    let is_there = |name| letters.read(name).is_some();
    assert_eq!(["a", "b", "c", "d"].map(is_there), [true, false, true, true]);
    assert!(others.read("other").is_some());
    // One that is larger than the bound stays until the next one is written.
    letters.write("e", &[&[0; 2000]]);
    assert_eq!(["a", "c", "d", "e"].map(is_there), [false, false, false, true]);
}

#[test]
fn a_directory_that_cannot_be_used_is_no_error() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("cache"), "in the way").unwrap();
    let files = files(&place, "letters-1");
    files.write("a", &[b"content"]);
    assert_eq!(files.read("a"), None);
}
