//! Requests and their memo keys.

use std::sync::Arc;

use bytes::Bytes;

use crate::entry_mode::EntryMode;
use crate::image::EncodedNode;
use crate::object::{ObjectId, ObjectKind};
use crate::tree::{TreeEntry, TreeError, push_entry};

/// The application of an image to arguments, with all names resolved.
///
/// A request is stored as a git tree of four entries. `args` is a tree (mode `40000`). `image`,
/// `salt` and `std` are blobs (mode `100644`): the image reference, an opaque text, and the
/// hexadecimal id of the tree of named images, which is empty if there is none. The id of the
/// request's tree is the memo key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// The id of the tree of arguments.
    pub args: ObjectId,
    /// The image reference: the hexadecimal id of a runtime node, or `docker://…`.
    pub image: Arc<str>,
    /// An opaque text. It changes the memo key and has no other effect.
    pub salt: Arc<str>,
    /// The id of the tree of named images, or `None` if there is none.
    pub std: Option<ObjectId>,
}

impl Request {
    /// Encodes the request as three blobs and a tree. The tree's id is the memo key.
    ///
    /// # Errors
    /// [`TreeError::NullId`] if `args` is the null id.
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

    /// Computes the memo key.
    ///
    /// # Errors
    /// [`TreeError::NullId`] if `args` is the null id.
    pub fn id(&self) -> Result<ObjectId, TreeError> {
        let scope = RequestScope::new(&self.salt, self.std);
        scope.key(ObjectId::of(ObjectKind::Blob, self.image.as_bytes()), self.args)
    }
}

/// The parts of a request that all nested runs of a root call share, hashed once.
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

    /// Computes the memo key of a request. `image` is the id of the blob that contains the image
    /// reference, and `args` that of the tree of arguments.
    ///
    /// # Errors
    /// [`TreeError::NullId`] if `image` or `args` is the null id.
    pub fn key(&self, image: ObjectId, args: ObjectId) -> Result<ObjectId, TreeError> {
        let entries = [
            ("args", EntryMode::Tree, args),
            ("image", EntryMode::Blob, image),
            ("salt", EntryMode::Blob, self.salt),
            ("std", EntryMode::Blob, self.std),
        ];
        // Encoded here, because this is done for every run: the names are valid and in order.
        let mut encoded = Vec::with_capacity(REQUEST_BYTES);
        for (name, mode, id) in entries {
            if id.is_null() {
                return Err(TreeError::NullId { name: name.into() });
            }
            push_entry(&mut encoded, name.as_bytes(), mode, id);
        }
        Ok(ObjectId::of(ObjectKind::Tree, &encoded))
    }
}

/// The size of an encoded request.
const REQUEST_BYTES: usize = 4 * 28 + "args image salt std".len();

fn std_text(std: Option<ObjectId>) -> String {
    std.map(|id| id.to_string()).unwrap_or_default()
}
