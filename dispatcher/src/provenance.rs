//! [`Provenance`]: what a request was, and which requests its run wanted.
//!
//! A record is a blob that the memo keeps beside the outcome ([`crate::beside`]).
//!
//! The blob begins with [`MAGIC`]. Then come the ids of the request, of its arguments and of the host
//! image, and that of the tree of named images after a byte that says whether there is one. Then come
//! the image reference, the salt and the error, each after its length in four bytes in little-endian
//! order; the error is empty if the run succeeded. The rest is the ids of the requests that the run
//! wanted, in the order in which it wanted them.

use std::sync::Arc;

use bytes::Bytes;
use manifold_runtime_api::{
    EncodedNode, Error, Object, ObjectId, ObjectKind, ObjectRef, Request, Result,
};

use crate::beside::Beside;
use crate::core::{Core, Keyed};
use crate::dispatcher::Dispatcher;
use crate::scope::Scope;

const MAGIC: &[u8] = b"manifold provenance 1\n";
const ID_BYTES: usize = 20;
/// The maximum length of an error's text in characters.
const MAX_ERROR_CHARS: usize = 1000;

/// What a request was, and which requests its run wanted: recorded by a dispatcher with
/// [`DispatcherBuilder::provenance`](crate::DispatcherBuilder::provenance).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provenance {
    /// The id of the request.
    pub id: ObjectId,
    /// The request itself.
    pub request: Request,
    /// The host image hash of the runtime that ran it.
    pub host: ObjectId,
    /// The requests that the run wanted, in the order in which it wanted them. One that it wanted
    /// several times is there as often.
    pub wanted: Vec<ObjectId>,
    /// The error with which the run failed. Such a request has no outcome.
    pub error: Option<String>,
}

impl Provenance {
    /// Encodes the request as a tree, whose id is that of the request, and its blobs.
    ///
    /// # Errors
    /// Errors if the record is not one of a request.
    pub fn request_node(&self) -> Result<EncodedNode> {
        Ok(self.request.encode()?)
    }

    /// Returns whether an object is the record of a request or a note on one, which are kept beside
    /// outcomes but are none. What copies a memo elsewhere leaves them out, because they name paths.
    pub fn is_record(object: &Object) -> bool {
        object.kind == ObjectKind::Blob
            && [MAGIC, crate::note::MAGIC.as_bytes()]
                .iter()
                .any(|magic| object.content.starts_with(magic))
    }

    fn encode(&self) -> Vec<u8> {
        let error = self.error.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(160 + error.len() + ID_BYTES * self.wanted.len());
        bytes.extend_from_slice(MAGIC);
        for id in [self.id, self.request.args, self.host] {
            bytes.extend_from_slice(id.as_bytes());
        }
        bytes.push(u8::from(self.request.std.is_some()));
        bytes.extend_from_slice(self.request.std.unwrap_or(self.host).as_bytes());
        for text in [&*self.request.image, &*self.request.salt, error] {
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        for id in &self.wanted {
            bytes.extend_from_slice(id.as_bytes());
        }
        bytes
    }

    /// Returns `None` if `bytes` is no record.
    fn decode(bytes: &[u8]) -> Option<Self> {
        fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
            let (taken, left) = rest.split_at_checked(length)?;
            *rest = left;
            Some(taken)
        }
        let rest = &mut bytes.strip_prefix(MAGIC)?;
        let mut id = || ObjectId::from_bytes(take(rest, ID_BYTES)?).ok();
        let (request, args, host) = (id()?, id()?, id()?);
        let has_std = take(rest, 1)? == [1];
        let std = ObjectId::from_bytes(take(rest, ID_BYTES)?).ok()?;
        let mut text = || {
            let length = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
            String::from_utf8(take(rest, length as usize)?.to_vec()).ok()
        };
        let (image, salt, error) = (text()?, text()?, text()?);
        let wanted = rest.chunks(ID_BYTES).map(|id| ObjectId::from_bytes(id).ok());
        Some(Self {
            id: request,
            request: Request {
                args,
                image: image.into(),
                salt: salt.into(),
                std: has_std.then_some(std),
            },
            host,
            wanted: wanted.collect::<Option<_>>()?,
            error: Some(error).filter(|error| !error.is_empty()),
        })
    }
}

impl Core {
    /// Records the provenance of a run that has ended with `result`.
    pub(crate) fn record_provenance(
        &self,
        scope: &Scope,
        keyed: &Keyed,
        wanted: Vec<ObjectId>,
        error: Option<&Error>,
    ) -> Result<()> {
        // A failure that the request did not decide does not replace the record of a success.
        let is_accident = error.is_some_and(|error| !error.is_function_of_request());
        if is_accident && self.memoized(keyed.request)?.is_some() {
            return Ok(());
        }
        let error = error.map(|error| {
            let text = error.root_cause().to_string();
            text.chars().take(MAX_ERROR_CHARS).collect()
        });
        let record = Provenance {
            id: keyed.request,
            request: Request {
                args: keyed.args,
                image: Arc::clone(&keyed.image.text),
                salt: Arc::clone(&scope.salt),
                std: scope.std,
            },
            host: keyed.image.runtime.host_image().id(),
            wanted,
            error,
        };
        let store = &self.objects.store;
        let blob = store.write(Object::blob(Bytes::from(record.encode())))?;
        store.record(Beside::Provenance.key(keyed.request), ObjectRef::blob(blob))
    }

    /// Returns the record that the memo entry of `key` with the outcome `record` is, if it is one.
    fn provenance_at(&self, key: ObjectId, record: ObjectRef) -> Result<Option<Provenance>> {
        if record.kind != ObjectKind::Blob {
            return Ok(None);
        }
        let object = self.objects.find(record.id)?;
        let found = object.and_then(|object| Provenance::decode(&object.content));
        Ok(found.filter(|found| found.id == Beside::Provenance.key(key)))
    }
}

impl Dispatcher {
    /// Returns what the request with the id `request` was and which requests its run wanted, if the
    /// store has a record of it: the dispatcher that ran it kept them
    /// ([`DispatcherBuilder::provenance`](crate::DispatcherBuilder::provenance)), and no collection
    /// has removed it.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn provenance(&self, request: ObjectId) -> Result<Option<Provenance>> {
        let key = Beside::Provenance.key(request);
        match self.core.objects.store.look_up(key)? {
            Some(record) => self.core.provenance_at(key, record),
            None => Ok(None),
        }
    }

    /// Returns all records of requests that the store has, in the order of the ids of the requests.
    /// This reads the whole memo.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn provenances(&self) -> Result<Vec<Provenance>> {
        let mut found = Vec::new();
        for (key, record) in self.core.objects.store.entries()? {
            found.extend(self.core.provenance_at(key, record)?);
        }
        found.sort_unstable_by_key(|found| found.id);
        Ok(found)
    }

    /// Returns all memoized outcomes, by request, in the order of their ids. This reads the whole
    /// memo.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn memo(&self) -> Result<Vec<(ObjectId, ObjectRef)>> {
        let mut outcomes = Vec::new();
        for (key, outcome) in self.core.objects.store.entries()? {
            // What is beside outcomes is none.
            if self.core.provenance_at(key, outcome)?.is_none()
                && self.core.note_at(key, outcome)?.is_none()
            {
                outcomes.push((key, outcome));
            }
        }
        outcomes.sort_unstable_by_key(|(request, _)| *request);
        Ok(outcomes)
    }
}
