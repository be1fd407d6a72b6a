//! Counts the nodes of a tree.

use std::collections::{HashMap, HashSet};

use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::{Error, ObjectId, ObjectKind, ObjectRef, Result, Tree};
use serde::{Deserialize, Serialize};

/// The number of nodes in an object, including itself. Submodules are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeSize {
    /// Trees and blobs, each counted as often as it occurs.
    pub nodes: u64,
    /// Trees, each counted once.
    pub distinct_trees: u64,
    /// Blobs, each counted once.
    pub distinct_blobs: u64,
}

/// Measures the tree or blob `root`. A tree that occurs several times is read once.
///
/// # Errors
///
/// Returns an error if a tree cannot be read.
pub fn measure(source: &dyn ObjectSource, root: ObjectRef) -> Result<TreeSize> {
    if root.kind == ObjectKind::Blob {
        return Ok(TreeSize { nodes: 1, distinct_trees: 0, distinct_blobs: 1 });
    }
    let mut nodes: HashMap<ObjectId, u64> = HashMap::new();
    let mut blobs = HashSet::new();
    let mut open = vec![Open::read(source, root.id)?];
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
                    open.push(Open::read(source, id)?);
                    continue;
                }
            },
        };
        // Nested trees of a few kilobytes can contain more nodes than a `u64` can count.
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
    fn read(source: &dyn ObjectSource, id: ObjectId) -> Result<Self> {
        let tree = match source.read(id)? {
            Some(object) => Tree::decode_as_git_reads(&object.content)
                .map_err(|problem| Error::bad_tree(id, problem))?,
            // Git reads it without storing it.
            None if id == ObjectId::empty_tree() => Tree::empty(),
            None => return Err(Error::missing(id)),
        };
        Ok(Self { id, tree, next: 0, nodes: 1 })
    }
}
