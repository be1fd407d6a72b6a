//! Input directories of different sizes and shapes.

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{EntryMode, Object, ObjectId, Result, Tree, TreeEntry};

/// Stores a tree with `count` files in every directory and, down to `levels` levels, `count`
/// subdirectories. Returns its id. With 3 levels and a count of 3 it has 120 files in 40
/// directories and is the fixture `bench`.
///
/// # Errors
/// Returns an error if the store fails.
pub fn branching(
    dispatcher: &Dispatcher,
    path: &str,
    levels: usize,
    count: usize,
) -> Result<ObjectId> {
    let mut entries = Vec::new();
    for number in 1..=count {
        let file = dispatcher.put_blob(format!("{path}/f{number}.txt\n"))?;
        entries.push(TreeEntry::new(format!("f{number}.txt"), EntryMode::Blob, file));
        if levels > 0 {
            let below = branching(dispatcher, &format!("{path}/d{number}"), levels - 1, count)?;
            entries.push(TreeEntry::new(format!("d{number}"), EntryMode::Tree, below));
        }
    }
    dispatcher.put_tree(entries)
}

/// Stores a tree of `files` different files, with ten files or ten subdirectories in a directory.
/// Returns its id.
///
/// # Errors
/// Returns an error if the store fails.
pub fn sized(dispatcher: &Dispatcher, files: usize) -> Result<ObjectId> {
    let mut number = 0;
    let mut level = Vec::with_capacity(files.div_ceil(10));
    while number < files {
        let names = (number..files.min(number + 10)).map(|number| {
            let content = dispatcher.put_blob(format!("file {number}\n"))?;
            Ok(TreeEntry::new(format!("f{}", number % 10), EntryMode::Blob, content))
        });
        level.push(dispatcher.put_tree(names.collect::<Result<Vec<_>>>()?)?);
        number += 10;
    }
    while level.len() > 1 {
        let above = level.chunks(10).map(|below| {
            let entries = below
                .iter()
                .enumerate()
                .map(|(at, id)| TreeEntry::new(format!("d{at}"), EntryMode::Tree, *id));
            dispatcher.put_tree(entries)
        });
        level = above.collect::<Result<_>>()?;
    }
    level.pop().map_or_else(|| dispatcher.put_tree([]), Ok)
}

/// Stores a copy of the tree `root` in which one file has the given content. Returns its id.
/// `choice` selects the entry to follow in each directory on the path to the file.
///
/// # Errors
/// Returns an error if a tree is missing or the store fails.
pub fn with_one_changed(
    dispatcher: &Dispatcher,
    root: ObjectId,
    choice: usize,
    content: &str,
) -> Result<ObjectId> {
    let mut entries = dispatcher.read_tree(root)?.entries().to_vec();
    let count = entries.len();
    let Some(entry) = entries.get_mut(choice % count.max(1)) else { return Ok(root) };
    entry.id = match entry.mode {
        EntryMode::Tree => with_one_changed(dispatcher, entry.id, choice / count, content)?,
        _ => dispatcher.put_blob(content.to_owned())?,
    };
    dispatcher.put_tree(entries)
}

/// Stores a chain of `levels` nested directories with one file each. Returns the outermost one's
/// id.
///
/// # Errors
/// Returns an error if the store fails.
pub fn chain(dispatcher: &Dispatcher, levels: usize) -> Result<ObjectId> {
    let mut below = dispatcher.put_tree([])?;
    for level in 0..levels {
        let file = dispatcher.put_blob(format!("level {level}\n"))?;
        let entries = [
            TreeEntry::new("f", EntryMode::Blob, file),
            TreeEntry::new("d", EntryMode::Tree, below),
        ];
        below = dispatcher.put_tree(entries)?;
    }
    Ok(below)
}

/// Stores one directory with `files` different files. Returns its id.
///
/// # Errors
/// Returns an error if the store fails.
pub fn wide(dispatcher: &Dispatcher, files: usize) -> Result<ObjectId> {
    let entries = (0..files).map(|number| {
        Ok(TreeEntry::new(
            format!("f{number}"),
            EntryMode::Blob,
            dispatcher.put_blob(format!("file {number}\n"))?,
        ))
    });
    dispatcher.put_tree(entries.collect::<Result<Vec<_>>>()?)
}

/// Returns a tree of `count` files, and the tree encoded as an object.
///
/// # Errors
/// Errors if [`Tree::new`] rejects a name, which it does not for the names used here.
pub fn tree_of(count: usize) -> Result<(Tree, Object)> {
    let entry = |number: usize| {
        TreeEntry::new(
            format!("file-{number}.txt"),
            EntryMode::Blob,
            Object::blob(number.to_string()).id(),
        )
    };
    let tree = Tree::new((0..count).map(entry))?;
    let object = tree.to_object();
    Ok((tree, object))
}
