//! `manifold std`: the user's names for images, which are kept in the store beside the standard
//! ones.

use std::fs::File;

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{EntryMode, ImageRef, ObjectId, ObjectKind, Tree, TreeEntry};
use serde_json::json;

use crate::args::{Language, StdAdd, StdKind, StdLs, StdRm, StoreArgs};
use crate::error::CliError;
use crate::report;
use crate::session::{Options, Session};

pub(crate) async fn names(kind: StdKind) -> Result<(), CliError> {
    match kind {
        StdKind::Ls(options) => list(&options),
        StdKind::Add(options) => add(&options).await,
        StdKind::Rm(options) => remove(&options),
    }
}

/// Prints the names and what they stand for, in the order of the names.
fn list(options: &StdLs) -> Result<(), CliError> {
    let session = Session::new(options.store.open_to_look()?, Vec::new(), &Options::default())?;
    let own = own(&session)?;
    let mut text = String::new();
    for entry in session.dispatcher.read_tree(session.std)?.entries() {
        let name = entry.name.to_string();
        let image = session.reference(entry)?;
        let is_own = own.get(&name).is_some();
        if options.json {
            text += &report::json(&json!({ "name": name, "image": image, "own": is_own }))?;
        } else {
            text += &format!("{name} {image}{}\n", if is_own { "" } else { " (standard)" });
        }
    }
    report::print(text.as_bytes())
}

/// Gives an image a name, and prints the id of the tree of all names.
async fn add(options: &StdAdd) -> Result<(), CliError> {
    let containers = Options::for_containers(options.containers);
    let session = Session::new(options.store.open()?, Vec::new(), &containers)?;
    let image = session.image(&options.image, Language::Wasm).await?;
    print(set(&session, &options.store, &options.name, Some(&image))?)
}

/// Removes names, and prints the id of the tree of all names.
fn remove(options: &StdRm) -> Result<(), CliError> {
    let store = options.store.open()?;
    let session = Session::new(store, Vec::new(), &Options::default())?;
    print(set(&session, &options.store, &options.name, None)?)
}

fn print(names: ObjectId) -> Result<(), CliError> {
    report::print(format!("{names}\n").as_bytes())
}

/// Returns the tree of the user's own names.
pub(crate) fn own(session: &Session) -> Result<Tree, CliError> {
    match session.dispatcher.named_images()? {
        Some(tree) => Ok(session.dispatcher.read_tree(tree)?),
        None => Ok(Tree::empty()),
    }
}

/// The longest name in bytes.
const MAX_NAME: usize = 200;

/// Lets `name` stand for `image`, or for none. Returns the id of the tree of all names.
pub(crate) fn set(
    session: &Session,
    store: &StoreArgs,
    name: &str,
    image: Option<&str>,
) -> Result<ObjectId, CliError> {
    let is_name = matches!(
        ImageRef::parse(&format!("/cas/std/{name}")), Ok(ImageRef::Std(parsed)) if parsed == name
    );
    let is_entry =
        Tree::new([TreeEntry::new(name, EntryMode::Tree, ObjectId::empty_tree())]).is_ok();
    let is_shown = !name.contains(char::is_control) && name.len() <= MAX_NAME;
    if !is_name || !is_entry || !is_shown || ImageRef::parse(name).is_ok() {
        return Err(CliError::NotAName { name: name.chars().take(MAX_NAME).collect() });
    }
    if session.dispatcher.read_tree(session.standard)?.get(name).is_some() {
        return Err(CliError::StandardName { name: name.to_owned() });
    }
    let _lock = lock(store)?;
    let dispatcher = &session.dispatcher;
    // What another process has just added may be in the file only.
    let own = dispatcher.pins()?.into_iter().find(|pin| pin.is_of_named_images());
    let mut entries = match own {
        Some(pin) => dispatcher.read_tree(pin.outcome.id)?.into_entries(),
        None => Vec::new(),
    };
    let before = entries.len();
    entries.retain(|entry| entry.name != name);
    match image.map(|image| (image, ImageRef::parse(image))) {
        None if entries.len() == before => {
            let known = entries.iter().map(|entry| entry.name.to_string()).collect();
            return Err(CliError::NoSuchName { name: name.to_owned(), known });
        }
        None => {}
        Some((_, Ok(ImageRef::Node(node)))) => {
            entries.push(TreeEntry::new(name, EntryMode::Tree, node));
        }
        Some((image, _)) => {
            let blob = dispatcher.put_blob(image.to_owned())?;
            entries.push(TreeEntry::new(name, EntryMode::Blob, blob));
        }
    }
    let own = dispatcher.put_tree(entries)?;
    dispatcher.set_named_images(own)?;
    dispatcher.flush()?;
    merged(dispatcher, session.standard, own)
}

/// Stores the tree of the names in `standard` and in `own`, which come before those of the same name
/// in `standard`.
pub(crate) fn merged(
    dispatcher: &Dispatcher,
    standard: ObjectId,
    own: ObjectId,
) -> Result<ObjectId, CliError> {
    let own = dispatcher.read_tree(own)?;
    let mut entries = dispatcher.read_tree(standard)?.into_entries();
    entries.retain(|entry| own.get(&entry.name).is_none());
    entries.extend(own.into_entries());
    Ok(dispatcher.put_tree(entries)?)
}

/// Waits until no other process changes the names, and keeps others from it until dropped.
fn lock(store: &StoreArgs) -> Result<File, CliError> {
    let path = store.directory()?.join("manifold.redb-names");
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let locked = lock.and_then(|lock| lock.lock().map(|()| lock));
    locked.map_err(|source| CliError::Unwritable { path, source })
}

impl Session {
    /// Returns the image reference that an entry in a tree of names stands for.
    pub(crate) fn reference(&self, entry: &TreeEntry) -> Result<String, CliError> {
        if entry.mode.object_kind() == Some(ObjectKind::Blob) {
            let text = self.dispatcher.read(entry.id)?.content;
            return Ok(String::from_utf8_lossy(&text).trim().to_owned());
        }
        Ok(entry.id.to_string())
    }
}
