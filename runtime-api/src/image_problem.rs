//! [`ImageProblem`]: why an image reference cannot be resolved.

use crate::object::ObjectId;

/// The maximum number of references from an image reference to its runtime node or container image,
/// both included.
pub const MAX_IMAGE_DEPTH: usize = 256;

/// Why an image reference cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageProblem {
    /// The text has none of the known forms.
    #[error("expected 40 hexadecimal digits, /cas/std/<name>, or docker://<name>@sha256:<digest>")]
    Syntax,
    /// The text is an id of git's SHA-256 format, which is not supported yet.
    #[error("SHA-256 object ids are not supported yet")]
    Sha256,
    /// The reference is a name, and the job has no tree of named images.
    #[error("the job has no tree of named images (its `std` is empty)")]
    NoStd,
    /// The tree of named images has no such entry.
    #[error("no image of that name; available images: {}", known.join(", "))]
    UnknownName {
        /// The names in the tree.
        known: Vec<String>,
    },
    /// The object is neither a runtime node nor a curry node.
    #[error("object {id} is not an image: {problem}")]
    NotAnImage {
        /// The object's id.
        id: ObjectId,
        /// Why the object is not an image.
        problem: String,
    },
    /// The reference leads back to itself.
    #[error("the reference leads back to itself through {through:?}")]
    ReachesItself {
        /// The first reference that was met a second time.
        through: String,
    },
    /// The reference leads to a runtime through more than [`MAX_IMAGE_DEPTH`] references.
    #[error("more than {MAX_IMAGE_DEPTH} references lead from this reference to a runtime")]
    TooDeep,
    /// The marker names a host image that no registered runtime has.
    #[error(
        "no runtime is registered for the host image {host}; registered host images: {}",
        known.join(", ")
    )]
    UnknownHost {
        /// The host image hash in the marker.
        host: String,
        /// The registered host images, each as its hash and the runtime's name.
        known: Vec<String>,
    },
    /// A container image is named by a tag instead of a digest.
    #[error("a tag can change; name the image by digest (name@sha256:…)")]
    MovingTag,
    /// The image needs containers, and no runtime for containers is registered.
    #[error("no runtime for containers is registered")]
    NoContainers,
    /// The container engine does not have the image.
    #[error(
        "the container engine does not have this image: {problem}; load it with `docker load` or \
         `docker pull`"
    )]
    NotInEngine {
        /// The container engine's error message.
        problem: String,
    },
}

impl ImageProblem {
    /// Returns whether every dispatcher finds the same problem in the same reference.
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
