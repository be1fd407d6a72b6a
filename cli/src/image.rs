//! `manifold image`: container images in the store.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};

use bytesize::ByteSize;
use manifold_dispatcher::{DurableStore, Store};
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{
    Error, ImageRef, NodeShape, Object, ObjectId, ObjectKind, ObjectRef, Tree,
};
use manifold_runtime_docker::{ImportOptions, check_image, is_image};
use serde_json::{Value, json};

use crate::args::{ImageExport, ImageImport, ImageLs, Language};
use crate::error::CliError;
use crate::input::{self, Input};
use crate::names;
use crate::progress::Importing;
use crate::report;
use crate::session::{Options, Session};

pub(crate) fn import(options: &ImageImport) -> Result<(), CliError> {
    let store = options.store.open()?;
    let sources = tree_in_files(options)?;
    let tree = sources.as_ref().map(|input| input.root.id);
    let image = match tree {
        Some(tree) => tree,
        None => archive(options, &store)?,
    };
    let sources = sources.into_iter().map(|input| input.source).collect();
    let session = Session::new(store, sources, &Options::default())?;
    if !is_image(&session.dispatcher.read_tree(image)?) {
        return Err(CliError::NotAContainerImage { image: options.archive.display().to_string() });
    }
    if tree.is_some() {
        check(&session, image)
            .map_err(|source| CliError::BadImage { path: options.archive.clone(), source })?;
    }
    session.dispatcher.pin(image)?;
    session.dispatcher.flush()?;
    if let Some(name) = &options.name {
        let runnable = session.wrapped(image, Language::Docker)?;
        names::set(&session, &options.store, name, Some(&runnable.to_string()))?;
    }
    report::print(format!("{image}\n").as_bytes())
}

/// Checks that an engine can load the image.
fn check(session: &Session, image: ObjectId) -> Result<(), Error> {
    let read = reading(session);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| Error::runtime(error.to_string()))?;
    runtime.block_on(check_image(image, &read))
}

/// Returns a function that reads objects for an image.
fn reading(
    session: &Session,
) -> impl Fn(ObjectId, ObjectKind) -> Result<Bytes, Error> + Send + Sync + use<> {
    let dispatcher = session.dispatcher.clone();
    move |id, kind| {
        let object = dispatcher.read(id)?;
        if object.kind == kind { Ok(object.content) } else { Err(Error::missing(id)) }
    }
}

/// Imports an archive, and returns the id of the image.
fn archive(options: &ImageImport, store: &DurableStore) -> Result<ObjectId, CliError> {
    let mut import = ImportOptions::default();
    if let Some(image) = &options.image {
        import = import.image(image);
    }
    if let Some(platform) = &options.platform {
        import = import.platform(platform);
    }
    let bar = Importing::new();
    let mut write = |object: Object| store.write(object);
    let mut progress = |progress| bar.show(progress);
    let path = &options.archive;
    let imported = if path.as_os_str() == "-" {
        import.import_stream(io::stdin().lock(), &mut write, &mut progress)
    } else {
        input::check_path(path)?;
        import.import(path, &mut write, &mut progress)
    };
    imported.map_err(|source| CliError::Import { path: path.clone(), source })
}

/// Reads a directory that has the form in which the store keeps images.
fn tree_in_files(options: &ImageImport) -> Result<Option<Input>, CliError> {
    let path = &options.archive;
    let is_archive = ["index.json", "manifest.json"].iter().any(|name| path.join(name).exists());
    let is_tree = ["config.json", "base"].iter().any(|name| path.join(name).exists());
    if is_archive || !is_tree {
        return Ok(None);
    }
    Ok(Some(input::directory(path, &options.store.reading()?)?))
}

/// Prints a line for each container image that is pinned: its id, size, layers, program and names.
pub(crate) fn list(options: &ImageLs) -> Result<(), CliError> {
    let session = Session::new(options.store.open_to_look()?, Vec::new(), &Options::default())?;
    let dispatcher = &session.dispatcher;
    let mut names: BTreeMap<ObjectId, Vec<String>> = BTreeMap::new();
    for entry in dispatcher.read_tree(session.std)?.entries() {
        if let Ok(ImageRef::Node(node)) = ImageRef::parse(&session.reference(entry)?)
            && let Some(image) = session.container_image(node)?
        {
            names.entry(image).or_default().push(entry.name.to_string());
        }
    }
    let pinned = dispatcher
        .pins()?
        .into_iter()
        .filter(|pin| pin.request == pin.outcome.id && pin.outcome.kind == ObjectKind::Tree);
    let mut images: BTreeSet<ObjectId> = pinned.map(|pin| pin.outcome.id).collect();
    for named in names::own(&session)?.entries() {
        images.extend(session.container_image(named.id)?);
    }
    let mut text = String::new();
    for id in images {
        let tree = dispatcher.read_tree(id)?;
        if !is_image(&tree) {
            continue;
        }
        let layers = tree.entries().iter().filter(|entry| entry.name.starts_with(b"layer")).count();
        let bytes = session.size(id)?;
        let program = session.program(&tree)?;
        let names = names.remove(&id).unwrap_or_default();
        if options.json {
            text += &report::json(&json!({
                "image": id.to_string(), "bytes": bytes, "layers": layers,
                "program": program, "names": names,
            }))?;
        } else {
            let line = format!(
                "{id} {:>10} {layers:>3} layers  {}  {}",
                ByteSize(bytes).to_string(),
                program.join(" "),
                names.join(" ")
            );
            text += line.trim_end();
            text += "\n";
        }
    }
    report::print(text.as_bytes())
}

pub(crate) async fn export(options: ImageExport) -> Result<(), CliError> {
    let store = options.store.open_to_look()?;
    let session = Session::new(store, Vec::new(), &Options::default())?;
    let image = session.image(&options.image, Language::Docker).await?;
    let found = match ImageRef::parse(&image) {
        Ok(ImageRef::Node(node)) => session.container_image(node)?,
        _ => None,
    };
    let image = found.ok_or(CliError::NotAContainerImage { image: options.image.clone() })?;
    let read = reading(&session);
    let (out, tag) = (&options.out, options.tag.as_deref());
    if out.as_os_str() == "-" {
        let out = BufWriter::new(io::stdout());
        let mut written = session.engine.export_image(image, tag, &read, out).await?;
        return written.flush().map_err(CliError::Output);
    }
    let unwritable = |source| CliError::Unwritable { path: out.clone(), source };
    // A link, a pipe or a device is written to, and not replaced.
    if out.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        let file = File::options().write(true).truncate(true).open(out).map_err(unwritable)?;
        let written =
            session.engine.export_image(image, tag, &read, BufWriter::new(file)).await?.flush();
        return written.map_err(unwritable);
    }
    let part = out.with_added_extension("part");
    let file = BufWriter::new(File::create(&part).map_err(unwritable)?);
    let written = session.engine.export_image(image, tag, &read, file).await;
    let kept = written.map_err(CliError::from).and_then(|mut file| {
        file.flush().and_then(|()| fs::rename(&part, out)).map_err(unwritable)
    });
    if kept.is_err() {
        let _ = fs::remove_file(&part);
    }
    kept
}

impl Session {
    /// Returns the tree of the container image that `id` is or runs, or `None` if it is another
    /// object.
    pub(crate) fn container_image(&self, id: ObjectId) -> Result<Option<ObjectId>, CliError> {
        let Ok(object) = self.dispatcher.read(id) else { return Ok(None) };
        if object.kind != ObjectKind::Tree {
            return Ok(None);
        }
        let tree = self.dispatcher.read_tree(id)?;
        match NodeShape::of(&tree) {
            Ok(NodeShape::Runtime { marker, module }) if module.kind == ObjectKind::Tree => {
                let host = self.dispatcher.read(marker)?.content;
                let of_containers = [self.hosts.container, self.hosts.serving];
                let is_for_containers = of_containers
                    .iter()
                    .flatten()
                    .any(|id| id.to_string().as_bytes() == host.trim());
                Ok(is_for_containers.then_some(module.id))
            }
            Ok(_) => Ok(None),
            Err(_) => Ok(is_image(&tree).then_some(id)),
        }
    }

    /// Returns `id`, or the image that runs it if it is the tree of a container image.
    pub(crate) fn wrapped(&self, id: ObjectId, language: Language) -> Result<ObjectId, CliError> {
        if self.container_image(id)? != Some(id) {
            return Ok(id);
        }
        let language =
            if language == Language::Serving { Language::Serving } else { Language::Docker };
        Ok(self.dispatcher.put_image(self.host(language)?, ObjectRef::tree(id))?)
    }

    /// Returns the size of all blobs below a tree, each counted once, in bytes.
    fn size(&self, tree: ObjectId) -> Result<u64, CliError> {
        let (mut bytes, mut seen, mut open) = (0, HashSet::new(), vec![ObjectRef::tree(tree)]);
        while let Some(object) = open.pop() {
            if !seen.insert(object.id) {
                continue;
            }
            match object.kind {
                ObjectKind::Blob => bytes += self.dispatcher.blob_size(object.id)?,
                ObjectKind::Tree => {
                    open.extend(self.dispatcher.read_tree(object.id)?.objects());
                }
            }
        }
        Ok(bytes)
    }

    /// Returns the program of a container image and its arguments, as its configuration says.
    fn program(&self, image: &Tree) -> Result<Vec<String>, CliError> {
        let Some(config) = image.get("config.json") else { return Ok(Vec::new()) };
        let config = self.dispatcher.read(config.id)?.content;
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let words = ["Entrypoint", "Cmd"]
            .iter()
            .filter_map(|key| config["config"][key].as_array())
            .flatten();
        Ok(words.filter_map(|word| word.as_str().map(str::to_owned)).collect())
    }
}
