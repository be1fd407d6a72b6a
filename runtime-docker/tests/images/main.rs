//! Container images: import from archives, export to them, and images that stack on others.

mod engine;
mod errors;
mod formats;
mod round_trip;

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use manifold_dispatcher::{MemoryStore, ObjectSource, Store};
use manifold_runtime_api::{ObjectId, ObjectKind, Result, Tree, bytes::Bytes};
use manifold_runtime_docker::{ContainerEngine, EngineOptions, ImportError, ImportOptions};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// An entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: Vec<u8>,
    kind: EntryType,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: u64,
    /// What a file has, or the target of a link.
    content: Vec<u8>,
    pax: Vec<(String, Vec<u8>)>,
}

/// Returns an entry with the attributes that a tree implies.
fn entry(path: impl AsRef<[u8]>, kind: EntryType, content: impl AsRef<[u8]>) -> Entry {
    let mode = match kind {
        EntryType::Directory => 0o755,
        EntryType::Symlink => 0o777,
        _ => 0o644,
    };
    Entry {
        path: path.as_ref().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: 0,
        content: content.as_ref().to_vec(),
        pax: Vec::new(),
    }
}

fn file(path: &str, content: &str) -> Entry {
    entry(path, EntryType::Regular, content)
}

fn directory(path: &str) -> Entry {
    entry(path, EntryType::Directory, "")
}

/// Writes entries as they are, whatever a well-behaved program would write.
fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(entry.mtime);
        let mut pax: Vec<(&str, &[u8])> =
            entry.pax.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        pax.push(("path", &entry.path));
        let is_link = matches!(entry.kind, EntryType::Link | EntryType::Symlink);
        if is_link {
            pax.push(("linkpath", &entry.content));
        }
        archive.append_pax_extensions(pax).unwrap();
        let content = if is_link { &[][..] } else { &entry.content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// An image to be written in several formats.
struct Image {
    config: Value,
    /// The archives of the layers.
    layers: Vec<Vec<u8>>,
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Image {
    fn new(layers: &[&[Entry]]) -> Self {
        let config = json!({ "Entrypoint": ["/guest"] });
        Self { config, layers: layers.iter().map(|entries| layer(entries)).collect() }
    }

    fn config(&self) -> String {
        let digests: Vec<String> =
            self.layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
        json!({
            "created": "2026-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "history": [{ "created_by": "a test" }],
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": digests },
        })
        .to_string()
    }

    /// Returns the archive that `docker save` writes.
    fn saved(&self, tags: &[&str]) -> Vec<u8> {
        saved(&[(self, tags)])
    }

    /// Writes an OCI layout, with layers that `compress` compresses.
    fn layout(&self, place: &Path, compress: impl Fn(&[u8]) -> Vec<u8>) {
        let blobs = place.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |content: &[u8]| {
            fs::write(blobs.join(digest(content)), content).unwrap();
            json!({ "digest": format!("sha256:{}", digest(content)), "size": content.len() })
        };
        let layers: Vec<Value> = self.layers.iter().map(|layer| put(&compress(layer))).collect();
        let config = put(self.config().as_bytes());
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let manifest = put(manifest.to_string().as_bytes());
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs::write(place.join("index.json"), index.to_string()).unwrap();
        fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}

/// Returns the archive that `docker save` writes for several images.
fn saved(images: &[(&Image, &[&str])]) -> Vec<u8> {
    let (mut entries, mut manifest) = (Vec::new(), Vec::new());
    for (image, tags) in images {
        let config = image.config();
        let name = format!("{}.json", digest(config.as_bytes()));
        entries.push(file(&name, &config));
        let mut names = Vec::new();
        for layer in &image.layers {
            let name = format!("{}/layer.tar", digest(layer));
            entries.push(entry(&name, EntryType::Regular, layer));
            names.push(name);
        }
        manifest.push(json!({ "Config": name, "RepoTags": tags, "Layers": names }));
    }
    entries.push(file("manifest.json", &Value::Array(manifest).to_string()));
    layer(&entries)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Compresses in two frames, with one between them that is to be skipped.
fn zstd(content: &[u8]) -> Vec<u8> {
    let (one, other) = content.split_at(content.len() / 2);
    let compress = |part| compress_to_vec(part, CompressionLevel::Fastest);
    let skipped = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
    [skipped.clone(), compress(one), skipped, compress(other)].concat()
}

/// Imports an archive into `store`.
fn import_with(
    options: &ImportOptions,
    store: &MemoryStore,
    archive: &[u8],
) -> Result<ObjectId, ImportError> {
    options.import_stream(Cursor::new(archive), &mut |object| store.write(object), &mut |_| ())
}

fn import(store: &MemoryStore, archive: &[u8]) -> Result<ObjectId, ImportError> {
    import_with(&ImportOptions::default(), store, archive)
}

/// Exports an image from `store`, without an engine.
async fn export(store: &MemoryStore, image: ObjectId, tag: Option<&str>) -> Result<Vec<u8>> {
    let nowhere = EngineOptions::default().endpoint("unix:///nowhere/docker.sock");
    let engine = ContainerEngine::new(nowhere).unwrap();
    let read = |id, kind| content(store, id, kind);
    engine.export_image(image, tag, &read, Vec::new()).await
}

fn content(store: &MemoryStore, id: ObjectId, kind: ObjectKind) -> Result<Bytes> {
    let found = store.read(id)?.filter(|object| object.kind == kind);
    Ok(found.map_or_else(|| panic!("{id} is missing"), |object| object.content))
}

fn tree(store: &MemoryStore, id: ObjectId) -> Tree {
    Tree::decode(&content(store, id, ObjectKind::Tree).unwrap()).unwrap()
}

/// Returns the text of a file in a tree.
fn text(store: &MemoryStore, root: ObjectId, name: &str) -> String {
    let entry = tree(store, root).get(name).unwrap_or_else(|| panic!("no {name}")).clone();
    String::from_utf8(content(store, entry.id, ObjectKind::Blob).unwrap().to_vec()).unwrap()
}

/// Returns the entries of the first layer in an archive that was exported, by path.
fn entries(archive: &[u8], number: usize) -> Vec<Entry> {
    let mut members = std::collections::BTreeMap::new();
    for member in tar::Archive::new(archive).entries().unwrap() {
        let mut member = member.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut content).unwrap();
        members.insert(member.path().unwrap().to_str().unwrap().to_owned(), content);
    }
    let manifest: Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    let layer = &members[manifest[0]["Layers"][number].as_str().unwrap()];
    let mut found = Vec::new();
    for entry in tar::Archive::new(&layer[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if let Some(target) = entry.link_name_bytes() {
            content = target.to_vec();
        }
        let pax = entry.pax_extensions().unwrap().into_iter().flatten();
        let pax = pax
            .map(Result::unwrap)
            .map(|pax| (pax.key().unwrap().to_owned(), pax.value_bytes().to_vec()));
        let pax = pax.filter(|(key, _)| key.starts_with("SCHILY") || key == "mtime").collect();
        found.push(Entry {
            path: entry.path_bytes().to_vec(),
            kind: entry.header().entry_type(),
            mode: entry.header().mode().unwrap(),
            uid: entry.header().uid().unwrap(),
            gid: entry.header().gid().unwrap(),
            mtime: entry.header().mtime().unwrap(),
            content,
            pax,
        });
    }
    found
}
