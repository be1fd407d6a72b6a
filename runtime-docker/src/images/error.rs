//! The error of an import.

use std::io;

use manifold_runtime_api::Error;

/// Why an archive cannot be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The archive cannot be read, or a temporary file not written.
    #[error("cannot {what}")]
    Io {
        /// What cannot be done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The archive has neither of the two formats.
    #[error(
        "it is not an archive of container images, or it is cut off: expected a manifest.json, as \
         `docker save` writes it, or an index.json of the OCI layout"
    )]
    NotAnImage,
    /// A file of the archive is not what the format requires.
    #[error("{name} in the archive: {problem}")]
    Malformed {
        /// The name of the file in the archive.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that the archive refers to is not in it.
    #[error("the archive lacks {name}, to which it refers")]
    Missing {
        /// The name of the file in the archive.
        name: String,
    },
    /// The content of a file does not have the digest under which the archive refers to it.
    #[error("{name} in the archive is damaged: it has the digest {found} instead of {expected}")]
    Digest {
        /// The name of the file in the archive.
        name: String,
        /// The expected digest.
        expected: String,
        /// The digest of the content.
        found: String,
    },
    /// The archive has several images, and none was chosen.
    #[error("the archive has several images; choose one of {}", names.join(", "))]
    Several {
        /// Their names.
        names: Vec<String>,
    },
    /// The archive has no image of the chosen name.
    #[error("the archive has no image {name}; it has {}", known.join(", "))]
    NoSuchImage {
        /// The chosen name.
        name: String,
        /// The names in the archive.
        known: Vec<String>,
    },
    /// The image does not exist for the platform.
    #[error("the image is not for the platform {wanted}, but for {}", known.join(", "))]
    Platform {
        /// The platform.
        wanted: String,
        /// The platforms for which it exists.
        known: Vec<String>,
    },
    /// Something in a layer cannot be kept as a tree.
    #[error("layer {layer}: {path}: {problem}")]
    File {
        /// The number of the layer, from 0.
        layer: usize,
        /// The path of the file.
        path: String,
        /// Why it cannot be kept.
        problem: String,
    },
    /// A limit of the import is exceeded.
    #[error("{what} exceeds the limit of {bound}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit, with its unit.
        bound: String,
    },
    /// The objects cannot be stored.
    #[error(transparent)]
    Store(#[from] Error),
}

impl ImportError {
    pub(super) fn reading(source: io::Error) -> Self {
        Self::Io { what: "read the archive", source }
    }

    pub(super) fn temporary(source: io::Error) -> Self {
        Self::Io { what: "write a temporary file", source }
    }
}
