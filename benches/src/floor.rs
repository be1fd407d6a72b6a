//! What the machine needs for the whole job, without any of what Manifold is for.

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{ObjectId, ObjectKind, Result};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

/// Counts the files below `root` with a recursive function on all cores: reads and decodes every tree, and keeps nothing.
///
/// # Errors
/// What the store answers.
pub fn count_files(dispatcher: &Dispatcher, root: ObjectId) -> Result<u64> {
    let tree = dispatcher.read_tree(root)?;
    let below = tree.entries().par_iter().map(|entry| match entry.mode.object_kind() {
        Some(ObjectKind::Blob) => Ok(1),
        Some(ObjectKind::Tree) => count_files(dispatcher, entry.id),
        None => Ok(0),
    });
    below.sum()
}

/// Counts the files below `root` as a fold does it: the count of every node is stored as a blob, and the counts of every
/// directory's entries as a tree. That is the work that is left when frames cost nothing.
///
/// # Errors
/// What the store answers.
pub fn fold_files(dispatcher: &Dispatcher, root: ObjectId) -> Result<(u64, ObjectId)> {
    let tree = dispatcher.read_tree(root)?;
    let counts: Vec<_> = tree
        .entries()
        .par_iter()
        .map(|entry| match entry.mode.object_kind() {
            Some(ObjectKind::Tree) => fold_files(dispatcher, entry.id),
            _ => Ok((1, dispatcher.put_blob("1\n")?)),
        })
        .collect::<Result<_>>()?;
    let total = counts.iter().map(|(count, _)| count).sum();
    let children = tree.entries().iter().zip(counts).map(|(entry, (_, result))| {
        manifold_runtime_api::TreeEntry::new(
            entry.name.clone(),
            manifold_runtime_api::EntryMode::Blob,
            result,
        )
    });
    dispatcher.put_tree(children)?;
    Ok((total, dispatcher.put_blob(format!("{total}\n"))?))
}
