//! What a runtime is, as far as results depend on it.

use std::collections::BTreeMap;

use crate::image::EncodedNode;
use crate::object::ObjectId;
use crate::tree::TreeError;

/// The description of a host whose hash is the host's identity.
///
/// Two hosts with the same hash give the same answers, so the description holds the name, the engine's version, the ABI's
/// and every setting that can change a result. A setting that can only turn an answer into an error need not be in it.
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

/// A [`HostImage`] whose settings are still being listed.
#[derive(Debug, Clone)]
pub struct HostImageBuilder {
    name: String,
    settings: BTreeMap<String, String>,
}

impl HostImage {
    /// Starts the description of the host called `name`.
    #[expect(clippy::new_ret_no_self, reason = "reads as one sentence with `with` and `seal`")]
    pub fn new(name: impl Into<String>) -> HostImageBuilder {
        HostImageBuilder { name: name.into(), settings: BTreeMap::new() }
    }

    /// The runtime's name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host image hash: what a runtime marker carries.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// The tree and its blobs, for the store.
    pub fn node(&self) -> &EncodedNode {
        &self.node
    }
}

impl HostImageBuilder {
    /// Adds one setting that can change a result.
    #[must_use]
    pub fn with(mut self, setting: impl Into<String>, value: impl ToString) -> Self {
        self.settings.insert(setting.into(), value.to_string());
        self
    }

    /// Fixes the description: the tree with a blob for each setting, and one called `name`.
    ///
    /// # Errors
    /// [`TreeError`] when a setting's name cannot be the name of a tree entry.
    pub fn seal(self) -> Result<HostImage, TreeError> {
        let mut settings = self.settings;
        settings.insert("name".to_owned(), self.name.clone());
        let node =
            EncodedNode::new(settings.into_iter().map(|(name, value)| (name, value.into())), [])?;
        Ok(HostImage { name: self.name, id: node.id(), node })
    }
}
