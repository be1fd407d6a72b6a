//! Container images as trees of the store: import from archives, and export to them.
//! `docs/images.md` documents the form of these trees, and that of the attributes of a layer's files.
//! A tree without `config.json` and `base` is a root file system, whose program is `/guest`.

use manifold_runtime_api::{NodeShape, Tree};

pub(crate) mod archive;
mod attributes;
pub(crate) mod engine;
mod error;
mod extensions;
mod import;
mod layer;
mod manifest;
mod members;

pub use engine::check_image;
pub use error::ImportError;
pub use import::{ImportOptions, ImportProgress};

/// The label that names the tree from which an image of the engine was made.
pub(crate) const TREE_LABEL: &str = "io.manifold.tree";
/// The label of images that carry the init of containers.
pub(crate) const INIT_LABEL: &str = "io.manifold.init";
/// The number of layers that an image in the store can have of its own.
pub(crate) const MAX_LAYERS: usize = 100;
/// The name of the blob that names the image below.
pub(crate) const BASE: &str = "base";
/// The name of the image's configuration.
pub(crate) const CONFIG: &str = "config.json";
/// How the names of layers begin.
pub(crate) const LAYER: &str = "layer";
/// How the keys of extended attributes begin in pax headers.
const XATTR: &str = "SCHILY.xattr.";
/// How the names of the attributes of layers begin.
pub(crate) const ATTRIBUTES: &str = "attributes";
/// The beginning of the names by which a layer deletes files of the layers below.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The longest path that the kernel accepts, in bytes.
pub(crate) const MAX_PATH: usize = 4096;

/// Returns whether `tree` has the form of a container image with layers.
pub fn is_image(tree: &Tree) -> bool {
    (tree.get(CONFIG).is_some() || tree.get(BASE).is_some()) && NodeShape::of(tree).is_err()
}

/// Formats a digest as hexadecimal digits.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
