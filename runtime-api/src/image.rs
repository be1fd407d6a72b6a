//! Image references, and the two kinds of image nodes: [`RuntimeNode`] and [`CurryNode`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry_mode::EntryMode;
use crate::error::Error;
use crate::image_problem::ImageProblem;
use crate::object::{IdError, Object, ObjectId, ObjectKind, ObjectRef};
use crate::tree::{Tree, TreeEntry, TreeError};

/// An image reference, as a caller writes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageRef {
    /// A hexadecimal object id: a [`RuntimeNode`] or a [`CurryNode`].
    Node(ObjectId),
    /// `/cas/std/<name>`: an entry of the job's tree of named images.
    Std(String),
    /// `docker://<reference>`: a container image.
    Docker(DockerReference),
}

const STD_PREFIX: &str = "/cas/std/";
const DOCKER_PREFIX: &str = "docker://";

impl ImageRef {
    /// Parses an image reference. Leading and trailing white space ([`char::is_ascii_whitespace`])
    /// is ignored, because `echo` appends some.
    ///
    /// # Errors
    /// - [`ImageProblem::Sha256`] if the text is an id of git's SHA-256 format.
    /// - [`ImageProblem::Syntax`] if the text has none of the forms of a reference.
    pub fn parse(text: &str) -> Result<Self, ImageProblem> {
        let text = text.trim_ascii();
        if let Some(name) = text.strip_prefix(STD_PREFIX) {
            let plain = !name.is_empty() && !name.contains('/');
            return if plain { Ok(Self::Std(name.to_owned())) } else { Err(ImageProblem::Syntax) };
        }
        if let Some(reference) = text.strip_prefix(DOCKER_PREFIX) {
            return DockerReference::parse(reference).map(Self::Docker);
        }
        match ObjectId::from_hex(text) {
            Ok(id) => Ok(Self::Node(id)),
            Err(IdError::Sha256 { .. }) => Err(ImageProblem::Sha256),
            Err(_) => Err(ImageProblem::Syntax),
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => fmt::Display::fmt(id, f),
            Self::Std(name) => write!(f, "{STD_PREFIX}{name}"),
            Self::Docker(reference) => fmt::Display::fmt(reference, f),
        }
    }
}

/// The name of a container image: the text after `docker://`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DockerReference(String);

impl DockerReference {
    fn parse(text: &str) -> Result<Self, ImageProblem> {
        let printable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if printable { Ok(Self(text.to_owned())) } else { Err(ImageProblem::Syntax) }
    }

    /// Returns the reference without `docker://`, as the container engine expects it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the reference names content (`name@sha256:…` or `sha256:…`), as opposed to a
    /// tag, which can change.
    pub fn is_by_digest(&self) -> bool {
        let digest = self.0.rsplit_once('@').map_or(self.0.as_str(), |(_, digest)| digest);
        digest
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

impl fmt::Display for DockerReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DOCKER_PREFIX}{}", self.0)
    }
}

/// What runs a module: the host reference in the marker of a [`RuntimeNode`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostRef {
    /// The full hash of a registered runtime's [`HostImage`](crate::HostImage).
    HostImage(ObjectId),
    /// A container that itself serves as a runtime.
    Container(DockerReference),
}

impl HostRef {
    /// Parses the content of a marker. Leading and trailing white space is ignored, as in
    /// [`ImageRef::parse`].
    ///
    /// # Errors
    /// - [`ImageProblem::Sha256`] if the text is an id of git's SHA-256 format.
    /// - [`ImageProblem::Syntax`] if the text is neither a hexadecimal id nor a container
    ///   reference.
    pub fn parse(text: &str) -> Result<Self, ImageProblem> {
        match ImageRef::parse(text)? {
            ImageRef::Node(id) => Ok(Self::HostImage(id)),
            ImageRef::Docker(reference) => Ok(Self::Container(reference)),
            ImageRef::Std(_) => Err(ImageProblem::Syntax),
        }
    }
}

impl fmt::Display for HostRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostImage(id) => fmt::Display::fmt(id, f),
            Self::Container(reference) => fmt::Display::fmt(reference, f),
        }
    }
}

/// The code that a job runs, after its image reference has been resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A module that the runtime runs itself: a blob, or a tree if modules have several files.
    Module(ObjectRef),
    /// A container image that is the guest.
    Container(DockerReference),
    /// A module that a container runs as its host.
    Hosted {
        /// The container image of the host.
        host: DockerReference,
        /// The module that the host runs.
        module: ObjectRef,
    },
}

impl Code {
    /// Returns the module, or `None` for a container that is the guest.
    pub fn module(&self) -> Option<ObjectRef> {
        match self {
            Self::Module(module) | Self::Hosted { module, .. } => Some(*module),
            Self::Container(_) => None,
        }
    }

    /// Returns the module of a job without containers. For runtimes whose
    /// [`Capabilities`](crate::Capabilities) exclude containers.
    ///
    /// # Errors
    /// [`Reason::RuntimeFailed`](crate::Reason::RuntimeFailed) if the code is a container or runs
    /// in one.
    pub fn own_module(&self) -> Result<ObjectRef, Error> {
        match self {
            Self::Module(module) => Ok(*module),
            Self::Container(container) | Self::Hosted { host: container, .. } => {
                Err(Error::runtime(format!(
                    "this runtime runs no containers, and was given {container}"
                )))
            }
        }
    }
}

/// An image that a runtime runs: the tree `{".caos-runtime": blob(host reference), "module": blob
/// or tree}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeNode {
    /// What runs the module.
    pub host: HostRef,
    /// The module.
    pub module: ObjectRef,
}

/// An image with bound arguments: the tree `{".caos-curry": blob, "base": blob(image reference),
/// "args": tree}`.
///
/// The arguments of a call take precedence over bound arguments of the same name.
/// [`CurryNode::encode`] writes `1` into the marker; readers ignore the marker's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurryNode {
    /// The image reference that the arguments are bound to.
    pub base: String,
    /// The id of the tree of bound arguments.
    pub args: ObjectId,
}

/// The name of the entry that marks a tree as a [`RuntimeNode`].
pub const RUNTIME_MARKER: &str = ".caos-runtime";
/// The name of the entry that marks a tree as a [`CurryNode`].
pub const CURRY_MARKER: &str = ".caos-curry";

/// An encoded tree with the blobs that have to be stored along with it.
#[derive(Debug, Clone)]
pub struct EncodedNode {
    /// The tree.
    pub tree: Arc<Tree>,
    /// The blobs, in no particular order.
    pub blobs: Vec<Object>,
}

impl EncodedNode {
    /// Returns the tree's id.
    pub fn id(&self) -> ObjectId {
        self.tree.id()
    }

    /// Returns all objects to store: first the blobs, then the tree.
    pub fn into_objects(self) -> impl Iterator<Item = Object> {
        let tree = self.tree.to_object();
        self.blobs.into_iter().chain([tree])
    }

    /// Creates a node with one blob entry for each of `texts`, and with `entries`, whose objects
    /// are already stored.
    pub(crate) fn new(
        texts: impl IntoIterator<Item = (String, Bytes)>,
        entries: impl IntoIterator<Item = TreeEntry>,
    ) -> Result<Self, TreeError> {
        let mut blobs = Vec::new();
        let mut all: Vec<TreeEntry> = entries.into_iter().collect();
        for (name, text) in texts {
            let blob = Object::blob(text);
            all.push(TreeEntry::new(name, EntryMode::Blob, blob.id()));
            blobs.push(blob);
        }
        Ok(Self { tree: Arc::new(Tree::new(all)?), blobs })
    }
}

impl RuntimeNode {
    /// Encodes the node. The caller stores the module itself.
    ///
    /// # Errors
    /// [`TreeError::NullId`] if the module's id is the null id.
    pub fn encode(&self) -> Result<EncodedNode, TreeError> {
        let module = TreeEntry::new("module", EntryMode::plain(self.module.kind), self.module.id);
        EncodedNode::new([(RUNTIME_MARKER.to_owned(), self.host.to_string().into())], [module])
    }
}

impl CurryNode {
    /// Encodes the node. The caller stores the tree of arguments itself.
    ///
    /// # Errors
    /// [`TreeError::NullId`] if `args` is the null id.
    pub fn encode(&self) -> Result<EncodedNode, TreeError> {
        let args = TreeEntry::new("args", EntryMode::Tree, self.args);
        let texts = [
            (CURRY_MARKER.to_owned(), Bytes::from_static(b"1")),
            ("base".to_owned(), self.base.clone().into()),
        ];
        EncodedNode::new(texts, [args])
    }
}

/// The kind of an image node and the ids of its parts, before the blobs that it names are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeShape {
    /// The tree is a [`RuntimeNode`].
    Runtime {
        /// The id of the blob that contains the host reference.
        marker: ObjectId,
        /// The module.
        module: ObjectRef,
    },
    /// The tree is a [`CurryNode`].
    Curry {
        /// The id of the blob that contains the image reference of the base.
        base: ObjectId,
        /// The id of the tree of bound arguments.
        args: ObjectId,
    },
}

impl NodeShape {
    /// Returns the shape of the image node that `tree` is.
    ///
    /// # Errors
    /// Returns a message that says which entry is missing, unexpected or of the wrong kind.
    pub fn of(tree: &Tree) -> Result<Self, String> {
        let entry = |name: &str, kinds: &[ObjectKind]| {
            let entry = tree.get(name).ok_or_else(|| format!("it has no entry `{name}`"))?;
            let kind = entry.mode.object_kind().filter(|kind| kinds.contains(kind));
            kind.map(|kind| ObjectRef { kind, id: entry.id })
                .ok_or_else(|| format!("its entry `{name}` is a {}", entry.mode.kind_str()))
        };
        let (shape, size) = if tree.get(RUNTIME_MARKER).is_some() {
            let marker = entry(RUNTIME_MARKER, &[ObjectKind::Blob])?.id;
            (
                Self::Runtime {
                    marker,
                    module: entry("module", &[ObjectKind::Blob, ObjectKind::Tree])?,
                },
                2,
            )
        } else if tree.get(CURRY_MARKER).is_some() {
            entry(CURRY_MARKER, &[ObjectKind::Blob])?;
            let base = entry("base", &[ObjectKind::Blob])?.id;
            (Self::Curry { base, args: entry("args", &[ObjectKind::Tree])?.id }, 3)
        } else {
            return Err(format!("it has neither `{RUNTIME_MARKER}` nor `{CURRY_MARKER}`"));
        };
        if tree.len() == size {
            Ok(shape)
        } else {
            Err(format!("it has {} entries instead of {size}", tree.len()))
        }
    }
}
