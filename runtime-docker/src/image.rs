//! Container images that are kept in the store, as git trees.
//!
//! Such an image is a tree of `config.json`, which is an [OCI image configuration](https://github.com/opencontainers/image-spec/blob/main/config.md)
//! without `rootfs`, and of trees `layer00`, `layer01`, …, the lowest first; or it is a root file system, whose program is
//! `/guest`. It is loaded into the engine once, as `manifold-image:<tree id>`, from an archive that only the tree decides.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use manifold_runtime_api::{
    EntryMode, Error, Host, Limit, ObjectId, ObjectKind, Reason, Result, Status, Tree,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::engine::Shared;
use crate::error::{EngineError, Step};
use crate::retry::retrying;

/// The label that says which tree an image was made from.
const TREE: &str = "io.manifold.tree";

/// What an engine says of an image.
struct Known {
    tree: Option<String>,
    volumes: Vec<String>,
}

async fn inspect(engine: &Arc<Shared>, name: &str) -> Result<Known, EngineError> {
    let inspected = retrying(|| {
        let (shared, name) = (Arc::clone(engine), name.to_owned());
        engine.spawn(async move {
            let docker = shared.docker().await?;
            shared.call(Step::InspectImage, docker.inspect_image(&name)).await
        })
    });
    let config = inspected.await?.config.unwrap_or_default();
    let tree = config.labels.and_then(|mut labels| labels.remove(TREE));
    Ok(Known { tree, volumes: config.volumes.unwrap_or_default() })
}

/// Makes sure that the engine has an image and that it can be run as strictly as promised.
pub(crate) async fn check(engine: &Arc<Shared>, name: &str) -> Result<()> {
    let reference = format!("docker://{name}");
    let known = inspect(engine, name).await.map_err(|error| error.of_job(&reference))?;
    if known.volumes.is_empty() {
        return Ok(());
    }
    Err(Error::runtime(format!(
        "image {reference} declares volumes ({}), which can be written without bound; make it without them",
        known.volumes.join(", ")
    )))
}

/// Makes sure that the engine has the image that is kept in `tree`, and answers its name there.
pub(crate) async fn load(
    engine: &Arc<Shared>,
    tree: ObjectId,
    host: &dyn Host,
    bound: u64,
) -> Result<Arc<str>> {
    let name: Arc<str> = format!("manifold-image:{tree}").into();
    match inspect(engine, &name).await {
        Ok(known) if known.tree.as_deref() == Some(tree.to_string().as_str()) => return Ok(name),
        Ok(_) | Err(EngineError::Refused { code: 404, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let (archive, bytes) = Archive { host, module: tree, left: bound, bound }.write(&name).await?;
    // Ten megabytes a second, whatever else the disk does.
    let patience = engine.options.deadline + Duration::from_secs(bytes / 10_000_000);
    let archive = Arc::new(archive);
    let loaded = retrying(|| {
        let (shared, archive) = (Arc::clone(engine), Arc::clone(&archive));
        engine.spawn(async move {
            let docker = shared.docker().await?;
            let options = ImportImageOptionsBuilder::new().quiet(true).build();
            let loading = docker.import_image_stream(options, from_the_beginning(archive), None);
            shared.call_within(patience, Step::Load, loading.try_for_each(async |_| Ok(()))).await
        })
    });
    loaded.await?;
    Ok(name)
}

/// A file in pieces. Those who read it do not disturb each other.
fn from_the_beginning(file: Arc<File>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    const PIECE: usize = 1 << 18;
    futures_util::stream::try_unfold(0, move |offset| {
        let file = Arc::clone(&file);
        async move {
            let reading = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE];
                let bytes = file.read_at(&mut piece, offset)?;
                piece.truncate(bytes);
                io::Result::Ok(piece)
            });
            let piece = reading.await.map_err(io::Error::other)??;
            let next = offset + piece.len() as u64;
            Ok((!piece.is_empty()).then(|| (Bytes::from(piece), next)))
        }
    })
}

struct Archive<'a> {
    host: &'a dyn Host,
    module: ObjectId,
    left: u64,
    bound: u64,
}

impl Archive<'_> {
    /// The image as `docker load` takes it.
    async fn write(mut self, name: &str) -> Result<(File, u64)> {
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

        let mut archive = tar::Builder::new(tempfile::tempfile().map_err(no_room)?);
        for (name, content) in [(&config_name, &config), (&"manifest.json".to_owned(), &manifest)] {
            let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
            archive.append_data(&mut header, name, content.as_bytes()).map_err(no_room)?;
        }
        for (name, mut layer) in layer_names.iter().zip(layers) {
            layer.file.seek(SeekFrom::Start(0)).map_err(no_room)?;
            let mut header = header(EntryType::Regular, 0o644, layer.bytes);
            archive.append_data(&mut header, name, &layer.file).map_err(no_room)?;
        }
        let mut file = archive.into_inner().map_err(no_room)?;
        let bytes = file.stream_position().map_err(no_room)?;
        Ok((file, bytes))
    }

    /// The configuration, without the layers.
    async fn config(&mut self, tree: &Tree) -> Result<Map<String, Value>> {
        let given = match tree.get("config.json") {
            Some(entry) if entry.mode.object_kind() == Some(ObjectKind::Blob) => {
                let text = self.get(entry.id).await?;
                match serde_json::from_slice(&text) {
                    Ok(Value::Object(config)) => config,
                    Ok(_) => return Err(self.bad("its config.json is no object")),
                    Err(error) => return Err(self.bad(&format!("its config.json: {error}"))),
                }
            }
            Some(_) => return Err(self.bad("its config.json is no file")),
            None => Map::from_iter([("config".to_owned(), json!({ "Entrypoint": ["/guest"] }))]),
        };
        let mut run = match given.get("config") {
            Some(Value::Object(run)) => run.clone(),
            None => return Err(self.bad("its config.json has no `config`")),
            Some(_) => return Err(self.bad("the `config` in its config.json is no object")),
        };
        // What only this program decides about.
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
            Some(_) => return Err(self.bad("the `architecture` in its config.json is no text")),
        };
        Ok(Map::from_iter([
            ("architecture".to_owned(), architecture),
            ("os".to_owned(), json!("linux")),
            ("created".to_owned(), json!("1970-01-01T00:00:00Z")),
            ("config".to_owned(), Value::Object(run)),
        ]))
    }

    /// The layers' trees, the lowest first.
    fn layers(&self, tree: &Tree) -> Result<Vec<ObjectId>> {
        if tree.get("config.json").is_none() {
            // In a layer it takes something away, and in a root file system it would be lost.
            if let Some(entry) = tree.entries().iter().find(|entry| entry.name.starts_with(b".wh."))
            {
                return Err(self
                    .bad(&format!("{} is no name for a file of a root file system", entry.name)));
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

    async fn layer(&mut self, tree: ObjectId) -> Result<Layer> {
        let mut builder = tar::Builder::new(Hashing::new(tempfile::tempfile().map_err(no_room)?));
        let mut open = vec![(PathBuf::new(), EntryMode::Tree, tree)];
        while let Some((path, mode, id)) = open.pop() {
            match mode {
                EntryMode::Tree => {
                    if !path.as_os_str().is_empty() {
                        let mut header = header(EntryType::Directory, 0o755, 0);
                        builder.append_data(&mut header, &path, io::empty()).map_err(no_room)?;
                    }
                    let tree = self.host.tree(id).await?;
                    // The last one pushed is the next.
                    for entry in tree.entries().iter().rev() {
                        let path = path.join(OsStr::from_bytes(&entry.name));
                        let bytes = path.as_os_str().len();
                        if bytes > MAX_PATH {
                            return Err(
                                self.bad(&format!("a path in it has more than {MAX_PATH} bytes"))
                            );
                        }
                        // Here, and as names of the archive.
                        self.charge(HEADER + 4 * bytes as u64)?;
                        open.push((path, entry.mode, entry.id));
                    }
                }
                EntryMode::Blob | EntryMode::Executable => {
                    let content = self.get(id).await?;
                    let permissions = if mode == EntryMode::Executable { 0o755 } else { 0o644 };
                    let mut header = header(EntryType::Regular, permissions, content.len() as u64);
                    builder.append_data(&mut header, &path, &content[..]).map_err(no_room)?;
                }
                EntryMode::Symlink => {
                    let target = self.get(id).await?;
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
                        return Err(
                            self.bad(&format!("the link {} leads to no path", path.display()))
                        );
                    }
                    builder
                        .append_link(&mut header, &path, Path::new(OsStr::from_bytes(&target)))
                        .map_err(no_room)?;
                }
                EntryMode::Commit => {
                    return Err(self.bad(&format!("{} is a submodule", path.display())));
                }
            }
        }
        let hashing = builder.into_inner().map_err(no_room)?;
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

/// What every entry of an archive takes, at least.
const HEADER: u64 = 512;
/// The longest path that the kernel takes.
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

fn no_room(error: io::Error) -> Error {
    let problem = format!("the archive of a container image cannot be written: {error}");
    Error::new(Reason::RuntimeFailed { problem, status: Status::Transient })
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A layer's archive.
struct Layer {
    digest: String,
    bytes: u64,
    file: File,
}

/// Hashes what it writes.
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
