//! Requests: what is run, and the key that remembers its outcome.

use std::sync::Arc;

use bytes::Bytes;

use crate::image::EncodedNode;
use crate::object::{Object, ObjectId, ObjectKind};
use crate::tree::{EntryMode, Tree, TreeEntry, TreeError};

/// One application of an image to arguments, with every name already resolved.
///
/// As a git object it is the tree of `args` (`40000`), and of `image`, `salt` and `std` (`100644`): the image reference,
/// an opaque text, and the id of the tree of named images in hex, empty when there is none. The tree's id is the memo key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// The arguments tree.
    pub args: ObjectId,
    /// The image: hex digits of a runtime node, or `docker://…`.
    pub image: Arc<str>,
    /// Opaque text that changes the key and nothing else.
    pub salt: Arc<str>,
    /// The tree of named images.
    pub std: Option<ObjectId>,
}

impl Request {
    /// The request as objects: three blobs and the tree whose id is the key.
    ///
    /// # Errors
    /// [`TreeError::NullId`] when the arguments have the null id.
    pub fn encode(&self) -> Result<EncodedNode, TreeError> {
        let args = TreeEntry::new("args", EntryMode::Tree, self.args);
        EncodedNode::new(
            [
                ("image".to_owned(), Bytes::copy_from_slice(self.image.as_bytes())),
                ("salt".to_owned(), Bytes::copy_from_slice(self.salt.as_bytes())),
                ("std".to_owned(), Bytes::from(std_text(self.std))),
            ],
            [args],
        )
    }

    /// The memo key.
    ///
    /// # Errors
    /// As [`Request::encode`].
    pub fn id(&self) -> Result<ObjectId, TreeError> {
        let scope = RequestScope::new(&self.salt, self.std);
        scope.key(ObjectId::of(ObjectKind::Blob, self.image.as_bytes()), self.args)
    }
}

/// The parts of a request that a whole tree of nested runs shares, hashed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestScope {
    salt: ObjectId,
    std: ObjectId,
}

impl RequestScope {
    /// Hashes `salt` and `std`.
    pub fn new(salt: &str, std: Option<ObjectId>) -> Self {
        Self {
            salt: ObjectId::of(ObjectKind::Blob, salt.as_bytes()),
            std: ObjectId::of(ObjectKind::Blob, std_text(std).as_bytes()),
        }
    }

    /// The key of the request for the image whose reference is the blob `image`, applied to `args`.
    ///
    /// # Errors
    /// [`TreeError::NullId`] when one of them has the null id.
    pub fn key(&self, image: ObjectId, args: ObjectId) -> Result<ObjectId, TreeError> {
        Ok(Tree::new([
            TreeEntry::new("args", EntryMode::Tree, args),
            TreeEntry::new("image", EntryMode::Blob, image),
            TreeEntry::new("salt", EntryMode::Blob, self.salt),
            TreeEntry::new("std", EntryMode::Blob, self.std),
        ])?
        .id())
    }
}

fn std_text(std: Option<ObjectId>) -> String {
    std.map(|id| id.to_string()).unwrap_or_default()
}

/// What a run answers: an object in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Whether the object is a blob or a tree.
    pub kind: ObjectKind,
    /// The object.
    pub id: ObjectId,
}

impl Outcome {
    /// The blob `id`.
    pub const fn blob(id: ObjectId) -> Self {
        Self { kind: ObjectKind::Blob, id }
    }

    /// The tree `id`.
    pub const fn tree(id: ObjectId) -> Self {
        Self { kind: ObjectKind::Tree, id }
    }

    /// The outcome of storing `object`.
    pub fn of(object: &Object) -> Self {
        Self { kind: object.kind, id: object.id() }
    }
}
