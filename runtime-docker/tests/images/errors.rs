//! Archives that cannot be imported, and trees that are no images: each is an error that names what
//! is wrong.

use manifold_dispatcher::{MemoryStore, Store};
use manifold_runtime_api::{EntryMode, Object, ObjectId, TreeEntry};
use manifold_runtime_docker::ImportOptions;
use serde_json::json;
use tar::EntryType;

use crate::{Entry, Image, directory, entry, export, file, gzip, import, import_with, layer, zstd};

/// Imports an image with one layer, and returns the error.
fn refused(entries: &[Entry]) -> String {
    let archive = Image::new(&[&[file("first", "")], entries]).saved(&[]);
    import(&MemoryStore::new(), &archive).unwrap_err().to_string()
}

#[test]
fn what_an_image_cannot_have_is_named() {
    for (kind, words) in [
        (EntryType::Char, "layer 1: dev/x: it is a character device"),
        (EntryType::Block, "layer 1: dev/x: it is a block device"),
        (EntryType::Fifo, "layer 1: dev/x: it is a named pipe"),
        (EntryType::new(b'Q'), "layer 1: dev/x: it is an entry of the unknown type 'Q'"),
    ] {
        let error = refused(&[entry("dev/x", kind, "")]);
        assert!(error.starts_with(words), "{error}");
    }
    for (path, words) in [
        ("a/../../etc/passwd", "layer 1: a/../../etc/passwd: its path leads out of the image"),
        ("src/.git", "layer 1: src/.git: git does not accept its name"),
        (".", "layer 1: /: it is not a directory"),
    ] {
        let error = refused(&[file(path, "")]);
        assert!(error.starts_with(words), "{error}");
    }
    let error = refused(&[file("a", ""), file("a/b", "")]);
    assert_eq!(error, "layer 1: a/b: it is below a, which is not a directory");
    for target in ["missing", "first", "d", "b"] {
        let error = refused(&[directory("d"), entry("b", EntryType::Link, target)]);
        assert!(
            error.contains(&format!("b: it is a hard link to {target}, which is no file before")),
            "{error}"
        );
    }
    for (key, value, words) in [
        ("uid", "abc", "the uid of its header is no number"),
        ("size", "-5", "the size of its header is no number"),
        ("gid", "99999999999", "its owner or group is no number of 32 bits"),
        ("GNU.sparse.major", "1", "it is stored as a sparse file"),
    ] {
        let entry = Entry { pax: vec![(key.to_owned(), value.into())], ..file("x", "") };
        let error = refused(&[entry]);
        assert!(error.starts_with(&format!("layer 1: x: {words}")), "{error}");
    }
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        assert!(refused(&[file(name, "")]).contains("it would delete nothing"));
    }
    let nowhere = refused(&[entry("l", EntryType::Symlink, "")]);
    assert!(nowhere.contains("layer 1: l: what the link leads to is not a path"), "{nowhere}");
    let long = vec![("SCHILY.xattr.user.x".to_owned(), vec![b'x'; 2 << 20])];
    let error = refused(&[Entry { pax: long, ..file("x", "") }]);
    assert!(error.contains("over 1048576"), "{error}");
    let time = Entry { pax: vec![("mtime".to_owned(), b"soon".to_vec())], ..file("x", "") };
    assert!(refused(&[time]).starts_with("layer 1: x: the mtime"));
    assert!(refused(&[file(&"x/".repeat(2500), "")]).contains("exceeds the limit of 4096 bytes"));
}

#[test]
fn archives_that_are_damaged_or_incomplete_are_refused() {
    let store = MemoryStore::new();
    let image = Image::new(&[&[file("a", "content")]]);
    let whole = image.saved(&[]);
    let error = |archive: &[u8]| import(&store, archive).unwrap_err().to_string();
    for archive in [&b""[..], b"text", &[0; 2000], &gzip(b"text"), &layer(&[file("a", "")])] {
        let found = error(archive);
        assert!(found.starts_with("it is not an archive of container images"), "{found}");
    }
    // Cut off anywhere.
    for length in (1..whole.len()).step_by(97) {
        let _ = error_or_image(&whole[..length]);
        let _ = error_or_image(&gzip(&whole)[..length.min(gzip(&whole).len() - 1)]);
        let _ = error_or_image(&zstd(&whole)[..length.min(zstd(&whole).len() - 1)]);
    }
    // A bit of the layer's file is different.
    let mut damaged = whole.clone();
    let at = damaged.windows(7).position(|part| part == b"content").unwrap();
    damaged[at] = b'C';
    let found = error(&damaged);
    assert!(found.contains("layer.tar in the archive is damaged"), "{found}");

    let manifest = |config: &str, layers: &[&str]| {
        let manifest = json!([{ "Config": config, "RepoTags": [], "Layers": layers }]);
        layer(&[file("manifest.json", &manifest.to_string()), file("c", &image.config())])
    };
    assert_eq!(error(&manifest("d", &["l"])), "the archive lacks d, to which it refers");
    assert_eq!(error(&manifest("c", &["l"])), "the archive lacks l, to which it refers");
    let found = error(&manifest("c", &[]));
    assert!(found.contains("1 layers, and the manifest 0"), "{found}");
    let found = error(&layer(&[file("manifest.json", "{}")]));
    assert!(
        found.starts_with("manifest.json in the archive: it is not what was expected"),
        "{found}"
    );
    let itself = entry("manifest.json", EntryType::Symlink, "manifest.json");
    assert!(error(&layer(&[itself])).starts_with("the archive lacks manifest.json"));
    let out = entry("manifest.json", EntryType::Symlink, "../../etc/passwd");
    assert!(error(&layer(&[out])).starts_with("it is not an archive"));

    let place = tempfile::tempdir().unwrap();
    image.layout(place.path(), gzip);
    let index = place.path().join("index.json");
    for (digest, words) in [
        ("sha256:../../../etc/passwd".to_owned(), "not a sha256 digest"),
        ("md5:00".to_owned(), "not a sha256 digest"),
        (format!("sha256:{}", "0".repeat(64)), "the archive lacks blobs/sha256/00"),
    ] {
        std::fs::write(&index, json!({ "manifests": [{ "digest": digest }] }).to_string()).unwrap();
        let mut write = |object| store.write(object);
        let found = ImportOptions::default().import(place.path(), &mut write, &mut |_| ());
        let found = found.unwrap_err().to_string();
        assert!(found.contains(words), "{found}");
    }
}

/// Imports what may be part of an archive. It must end, and not panic.
fn error_or_image(archive: &[u8]) -> Option<ObjectId> {
    import(&MemoryStore::new(), archive).ok()
}

#[test]
fn limits_are_kept() {
    let store = MemoryStore::new();
    let big = "x".repeat(3_000_000);
    let archive = Image::new(&[&[file("big", &big)]]).saved(&[]);
    let with = |options: ImportOptions, archive: &[u8]| {
        import_with(&options, &store, archive).unwrap_err().to_string()
    };
    let error = with(ImportOptions::default().largest_file(1000), &archive);
    assert_eq!(error, "layer 0: big exceeds the limit of 1000 bytes");
    // A small archive that becomes large.
    let bomb = gzip(&archive);
    assert!(bomb.len() < 100_000);
    let error = with(ImportOptions::default().largest(1_000_000), &bomb);
    assert_eq!(error, "the archive exceeds the limit of 1000000 bytes");
    let place = tempfile::tempdir().unwrap();
    Image::new(&[&[file("big", &big)]]).layout(place.path(), zstd);
    let options = ImportOptions::default().largest(1_000_000);
    let found = options.import(place.path(), &mut |object| store.write(object), &mut |_| ());
    assert_eq!(
        found.unwrap_err().to_string(),
        "the size of all layers exceeds the limit of 1000000 bytes"
    );
    let layers: Vec<Vec<Entry>> =
        (0..101).map(|number| vec![file("n", &number.to_string())]).collect();
    let layers: Vec<&[Entry]> = layers.iter().map(Vec::as_slice).collect();
    let error = with(ImportOptions::default(), &Image::new(&layers).saved(&[]));
    assert_eq!(error, "the number of layers, 101, exceeds the limit of 100");
    assert!(import(&store, &Image::new(&layers[..100]).saved(&[])).is_ok());
}

#[tokio::test]
async fn trees_that_are_no_images_are_named() {
    let store = MemoryStore::new();
    let blob = |text: &str| store.write(Object::blob(text.to_owned())).unwrap();
    let tree = |entries: &[(&str, EntryMode, ObjectId)]| {
        let entries = entries.iter().map(|(name, mode, id)| TreeEntry::new(*name, *mode, *id));
        let tree = manifold_runtime_api::Tree::new(entries).unwrap();
        store.write(tree.to_object()).unwrap()
    };
    let (one, other) = (blob("1"), blob("2"));
    let layer = tree(&[("a", EntryMode::Blob, one), ("b", EntryMode::Blob, other)]);
    let config = blob(r#"{"config": {}}"#);
    let image = |more: &[(&str, EntryMode, ObjectId)]| {
        let own = [("config.json", EntryMode::Blob, config), ("layer00", EntryMode::Tree, layer)];
        tree(&[&own, more].concat())
    };
    let described = |lines: &str| image(&[("attributes00", EntryMode::Blob, blob(lines))]);
    let based = |base: &str| image(&[("base", EntryMode::Blob, blob(base))]);
    for (image, words) in [
        (image(&[("layer1", EntryMode::Tree, layer)]), "layer1 is neither config.json, base,"),
        (image(&[("attributes01", EntryMode::Blob, one)]), "attributes01 describes no layer"),
        (described("{"), "attributes00: line 1"),
        (described(r#"{"path":"c","uid":1}"#), "attributes of c, which is not in the layer"),
        (described(r#"{"path":"a","mode":"8"}"#), "the attributes of a: its mode \"8\""),
        (described(r#"{"path":"b","link":"a"}"#), "b is a hard link to a, which is not the same"),
        (described(r#"{"path":"a","link":"a"}"#), "a is a hard link to a, which is not the same"),
        (based("/cas/std/x"), "its base is /cas/std/x; expected docker://<digest>"),
        (based("docker://debian:12"), "its base is docker://debian:12; expected"),
        (based("nothing"), "its base: "),
    ] {
        let error = export(&store, image, None).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(export(&store, image(&[]), None).await.is_ok());
}
