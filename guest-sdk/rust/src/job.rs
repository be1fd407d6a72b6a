use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Error, Result};
use crate::object::Entry;
use crate::operations;

/// What the guest was called with.
#[derive(Debug, Clone)]
pub struct Job {
    /// The arguments, in git's order.
    pub args: Vec<Entry>,
    /// The running image: a recursive guest needs no name for itself.
    pub image: String,
    /// The id of the tree of named images in hex; empty when there is none.
    pub std: String,
    /// The request's salt.
    pub salt: String,
}

impl Job {
    pub(crate) fn receive() -> Result<Self> {
        let job = operations::job()?;
        Ok(Self {
            args: operations::tree(&job.args)?,
            image: job.image,
            std: job.std,
            salt: job.salt,
        })
    }

    /// The argument `name`; `None` when there is none.
    pub fn optional(&self, name: &str) -> Option<&Entry> {
        self.args.iter().find(|entry| entry.name == name.as_bytes())
    }

    /// The argument `name`, which the caller has to give.
    pub fn required(&self, name: &str) -> Result<&Entry> {
        self.optional(name)
            .ok_or_else(|| Error::new(["the argument `", name, "` is missing"].concat()))
    }
}
