//! The formats of archives, and what an import makes of them.

use std::fs;

use manifold_dispatcher::{MemoryStore, Store};
use manifold_runtime_api::{EntryMode, ObjectId, ObjectKind};
use manifold_runtime_docker::ImportOptions;
use serde_json::{Value, json};
use tar::EntryType;

use crate::{
    Image, content, directory, entry, file, gzip, import, import_with, layer, saved, text, tree,
    zstd,
};

fn small() -> Image {
    let mut image = Image::new(&[
        &[directory("bin"), Entry { mode: 0o755, ..file("bin/guest", "code") }, file("a", "1")],
        &[file(".wh.a", ""), file("b", "2")],
    ]);
    image.config = json!({
        "Entrypoint": ["/bin/guest"], "Cmd": null, "Env": ["A=1"], "User": "", "Image": "sha256:00",
        "Labels": { "b": "2", "a": "1", "io.manifold.tree": "00" },
    });
    image
}

use crate::Entry;

#[test]
fn all_formats_of_an_image_give_the_same_tree() {
    let (store, image) = (MemoryStore::new(), small());
    let archive = image.saved(&["example:1"]);
    let id = import(&store, &archive).unwrap();
    assert_eq!(import(&store, &gzip(&archive)).unwrap(), id);
    assert_eq!(import(&store, &zstd(&archive)).unwrap(), id);
    for compress in [|layer: &[u8]| layer.to_vec(), gzip, zstd] {
        let place = tempfile::tempdir().unwrap();
        image.layout(place.path(), compress);
        let mut write = |object| store.write(object);
        let options = ImportOptions::default();
        let mut last = None;
        let found = options.import(place.path(), &mut write, &mut |progress| last = Some(progress));
        assert_eq!(found.unwrap(), id);
        let last = last.unwrap();
        assert_eq!((last.layers, last.all_layers, last.bytes), (1, 2, last.all_bytes));
        // The same as an archive, in a file.
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all(".", place.path()).unwrap();
        let path = place.path().join("archive.tar");
        fs::write(&path, archive.into_inner().unwrap()).unwrap();
        assert_eq!(options.import(&path, &mut write, &mut |_| ()).unwrap(), id);
    }
}

#[test]
fn an_image_becomes_layers_and_the_part_of_its_configuration_that_matters() {
    let store = MemoryStore::new();
    let id = import(&store, &small().saved(&[])).unwrap();
    let image = tree(&store, id);
    let names: Vec<_> = image.entries().iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["config.json", "layer00", "layer01"]);
    let config = text(&store, id, "config.json");
    let expected = json!({
        "architecture": crate::architecture(),
        "config": { "Entrypoint": ["/bin/guest"], "Env": ["A=1"], "Labels": { "a": "1", "b": "2" } },
        "os": "linux",
    });
    assert_eq!(serde_json::from_str::<Value>(&config).unwrap(), expected);
    assert!(
        config.find("\"a\": \"1\"").unwrap() < config.find("\"b\": \"2\"").unwrap(),
        "{config}"
    );
    let layer00 = tree(&store, image.get("layer00").unwrap().id);
    let bin = tree(&store, layer00.get("bin").unwrap().id);
    assert_eq!(bin.get("guest").unwrap().mode, EntryMode::Executable);
    let layer01 = image.get("layer01").unwrap().id;
    assert_eq!(text(&store, layer01, ".wh.a"), "");
}

#[test]
fn what_a_tree_cannot_hold_is_kept_beside_it() {
    let store = MemoryStore::new();
    let link = |path: &str, target: &str| entry(path, EntryType::Link, target);
    let image = Image::new(&[&[
        Entry { mode: 0o700, ..directory("./") },
        Entry { uid: 1000, gid: 3_000_000, ..directory("home/user/") },
        Entry { mode: 0o4711, mtime: 1_700_000_000, ..file("/sbin/su", "su") },
        Entry {
            pax: vec![
                ("mtime".to_owned(), b"12.5".to_vec()),
                ("SCHILY.xattr.user.x".to_owned(), vec![0, b'\n', 255]),
            ],
            ..file("with", "x")
        },
        // The links come before what they lead to in the order of paths, and one leads to the other.
        file("z", "shared"),
        link("m", "z"),
        link("./b", "/m"),
        // A link to a symbolic link is the same symbolic link.
        entry("s", EntryType::Symlink, "../outside"),
        link("t", "s"),
        // Attributes of what stands for a deletion do not matter.
        Entry { mode: 0, mtime: 9, ..file("home/.wh..wh..opq", "") },
        // Of two with the same path, the last counts. A directory keeps what is in it.
        file("twice", "first"),
        file("twice", "second"),
        file("home/user/f", ""),
        Entry { uid: 1, gid: 0, ..directory("home/user") },
        entry(b"\xff", EntryType::Regular, ""),
        Entry { mode: 0o640, ..entry(b"\xfe", EntryType::Regular, "") },
    ]]);
    let id = import(&store, &image.saved(&[])).unwrap();
    let lines = text(&store, id, "attributes00");
    let expected = [
        r#"{"path":"","mode":"0700"}"#,
        r#"{"path":"home/user","uid":1}"#,
        r#"{"path":"m","link":"b"}"#,
        r#"{"path":"sbin/su","mode":"4711","mtime":"1700000000"}"#,
        r#"{"path":"with","mtime":"12.5","xattrs":{"user.x":"AAr/"}}"#,
        r#"{"path":"z","link":"b"}"#,
        r#"{"path":{"base64":"/g=="},"mode":"0640"}"#,
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    let root = tree(&store, id).get("layer00").unwrap().id;
    assert_eq!(text(&store, root, "twice"), "second");
    assert_eq!(text(&store, root, "b"), "shared");
    assert_eq!(tree(&store, root).get("t").unwrap().mode, EntryMode::Symlink);
    let home = tree(&store, tree(&store, root).get("home").unwrap().id);
    assert!(home.get(".wh..wh..opq").is_some());
    assert_eq!(text(&store, home.get("user").unwrap().id, "f"), "");
}

#[test]
fn one_of_several_images_is_chosen_by_its_name() {
    let store = MemoryStore::new();
    let (one, other) = (Image::new(&[&[file("a", "1")]]), Image::new(&[&[file("a", "2")]]));
    let archive = saved(&[(&one, &["one:latest"]), (&other, &["other:2", "also:1"])]);
    let chosen = |name: &str| import_with(&ImportOptions::default().image(name), &store, &archive);
    let (id, other_id) = (chosen("one:latest").unwrap(), chosen("also:1").unwrap());
    assert_eq!(chosen("one").unwrap(), id);
    assert_ne!(other_id, id);
    assert_eq!(chosen("other:2").unwrap(), other_id);
    let error = import(&store, &archive).unwrap_err().to_string();
    assert!(error.ends_with("choose one of one:latest, other:2, also:1"), "{error}");
    let error = chosen("x").unwrap_err().to_string();
    assert!(error.contains("no image x") && error.contains("also:1"), "{error}");
}

#[test]
fn the_image_for_the_platform_is_chosen() {
    let (store, place) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let image = Image::new(&[&[file("a", "1")]]);
    image.layout(place.path(), gzip);
    let index = place.path().join("index.json");
    let own: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let described = |architecture: &str, digest: &Value| json!({ "digest": digest, "platform": { "os": "linux", "architecture": architecture } });
    let own = &own["manifests"][0]["digest"];
    let nothing = json!(format!("sha256:{}", "0".repeat(64)));
    let attestation = json!({
        "digest": nothing, "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
        "platform": { "os": "unknown", "architecture": "unknown" },
    });
    let several =
        json!([described("riscv64", &nothing), attestation, described(crate::architecture(), own)]);
    let put = |content: &Value| {
        let content = content.to_string();
        let digest = crate::digest(content.as_bytes());
        fs::write(place.path().join("blobs/sha256").join(&digest), content).unwrap();
        json!({ "digest": format!("sha256:{digest}") })
    };
    let nested = put(&json!({ "manifests": several }));
    let import = |options: ImportOptions| {
        options.import(place.path(), &mut |object| store.write(object), &mut |_| ())
    };
    let mut ids: Vec<ObjectId> = Vec::new();
    for manifests in [several, json!([nested])] {
        fs::write(&index, json!({ "manifests": manifests }).to_string()).unwrap();
        ids.push(import(ImportOptions::default()).unwrap());
        let error = import(ImportOptions::default().platform("linux/s390x")).unwrap_err();
        assert!(error.to_string().contains("linux/s390x, but for linux/riscv64"), "{error}");
    }
    assert_eq!(ids[0], ids[1]);
    for wrong in ["linux", "windows/amd64", "linux/arm/v7/x", ""] {
        let error = import(ImportOptions::default().platform(wrong)).unwrap_err().to_string();
        assert!(error.contains("linux/<architecture>"), "{error}");
    }
}

#[test]
fn files_that_an_archive_has_as_links_are_found() {
    let (store, image) = (MemoryStore::new(), Image::new(&[&[file("a", "1")]]));
    let plain = import(&store, &image.saved(&[])).unwrap();
    let config = image.config();
    let manifest = json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["x/layer.tar"] }]);
    let archive = layer(&[
        file("c.json", &config),
        file("./manifest.json", &manifest.to_string()),
        entry("y/layer.tar", EntryType::Regular, &image.layers[0]),
        entry("x/layer.tar", EntryType::Symlink, "../y/layer.tar"),
    ]);
    assert_eq!(import(&store, &archive).unwrap(), plain);
    let id = tree(&store, plain).get("layer00").unwrap().id;
    assert_eq!(content(&store, id, ObjectKind::Tree).unwrap().len(), 29);
}
