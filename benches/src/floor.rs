//! The floor of folds: the same work as a recursive function, without requests, memo and frames.

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{ObjectId, ObjectKind, Result};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

/// Counts the files below `root` with a recursive function on all cores. It reads and decodes every
/// tree, and stores nothing.
///
/// # Errors
/// Returns an error if a tree is missing or the store fails.
pub fn count_files(dispatcher: &Dispatcher, root: ObjectId) -> Result<u64> {
    let tree = dispatcher.read_tree(root)?;
    let below = tree.entries().par_iter().map(|entry| match entry.mode.object_kind() {
        Some(ObjectKind::Blob) => Ok(1),
        Some(ObjectKind::Tree) => count_files(dispatcher, entry.id),
        None => Ok(0),
    });
    below.sum()
}

/// Counts the files below `root` and stores what a fold stores: the count of every node as a blob,
/// and the counts of every directory's entries as a tree. This is the work that would be left if
/// frames cost nothing. Returns the count and the id of its blob.
///
/// # Errors
/// Returns an error if a tree is missing or the store fails.
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
