use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Error, Result};
use crate::object::Entry;

/// The request that the guest runs.
#[derive(Debug, Clone)]
pub struct Job {
    /// The arguments: the entries of the request's `args` tree, in git's order.
    pub args: Vec<Entry>,
    /// The image reference of the running guest, with which a recursive guest runs itself.
    pub image: String,
    /// The id of the tree of named images, as hex digits. Empty if there is no such tree.
    pub std: String,
    /// The request's salt, which is part of the memo key.
    pub salt: String,
}

impl Job {
    /// Returns the argument `name`, or `None` if it is missing.
    pub fn optional(&self, name: &str) -> Option<&Entry> {
        self.args.iter().find(|entry| entry.name == name.as_bytes())
    }

    /// Returns the argument `name`.
    ///
    /// # Errors
    /// Returns an error if the argument is missing.
    pub fn required(&self, name: &str) -> Result<&Entry> {
        self.optional(name)
            .ok_or_else(|| Error::new(["the argument `", name, "` is missing"].concat()))
    }
}
