//! What is imported is exported again: the same files with the same attributes, and the same id.

use std::collections::BTreeMap;

use manifold_dispatcher::MemoryStore;
use serde_json::{Value, json};
use tar::EntryType;

use crate::{Entry, Image, directory, entries, entry, export, file, import};

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Returns entries with paths that often meet, and what a program that unpacks them would have at
/// the end, by path.
fn random_layer(random: &mut Random) -> (Vec<Entry>, BTreeMap<Vec<u8>, Entry>) {
    let (mut all, mut model) = (Vec::new(), BTreeMap::<Vec<u8>, Entry>::new());
    for _ in 0..random.below(40) {
        let depth = random.below(3);
        let mut path = String::new();
        for _ in 0..depth {
            path += ["d/", "d.e/", "e/"][random.below(3) as usize];
        }
        let above: Vec<String> =
            path.match_indices('/').map(|(end, _)| path[..end].to_owned()).collect();
        let name = ["d", "d.e", "f", "g", "\u{e9}"][random.below(5) as usize];
        let full = path.clone() + name;
        let is_in_the_way = |at: &str| {
            model.get(at.as_bytes()).is_some_and(|there| there.kind != EntryType::Directory)
        };
        if above.iter().any(|at| is_in_the_way(at)) {
            continue;
        }
        let files: Vec<&Entry> =
            model.values().filter(|entry| entry.kind == EntryType::Regular).collect();
        let before = all.len();
        let mut new = match random.below(5) {
            0 => directory(&full),
            1 => entry(&full, EntryType::Symlink, ["/a", "../b"][random.below(2) as usize]),
            2 if !files.is_empty() => {
                let target = files[random.below(files.len() as u64) as usize].clone();
                // A link to itself, or to what it replaces, is nothing that tar writes.
                let replaces = |at: &[u8]| {
                    at == full.as_bytes() || at.starts_with(format!("{full}/").as_bytes())
                };
                if replaces(&target.path) {
                    continue;
                }
                let shared = Entry { path: full.clone().into_bytes(), ..target.clone() };
                all.push(entry(&full, EntryType::Link, &target.path));
                shared
            }
            _ => file(&full, ["", "1", "longer"][random.below(3) as usize]),
        };
        let is_link = all.len() > before;
        if !is_link {
            if new.kind != EntryType::Symlink {
                new.mode = [0o644, 0o755, 0o600, 0o4711, 0o1777, 0o000][random.below(6) as usize];
            }
            new.uid = random.below(3) * 1000;
            new.gid = random.below(2) * 50_000_000;
            new.mtime = random.below(3) * 1_000_000_000;
            if random.below(4) == 0 {
                let value = random.below(1000).to_le_bytes().to_vec();
                if !value.contains(&b'\n') {
                    new.pax.push(("SCHILY.xattr.user.n".to_owned(), value));
                }
            }
            if random.below(4) == 0 {
                let time = format!("{}.25", new.mtime);
                new.pax.insert(0, ("mtime".to_owned(), time.into_bytes()));
            }
            all.push(new.clone());
        }
        for at in above {
            model.entry(at.clone().into_bytes()).or_insert_with(|| directory(&at));
        }
        let below = format!("{full}/").into_bytes();
        let both_are_directories = new.kind == EntryType::Directory
            && model.get(full.as_bytes()).is_some_and(|there| there.kind == EntryType::Directory);
        if !both_are_directories {
            model.retain(|path, _| !path.starts_with(&below));
        }
        model.insert(full.into_bytes(), new);
    }
    (all, model)
}

/// Replaces hard links by what they lead to, and removes slashes at the end.
fn resolved(entries: Vec<Entry>) -> BTreeMap<Vec<u8>, Entry> {
    let mut found = BTreeMap::<Vec<u8>, Entry>::new();
    for mut entry in entries {
        while entry.path.last() == Some(&b'/') {
            entry.path.pop();
        }
        if entry.kind == EntryType::Link {
            let target = found[&entry.content].clone();
            // Programs that unpack a hard link also set the attributes that it has.
            assert_eq!((entry.mode, entry.uid, entry.gid), (target.mode, target.uid, target.gid));
            assert_eq!((entry.mtime, &entry.pax), (target.mtime, &target.pax));
            entry = Entry { path: entry.path, ..target };
        }
        found.insert(entry.path.clone(), entry);
    }
    found
}

#[tokio::test]
async fn random_layers_come_back_as_they_were() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (one, model) = random_layer(&mut random);
        let (other, other_model) = random_layer(&mut random);
        let image = Image::new(&[&one, &other]);
        let store = MemoryStore::new();
        let id = import(&store, &image.saved(&[])).unwrap_or_else(|error| {
            panic!("seed {seed}: {error}: {one:?} {other:?}");
        });
        let archive = export(&store, id, Some("example:1")).await.unwrap();
        for (number, model) in [model, other_model].into_iter().enumerate() {
            let found = resolved(entries(&archive, number));
            for (path, entry) in &model {
                assert_eq!(found.get(path), Some(entry), "seed {seed}, layer {number}");
            }
            assert_eq!(found.len(), model.len(), "seed {seed}, layer {number}: {found:?}");
        }
        assert_eq!(import(&store, &archive).unwrap(), id, "seed {seed}");
        // In another store, too, and with another order of the layer's entries.
        let again = MemoryStore::new();
        assert_eq!(import(&again, &archive).unwrap(), id);
        assert_eq!(export(&again, id, Some("example:1")).await.unwrap(), archive);
    }
}

#[tokio::test]
async fn hard_links_stay_links_and_the_root_keeps_its_attributes() {
    let store = MemoryStore::new();
    let image = Image::new(&[&[
        Entry { mode: 0o711, uid: 5, ..directory("./") },
        file("z", "shared"),
        entry("a/b", EntryType::Link, "z"),
        entry("k", EntryType::Link, "a/b"),
    ]]);
    let id = import(&store, &image.saved(&[])).unwrap();
    let found = entries(&export(&store, id, None).await.unwrap(), 0);
    let found: Vec<_> = found
        .iter()
        .map(|entry| (entry.path.as_slice(), entry.kind, entry.content.as_slice()))
        .collect();
    let expected: [(&[u8], EntryType, &[u8]); 5] = [
        (b"./", EntryType::Directory, b""),
        (b"a/", EntryType::Directory, b""),
        (b"a/b", EntryType::Regular, b"shared"),
        (b"k", EntryType::Link, b"a/b"),
        (b"z", EntryType::Link, b"a/b"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((path, kind, content), (expected_path, expected_kind, expected)) in
        found.into_iter().zip(expected)
    {
        assert_eq!(
            (path.strip_suffix(b"/").unwrap_or(path), kind, content),
            (expected_path.strip_suffix(b"/").unwrap_or(expected_path), expected_kind, expected)
        );
    }
}

#[tokio::test]
async fn an_export_has_the_configuration_and_the_name() {
    let store = MemoryStore::new();
    let mut image = Image::new(&[&[file("a", "1")]]);
    image.config = json!({
        "Cmd": ["x"], "Entrypoint": ["/guest"], "Env": ["A=1"], "ExposedPorts": { "80/tcp": {} },
        "Labels": { "a": "1" }, "StopSignal": "SIGINT", "User": "1000", "Volumes": { "/v": {} },
        "WorkingDir": "/w",
    });
    let id = import(&store, &image.saved(&["before:1"])).unwrap();
    let archive = export(&store, id, Some("after:2")).await.unwrap();
    let mut found = BTreeMap::new();
    for member in tar::Archive::new(&archive[..]).entries().unwrap() {
        let mut member = member.unwrap();
        let name = member.path().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".json") {
            found.insert(name, serde_json::from_reader::<_, Value>(&mut member).unwrap());
        }
    }
    let manifest = &found["manifest.json"][0];
    assert_eq!(manifest["RepoTags"], json!(["after:2"]));
    assert_eq!(found[manifest["Config"].as_str().unwrap()]["config"], image.config);
}
