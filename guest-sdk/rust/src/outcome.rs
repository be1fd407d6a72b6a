use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Result;
use crate::object::{Entry, ObjectRef};
use crate::operations;

/// A value that a guest can return as its outcome.
pub trait IntoOutcome {
    /// Stores the value unless it is already an [`ObjectRef`], and returns the object.
    ///
    /// # Errors
    /// Returns an error if the host cannot store the value.
    fn into_outcome(self) -> Result<ObjectRef>;

    /// Stores the value unless it is already an [`ObjectRef`], and names the object as the outcome of
    /// the job.
    ///
    /// # Errors
    /// Returns an error if the host cannot store the value.
    #[doc(hidden)]
    fn become_outcome(self) -> Result<()>
    where
        Self: Sized,
    {
        operations::out(&self.into_outcome()?)
    }
}

impl IntoOutcome for ObjectRef {
    fn into_outcome(self) -> Result<ObjectRef> {
        Ok(self)
    }
}

impl IntoOutcome for Vec<u8> {
    fn into_outcome(self) -> Result<ObjectRef> {
        operations::put_blob(&self)
    }

    fn become_outcome(self) -> Result<()> {
        operations::out_blob(&self)
    }
}

impl IntoOutcome for String {
    fn into_outcome(self) -> Result<ObjectRef> {
        operations::put_blob(self.as_bytes())
    }

    fn become_outcome(self) -> Result<()> {
        operations::out_blob(self.as_bytes())
    }
}

impl IntoOutcome for Vec<Entry> {
    fn into_outcome(self) -> Result<ObjectRef> {
        operations::put_tree(&self)
    }
}
