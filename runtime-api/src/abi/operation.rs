use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::host::Call;
use crate::object::ObjectId;
use crate::request::Outcome;
use crate::tree::{Tree, TreeEntry};

/// One operation of a guest, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// What am I to do?
    Job,
    /// Read a tree.
    Tree(ObjectId),
    /// Read a blob.
    Get(ObjectId),
    /// Store a blob.
    PutBlob(Bytes),
    /// Store a tree of entries in any order.
    PutTree(Vec<TreeEntry>),
    /// Run an image.
    Run(Call),
    /// Run many images.
    RunMany(Vec<Call>),
    /// Name the outcome.
    Out(Outcome),
    /// Log a line.
    Log(String),
    /// End the job with the guest's own words.
    Fail(String),
}

/// What a successful [`Operation`] answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Answer {
    /// To [`Operation::Job`]: the session's own job.
    Job,
    /// To [`Operation::Tree`].
    Tree(Arc<Tree>),
    /// To [`Operation::Get`].
    Blob(Bytes),
    /// To [`Operation::PutBlob`] and [`Operation::PutTree`].
    Stored(ObjectId),
    /// To [`Operation::Run`].
    Outcome(Outcome),
    /// To [`Operation::RunMany`], in the order of the calls.
    Outcomes(Vec<Result<Outcome>>),
    /// To the others, which answer nothing.
    Done,
}
