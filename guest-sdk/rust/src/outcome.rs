use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Result;
use crate::object::{Entry, Object};
use crate::operations;

/// What a guest may return.
pub trait IntoOutcome {
    /// Stores the value, if it is not an object already.
    ///
    /// # Errors
    /// What the host answers.
    fn into_outcome(self) -> Result<Object>;
}

impl IntoOutcome for Object {
    fn into_outcome(self) -> Result<Object> {
        Ok(self)
    }
}

impl IntoOutcome for Vec<u8> {
    fn into_outcome(self) -> Result<Object> {
        operations::put_blob(&self)
    }
}

impl IntoOutcome for String {
    fn into_outcome(self) -> Result<Object> {
        operations::put_blob(self.as_bytes())
    }
}

impl IntoOutcome for Vec<Entry> {
    fn into_outcome(self) -> Result<Object> {
        operations::put_tree(&self)
    }
}
