//! [`HostImage`]: the description that identifies a runtime.

use std::collections::BTreeMap;

use crate::image::EncodedNode;
use crate::object::ObjectId;
use crate::tree::TreeError;

/// The complete description of a runtime. The id of its tree, the host image hash, identifies the
/// runtime.
///
/// Two runtimes with the same host image hash must produce the same outcomes. So the description
/// contains the name, the version of the underlying engine, the version of the ABI, and every
/// setting that can change an outcome. A setting that can only turn an outcome into an error may be
/// left out.
///
/// ```
/// use manifold_runtime_api::HostImage;
///
/// let host = HostImage::new("echo").with("engine", "1.2.0").with("abi", "caos_abi_v1").seal()?;
/// let other = HostImage::new("echo").with("engine", "1.2.1").with("abi", "caos_abi_v1").seal()?;
/// assert_ne!(host.id(), other.id());
/// # Ok::<(), manifold_runtime_api::TreeError>(())
/// ```
#[derive(Debug, Clone)]
pub struct HostImage {
    name: String,
    id: ObjectId,
    node: EncodedNode,
}

/// A builder for a [`HostImage`], which collects its settings.
#[derive(Debug, Clone)]
pub struct HostImageBuilder {
    name: String,
    settings: BTreeMap<String, String>,
}

impl HostImage {
    /// Starts the description of the runtime called `name`.
    #[expect(clippy::new_ret_no_self, reason = "reads as one sentence with `with` and `seal`")]
    pub fn new(name: impl Into<String>) -> HostImageBuilder {
        HostImageBuilder { name: name.into(), settings: BTreeMap::new() }
    }

    /// Returns the runtime's name, for display.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the host image hash, which the marker of a [`RuntimeNode`](crate::RuntimeNode)
    /// contains.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Returns the tree and its blobs, to be stored.
    pub fn node(&self) -> &EncodedNode {
        &self.node
    }
}

impl HostImageBuilder {
    /// Adds a setting that can change an outcome. A later value of the same setting replaces an
    /// earlier one.
    #[must_use]
    pub fn with(mut self, setting: impl Into<String>, value: impl ToString) -> Self {
        self.settings.insert(setting.into(), value.to_string());
        self
    }

    /// Builds the description: a tree with one blob for each setting, and one called `name`.
    ///
    /// # Errors
    /// Returns a [`TreeError`] if the name of a setting is not a valid name of a tree entry.
    pub fn seal(self) -> Result<HostImage, TreeError> {
        let mut settings = self.settings;
        settings.insert("name".to_owned(), self.name.clone());
        let node =
            EncodedNode::new(settings.into_iter().map(|(name, value)| (name, value.into())), [])?;
        Ok(HostImage { name: self.name, id: node.id(), node })
    }
}
