//! The archive of a container image that is kept in the store, in the format of `docker load`.
//!
//! The archive is a function of the image's tree. It is written layer by layer to temporary files.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use manifold_runtime_api::{
    EntryMode, Error, Host, Limit, ObjectId, ObjectKind, Reason, Result, Status, Tree,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// Label that names the tree from which an image was made.
pub(super) const TREE: &str = "io.manifold.tree";

/// Writes the archive of one image.
pub(super) struct Archive<'a> {
    host: &'a dyn Host,
    module: ObjectId,
    /// Bytes that the image may still take.
    left: u64,
    /// Maximum size of the image, in bytes.
    bound: u64,
}

impl<'a> Archive<'a> {
    /// Prepares to write the image in the tree `module`, of at most `bound` bytes.
    pub(super) fn new(host: &'a dyn Host, module: ObjectId, bound: u64) -> Self {
        Self { host, module, left: bound, bound }
    }

    /// Writes the image in the format of `docker load`, and returns the file and its size in bytes.
    pub(super) async fn write(mut self, name: &str) -> Result<(File, u64)> {
        let tree = self.host.tree(self.module).await?;
        let mut config = self.config(&tree).await?;
        let mut layers = Vec::new();
        for layer in self.layers(&tree)? {
            layers.push(self.layer(layer).await?);
        }
        let digests: Vec<String> =
            layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        config.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": digests }));
        let config = Value::Object(config).to_string();
        let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
        let layer_names: Vec<String> =
            layers.iter().map(|layer| format!("{}/layer.tar", layer.digest)).collect();
        let manifest =
            json!([{ "Config": config_name, "RepoTags": [name], "Layers": layer_names }])
                .to_string();

        let mut archive = tar::Builder::new(tempfile::tempfile().map_err(archive_error)?);
        for (name, content) in [(&config_name, &config), (&"manifest.json".to_owned(), &manifest)] {
            let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
            archive.append_data(&mut header, name, content.as_bytes()).map_err(archive_error)?;
        }
        for (name, mut layer) in layer_names.iter().zip(layers) {
            layer.file.seek(SeekFrom::Start(0)).map_err(archive_error)?;
            let mut header = header(EntryType::Regular, 0o644, layer.bytes);
            archive.append_data(&mut header, name, &layer.file).map_err(archive_error)?;
        }
        let mut file = archive.into_inner().map_err(archive_error)?;
        let bytes = file.stream_position().map_err(archive_error)?;
        Ok((file, bytes))
    }

    /// Returns the image's configuration, without the layers.
    async fn config(&mut self, tree: &Tree) -> Result<Map<String, Value>> {
        let given = match tree.get("config.json") {
            Some(entry) if entry.mode.object_kind() == Some(ObjectKind::Blob) => {
                let text = self.get(entry.id).await?;
                match serde_json::from_slice(&text) {
                    Ok(Value::Object(config)) => config,
                    Ok(_) => return Err(self.bad("its config.json is not an object")),
                    Err(error) => return Err(self.bad(&format!("its config.json: {error}"))),
                }
            }
            Some(_) => return Err(self.bad("its config.json is not a file")),
            None => Map::from_iter([("config".to_owned(), json!({ "Entrypoint": ["/guest"] }))]),
        };
        let mut run = match given.get("config") {
            Some(Value::Object(run)) => run.clone(),
            None => return Err(self.bad("its config.json has no `config`")),
            Some(_) => return Err(self.bad("the `config` in its config.json is not an object")),
        };
        // All other keys are dropped: the isolation decides about them.
        run.retain(|key, _| ["Entrypoint", "Cmd", "Env", "WorkingDir"].contains(&key.as_str()));
        for (key, value) in &run {
            let is_text_list =
                || value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
            if value.is_null()
                || (key == "WorkingDir" && value.is_string())
                || (key != "WorkingDir" && is_text_list())
            {
                continue;
            }
            return Err(self.bad(&format!("the `{key}` in its config.json has the wrong type")));
        }
        run.insert("Labels".to_owned(), json!({ TREE: self.module.to_string() }));
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let architecture = match given.get("architecture") {
            None => json!(architecture),
            Some(given) if given.is_string() => given.clone(),
            Some(_) => {
                return Err(self.bad("the `architecture` in its config.json is not a string"));
            }
        };
        Ok(Map::from_iter([
            ("architecture".to_owned(), architecture),
            ("os".to_owned(), json!("linux")),
            ("created".to_owned(), json!("1970-01-01T00:00:00Z")),
            ("config".to_owned(), Value::Object(run)),
        ]))
    }

    /// Returns the trees of the layers, the lowest first.
    fn layers(&self, tree: &Tree) -> Result<Vec<ObjectId>> {
        if tree.get("config.json").is_none() {
            // In a layer such a name deletes a file. In a root file system it would have no effect
            // and the file would be lost.
            if let Some(entry) = tree.entries().iter().find(|entry| entry.name.starts_with(b".wh."))
            {
                return Err(self.bad(&format!(
                    "{} is not a valid file name in a root file system",
                    entry.name
                )));
            }
            return Ok(vec![self.module]);
        }
        let mut layers = Vec::new();
        for entry in tree.entries().iter().filter(|entry| entry.name != "config.json") {
            let is_layer = entry.mode == EntryMode::Tree
                && entry.name.strip_prefix(b"layer").is_some_and(|number| {
                    number.len() == 2 && number.iter().all(u8::is_ascii_digit)
                });
            if !is_layer {
                return Err(self
                    .bad(&format!("{} is neither config.json nor a tree layer<NN>", entry.name)));
            }
            layers.push(entry.id);
        }
        Ok(layers)
    }

    /// Writes the archive of one layer.
    async fn layer(&mut self, tree: ObjectId) -> Result<Layer> {
        let mut builder =
            tar::Builder::new(Hashing::new(tempfile::tempfile().map_err(archive_error)?));
        let mut open = vec![(PathBuf::new(), EntryMode::Tree, tree)];
        while let Some((path, mode, id)) = open.pop() {
            match mode {
                EntryMode::Tree => {
                    if !path.as_os_str().is_empty() {
                        let mut header = header(EntryType::Directory, 0o755, 0);
                        builder
                            .append_data(&mut header, &path, io::empty())
                            .map_err(archive_error)?;
                    }
                    let tree = self.host.tree(id).await?;
                    // Reversed, because the last entry pushed is processed next.
                    for entry in tree.entries().iter().rev() {
                        let path = path.join(OsStr::from_bytes(&entry.name));
                        let bytes = path.as_os_str().len();
                        if bytes > MAX_PATH {
                            return Err(
                                self.bad(&format!("it has a path of more than {MAX_PATH} bytes"))
                            );
                        }
                        // The path takes memory here, and space as a name in the archive.
                        self.charge(HEADER_BYTES + 4 * bytes as u64)?;
                        open.push((path, entry.mode, entry.id));
                    }
                }
                EntryMode::Blob | EntryMode::Executable => {
                    let content = self.get(id).await?;
                    let permissions = if mode == EntryMode::Executable { 0o755 } else { 0o644 };
                    let mut header = header(EntryType::Regular, permissions, content.len() as u64);
                    builder.append_data(&mut header, &path, &content[..]).map_err(archive_error)?;
                }
                EntryMode::Symlink => {
                    let target = self.get(id).await?;
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
                        return Err(self
                            .bad(&format!("the target of link {} is not a path", path.display())));
                    }
                    builder
                        .append_link(&mut header, &path, Path::new(OsStr::from_bytes(&target)))
                        .map_err(archive_error)?;
                }
                EntryMode::Commit => {
                    return Err(self.bad(&format!("{} is a submodule", path.display())));
                }
            }
        }
        let hashing = builder.into_inner().map_err(archive_error)?;
        Ok(Layer {
            digest: hex(&hashing.digest.finalize()),
            bytes: hashing.bytes,
            file: hashing.file,
        })
    }

    async fn get(&mut self, id: ObjectId) -> Result<Bytes> {
        let content = self.host.get(id).await?;
        self.charge(content.len() as u64)?;
        Ok(content)
    }

    /// Counts `bytes` against the maximum size of the image.
    fn charge(&mut self, bytes: u64) -> Result<()> {
        let found = self.bound.saturating_sub(self.left).saturating_add(bytes);
        self.left =
            self.left.checked_sub(bytes).ok_or(Limit::Module { bytes: self.bound, found })?;
        Ok(())
    }

    fn bad(&self, problem: &str) -> Error {
        Error::new(Reason::BadModule { module: self.module, problem: problem.to_owned() })
    }
}

/// Minimum size of an archive entry, in bytes.
const HEADER_BYTES: u64 = 512;
/// The longest path that the kernel accepts, in bytes.
const MAX_PATH: usize = 4096;

fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn archive_error(error: io::Error) -> Error {
    let problem = format!("cannot write the archive of a container image: {error}");
    Error::new(Reason::RuntimeFailed { problem, status: Status::Transient })
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The archive of a layer.
struct Layer {
    digest: String,
    bytes: u64,
    file: File,
}

/// Writes to a file and hashes the bytes written.
struct Hashing {
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self { file, digest: Sha256::new(), bytes: 0 }
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
