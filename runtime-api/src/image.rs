//! Image references, and the two tree nodes that an image can be.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::object::{Object, ObjectId, ObjectKind};
use crate::tree::{EntryMode, Tree, TreeEntry, TreeError};

/// What a caller writes to name an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ImageRef {
    /// Hex digits: a [`RuntimeNode`] or a [`CurryNode`].
    Node(ObjectId),
    /// `/cas/std/<name>`: an entry of the job's tree of named images.
    Std(String),
    /// `docker://<reference>`: a container image.
    Docker(DockerReference),
}

/// Why an image reference cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageProblem {
    /// The text has none of the known forms.
    #[error("expected 40 hex digits, /cas/std/<name>, or docker://<name>@sha256:<digest>")]
    Syntax,
    /// An id of git's SHA-256 format.
    #[error("SHA-256 ids are not supported so far")]
    Sha256,
    /// The job has no tree of named images.
    #[error("the job has no tree of named images (its `std` is empty)")]
    NoStd,
    /// The tree of named images has no such entry.
    #[error("no image of that name; there are: {}", known.join(", "))]
    UnknownName {
        /// The names there are.
        known: Vec<String>,
    },
    /// The named object is neither a runtime node nor a curry node.
    #[error("object {id} is no image: {problem}")]
    NotAnImage {
        /// The object.
        id: ObjectId,
        /// What is wrong with it.
        problem: String,
    },
    /// Following the reference comes back to itself.
    #[error("the reference reaches itself through {through:?}")]
    ReachesItself {
        /// The reference met a second time.
        through: String,
    },
    /// More nodes in a row than [`MAX_IMAGE_DEPTH`].
    #[error("more than {MAX_IMAGE_DEPTH} nodes lead from the reference to a runtime")]
    TooDeep,
    /// The marker names a host that nobody registered.
    #[error("no runtime has the host image {host}; registered are: {}", known.join(", "))]
    UnknownHost {
        /// The host reference in the marker.
        host: String,
        /// The registered hosts, each with its hash and name.
        known: Vec<String>,
    },
    /// A container image named by a tag instead of a digest.
    #[error("a tag moves; name the image by digest (name@sha256:…)")]
    MovingTag,
    /// A container image, and no runtime that runs containers.
    #[error("no runtime for containers is registered")]
    NoContainers,
    /// The container engine does not have the image.
    #[error(
        "the container engine has no such image: {problem}; load it with `docker load` or `docker pull`"
    )]
    NotInEngine {
        /// The engine's own words.
        problem: String,
    },
}

impl ImageProblem {
    /// Whether every dispatcher finds the same problem in the same reference.
    pub(crate) fn is_function_of_reference(&self) -> bool {
        !matches!(
            self,
            Self::UnknownHost { .. }
                | Self::MovingTag
                | Self::NoContainers
                | Self::NotInEngine { .. }
        )
    }
}

/// How many curry nodes and names may stand in a row between a reference and its runtime node.
pub const MAX_IMAGE_DEPTH: usize = 256;

const STD_PREFIX: &str = "/cas/std/";
const DOCKER_PREFIX: &str = "docker://";

impl ImageRef {
    /// Reads a reference. White space around it ([`char::is_ascii_whitespace`]) is trimmed: `echo` writes some.
    ///
    /// # Errors
    /// [`ImageProblem::Syntax`] or [`ImageProblem::Sha256`].
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
            Err(crate::IdError::Sha256 { .. }) => Err(ImageProblem::Sha256),
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

/// A container image: the text after `docker://`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DockerReference(String);

impl DockerReference {
    fn parse(text: &str) -> Result<Self, ImageProblem> {
        let printable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if printable { Ok(Self(text.to_owned())) } else { Err(ImageProblem::Syntax) }
    }

    /// The reference as the engine takes it, without `docker://`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the reference names content (`name@sha256:…` or `sha256:…`) and not a tag that may move.
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

/// Who runs a module: the content of a runtime node's marker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostRef {
    /// The whole hash of a registered runtime's [`crate::HostImage`].
    HostImage(ObjectId),
    /// A container that is itself a runtime.
    Container(DockerReference),
}

impl HostRef {
    /// Reads a marker. White space around it is trimmed, as in [`ImageRef::parse`].
    ///
    /// # Errors
    /// [`ImageProblem::Syntax`] or [`ImageProblem::Sha256`].
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

/// A guest's code: a blob, or a tree for languages whose modules have several files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Module {
    /// What `id` is.
    pub kind: ObjectKind,
    /// The code.
    pub id: ObjectId,
}

/// What a job runs, at the end of its image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Code {
    /// A module, on the runtime itself.
    Module(Module),
    /// A container image, which is the guest.
    Container(DockerReference),
    /// A module, on a container that is its host.
    Hosted {
        /// The container image of the host.
        host: DockerReference,
        /// What the host runs.
        module: Module,
    },
}

impl Code {
    /// The module, where there is one.
    pub fn module(&self) -> Option<Module> {
        match self {
            Self::Module(module) | Self::Hosted { module, .. } => Some(*module),
            Self::Container(_) => None,
        }
    }

    /// The module, for a runtime that gets nothing else, as its [`crate::Capabilities`] say.
    ///
    /// # Errors
    /// `RuntimeFailed` when a container is involved.
    pub fn own_module(&self) -> Result<Module, crate::Error> {
        match self {
            Self::Module(module) => Ok(*module),
            Self::Container(container) | Self::Hosted { host: container, .. } => {
                Err(crate::Error::runtime(format!(
                    "this runtime runs no containers, and was given {container}"
                )))
            }
        }
    }
}

/// An image that a runtime runs: the tree `{".caos-runtime": blob(host reference), "module": blob or tree}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeNode {
    /// Who runs the module.
    pub host: HostRef,
    /// What is run.
    pub module: Module,
}

/// An image with arguments bound to it: the tree `{".caos-curry": blob, "base": blob(image reference), "args": tree}`.
///
/// Bound arguments come under the call's own, which win. The marker holds `1`; when it is read, anything will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurryNode {
    /// The image reference that the arguments are bound to, as text.
    pub base: String,
    /// The tree of bound arguments.
    pub args: ObjectId,
}

/// The entry that makes a tree a [`RuntimeNode`].
pub const RUNTIME_MARKER: &str = ".caos-runtime";
/// The entry that makes a tree a [`CurryNode`].
pub const CURRY_MARKER: &str = ".caos-curry";

/// A tree, and the blobs it names that have to be stored with it.
#[derive(Debug, Clone)]
pub struct EncodedNode {
    /// The tree.
    pub tree: Arc<Tree>,
    /// The blobs, in no order that matters.
    pub blobs: Vec<Object>,
}

impl EncodedNode {
    /// The tree's id.
    pub fn id(&self) -> ObjectId {
        self.tree.id()
    }

    /// Everything to store: the blobs, then the tree.
    pub fn into_objects(self) -> impl Iterator<Item = Object> {
        let tree = self.tree.to_object();
        self.blobs.into_iter().chain([tree])
    }

    /// A node of blob entries named by `texts`, and `entries` whose objects are stored already.
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
    /// The node as objects. The module itself is stored by whoever has it.
    ///
    /// # Errors
    /// [`TreeError::NullId`] when the module has the null id.
    pub fn encode(&self) -> Result<EncodedNode, TreeError> {
        let module = TreeEntry::new("module", EntryMode::plain(self.module.kind), self.module.id);
        EncodedNode::new([(RUNTIME_MARKER.to_owned(), self.host.to_string().into())], [module])
    }
}

impl CurryNode {
    /// The node as objects. The tree of arguments is stored by whoever has it.
    ///
    /// # Errors
    /// [`TreeError::NullId`] when the arguments have the null id.
    pub fn encode(&self) -> Result<EncodedNode, TreeError> {
        let args = TreeEntry::new("args", EntryMode::Tree, self.args);
        let texts = [
            (CURRY_MARKER.to_owned(), Bytes::from_static(b"1")),
            ("base".to_owned(), self.base.clone().into()),
        ];
        EncodedNode::new(texts, [args])
    }
}

/// The shape of an image node, before the blobs that it names have been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeShape {
    /// A runtime node.
    Runtime {
        /// The blob that holds the host reference.
        marker: ObjectId,
        /// The module.
        module: Module,
    },
    /// A curry node.
    Curry {
        /// The blob that holds the base's image reference.
        base: ObjectId,
        /// The tree of bound arguments.
        args: ObjectId,
    },
}

impl NodeShape {
    /// Reads the shape off a tree.
    ///
    /// # Errors
    /// A text that says what the tree has too much or too little to be an image.
    pub fn of(tree: &Tree) -> Result<Self, String> {
        let entry = |name: &str, kinds: &[ObjectKind]| {
            let entry = tree.get(name).ok_or_else(|| format!("it has no entry `{name}`"))?;
            let kind = entry.mode.object_kind().filter(|kind| kinds.contains(kind));
            kind.map(|kind| Module { kind, id: entry.id })
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
