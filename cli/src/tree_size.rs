//! How large a tree is.

use std::collections::{HashMap, HashSet};

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{ObjectId, ObjectKind, Outcome, Result, Tree};

/// The size of what an object holds, itself included. Submodules do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeSize {
    /// Directories and leaves, each as often as it occurs.
    pub nodes: u64,
    /// Trees, each once.
    pub distinct_trees: u64,
    /// Blobs, each once.
    pub distinct_blobs: u64,
}

/// Measures the tree or blob `root`. Trees that occur often are read once.
///
/// # Errors
/// What reading a tree answers.
pub fn measure(dispatcher: &Dispatcher, root: Outcome) -> Result<TreeSize> {
    if root.kind == ObjectKind::Blob {
        return Ok(TreeSize { nodes: 1, distinct_trees: 0, distinct_blobs: 1 });
    }
    let mut nodes: HashMap<ObjectId, u64> = HashMap::new();
    let mut blobs = HashSet::new();
    let mut open = vec![Open::read(dispatcher, root.id)?];
    while let Some(top) = open.last_mut() {
        let Some(entry) = top.tree.entries().get(top.next) else {
            nodes.insert(top.id, top.nodes);
            open.pop();
            continue;
        };
        let below = match entry.mode.object_kind() {
            None => 0,
            Some(ObjectKind::Blob) => {
                blobs.insert(entry.id);
                1
            }
            Some(ObjectKind::Tree) => match nodes.get(&entry.id) {
                Some(nodes) => *nodes,
                None => {
                    let id = entry.id;
                    open.push(Open::read(dispatcher, id)?);
                    continue;
                }
            },
        };
        // A few kilobytes of trees can hold more nodes than can be counted.
        top.nodes = top.nodes.saturating_add(below);
        top.next += 1;
    }
    Ok(TreeSize {
        nodes: nodes.get(&root.id).copied().unwrap_or_default(),
        distinct_trees: nodes.len() as u64,
        distinct_blobs: blobs.len() as u64,
    })
}

/// A tree whose entries are being counted.
struct Open {
    id: ObjectId,
    tree: Tree,
    next: usize,
    nodes: u64,
}

impl Open {
    fn read(dispatcher: &Dispatcher, id: ObjectId) -> Result<Self> {
        Ok(Self { id, tree: dispatcher.read_tree(id)?, next: 0, nodes: 1 })
    }
}
