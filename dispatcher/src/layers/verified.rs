use manifold_runtime_api::{Error, Object, ObjectId, ObjectKind, Outcome, Result};

use crate::store::{ObjectSource, Pin, Store};
use crate::through::store_through;

/// Hashes every object that is read, for a source or store that does not do so itself.
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

    /// The kind alone proves nothing, and is not checked.
    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        self.0.kind(id)
    }
}

impl<T: Store> Store for Verified<T> {
    store_through!(self => self.0);
}
