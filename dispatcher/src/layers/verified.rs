//! [`Verified`]: verifies the ids of objects.

use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, ObjectRef, Result};

use crate::source::ObjectSource;
use crate::store::{Pin, Store};
use crate::through::store_through;

/// A source or store that verifies the id of every object that is read. For sources and stores that
/// do not do so themselves.
#[derive(Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Wraps a source or store.
    pub fn new(inner: T) -> Self {
        Self(inner)
    }
}

impl<T: ObjectSource> ObjectSource for Verified<T> {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        let object = self.0.read(id)?;
        match object.as_ref().map(Object::id) {
            Some(found) if found != id => {
                Err(Error::store(format!("object {id} is damaged: its content has the id {found}")))
            }
            _ => Ok(object),
        }
    }

    /// Returns the kind that the wrapped source reports. It cannot be verified without the content.
    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        self.0.kind(id)
    }

    /// Returns the size that the wrapped source reports. It cannot be verified without the content.
    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        self.0.size(id)
    }
}

impl<T: Store> Store for Verified<T> {
    store_through!(self => self.0);
}
