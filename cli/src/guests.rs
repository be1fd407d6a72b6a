//! The guests that come with Manifold, and the tree that names them.

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{EntryMode, Error, Module, ObjectId, ObjectKind, Result, TreeEntry};

/// The guests' names and code, as the set-up built them. Empty when the set-up had not run before this was compiled.
pub static GUESTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// Stores every guest as an image of the wasm runtime `host`, and the tree that names them: the standard tree, in which
/// `/cas/std/<name>` finds them. Answers the tree's id.
///
/// # Errors
/// `RuntimeFailed` when this program was built without guests; what the store answers.
pub fn install(dispatcher: &Dispatcher, host: ObjectId) -> Result<ObjectId> {
    if GUESTS.is_empty() {
        return Err(Error::runtime(
            "this program was built without guests; run `cargo xtask setup` and build it again",
        ));
    }
    let entries = GUESTS.iter().map(|(name, code)| {
        let module = Module { kind: ObjectKind::Blob, id: dispatcher.put_blob(*code)? };
        let image = dispatcher.put_image(host, module)?;
        Ok(TreeEntry::new(*name, EntryMode::Tree, image))
    });
    dispatcher.put_tree(entries.collect::<Result<Vec<_>>>()?)
}
