//! The operations of a guest and their results, independent of an encoding.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::host::Call;
use crate::object::{ObjectId, ObjectRef};
use crate::tree::{Tree, TreeEntry};

/// An operation that a guest requests from its host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Returns the job: its arguments, image, salt and named images.
    Job,
    /// Returns the job and the entries of its tree of arguments: [`Operation::Job`] and
    /// [`Operation::Tree`] in one request.
    JobWithArgs,
    /// Reads a tree.
    Tree(ObjectId),
    /// Reads a blob.
    Get(ObjectId),
    /// Reads a part of a blob.
    GetRange {
        /// The blob.
        id: ObjectId,
        /// The first byte, counted from zero.
        offset: u64,
        /// The maximum number of bytes.
        length: u64,
    },
    /// Returns the size of a blob.
    Size(ObjectId),
    /// Stores a blob.
    PutBlob(Bytes),
    /// Stores a tree. The entries may be in any order.
    PutTree(Vec<TreeEntry>),
    /// Runs an image.
    Run(Call),
    /// Runs many images.
    RunMany(Vec<Call>),
    /// Names the outcome of the job.
    Out(ObjectRef),
    /// Stores a blob and names it as the outcome of the job: [`Operation::PutBlob`] and
    /// [`Operation::Out`] in one request.
    OutBlob(Bytes),
    /// Writes a message to the job's log.
    Log(String),
    /// Ends the job as failed, with the guest's own message.
    Fail(String),
}

/// The result of a successful [`Operation`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Answer {
    /// The result of [`Operation::Job`]: the session's own job.
    Job,
    /// The result of [`Operation::JobWithArgs`]: the session's own job, with this tree of arguments.
    JobWithArgs(Arc<Tree>),
    /// The result of [`Operation::Tree`]: the tree.
    Tree(Arc<Tree>),
    /// The result of [`Operation::Get`] and [`Operation::GetRange`]: the content.
    Blob(Bytes),
    /// The result of [`Operation::Size`]: the size in bytes.
    Size(u64),
    /// The result of [`Operation::PutBlob`] and [`Operation::PutTree`]: the id of the stored
    /// object.
    Stored(ObjectId),
    /// The result of [`Operation::Run`]: the outcome of the run.
    Outcome(ObjectRef),
    /// The result of [`Operation::RunMany`]: the results in the order of the calls.
    Outcomes(Vec<Result<ObjectRef>>),
    /// The result of the other operations, which return nothing.
    Done,
}

/// Why a request cannot be decoded.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// The request does not have the form of a request. This ends the job.
    Malformed(String),
    /// A field of the request is missing or invalid. The guest receives the error and continues.
    Field(String),
}
