//! [`Provenance`]: what a request was, and which requests its run wanted.
//!
//! It is kept as a [`RunRecord`]. The common part has [`VERSION`], the id of the host image, a byte that
//! says whether there are named images, the id of their tree if so, and the image reference and the salt,
//! each after its length in four bytes in little-endian order. The rest has the id of the arguments, the
//! error after its length, which is empty if the run succeeded, and the ids of the requests that the run
//! wanted, in the order in which it wanted them.

use bytes::Bytes;
use manifold_runtime_api::{EncodedNode, Error, ObjectId, ObjectRef, Request, Result};

use crate::core::{Core, Keyed};
use crate::dispatcher::Dispatcher;
use crate::scope::Scope;
use crate::store::{RunRecord, Store};

const VERSION: u8 = 1;
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

    /// Returns `None` if `bytes` is no record of a run of `id`.
    fn decode(id: ObjectId, bytes: &[u8]) -> Option<Self> {
        fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
            let (taken, left) = rest.split_at_checked(length)?;
            *rest = left;
            Some(taken)
        }
        fn take_id(rest: &mut &[u8]) -> Option<ObjectId> {
            ObjectId::from_bytes(take(rest, ID_BYTES)?).ok()
        }
        fn take_text(rest: &mut &[u8]) -> Option<String> {
            let length = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?);
            String::from_utf8(take(rest, length as usize)?.to_vec()).ok()
        }
        let rest = &mut bytes.strip_prefix(&[VERSION])?;
        let host = take_id(rest)?;
        let std = match take(rest, 1)? {
            [0] => None,
            _ => Some(take_id(rest)?),
        };
        let (image, salt) = (take_text(rest)?, take_text(rest)?);
        let args = take_id(rest)?;
        let error = Some(take_text(rest)?).filter(|error| !error.is_empty());
        let wanted = rest.chunks(ID_BYTES).map(|id| ObjectId::from_bytes(id).ok());
        Some(Self {
            id,
            request: Request { args, image: image.into(), salt: salt.into(), std },
            host,
            wanted: wanted.collect::<Option<_>>()?,
            error,
        })
    }
}

/// Encodes the record of a run that wanted the requests `wanted` and may have failed with `error`.
fn encode(scope: &Scope, keyed: &Keyed, wanted: &[ObjectId], error: &str) -> RunRecord {
    let (image, salt) = (&*keyed.image.text, &*scope.salt);
    let ids = 3 + wanted.len();
    let mut bytes =
        Vec::with_capacity(16 + image.len() + salt.len() + error.len() + ID_BYTES * ids);
    bytes.push(VERSION);
    bytes.extend_from_slice(keyed.image.runtime.host_image().id().as_bytes());
    bytes.push(u8::from(scope.std.is_some()));
    bytes.extend_from_slice(scope.std.as_ref().map_or(&[], |std| std.as_bytes()));
    for text in [image, salt] {
        push_text(text, &mut bytes);
    }
    let common = bytes.len();
    bytes.extend_from_slice(keyed.args.as_bytes());
    push_text(error, &mut bytes);
    for id in wanted {
        bytes.extend_from_slice(id.as_bytes());
    }
    RunRecord { bytes: Bytes::from(bytes), common }
}

fn push_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

impl Core {
    /// Returns the record of a run that has ended, with `error` if it failed. `None` if an earlier record
    /// tells more.
    pub(crate) fn run_record(
        &self,
        scope: &Scope,
        keyed: &Keyed,
        wanted: &[ObjectId],
        error: Option<&Error>,
    ) -> Result<Option<RunRecord>> {
        // A failure that the request did not decide does not replace the record of a success.
        let is_accident = error.is_some_and(|error| !error.is_function_of_request());
        if is_accident && self.memoized(keyed.request)?.is_some() {
            return Ok(None);
        }
        let error: String = error.map_or_else(String::new, |error| {
            error.root_cause().to_string().chars().take(MAX_ERROR_CHARS).collect()
        });
        Ok(Some(encode(scope, keyed, wanted, &error)))
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
        let record = self.core.objects.store.run_record(request)?;
        Ok(record.and_then(|record| Provenance::decode(request, &record.bytes)))
    }

    /// Returns all records of requests that the store has, in the order of the ids of the requests.
    /// This reads the whole memo.
    ///
    /// # Errors
    /// [`Reason::StoreFailed`](crate::api::Reason::StoreFailed) if the store fails.
    pub fn provenances(&self) -> Result<Vec<Provenance>> {
        let records = self.core.objects.store.run_records()?.into_iter();
        let mut found: Vec<_> = records
            .filter_map(|(request, record)| Provenance::decode(request, &record.bytes))
            .collect();
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
            // A note is no outcome.
            if self.core.note_at(key, outcome)?.is_none() {
                outcomes.push((key, outcome));
            }
        }
        outcomes.sort_unstable_by_key(|(request, _)| *request);
        Ok(outcomes)
    }
}
