//! The import of an archive of a container image.

use std::io::{self, BufReader, Read};
use std::path::Path;

use manifold_runtime_api::{EntryMode, Error, Object, ObjectId, Tree, TreeEntry};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::error::ImportError;
use super::layer::{LayerReader, Write};
use super::manifest::{self, Found, Platform};
use super::members::{Members, decompressed};
use super::{ATTRIBUTES, CONFIG, LAYER, MAX_LAYERS, TREE_LABEL, hex};

/// How an archive of a container image is imported.
///
/// ```no_run
/// use manifold_dispatcher::{MemoryStore, Store};
/// use manifold_runtime_docker::ImportOptions;
///
/// let store = MemoryStore::new();
/// let options = ImportOptions::default();
/// let image = options.import("image.tar".as_ref(), &mut |object| store.write(object), &mut |_| ())?;
/// println!("{image}");
/// # Ok::<(), manifold_runtime_docker::ImportError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ImportOptions {
    image: Option<String>,
    platform: Option<String>,
    largest_file: u64,
    largest: u64,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportProgress {
    /// The number of layers that are imported.
    pub layers: usize,
    /// The number of all layers.
    pub all_layers: usize,
    /// The number of bytes of the archive that were read.
    pub bytes: u64,
    /// The size of all layers in the archive, in bytes.
    pub all_bytes: u64,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { image: None, platform: None, largest_file: 1 << 30, largest: 16 << 30 }
    }
}

impl ImportOptions {
    /// Sets the name of the image to import, from an archive with several. Default: the only one.
    #[must_use]
    pub fn image(mut self, name: impl Into<String>) -> Self {
        self.image = Some(name.into());
        self
    }

    /// Sets the platform for which the image is imported, such as `linux/arm64` or `linux/arm/v7`.
    /// Default: that of this machine.
    #[must_use]
    pub fn platform(mut self, platform: impl Into<String>) -> Self {
        self.platform = Some(platform.into());
        self
    }

    /// Sets the maximum size of a file in the image, in bytes. Each file is in memory while it is
    /// imported. Default: 1 GiB.
    #[must_use]
    pub fn largest_file(mut self, bytes: u64) -> Self {
        self.largest_file = bytes;
        self
    }

    /// Sets the maximum size of all layers without compression, in bytes. Default: 16 GiB.
    #[must_use]
    pub fn largest(mut self, bytes: u64) -> Self {
        self.largest = bytes;
        self
    }

    /// Imports the archive or OCI layout at `path`, and returns the id of the image's tree, in the
    /// form that [this crate](crate#images) documents. `write` stores an object and returns its id.
    ///
    /// An archive is in the format of `docker save`, or a directory or archive in the OCI layout, as
    /// `docker save`, `podman save`, `skopeo copy` and builders write them. The archive and its
    /// layers can be compressed with gzip or Zstandard. The id depends on the files of the layers and
    /// on the image's configuration, and not on the archive's format, compression or names.
    ///
    /// # Errors
    /// Returns an [`ImportError`] if the archive cannot be read, is damaged or has something that a
    /// tree cannot hold, such as a device, or if `write` fails.
    pub fn import(
        &self,
        path: &Path,
        write: &mut dyn FnMut(Object) -> Result<ObjectId, Error>,
        progress: &mut dyn FnMut(ImportProgress),
    ) -> Result<ObjectId, ImportError> {
        self.import_members(&Members::open(path, self.largest)?, write, progress)
    }

    /// Like [`ImportOptions::import`], from a stream, which is copied to a temporary file first.
    ///
    /// # Errors
    /// As [`ImportOptions::import`].
    pub fn import_stream(
        &self,
        archive: impl Read,
        write: &mut dyn FnMut(Object) -> Result<ObjectId, Error>,
        progress: &mut dyn FnMut(ImportProgress),
    ) -> Result<ObjectId, ImportError> {
        self.import_members(&Members::copy(archive, self.largest)?, write, progress)
    }

    fn import_members(
        &self,
        members: &Members,
        write: &mut Write<'_>,
        progress: &mut dyn FnMut(ImportProgress),
    ) -> Result<ObjectId, ImportError> {
        let platform = self.wanted_platform()?;
        let Found { config, layers } = manifest::find(members, self.image.as_deref(), &platform)?;
        let (name, config) = config;
        let malformed = |problem: String| ImportError::Malformed { name: name.clone(), problem };
        let given: Config = manifest::parse(&name, &config)?;
        if !given.platform.is(&platform) {
            let known = vec![given.platform.to_string()];
            return Err(ImportError::Platform { wanted: platform.to_string(), known });
        }
        let digests = given.rootfs.diff_ids;
        if digests.len() != layers.len() {
            let (expected, found) = (digests.len(), layers.len());
            return Err(malformed(format!("it has {expected} layers, and the manifest {found}")));
        }
        if layers.len() > MAX_LAYERS {
            let what = format!("the number of layers, {},", layers.len());
            return Err(ImportError::TooLarge { what, bound: MAX_LAYERS.to_string() });
        }

        let mut position = ImportProgress {
            layers: 0,
            all_layers: layers.len(),
            bytes: 0,
            all_bytes: layers
                .iter()
                .map(|layer| Ok(members.reader(layer)?.1))
                .sum::<Result<u64, ImportError>>()?,
        };
        let mut left = self.largest;
        let mut entries = Vec::new();
        for (layer, (name, digest)) in layers.iter().zip(&digests).enumerate() {
            let (archive, _) = members.reader(name)?;
            let archive = Counting { source: archive, position: &mut position, progress };
            let read = self.layer(layer, archive, &mut left, write)?;
            if read.digest != *digest {
                let (name, expected, found) = (name.clone(), digest.clone(), read.digest);
                return Err(ImportError::Digest { name, expected, found });
            }
            let (tree, attributes) = (read.tree, read.attributes);
            entries.push(TreeEntry::new(format!("{LAYER}{layer:02}"), EntryMode::Tree, tree));
            if !attributes.is_empty() {
                let id = write(Object::blob(attributes))?;
                let name = format!("{ATTRIBUTES}{layer:02}");
                entries.push(TreeEntry::new(name, EntryMode::Blob, id));
            }
            position.layers = layer + 1;
        }
        let config = kept(given.platform, given.config);
        let config =
            serde_json::to_string_pretty(&config).map_err(|error| malformed(error.to_string()))?;
        let id = write(Object::blob(config + "\n"))?;
        entries.push(TreeEntry::new(CONFIG, EntryMode::Blob, id));
        let tree = Tree::new(entries).map_err(|error| malformed(error.to_string()))?;
        Ok(write(tree.to_object())?)
    }

    /// Imports the archive of a layer, of which at most `left` bytes may be read. Reduces `left`.
    fn layer(
        &self,
        layer: usize,
        archive: impl Read,
        left: &mut u64,
        write: &mut Write<'_>,
    ) -> Result<ReadLayer, ImportError> {
        let plain = decompressed(BufReader::with_capacity(1 << 17, archive))
            .map_err(ImportError::reading)?;
        let mut hashing = Hashing { source: plain, digest: Sha256::new(), left: *left };
        let reading =
            LayerReader { layer, largest_file: self.largest_file, write }.read(&mut hashing);
        // What follows the end of the archive is part of the digest.
        let read = reading.and_then(|read| {
            io::copy(&mut hashing, &mut io::sink()).map_err(ImportError::reading)?;
            Ok(read)
        });
        *left = hashing.left;
        if *left == 0 {
            let what = "the size of all layers".to_owned();
            return Err(ImportError::TooLarge { what, bound: format!("{} bytes", self.largest) });
        }
        let (tree, attributes) = read?;
        let digest = format!("sha256:{}", hex(&hashing.digest.finalize()));
        Ok(ReadLayer { tree, attributes, digest })
    }

    fn wanted_platform(&self) -> Result<Platform, ImportError> {
        let Some(wanted) = &self.platform else { return Ok(own_platform()) };
        let platform = Platform::parse(wanted).filter(|platform| platform.os == "linux");
        platform.ok_or_else(|| ImportError::Platform {
            wanted: wanted.clone(),
            known: vec!["linux/<architecture>".to_owned()],
        })
    }
}

/// A layer that was imported.
struct ReadLayer {
    tree: ObjectId,
    attributes: String,
    /// The digest of its archive without compression.
    digest: String,
}

/// Returns the name that images use for the architecture of this machine.
pub(super) fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Returns the platform of this machine.
pub(super) fn own_platform() -> Platform {
    let (os, architecture) = ("linux".to_owned(), own_architecture().to_owned());
    Platform { os, architecture, variant: String::new() }
}

/// What is read of an image's configuration.
#[derive(Deserialize)]
struct Config {
    #[serde(flatten)]
    platform: Platform,
    #[serde(default)]
    config: Option<Map<String, Value>>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// The keys of a `config` that say how a container is run. Others say how the image was built.
pub(super) const KEPT: [&str; 12] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
];

/// Returns the part of a configuration that is kept, with its keys in order and without those that
/// have no value, so that all formats give the same.
fn kept(platform: Platform, config: Option<Map<String, Value>>) -> Value {
    let mut config = config.unwrap_or_default();
    config.retain(|key, _| KEPT.contains(&key.as_str()));
    if let Some(Value::Object(labels)) = config.get_mut("Labels") {
        labels.retain(|name, _| name != TREE_LABEL);
    }
    config.retain(|_, value| !is_empty(value));
    let mut all =
        json!({ "architecture": platform.architecture, "config": config, "os": platform.os });
    if let Some(variant) = platform.variant() {
        all["variant"] = json!(variant);
    }
    sorted(all)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Sorts the keys of all objects. They are in order already, unless some crate of the program asks
/// `serde_json` to preserve another.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            let mut entries: Vec<_> = entries.into_iter().collect();
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            entries.into_iter().map(|(key, value)| (key, sorted(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// Counts the bytes read, and reports them.
struct Counting<'a, R> {
    source: R,
    position: &'a mut ImportProgress,
    progress: &'a mut dyn FnMut(ImportProgress),
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.position.bytes += read as u64;
        (self.progress)(*self.position);
        Ok(read)
    }
}

/// Hashes the bytes read, and ends with an error once there are more than may be.
struct Hashing<R> {
    source: R,
    digest: Sha256,
    /// How many bytes may still be read. 0 once there were more.
    left: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.digest.update(&buffer[..read]);
        self.left = self.left.saturating_sub(read as u64);
        if self.left == 0 {
            return Err(io::Error::other("the layers are too large"));
        }
        Ok(read)
    }
}
