//! Writes the archive of a container image that is kept in the store, in the format of
//! `docker load`.
//!
//! The archive is a function of the image's tree. It is written layer by layer to temporary files.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    DockerReference, EntryMode, Error, Host, ImageRef, Limit, MAX_IMAGE_DEPTH, NodeShape, ObjectId,
    ObjectKind, Reason, Result, Status, Tree, TreeEntry,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::attributes::{Attributes, LayerAttributes};
use super::import::{KEPT, own_architecture};
use super::{
    ATTRIBUTES, BASE, CONFIG, LAYER, MAX_PATH, TREE_LABEL, WHITEOUT, XATTR, hex, is_image,
};

/// Where the objects of an image are.
#[derive(Clone, Copy)]
pub(crate) enum Objects<'a> {
    Host(&'a dyn Host),
    /// A function that returns the content of an object of a kind.
    Read(&'a (dyn Fn(ObjectId, ObjectKind) -> Result<Bytes> + Send + Sync)),
}

impl Objects<'_> {
    async fn blob(self, id: ObjectId) -> Result<Bytes> {
        match self {
            Self::Host(host) => host.get(id).await,
            Self::Read(read) => read(id, ObjectKind::Blob),
        }
    }

    async fn tree(self, id: ObjectId) -> Result<Arc<Tree>> {
        match self {
            Self::Host(host) => host.tree(id).await,
            Self::Read(read) => Tree::decode_as_git_reads(&read(id, ObjectKind::Tree)?)
                .map(Arc::new)
                .map_err(|problem| Error::bad_tree(id, problem)),
        }
    }
}

/// What an archive is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An engine loads it to run guests. What the isolation decides is left out, and the image gets
    /// the label that names its tree.
    Guests,
    /// Whatever the user does with it.
    Export,
}

/// Writes the archive of one image.
pub(crate) struct Archive<'a> {
    objects: Objects<'a>,
    module: ObjectId,
    purpose: Purpose,
    /// Bytes that the image may still take.
    left: u64,
    /// Maximum size of the image, in bytes.
    bound: u64,
}

/// An image of the engine on which another is based.
pub(crate) struct EngineImage {
    /// Its configuration.
    pub(crate) config: Map<String, Value>,
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// The trees of an image, and those of the images on which it is based.
struct Stack {
    /// The lowest first.
    trees: Vec<(ObjectId, Arc<Tree>)>,
    /// The image of the engine below all of them.
    below: Option<DockerReference>,
}

impl<'a> Archive<'a> {
    /// Prepares to write the image in the tree `module`, of at most `bound` bytes.
    pub(crate) fn new(
        objects: Objects<'a>,
        module: ObjectId,
        purpose: Purpose,
        bound: u64,
    ) -> Self {
        Self { objects, module, purpose, left: bound, bound }
    }

    /// Writes the image in the format of `docker load` to `out`. `name` is what the engine calls it,
    /// and `engine` gets an image of the engine on which it is based, of at most so many bytes.
    pub(crate) async fn write<W: Write>(
        mut self,
        name: Option<&str>,
        out: W,
        engine: impl AsyncFnOnce(&DockerReference, u64) -> Result<EngineImage>,
    ) -> Result<W> {
        let stack = self.stack().await?;
        let (mut config, mut layers) = (Map::new(), Vec::new());
        if let Some(below) = &stack.below {
            let image = engine(below, self.left).await?;
            for layer in &image.layers {
                self.charge(layer.bytes)?;
            }
            (config, layers) = (image.config, image.layers);
        }
        for (id, tree) in &stack.trees {
            self.configure(&mut config, tree).await?;
            for (layer, attributes) in self.layers(*id, tree)? {
                let attributes = match attributes {
                    None => LayerAttributes::default(),
                    Some((name, id)) => LayerAttributes::parse(&self.get(id).await?)
                        .map_err(|problem| self.bad(&format!("its {name}: {problem}")))?,
                };
                layers.push(self.layer(layer, attributes).await?);
            }
        }
        let config = self.finished(config, &layers)?.to_string();
        let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
        let layer_names: Vec<String> =
            layers.iter().map(|layer| format!("{}/layer.tar", layer.digest)).collect();
        let tags: Vec<&str> = name.into_iter().collect();
        let manifest =
            json!([{ "Config": config_name, "RepoTags": tags, "Layers": layer_names }]).to_string();

        let mut archive = tar::Builder::new(out);
        for (name, content) in [(&config_name, &config), (&"manifest.json".to_owned(), &manifest)] {
            let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
            archive.append_data(&mut header, name, content.as_bytes()).map_err(archive_error)?;
        }
        let mut written = HashSet::new();
        for (name, mut layer) in layer_names.iter().zip(layers) {
            if !written.insert(name) {
                continue;
            }
            layer.file.seek(SeekFrom::Start(0)).map_err(archive_error)?;
            let mut header = header(EntryType::Regular, 0o644, layer.bytes);
            archive.append_data(&mut header, name, &layer.file).map_err(archive_error)?;
        }
        archive.into_inner().map_err(archive_error)
    }

    /// Follows `base` from the image to those below.
    async fn stack(&mut self) -> Result<Stack> {
        let mut stack = Stack { trees: Vec::new(), below: None };
        let mut next = Some(self.module);
        while let Some(id) = next.take() {
            if stack.trees.len() >= MAX_IMAGE_DEPTH {
                return Err(self.bad("the images on which it is based nest too deep"));
            }
            let tree = self.objects.tree(id).await?;
            if let Some(entry) = tree.get(BASE) {
                match self.base(entry).await? {
                    ImageRef::Node(base) => next = Some(self.module_of(base).await?),
                    ImageRef::Docker(container) if container.is_by_digest() => {
                        stack.below = Some(container);
                    }
                    other => {
                        return Err(self.bad(&format!(
                            "its base is {other}; expected docker://<digest> or the id of a tree"
                        )));
                    }
                }
            }
            stack.trees.push((id, tree));
        }
        stack.trees.reverse();
        Ok(stack)
    }

    async fn base(&mut self, entry: &TreeEntry) -> Result<ImageRef> {
        if entry.mode.object_kind() != Some(ObjectKind::Blob) {
            return Err(self.bad("its base is not a file"));
        }
        let text = self.get(entry.id).await?;
        let text = text.to_str().map_err(|_| self.bad("its base is not UTF-8 text"))?;
        ImageRef::parse(text).map_err(|problem| self.bad(&format!("its base: {problem}")))
    }

    /// Returns the tree of the container image that `id` is, or that it runs.
    async fn module_of(&self, id: ObjectId) -> Result<ObjectId> {
        let tree = self.objects.tree(id).await?;
        match NodeShape::of(&tree) {
            Ok(NodeShape::Runtime { module, .. }) if module.kind == ObjectKind::Tree => {
                Ok(module.id)
            }
            Ok(_) => Err(self.bad(&format!("its base {id} is not a container image"))),
            Err(_) => Ok(id),
        }
    }

    /// Applies the configuration in `tree` to that of the images below.
    async fn configure(&mut self, config: &mut Map<String, Value>, tree: &Tree) -> Result<()> {
        let given = match tree.get(CONFIG) {
            Some(entry) if entry.mode.object_kind() == Some(ObjectKind::Blob) => {
                let text = self.get(entry.id).await?;
                match serde_json::from_slice(&text) {
                    Ok(Value::Object(config)) => config,
                    Ok(_) => return Err(self.bad("its config.json is not an object")),
                    Err(error) => return Err(self.bad(&format!("its config.json: {error}"))),
                }
            }
            Some(_) => return Err(self.bad("its config.json is not a file")),
            None if tree.get(BASE).is_some() => return Ok(()),
            None => Map::from_iter([("config".to_owned(), json!({ "Entrypoint": ["/guest"] }))]),
        };
        for (key, value) in given {
            match (key.as_str(), value, config.get_mut("config")) {
                ("config", Value::Object(run), Some(Value::Object(below))) => below.extend(run),
                ("config", run @ Value::Object(_), _) => drop(config.insert(key, run)),
                ("config", ..) => {
                    return Err(self.bad("the `config` in its config.json is not an object"));
                }
                (_, value, _) => drop(config.insert(key, value)),
            }
        }
        Ok(())
    }

    /// Returns the configuration of the image that is written, with its layers.
    fn finished(&self, given: Map<String, Value>, layers: &[Layer]) -> Result<Value> {
        let mut run = match given.get("config") {
            Some(Value::Object(run)) => run.clone(),
            _ => return Err(self.bad("its config.json has no `config`")),
        };
        let kept: &[&str] = match self.purpose {
            // The isolation decides about everything else.
            Purpose::Guests => &RUN_KEYS,
            Purpose::Export => &KEPT,
        };
        run.retain(|key, _| kept.contains(&key.as_str()));
        for key in RUN_KEYS {
            let Some(value) = run.get(key) else { continue };
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
        if self.purpose == Purpose::Guests {
            run.insert("Labels".to_owned(), json!({ TREE_LABEL: self.module.to_string() }));
        }
        let text = |key: &str, default: &str| match given.get(key) {
            None => Ok(json!(default)),
            Some(given) if given.is_string() => Ok(given.clone()),
            Some(_) => Err(self.bad(&format!("the `{key}` in its config.json is not a string"))),
        };
        let digests: Vec<String> =
            layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        let mut config = Map::from_iter([
            ("architecture".to_owned(), text("architecture", own_architecture())?),
            ("os".to_owned(), json!("linux")),
            ("created".to_owned(), json!("1970-01-01T00:00:00Z")),
            ("config".to_owned(), Value::Object(run)),
            ("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": digests })),
        ]);
        if given.contains_key("variant") {
            config.insert("variant".to_owned(), text("variant", "")?);
        }
        Ok(Value::Object(config))
    }

    /// Returns the trees of the layers of `tree`, the lowest first, with the names and ids of their
    /// attributes.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn layers(
        &self,
        id: ObjectId,
        tree: &Tree,
    ) -> Result<Vec<(ObjectId, Option<(String, ObjectId)>)>> {
        if !is_image(tree) {
            // In a layer such a name deletes a file. In a root file system it would have no effect
            // and the file would be lost.
            if let Some(entry) =
                tree.entries().iter().find(|entry| entry.name.starts_with(WHITEOUT))
            {
                return Err(self.bad(&format!(
                    "{} is not a valid file name in a root file system",
                    entry.name
                )));
            }
            return Ok(vec![(id, None)]);
        }
        let (mut layers, mut attributes) = (Vec::new(), HashMap::new());
        for entry in tree.entries() {
            let number = |prefix: &str| {
                let number = entry.name.strip_prefix(prefix.as_bytes())?.to_str().ok()?;
                let is_number =
                    number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit());
                is_number.then(|| number.to_owned())
            };
            match (number(LAYER), number(ATTRIBUTES)) {
                (Some(number), _) if entry.mode == EntryMode::Tree => {
                    layers.push((number, entry.id));
                }
                (_, Some(number)) if entry.mode == EntryMode::Blob => {
                    attributes.insert(number, (entry.name.to_string(), entry.id));
                }
                _ if entry.name == CONFIG || entry.name == BASE => {}
                _ => {
                    return Err(self.bad(&format!(
                        "{} is neither {CONFIG}, {BASE}, a tree {LAYER}<NN> nor a file \
                         {ATTRIBUTES}<NN>",
                        entry.name
                    )));
                }
            }
        }
        let layers = layers.into_iter().map(|(number, id)| (id, attributes.remove(&number)));
        let layers = layers.collect();
        match attributes.into_values().next() {
            None => Ok(layers),
            Some((name, _)) => Err(self.bad(&format!("its {name} describes no layer"))),
        }
    }

    /// Writes the archive of one layer.
    async fn layer(&mut self, tree: ObjectId, mut given: LayerAttributes) -> Result<Layer> {
        let mut builder = tar::Builder::new(Layer::temporary()?);
        // What was written for files, because links refer to it.
        let mut files: HashMap<Vec<u8>, (EntryMode, ObjectId, Attributes)> = HashMap::new();
        let has_attributes = given.rest().is_some();
        let mut open = vec![(Vec::new(), EntryMode::Tree, tree)];
        while let Some((path, mode, id)) = open.pop() {
            let shown = Path::new(OsStr::from_bytes(&path));
            let mut attributes = given.take(&path, mode).map_err(|problem| {
                self.bad(&format!("the attributes of {}: {problem}", shown.display()))
            })?;
            if let Some(link) = attributes.link.take() {
                let target = files.get(&link).filter(|(target_mode, target, _)| {
                    mode != EntryMode::Tree && (*target_mode, *target) == (mode, id)
                });
                let Some((.., of_target)) = target else {
                    return Err(self.bad(&format!(
                        "{} is a hard link to {}, which is not the same file before it",
                        shown.display(),
                        link.as_bstr()
                    )));
                };
                append(&mut builder, EntryType::Link, &path, of_target, &link)?;
                continue;
            }
            match mode {
                EntryMode::Tree => {
                    let is_implied = path.is_empty() && attributes == Attributes::of(mode);
                    if !is_implied {
                        append(&mut builder, EntryType::Directory, &path, &attributes, b"")?;
                    }
                    let tree = self.objects.tree(id).await?;
                    // Reversed, because the last entry pushed is processed next.
                    for entry in tree.entries().iter().rev() {
                        let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                        let path = [&path[..], separator, &entry.name[..]].concat();
                        let bytes = path.len();
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
                    append(&mut builder, EntryType::Regular, &path, &attributes, &content)?;
                    if has_attributes {
                        files.insert(path, (mode, id, attributes));
                    }
                }
                EntryMode::Symlink => {
                    let target = self.get(id).await?;
                    if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
                        return Err(self.bad(&format!(
                            "the target of link {} is not a path",
                            shown.display()
                        )));
                    }
                    append(&mut builder, EntryType::Symlink, &path, &attributes, &target)?;
                }
                EntryMode::Commit => {
                    return Err(self.bad(&format!("{} is a submodule", shown.display())));
                }
            }
        }
        if let Some(path) = given.rest() {
            let path = path.as_bstr();
            return Err(
                self.bad(&format!("it has attributes of {path}, which is not in the layer"))
            );
        }
        Ok(builder.into_inner().map_err(archive_error)?.finish())
    }

    async fn get(&mut self, id: ObjectId) -> Result<Bytes> {
        let content = self.objects.blob(id).await?;
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

/// The keys of a configuration that say how the program of a guest is started.
const RUN_KEYS: [&str; 4] = ["Entrypoint", "Cmd", "Env", "WorkingDir"];
/// Minimum size of an archive entry, in bytes.
const HEADER_BYTES: u64 = 512;

/// Appends an entry. `content` is what a file has, or the target of a link.
fn append(
    builder: &mut tar::Builder<LayerWriter>,
    kind: EntryType,
    path: &[u8],
    attributes: &Attributes,
    content: &[u8],
) -> Result<()> {
    let is_link = matches!(kind, EntryType::Link | EntryType::Symlink);
    let mut header = header(kind, attributes.mode, if is_link { 0 } else { content.len() as u64 });
    header.set_uid(attributes.uid);
    header.set_gid(attributes.gid);
    let time = attributes.mtime;
    header.set_mtime(u64::try_from(time.seconds).unwrap_or_default());
    let mut extensions: Vec<(String, Vec<u8>)> = Vec::new();
    if time.nanoseconds > 0 || time.seconds < 0 {
        extensions.push(("mtime".to_owned(), time.format().into_bytes()));
    }
    for (name, value) in &attributes.xattrs {
        extensions.push((format!("{XATTR}{name}"), value.clone()));
    }
    let extensions = extensions.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
    builder.append_pax_extensions(extensions).map_err(archive_error)?;
    // The root has no name of its own.
    let path = Path::new(OsStr::from_bytes(if path.is_empty() { b"./" } else { path }));
    let appended = if is_link {
        builder.append_link(&mut header, path, Path::new(OsStr::from_bytes(content)))
    } else {
        builder.append_data(&mut header, path, content)
    };
    appended.map_err(archive_error)
}

/// Returns the header of an entry of root, without a time.
pub(crate) fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

pub(crate) fn archive_error(error: io::Error) -> Error {
    let problem = format!("cannot write the archive of a container image: {error}");
    Error::new(Reason::RuntimeFailed { problem, status: Status::Transient })
}

/// The archive of a layer.
pub(crate) struct Layer {
    digest: String,
    bytes: u64,
    file: File,
}

impl Layer {
    /// Copies the archive of a layer.
    pub(super) fn copy(mut archive: impl Read) -> Result<Self> {
        let mut copy = Self::temporary()?;
        io::copy(&mut archive, &mut copy).map_err(archive_error)?;
        Ok(copy.finish())
    }

    fn temporary() -> Result<LayerWriter> {
        let file = tempfile::tempfile().map_err(archive_error)?;
        Ok(LayerWriter { file, digest: Sha256::new(), bytes: 0 })
    }
}

/// Writes to a file and hashes the bytes written.
struct LayerWriter {
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl LayerWriter {
    fn finish(self) -> Layer {
        Layer { digest: hex(&self.digest.finalize()), bytes: self.bytes, file: self.file }
    }
}

impl Write for LayerWriter {
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
